//! `mixer evaluate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mixer_data::OnCorrupt;
use mixer_model::{Compute, Mixer};

use super::{DeviceArg, PreprocessArg, WeightsArg};
use crate::dataset;
use crate::error::TrainError;
use crate::evaluation::Evaluator;
use crate::input;
use crate::loss::Loss;
use crate::precision::Precision;
use crate::progress::Progress;

#[derive(Debug, Clone, Args)]
pub(super) struct EvaluateArgs {
    #[command(flatten)]
    weights: WeightsArg,
    /// The folder that the split lies in.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The split, a folder, list, or pattern of shards, with an optional range: `val`, `train[99%:]`,
    /// `val-*.tar` [default: val, else test].
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// How pictures are prepared [default: as the weights say, else resmall-crop].
    #[arg(long, value_enum)]
    preprocess: Option<PreprocessArg>,
    /// Examples per batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// What the operands of the blocks' products are rounded to.
    #[arg(long, value_parser = super::precision(), default_value_t = Precision::F32)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(super) fn run(args: &EvaluateArgs) -> Result<(), TrainError> {
    let entry = args.device.open()?;
    entry.check(args.precision)?;
    let device = entry.device;
    let weights = args.weights.read()?;
    let split =
        args.split.as_deref().unwrap_or_else(|| dataset::default_val_split(&args.data, None));
    let preprocessing = super::preprocessing(&weights, args.preprocess);
    // Without class names the folder's own order is what the outputs must mean.
    let classes = weights.metadata.classes.as_deref();
    let options = input::decode_options(&preprocessing);
    let source = mixer_data::open_split(None, &args.data, split, classes, &options)?;
    let found = source.class_names().len();
    if found != weights.config.num_classes {
        return Err(TrainError::DataMismatch {
            message: format!(
                "`{split}` has {found} classes, the weights {}: {}",
                weights.config.num_classes,
                args.data.display()
            ),
            hint: Some(
                "the weights carry no class names, so the folders must match their outputs"
                    .to_owned(),
            ),
        });
    }
    let evaluator = Evaluator {
        transform: input::eval_transform(&preprocessing, weights.config.image_size),
        preprocessing,
        loss: Loss::Softmax,
        batch_size: usize::from(args.batch_size),
        workers: std::thread::available_parallelism().map_or(1, usize::from).min(16),
        queue_bytes: 256 << 20,
        on_corrupt: OnCorrupt::Stop,
    };
    let compute = Compute { precision: args.precision, ..Compute::default() };
    let mixer = Mixer::from_weights(weights, &device)?.with_compute(compute);
    let mut progress = Progress::new("example", source.len() as u64, 0);
    let go_on = |done| {
        progress.update(done, String::new);
        true
    };
    // An example that cannot be read stops this evaluation, so none is passed over.
    let evaluation = evaluator.run(&mixer, &device, &source, go_on, |_| ())?;
    progress.finish();
    let Some(evaluation) = evaluation else { return Ok(()) };
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
