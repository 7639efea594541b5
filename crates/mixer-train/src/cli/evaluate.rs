//! `mixer evaluate`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueHint};
use fs_err as fs;
use mixer_data::{DataError, OnCorrupt, SkippedExample, Source, open_split};
use serde::Serialize;

use super::details::{self, DetailsArgs};
use super::{ClassifierArgs, DeviceArg, Format};
use crate::classifier::Classifier;
use crate::config::{DataConfig, DataKind, RunConfig};
use crate::disk::run_dir::{self, RunDir};
use crate::error::TrainError;
use crate::input::dataset::{self, Dataset};
use crate::run::evaluation::Evaluation;
use crate::show::progress::{Progress, say};

#[derive(Debug, Clone, Args)]
pub(super) struct EvaluateArgs {
    #[command(flatten)]
    pub(super) classifier: ClassifierArgs,
    /// The folder that the split lies in [default: that of the run, where WEIGHTS is one].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data: Option<PathBuf>,
    /// The split, a folder, list, or pattern of shards, with an optional range: `val`, `train[99%:]`,
    /// `val-*.tar` [default: without `--data` that of the run, else val or test].
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Examples per batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) batch_size: u16,
    /// Fate of pictures that cannot be read: `stop`, or `skip=N` to pass over up to N and name them, as
    /// `data.on_corrupt` does [default: without `--data` as in the run, else stop].
    #[arg(long, value_name = "stop|skip=N", value_parser = on_corrupt)]
    on_corrupt: Option<OnCorrupt>,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) details: DetailsArgs,
    #[command(flatten)]
    device: DeviceArg,
}

impl EvaluateArgs {
    /// `--classes present` is no file of names: only outputs of classes that occur are compared.
    fn with_present_classes(&self) -> Self {
        let mut args = self.clone();
        if args.classifier.weights.classes.take_if(|file| file.as_os_str() == "present").is_some() {
            args.details.only_present = true;
        }
        args
    }
}

/// Takes `stop` or `skip=N`.
fn on_corrupt(text: &str) -> Result<OnCorrupt, String> {
    let skip = || text.strip_prefix("skip=").and_then(|at_most| at_most.parse().ok());
    match (text, skip()) {
        ("stop", _) => Ok(OnCorrupt::Stop),
        (_, Some(at_most)) => Ok(OnCorrupt::Skip { at_most }),
        _ => Err("expected `stop`, or `skip=` and a number, as `skip=10`".to_owned()),
    }
}

/// Data to evaluate on.
pub(super) struct Data {
    pub(super) source: Arc<dyn Source>,
    pub(super) split: String,
    /// Its place, for messages.
    pub(super) place: String,
    pub(super) on_corrupt: OnCorrupt,
}

/// The result; its JSON form is part of the interface.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    evaluation: Evaluation,
    /// Examples that could not be read, and were passed over.
    skipped: u64,
}

pub(super) fn run(args: &EvaluateArgs) -> Result<(), TrainError> {
    let args = &args.with_present_classes();
    args.details.check()?;
    let classifier = args.classifier.open(&args.device.open()?)?;
    let data = data(args, &classifier)?;
    if args.details.are_wanted() {
        return details::run(args, &classifier, &data);
    }
    let num_classes = data.source.class_names().len();
    let mut progress = Progress::new("example", data.source.len() as u64, 0);
    let (batch_size, mut skipped) = (usize::from(args.batch_size), Vec::new());
    let skip = |example: &SkippedExample| skipped.push(example.reason.clone());
    let evaluation = classifier
        .evaluate(&data.source, batch_size, data.on_corrupt, |done| progress.update(done), skip)
        .map_err(|error| explained(error, &data))?;
    progress.finish();
    data.account(&skipped, evaluation.n)?;
    let report = Report { evaluation, skipped: skipped.len() as u64 };
    match args.format {
        Format::Json => super::print_json(&report),
        Format::Table => super::print(&report.table(num_classes)),
    }
}

/// The data that is named, or that of the run.
fn data(args: &EvaluateArgs, classifier: &Classifier) -> Result<Data, TrainError> {
    let classes = classifier.classes();
    if let Some(folder) = &args.data {
        let split = args.split.as_deref();
        let split = split.unwrap_or_else(|| dataset::default_val_split(folder, None));
        // Without class names the folder's own order is what the outputs must mean; where names of folders are
        // numbers of outputs, it is they.
        let classes = classes.filter(|_| !args.details.labels_are_indices());
        let source = open_split(None, folder, split, classes, &classifier.decode_options())?;
        let (split, place) = (split.to_owned(), folder.display().to_string());
        let on_corrupt = args.on_corrupt.unwrap_or_default();
        return Ok(Data { source, split, place, on_corrupt });
    }
    let weights = args.classifier.weights();
    let run = RunDir::new(run_dir::run_of(weights)?);
    if !run.exists() {
        let message = format!(
            "`--data` is missing, only a run directory says what it was evaluated on: {}",
            weights.display()
        );
        let hint = "name the folder above the split, `--data datasets/pets`";
        return Err(TrainError::usage(message).with_hint(hint));
    }
    let config = RunConfig::parse(&fs::read_to_string(run.config())?, &[])?.0.data;
    data_of_run(args, &config, classifier).map_err(|error| match error {
        TrainError::Data(DataError::NoSuchDirectory { path }) => {
            let message = format!(
                "the data of the run is not where it was, found no directory at {}",
                path.display()
            );
            TrainError::data_mismatch(message)
                .with_hint("name the folder above the split with `--data`")
        }
        error => error,
    })
}

fn data_of_run(
    args: &EvaluateArgs,
    config: &DataConfig,
    classifier: &Classifier,
) -> Result<Data, TrainError> {
    let on_corrupt = args.on_corrupt.or(config.on_corrupt).unwrap_or_default();
    let Some(root) = config.path.as_deref().filter(|_| config.source != Some(DataKind::Builtin))
    else {
        let config = DataConfig { val: args.split.clone(), ..config.clone() };
        let Dataset { val: source, val_split: split, .. } =
            Dataset::open(&config, classifier.image_size())?;
        let place = "the built-in pictures".to_owned();
        return Ok(Data { source, split, place, on_corrupt });
    };
    let kind = config.source.and_then(DataKind::on_disk);
    let split = args.split.as_deref().or(config.val.as_deref());
    let split = split.unwrap_or_else(|| dataset::default_val_split(root, kind));
    let options = dataset::decode_options(config);
    let source = open_split(kind, root, split, classifier.classes(), &options)?;
    Ok(Data { source, split: split.to_owned(), place: root.display().to_string(), on_corrupt })
}

impl Data {
    /// Names the examples that were passed over, and refuses a result of none.
    pub(super) fn account(&self, skipped: &[String], n: u64) -> Result<(), TrainError> {
        for reason in skipped {
            say(format_args!("warning: passed over an example of {}: {reason}", self.split));
        }
        if n == 0 {
            let message = format!("no picture of `{}` could be read: {}", self.split, self.place);
            return Err(TrainError::data_mismatch(message));
        }
        Ok(())
    }
}

impl Report {
    fn table(&self, num_classes: usize) -> String {
        let Self { evaluation: Evaluation { loss, top1, top5, n }, skipped } = self;
        let mut lines = vec![
            format!("examples  {n}"),
            format!("loss      {loss:.4}"),
            format!("top-1     {:.2} %", 100.0 * top1),
        ];
        if Evaluation::has_top5(num_classes) {
            lines.push(format!("top-5     {:.2} %", 100.0 * top5));
        }
        if *skipped > 0 {
            lines.push(format!("skipped   {skipped}"));
        }
        lines.join("\n")
    }
}

/// A mismatch of classes with the folder that it was found in.
fn explained(error: TrainError, data: &Data) -> TrainError {
    match error {
        TrainError::DataMismatch { message, .. } => TrainError::data_mismatch(format!(
            "`{}`: {message}: {}",
            data.split, data.place
        ))
        .with_hint(
            "these weights name no classes: name those of their outputs with `--classes FILE`, and \
                     data with a part of them is matched by name",
        ),
        error => error,
    }
}
