//! `mixer predict`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fs_err as fs;
use serde::Serialize;

use super::{ClassifierArgs, DeviceArg};
use crate::classifier::{Answer, Prediction};
use crate::error::TrainError;

#[derive(Debug, Clone, Args)]
pub(super) struct PredictArgs {
    #[command(flatten)]
    classifier: ClassifierArgs,
    /// Pictures, or folders of pictures.
    #[arg(required = true, value_name = "IMAGE|DIR")]
    images: Vec<PathBuf>,
    /// Classes per picture.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Add every logit to the JSON.
    #[arg(long)]
    logits: bool,
    #[command(flatten)]
    device: DeviceArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

/// One picture's answer; the JSON form is part of the interface.
#[derive(Debug, Serialize)]
struct Line {
    path: String,
    predictions: Vec<Prediction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
}

pub(super) fn run(args: &PredictArgs) -> Result<(), TrainError> {
    if args.logits && args.format != Format::Json {
        return Err(TrainError::usage("`--logits` has no effect without `--format json`"));
    }
    let classifier = args.classifier.open(&args.device.open()?)?;
    let line = |answer: Answer| Line {
        path: answer.path.display().to_string(),
        predictions: answer.top(args.top_k as usize),
        logits: args.logits.then_some(answer.logits),
    };
    // Whole, so that an error comes without data.
    let answers = classifier.classify(expand(&args.images)?)?.map(|answer| answer.map(line));
    let lines = answers.collect::<Result<Vec<Line>, TrainError>>()?;
    match args.format {
        Format::Json => super::print_json(&lines),
        Format::Csv => {
            let mut text = "path,rank,class,index,probability\n".to_owned();
            for line in &lines {
                for (rank, p) in line.predictions.iter().enumerate() {
                    text += &format!(
                        "{},{},{},{},{:.6}\n",
                        quoted(&line.path),
                        rank + 1,
                        quoted(&p.class),
                        p.index,
                        p.probability
                    );
                }
            }
            super::print(&text)
        }
        Format::Table => {
            let mut text = String::new();
            for line in &lines {
                text += &format!("{}\n", line.path);
                for p in &line.predictions {
                    text += &format!("  {:6.2} %  {}\n", 100.0 * p.probability, p.class);
                }
            }
            super::print(&text)
        }
    }
}

/// Folders become the files in them, sorted; hidden files are left out.
fn expand(images: &[PathBuf]) -> Result<Vec<PathBuf>, TrainError> {
    let mut paths = Vec::new();
    for image in images {
        if !image.is_dir() {
            paths.push(image.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(image)? {
            let entry = entry?;
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if !hidden && entry.path().is_file() {
                found.push(entry.path());
            }
        }
        if found.is_empty() {
            let message = format!("the folder holds no files: {}", image.display());
            return Err(TrainError::data_mismatch(message).with_hint(
                "name the folder that holds the pictures; those in its sub-folders are not taken",
            ));
        }
        found.sort();
        paths.append(&mut found);
    }
    Ok(paths)
}

/// A CSV field (RFC 4180).
pub(super) fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}
