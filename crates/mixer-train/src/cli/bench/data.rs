//! `mixer bench --mode data`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use mixer_data::{DecodeOptions, Interpolation, LoaderConfig, OnCorrupt, open_split};

use crate::bench::data::{DataBench, DataMeasurement, measure};
use crate::cli::config;
use crate::config::limits;
use crate::config::{DataConfig, RunConfig};
use crate::error::TrainError;
use crate::input::dataset;

/// What only `--mode data` takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Only with --mode data")]
pub(super) struct DataArgs {
    /// Measure the training split of this configuration, with its transform and workers.
    #[arg(long, value_name = "CONFIG")]
    config: Option<PathBuf>,
    /// The folder of the data, instead of the configuration's.
    #[arg(long, value_name = "DIR")]
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
    /// Side of a patch, px [default: the configuration's, or 16].
    #[arg(long, value_name = "PX")]
    patch_size: Option<NonZeroUsize>,
}

impl DataArgs {
    /// An option that was given, if any.
    pub(super) fn given(&self) -> Option<&'static str> {
        [
            ("--config", self.config.is_some()),
            ("--data", self.data.is_some()),
            ("--split", self.split.is_some()),
            ("--workers", self.workers.is_some()),
            ("--examples", self.examples.is_some()),
            ("--epochs", self.epochs.is_some()),
            ("--patch-size", self.patch_size.is_some()),
        ]
        .into_iter()
        .find_map(|(name, is_given)| is_given.then_some(name))
    }
}

/// Measures, given the two options that the other modes have too.
pub(super) fn measured(
    args: &DataArgs,
    image_size: Option<usize>,
    batch_size: Option<usize>,
) -> Result<DataMeasurement, TrainError> {
    let mut bench = match (&args.config, &args.data) {
        (Some(config), _) => configured(args, config, image_size)?,
        (None, Some(data)) => plain(args, data, image_size)?,
        (None, None) => {
            return Err(TrainError::usage("`--mode data` needs data to measure")
                .with_hint("name a configuration with `--config`, or a folder with `--data`"));
        }
    };
    if let Some(workers) = args.workers {
        bench.loader.workers = workers;
    }
    if let Some(batch_size) = batch_size {
        bench.loader.batch_size = batch_size;
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
    measure(&bench)
}

const DEFAULT_EXAMPLES: u64 = 2000;
const DEFAULT_BATCH_SIZE: usize = 32;
const DEFAULT_PATCH_SIZE: usize = 16;

/// As a run of the configuration would load its training split.
fn configured(
    args: &DataArgs,
    path: &Path,
    image_size: Option<usize>,
) -> Result<DataBench, TrainError> {
    let mut overrides = args.overrides.clone();
    let mut set = |key: &str, value: toml::Value| overrides.push(format!("{key}={value}"));
    if let Some(data) = &args.data {
        set("data.path", data.display().to_string().into());
    }
    if let Some(split) = &args.split {
        set("data.train", split.as_str().into());
    }
    if let Some(image_size) = image_size {
        set("model.image_size", toml::Value::Integer(image_size as i64));
    }
    let (run, _) = RunConfig::read(path, &overrides)?;
    let (plan, dataset) = config::resolved_config(&run, path)?;
    Ok(DataBench {
        source: dataset.train,
        transform: plan.train_transform(),
        loader: LoaderConfig {
            batch_size: plan.train.microbatch_size,
            patch_size: plan.model.network.patch_size,
            workers: dataset::workers(&run.data),
            queue_bytes: dataset::queue_bytes(&run.data),
            on_corrupt: plan.data.on_corrupt,
        },
        seed: plan.seed,
        examples: DEFAULT_EXAMPLES,
    })
}

/// The defaults of a configuration, for data without one.
fn plain(args: &DataArgs, root: &Path, image_size: Option<usize>) -> Result<DataBench, TrainError> {
    let image_size = image_size.unwrap_or(224);
    limits::check_image_size("--image-size", image_size)?;
    let split = match &args.split {
        Some(split) => split.as_str(),
        None if root.join("train").is_dir() => "train",
        None => ".",
    };
    let defaults = DataConfig::default();
    Ok(DataBench {
        source: open_split(None, root, split, None, &DecodeOptions::default())?,
        transform: crate::plan::train_transform(&defaults, Interpolation::default(), image_size),
        loader: LoaderConfig {
            batch_size: DEFAULT_BATCH_SIZE,
            patch_size: DEFAULT_PATCH_SIZE,
            workers: dataset::workers(&defaults),
            queue_bytes: dataset::queue_bytes(&defaults),
            on_corrupt: OnCorrupt::default(),
        },
        seed: 0,
        examples: DEFAULT_EXAMPLES,
    })
}

/// The measurement for people.
pub(super) fn table(found: &DataMeasurement) -> String {
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
