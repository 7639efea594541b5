//! `mixer evaluate --details`, and the files that it writes.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use mixer_analysis::{Measures, temperature};
use mixer_data::{DataError, RgbImage, SkippedExample};
use serde::Serialize;

use super::Format;
use super::evaluate::{Data, EvaluateArgs};
use super::predict::quoted;
use super::target;
use crate::classifier::Classifier;
use crate::disk::atomic;
use crate::disk::run_dir::RunDir;
use crate::draw::thumbnails::{sheet, thumbnail};
use crate::error::TrainError;
use crate::look::details::{Detailed, Details};
use crate::look::real_labels::{Real, RealLabels};
use crate::look::run_record::percent;
use crate::look::saved_evaluation::{Mistake, SavedEvaluation};
use crate::show::progress::{Progress, say};
use crate::show::visible::visible;

/// Mistakes that are drawn.
const MISTAKES: usize = 24;

/// Lines of a table of classes or of pairs.
const LINES: usize = 10;

/// More about an evaluation than loss and accuracy.
#[derive(Debug, Clone, Args)]
pub(super) struct DetailsArgs {
    /// Measure calibration, every class and what is confused, too. With a run directory for WEIGHTS, the result
    /// is kept there for `mixer report`.
    #[arg(long)]
    details: bool,
    /// Write a row for each picture: path, label, prediction, probabilities, rank of the label, loss.
    #[arg(long, value_name = "FILE.csv", value_hint = ValueHint::FilePath)]
    predictions: Option<PathBuf>,
    /// Draw the most confident mistakes.
    #[arg(long, value_name = "FILE.png", value_hint = ValueHint::FilePath)]
    wrong: Option<PathBuf>,
    /// ImageNet's reassessed labels, `real.json`: compare with them too.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    real: Option<PathBuf>,
    /// `true` to compare only classes that occur: `--classes present`.
    #[arg(skip)]
    pub(super) only_present: bool,
    /// The meaning of the folders' names.
    #[arg(long, value_enum, value_name = "name|index", default_value_t = Labels::Name)]
    labels: Labels,
    /// Average the logits of a picture and of its mirror image.
    #[arg(long)]
    flip: bool,
    /// Find the temperature that makes the confidence of this split honest, and write the weights with it:
    /// `mixer predict` divides logits by it.
    #[arg(long, value_name = "FILE.safetensors", value_hint = ValueHint::FilePath)]
    calibrate: Option<PathBuf>,
}

/// The meaning of the folders' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Labels {
    /// Names of classes.
    Name,
    /// Numbers of outputs, as in ImageNet-V2.
    Index,
}

impl DetailsArgs {
    pub(super) fn are_wanted(&self) -> bool {
        self.details
            || self.flip
            || self.only_present
            || self.labels == Labels::Index
            || [&self.predictions, &self.wrong, &self.real, &self.calibrate]
                .into_iter()
                .any(Option::is_some)
    }

    pub(super) fn labels_are_indices(&self) -> bool {
        self.labels == Labels::Index
    }

    /// Refuses before the work what could not be written after it.
    pub(super) fn check(&self) -> Result<(), TrainError> {
        for (path, ending, option) in [
            (&self.predictions, "csv", "--predictions"),
            (&self.wrong, "png", "--wrong"),
            (&self.calibrate, "safetensors", "--calibrate"),
        ] {
            let Some(path) = path else { continue };
            if path.extension().is_none_or(|found| !found.eq_ignore_ascii_case(ending)) {
                let message = format!(
                    "the name of the file does not end with `.{ending}`: {}",
                    path.display()
                );
                return Err(TrainError::usage(message));
            }
            target::new_file(path, option)?;
        }
        Ok(())
    }
}

/// The result; its JSON form is part of the interface.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    measures: &'a Measures,
    mean_per_class: f64,
    classes: &'a [String],
    temperature: f64,
    /// Examples that could not be read, and were passed over.
    skipped: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    real: Option<Real>,
}

pub(super) fn run(
    args: &EvaluateArgs,
    classifier: &Classifier,
    data: &Data,
) -> Result<(), TrainError> {
    let wanted = &args.details;
    let reassessed = match &wanted.real {
        Some(file) => Some(RealLabels::read(file, &*data.source, classifier.config().num_classes)?),
        None => None,
    };
    let details = Details {
        outputs: outputs(wanted, classifier, data)?,
        only_present: wanted.only_present,
        flip: wanted.flip,
        batch_size: usize::from(args.batch_size),
        on_corrupt: data.on_corrupt,
    };
    let mut progress = Progress::new("example", data.source.len() as u64, 0);
    let mut skipped = Vec::new();
    let skip = |example: &SkippedExample| skipped.push(example.reason.clone());
    let found = details.run(classifier, &data.source, |done| progress.update(done), skip)?;
    progress.finish();
    data.account(&skipped, found.measures.n)?;
    let real = match &reassessed {
        Some(labels) => Some(labels.compared(&found)?),
        None => None,
    };
    if let Some(file) = &wanted.predictions {
        atomic::write(file, predictions(&found, data).as_bytes())?;
        say(format_args!("predictions: {}", file.display()));
    }
    let mistakes = found.mistakes(MISTAKES);
    let thumbnails = || -> Result<Vec<RgbImage>, DataError> {
        mistakes.iter().map(|row| thumbnail(&data.source.image(row.index)?)).collect()
    };
    if let Some(file) = &wanted.wrong {
        atomic::write(file, &sheet(&thumbnails()?).png()?)?;
        say(format_args!("{} mistakes, row by row: {}", mistakes.len(), file.display()));
    }
    if let Some(file) = &wanted.calibrate {
        calibrate(args, &found, file)?;
    }
    let run_dir = RunDir::new(args.classifier.weights());
    if wanted.details && run_dir.exists() {
        let mistakes = mistakes.iter().zip(thumbnails()?).map(|(row, picture)| {
            Ok(Mistake {
                path: data.source.describe(row.index),
                label: found.classes[row.label].clone(),
                prediction: found.classes[row.scored.prediction].clone(),
                confidence: row.scored.confidence,
                thumbnail: mixer_data::png_bytes(&picture)?,
            })
        });
        let saved = SavedEvaluation {
            split: data.split.clone(),
            classes: found.classes.clone(),
            measures: found.measures.clone(),
            mistakes: mistakes.collect::<Result<_, TrainError>>()?,
        };
        let path = saved.write(&run_dir)?;
        say(format_args!("kept for `mixer report`: {}", path.display()));
    }
    match args.format {
        Format::Json => super::print_json(&Report {
            measures: &found.measures,
            mean_per_class: found.measures.mean_per_class(),
            classes: &found.classes,
            temperature: classifier.temperature(),
            skipped: skipped.len(),
            real,
        }),
        Format::Table => super::print(&table(&found, data, wanted, real, classifier.temperature())),
    }
}

/// The output of each class of the source; nothing where they are the same.
fn outputs(
    args: &DetailsArgs,
    classifier: &Classifier,
    data: &Data,
) -> Result<Vec<usize>, TrainError> {
    let (names, expected) = (data.source.class_names(), classifier.config().num_classes);
    let mismatch = |message: String| {
        TrainError::data_mismatch(format!("`{}`: {message}: {}", data.split, data.place))
    };
    if args.labels == Labels::Name {
        if names.len() != expected {
            let message = format!("found {} classes, the weights have {expected}", names.len());
            return Err(mismatch(message).with_hint(
                "these weights name no classes: name those of their outputs with `--classes FILE`",
            ));
        }
        return Ok(Vec::new());
    }
    let number = |name: &String| {
        name.parse().ok().filter(|output| *output < expected).ok_or_else(|| {
            let last = expected - 1;
            mismatch(format!("`{}` is no output, they are 0 to {last}", visible(name)))
        })
    };
    names.iter().map(number).collect()
}

/// A row for each picture.
fn predictions(found: &Detailed, data: &Data) -> String {
    let mut text = "path,label,label_name,prediction,prediction_name,prediction_probability,\
                    label_probability,rank,loss\n"
        .to_owned();
    for row in &found.rows {
        let scored = &row.scored;
        text += &format!(
            "{},{},{},{},{},{:.6},{:.6},{},{:.6}\n",
            quoted(&data.source.describe(row.index)),
            found.outputs[row.label],
            quoted(&found.classes[row.label]),
            found.outputs[scored.prediction],
            quoted(&found.classes[scored.prediction]),
            scored.confidence,
            scored.probability,
            scored.rank + 1,
            scored.loss
        );
    }
    text
}

fn calibrate(args: &EvaluateArgs, found: &Detailed, file: &Path) -> Result<(), TrainError> {
    let labels: Vec<usize> = found.rows.iter().map(|row| row.label).collect();
    let Some(temperature) = temperature(&found.logits, &labels) else {
        return Err(TrainError::data_mismatch(
            "a logit is no finite number: there is no temperature",
        ));
    };
    let mut weights = args.classifier.read()?;
    weights.metadata.temperature = Some(temperature);
    weights.write_safetensors(file)?;
    say(format_args!("temperature {temperature:.4}, written with the weights: {}", file.display()));
    say("note: measure what it does on other pictures than these");
    Ok(())
}

fn table(
    found: &Detailed,
    data: &Data,
    wanted: &DetailsArgs,
    real: Option<Real>,
    temperature: f64,
) -> String {
    let Detailed { measures, classes, .. } = found;
    let n = measures.n;
    let mut text =
        format!("examples          {n}\ntop-1             {} %\n", percent(measures.top1, n));
    if classes.len() > 5 {
        text += &format!("top-5             {} %\n", percent(measures.top5, n));
    }
    text += &format!(
        "mean of classes   {:.2} %\nloss              {:.4}\nECE, 15 bins      {:.4}\nMCE               {:.4}\n\
         Brier             {:.4}\n",
        100.0 * measures.mean_per_class(),
        measures.loss,
        measures.ece,
        measures.mce,
        measures.brier
    );
    if temperature != 1.0 {
        text += &format!("temperature       {temperature:.4}\n");
    }
    if let Some(Real { n, top1 }) = real {
        text += &format!("ReaL top-1        {} % of {n}\n", percent(top1, n));
    }
    if !wanted.details {
        return text;
    }
    let name = |class: usize| visible(&classes[class]).to_string();
    let mut worst: Vec<_> =
        measures.per_class.iter().filter_map(|class| Some((class, class.top1?))).collect();
    worst.sort_by(|a, b| a.1.total_cmp(&b.1));
    text += "\nclasses, the worst first:\n";
    for (class, top1) in worst.iter().take(LINES) {
        text += &format!("  {:6.2} % of {:<6} {}\n", 100.0 * top1, class.n, name(class.class));
    }
    let pairs = measures.confusion.most_confused(LINES);
    if !pairs.is_empty() {
        text += "\nconfused most:\n";
    }
    for pair in pairs {
        text += &format!(
            "  {:>6} × {} for {} (the other way {})\n",
            pair.n,
            name(pair.prediction),
            name(pair.truth),
            pair.reverse
        );
    }
    let mistakes = found.mistakes(LINES);
    if !mistakes.is_empty() {
        text += "\nmost confident mistakes:\n";
    }
    for row in mistakes {
        text += &format!(
            "  {:6.2} %  {} for {}: {}\n",
            100.0 * row.scored.confidence,
            name(row.scored.prediction),
            name(row.label),
            visible(&data.source.describe(row.index))
        );
    }
    text
}
