//! `mixer predict`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use mixer_data::{picture_files, read_stream};
use serde::Serialize;

use super::{ClassifierArgs, DeviceArg};
use crate::classifier::{Answer, Picture, Prediction};
use crate::error::TrainError;
use crate::show::progress::{Progress, say};
use crate::show::visible::visible;

/// The argument that stands for stdin.
const STDIN: &str = "-";

/// Pictures from which a bar is drawn.
const MANY: usize = 64;

#[derive(Debug, Clone, Args)]
pub(super) struct PredictArgs {
    #[command(flatten)]
    classifier: ClassifierArgs,
    /// Pictures, and folders: the pictures in them, at any depth; `-` is a picture from stdin.
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
    #[serde(flatten)]
    found: Found,
}

/// The classes of a picture, or the reason why there are none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Found {
    Classes {
        predictions: Vec<Prediction>,
        #[serde(skip_serializing_if = "Option::is_none")]
        logits: Option<Vec<f32>>,
    },
    Unreadable {
        error: String,
    },
}

pub(super) fn run(args: &PredictArgs) -> Result<(), TrainError> {
    if args.logits && args.format != Format::Json {
        return Err(TrainError::usage("`--logits` has no effect without `--format json`"));
    }
    let pictures = expand(&args.images)?;
    let classifier = args.classifier.open(&args.device.open()?)?;
    let num_pictures = pictures.len();
    // Between the lines of the result a bar would be in the way.
    let is_silent = std::io::stdout().is_terminal() || !std::io::stderr().is_terminal();
    let mut progress = (num_pictures >= MANY && !is_silent)
        .then(|| Progress::new("picture", num_pictures as u64, 0));
    let (mut done, mut unreadable, mut first) = (0, 0, None);
    for answer in classifier.classify(pictures)? {
        let line = Line::of(answer?, args);
        super::print_exactly(&line.text(args.format, done == 0)?)?;
        done += 1;
        if let Found::Unreadable { error } = line.found {
            unreadable += 1;
            let (error, path) = (visible(&error).into_owned(), visible(&line.path));
            // The system's words have the path already.
            let has_path = error.contains(&format!("`{path}`"));
            first.get_or_insert(if has_path { error } else { format!("{error}: {path}") });
        }
        if let Some(progress) = &mut progress {
            progress.update(done);
        }
    }
    if let Some(progress) = &progress {
        progress.finish();
    }
    if args.format == Format::Json {
        super::print_exactly("\n]\n")?;
    }
    match first {
        None => Ok(()),
        Some(reason) if num_pictures == 1 => Err(TrainError::data_mismatch(reason)),
        Some(first) => Err(TrainError::data_mismatch(format!(
            "{unreadable} of {num_pictures} pictures cannot be read; the first: {first}"
        ))),
    }
}

impl Line {
    fn of(answer: Answer, args: &PredictArgs) -> Self {
        let found = match answer.scores {
            Ok(scores) => Found::Classes {
                predictions: scores.top(args.top_k as usize),
                logits: args.logits.then_some(scores.logits),
            },
            Err(error) => Found::Unreadable { error },
        };
        Self { path: answer.path.display().to_string(), found }
    }

    /// Its part of the result, which the first one begins.
    fn text(&self, format: Format, is_first: bool) -> Result<String, TrainError> {
        Ok(match format {
            Format::Json => {
                let start = if is_first { "[\n" } else { ",\n" };
                let entry = super::json(self)?.replace('\n', "\n  ");
                format!("{start}  {entry}")
            }
            Format::Csv => {
                let start = if is_first { "path,rank,class,index,probability,error\n" } else { "" };
                start.to_owned() + &self.csv()
            }
            Format::Table => self.table(),
        })
    }

    fn csv(&self) -> String {
        let path = quoted(&self.path);
        match &self.found {
            Found::Unreadable { error } => format!("{path},,,,,{}\n", quoted(error)),
            Found::Classes { predictions, .. } => {
                let row = |(rank, p): (usize, &Prediction)| {
                    let class = quoted(&p.class);
                    format!("{path},{},{class},{},{:.6},\n", rank + 1, p.index, p.probability)
                };
                predictions.iter().enumerate().map(row).collect()
            }
        }
    }

    fn table(&self) -> String {
        let path = visible(&self.path);
        match &self.found {
            Found::Unreadable { error } => format!("{path}\n  error: {}\n", visible(error)),
            Found::Classes { predictions, .. } => {
                let row = |p: &Prediction| {
                    format!("  {:6.2} %  {}\n", 100.0 * p.probability, visible(&p.class))
                };
                format!("{path}\n{}", predictions.iter().map(row).collect::<String>())
            }
        }
    }
}

/// The pictures that the arguments mean, in their order.
fn expand(images: &[PathBuf]) -> Result<Vec<Picture>, TrainError> {
    let mut pictures = Vec::new();
    let mut has_stdin = false;
    for image in images {
        if image == Path::new(STDIN) {
            if std::mem::replace(&mut has_stdin, true) {
                return Err(TrainError::usage("`-` is there twice, stdin is one picture")
                    .with_hint("a file of that name is `./-`"));
            }
            let bytes = read_stream(STDIN, std::io::stdin().lock()).map(Arc::from);
            pictures.push(Picture::Read { name: STDIN.to_owned(), bytes });
        } else if image.is_dir() {
            let (files, others) = picture_files(image)?;
            let folder = image.display();
            if files.is_empty() {
                let message = format!(
                    "the folder holds no pictures ({} other files): {folder}",
                    others.count()
                );
                return Err(TrainError::data_mismatch(message).with_hint(
                    "pictures of a folder are known by their endings, as in training; any other file can be \
                     named itself",
                ));
            }
            if !others.is_empty() {
                say(format_args!("note: passed over {}: {folder}", visible(&others.to_string())));
            }
            pictures.extend(files.into_iter().map(Picture::File));
        } else {
            pictures.push(Picture::File(image.clone()));
        }
    }
    Ok(pictures)
}

/// A CSV field (RFC 4180).
pub(super) fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}
