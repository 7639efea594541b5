//! `mixer evaluate`.

use std::path::PathBuf;

use clap::Args;
use mixer_data::open_split;

use super::{ClassifierArgs, DeviceArg, Format};
use crate::error::TrainError;
use crate::input::dataset;
use crate::show::progress::Progress;

#[derive(Debug, Clone, Args)]
pub(super) struct EvaluateArgs {
    #[command(flatten)]
    classifier: ClassifierArgs,
    /// The folder that the split lies in.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The split, a folder, list, or pattern of shards, with an optional range: `val`, `train[99%:]`,
    /// `val-*.tar` [default: val, else test].
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Examples per batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    device: DeviceArg,
}

pub(super) fn run(args: &EvaluateArgs) -> Result<(), TrainError> {
    let classifier = args.classifier.open(&args.device.open()?)?;
    let split =
        args.split.as_deref().unwrap_or_else(|| dataset::default_val_split(&args.data, None));
    // Without class names the folder's own order is what the outputs must mean.
    let (classes, options) = (classifier.classes(), classifier.decode_options());
    let source = open_split(None, &args.data, split, classes, &options)?;
    let mut progress = Progress::new("example", source.len() as u64, 0);
    let evaluation = classifier
        .evaluate(&source, usize::from(args.batch_size), |done| progress.update(done, String::new))
        .map_err(|error| in_folder(error, split, args))?;
    progress.finish();
    match args.format {
        Format::Json => super::print_json(&evaluation),
        Format::Table => super::print(&format!(
            "examples  {}\nloss      {:.4}\ntop-1     {:.2} %\ntop-5     {:.2} %",
            evaluation.n,
            evaluation.loss,
            100.0 * evaluation.top1,
            100.0 * evaluation.top5
        )),
    }
}

/// A mismatch of classes with the folder that it was found in.
fn in_folder(error: TrainError, split: &str, args: &EvaluateArgs) -> TrainError {
    let TrainError::DataMismatch { message, .. } = error else { return error };
    TrainError::data_mismatch(format!("`{split}`: {message}: {}", args.data.display()))
        .with_hint("the weights carry no class names, so the folders must match their outputs")
}
