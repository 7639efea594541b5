//! `mixer predict`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use mixer_data::{
    DataError, DecodeOptions, Example, Loader, LoaderConfig, OnCorrupt, Source, read_file,
};
use mixer_model::{Compute, Mixer};
use serde::Serialize;

use super::{DeviceArg, PreprocessArg, WeightsArg};
use crate::error::TrainError;
use crate::input::{self, Normaliser};
use crate::precision::Precision;

#[derive(Debug, Clone, Args)]
pub(super) struct PredictArgs {
    #[command(flatten)]
    weights: WeightsArg,
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
    /// How pictures are prepared [default: as the weights say, else resmall-crop].
    #[arg(long, value_enum)]
    preprocess: Option<PreprocessArg>,
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
    Csv,
}

/// Pictures that are classified at once; fewer where there are fewer, since a batch is always full.
const MAX_BATCH: usize = 16;

/// One picture's answer; the JSON form is part of the interface.
#[derive(Debug, Serialize)]
struct Answer {
    path: String,
    predictions: Vec<Prediction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
}

#[derive(Debug, Serialize)]
struct Prediction {
    class: String,
    index: usize,
    probability: f64,
}

pub(super) fn run(args: &PredictArgs) -> Result<(), TrainError> {
    if args.logits && args.format != Format::Json {
        return Err(TrainError::usage("`--logits` has no effect without `--format json`"));
    }
    let entry = args.device.open()?;
    entry.check(args.precision)?;
    let device = entry.device;
    let weights = args.weights.read()?;
    let paths = expand(&args.images)?;
    let preprocessing = super::preprocessing(&weights, args.preprocess);
    let config = weights.config.clone();
    let transform = input::eval_transform(&preprocessing, config.image_size);
    let normaliser = Normaliser::new(&preprocessing, config.patch_size, &device);
    let (num_classes, classes) = (config.num_classes, weights.metadata.classes.clone());
    let compute = Compute { precision: args.precision, ..Compute::default() };
    let mixer = Mixer::from_weights(weights, &device)?.with_compute(compute);
    let files =
        Files { paths, options: input::decode_options(&preprocessing), classes: Vec::new() };
    let config = LoaderConfig {
        batch_size: files.len().min(MAX_BATCH),
        patch_size: config.patch_size,
        workers: std::thread::available_parallelism().map_or(1, usize::from).min(16),
        queue_bytes: 64 << 20,
        on_corrupt: OnCorrupt::Stop,
    };
    let files = Arc::new(files);
    let mut loader = Loader::eval(Arc::clone(&files) as Arc<dyn Source>, transform, config)?;
    let mut answers = Vec::with_capacity(files.len());
    while let Some(batch) = loader.next_batch()? {
        // SYNC: one read per batch.
        let logits = mixer.forward(normaliser.patches(&batch)).into_data();
        let logits: Vec<f32> = logits.iter::<f32>().collect();
        for (logits, index) in logits.chunks_exact(num_classes).zip(&batch.indices) {
            let path = &files.paths[*index as usize];
            answers.push(answer(path, logits.to_vec(), classes.as_deref(), args));
        }
        loader.recycle(batch);
    }
    match args.format {
        Format::Json => super::print_json(&answers),
        Format::Csv => {
            let mut text = "path,rank,class,index,probability\n".to_owned();
            for answer in &answers {
                for (rank, p) in answer.predictions.iter().enumerate() {
                    text += &format!(
                        "{},{},{},{},{:.6}\n",
                        quoted(&answer.path),
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
            for answer in &answers {
                text += &format!("{}\n", answer.path);
                for p in &answer.predictions {
                    text += &format!("  {:6.2} %  {}\n", 100.0 * p.probability, p.class);
                }
            }
            super::print(&text)
        }
    }
}

/// Pictures without labels, so that the loader reads them as it reads everything else.
struct Files {
    paths: Vec<PathBuf>,
    options: DecodeOptions,
    classes: Vec<String>,
}

impl Source for Files {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, _index: usize) -> u32 {
        0
    }

    fn read(&self, index: usize) -> Result<Example, DataError> {
        read_file(&self.paths[index]).map(Example::Encoded)
    }

    fn decode_options(&self) -> DecodeOptions {
        self.options.clone()
    }

    fn describe(&self, index: usize) -> String {
        self.paths[index].display().to_string()
    }

    fn fingerprint(&self) -> u64 {
        0
    }
}

fn answer(path: &Path, logits: Vec<f32>, classes: Option<&[String]>, args: &PredictArgs) -> Answer {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let predictions = order
        .into_iter()
        .take(args.top_k as usize)
        .map(|index| Prediction {
            class: classes
                .and_then(|classes| classes.get(index))
                .map_or_else(|| format!("class {index}"), Clone::clone),
            index,
            probability: exp[index] / sum,
        })
        .collect();
    let path = path.display().to_string();
    Answer { path, predictions, logits: args.logits.then_some(logits) }
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
        for entry in fs_err::read_dir(image)? {
            let entry = entry?;
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if !hidden && entry.path().is_file() {
                found.push(entry.path());
            }
        }
        if found.is_empty() {
            return Err(TrainError::DataMismatch {
                message: format!("the folder holds no files: {}", image.display()),
                hint: Some(
                    "name the folder that holds the pictures; those in its sub-folders are not taken"
                        .to_owned(),
                ),
            });
        }
        found.sort();
        paths.append(&mut found);
    }
    Ok(paths)
}

/// A CSV field (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}
