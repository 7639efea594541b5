//! `mixer bench data`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use mixer_data::{DecodeOptions, Interpolation, OnCorrupt, open_split};

use super::DEFAULT_BATCH_SIZE;
use crate::bench::data::{DataBench, DataMeasurement, measure};
use crate::cli::{self, Format};
use crate::config::DataConfig;
use crate::config::limits;
use crate::config::model::IMAGE_SIZE;
use crate::error::TrainError;
use crate::input::loading::Loading;
use crate::plan;
use crate::run::recipe::Recipe;

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct DataArgs {
    /// Measure the training split of this configuration, with its transform and workers.
    #[arg(long, value_name = "CONFIG")]
    config: Option<PathBuf>,
    /// The folder of the data, instead of the configuration's.
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    data: Option<PathBuf>,
    /// A folder, list, or pattern of shards below it [default: the configuration's, or `train`, or the
    /// folder itself where there is none].
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Override a key of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    overrides: Vec<String>,
    /// Decoding threads; 0 decodes where batches are taken [default: the configuration's, or the cores,
    /// at most 16].
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Examples to time [default: 2000].
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    examples: Option<NonZeroUsize>,
    /// The same in passes over the split.
    #[arg(long, value_name = "N")]
    epochs: Option<NonZeroUsize>,
    /// Images per batch [default: the configuration's, or 32].
    #[arg(long, value_name = "N")]
    batch_size: Option<NonZeroUsize>,
    /// Side of the images, px [default: the configuration's, or 224].
    #[arg(long, value_name = "PX")]
    image_size: Option<usize>,
    /// Side of a patch, px [default: the configuration's, or 16].
    #[arg(long, value_name = "PX")]
    patch_size: Option<NonZeroUsize>,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(args: &DataArgs) -> Result<(), TrainError> {
    let found = measure(&bench(args)?)?;
    match args.format {
        Format::Json => cli::print_json(&found),
        Format::Table => cli::print(&table(&found)),
    }
}

/// The measurement that is asked for.
fn bench(args: &DataArgs) -> Result<DataBench, TrainError> {
    let mut bench = match (&args.config, &args.data) {
        (Some(config), _) => configured(args, config)?,
        // The command line is not accepted without one of them.
        (None, data) => plain(args, data.as_deref().unwrap_or(Path::new(".")))?,
    };
    if let Some(workers) = args.workers {
        bench.loader.workers = workers;
    }
    if let Some(batch_size) = args.batch_size {
        bench.loader.batch_size = batch_size.get();
    }
    if let Some(patch_size) = args.patch_size {
        bench.loader.patch_size = patch_size.get();
    }
    let size = bench.transform.image_size as usize;
    limits::check_batch("--batch-size", bench.loader.batch_size, size)?;
    bench.examples = match (args.examples, args.epochs) {
        (Some(examples), _) => examples.get() as u64,
        (None, Some(epochs)) => (bench.source.len() as u64).saturating_mul(epochs.get() as u64),
        (None, None) => bench.examples,
    };
    Ok(bench)
}

const DEFAULT_EXAMPLES: u64 = 2000;
const DEFAULT_PATCH_SIZE: usize = 16;

/// As a run of the configuration would load its training split.
fn configured(args: &DataArgs, path: &Path) -> Result<DataBench, TrainError> {
    let mut overrides = args.overrides.clone();
    let mut set = |key: &str, value: toml::Value| overrides.push(format!("{key}={value}"));
    if let Some(data) = &args.data {
        set("data.path", data.display().to_string().into());
    }
    if let Some(split) = &args.split {
        set("data.train", split.as_str().into());
    }
    if let Some(image_size) = args.image_size {
        set("model.image_size", toml::Value::Integer(image_size as i64));
    }
    let recipe = Recipe::read(path, &overrides)?;
    let (plan, dataset) = recipe.resolve_by_itself()?;
    Ok(DataBench {
        source: dataset.train,
        transform: plan.train_transform(),
        loader: Loading::of(&recipe.config.data).loader(
            plan.train.microbatch_size,
            plan.model.network.patch_size,
            plan.data.on_corrupt,
        ),
        seed: plan.seed,
        examples: DEFAULT_EXAMPLES,
    })
}

/// The defaults of a configuration, for data without one.
fn plain(args: &DataArgs, root: &Path) -> Result<DataBench, TrainError> {
    let image_size = args.image_size.unwrap_or(IMAGE_SIZE);
    limits::check_image_size("--image-size", image_size)?;
    let split = match &args.split {
        Some(split) => split.as_str(),
        None if root.join("train").is_dir() => "train",
        None => ".",
    };
    let defaults = DataConfig::default();
    Ok(DataBench {
        source: open_split(None, root, split, None, &DecodeOptions::default())?,
        transform: plan::train_transform(&defaults, Interpolation::default(), image_size),
        loader: Loading::default().loader(
            DEFAULT_BATCH_SIZE,
            DEFAULT_PATCH_SIZE,
            OnCorrupt::default(),
        ),
        seed: 0,
        examples: DEFAULT_EXAMPLES,
    })
}

/// The measurement for people.
fn table(found: &DataMeasurement) -> String {
    let memory = found.peak_memory_mb.map_or_else(|| "-".to_owned(), |mb| format!("{mb:.0}"));
    let mut text = format!(
        "{} examples of {}, {} px, patches of {} px, batches of {}\n\n\
         {:>7} {:>10} {:>16} {:>10} {:>10}\n{:>7} {:>10.1} {:>16.1} {:>10.2} {:>10}\n\n\
         {:<10} {:>10} {:>10} {:>6}\n",
        found.examples,
        found.split_examples,
        found.image_size,
        found.patch_size,
        found.batch_size,
        "workers",
        "images/s",
        "images/CPU s",
        "cores used",
        "memory MB",
        found.workers,
        found.images_per_sec,
        found.images_per_cpu_sec,
        found.cpu_seconds / found.seconds,
        memory,
        "stage",
        "ms/image",
        "CPU ms",
        "share",
    );
    for stage in &found.stages {
        text += &format!(
            "{:<10} {:>10.3} {:>10.3} {:>5.1}%\n",
            stage.stage.name(),
            stage.ms,
            stage.cpu_ms,
            100.0 * stage.share
        );
    }
    let (ms, cpu_ms) =
        found.stages.iter().fold((0.0, 0.0), |(ms, cpu), s| (ms + s.ms, cpu + s.cpu_ms));
    text += &format!("{:<10} {ms:>10.3} {cpu_ms:>10.3}\n\nlimited by {}\n", "all", found.limit);
    if found.skipped > 0 {
        text += &format!("{} examples could not be read and were left out\n", found.skipped);
    }
    text += "stages: on one thread; memory: peak of the process over its start";
    text
}
