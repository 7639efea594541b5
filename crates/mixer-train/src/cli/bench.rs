//! `mixer bench train|infer|products|data`.

mod data;
mod products;
mod steps;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use mixer_model::{Gelu, MixerConfig, Precision, Variant};

use super::memory_args::MemoryArgs;
use super::{DeviceArg, Format};
use crate::bench::Mode;
use crate::config::limits;
use crate::config::model::IMAGE_SIZE;
use crate::device::DeviceEntry;
use crate::error::TrainError;
use crate::run::recipe::Recipe;
use crate::show::visible::visible;

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Measure whole updates on data in memory: forward, backward, clipping, AdamW.
    Train {
        #[command(flatten)]
        steps: steps::StepArgs,
        #[command(flatten)]
        memory: MemoryArgs,
    },
    /// Measure logits of data in memory.
    Infer(steps::StepArgs),
    /// Measure the matrix products of a training step by themselves: Burn's kernels, and cuBLASLt.
    Products(NetworkArgs),
    /// Measure the way from files to patches: no network and no device.
    Data(data::DataArgs),
}

const DEFAULT_BATCH_SIZE: usize = 32;

/// The network that is measured, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct NetworkArgs {
    /// A variant; may be repeated [default: S/32 and S/16].
    #[arg(
        long = "model",
        value_name = "S/16",
        value_parser = super::suggested::variant(),
        hide_possible_values = true
    )]
    models: Vec<String>,
    /// The network of this configuration, whose data is there, instead.
    #[arg(long, value_name = "CONFIG", conflicts_with_all = ["models", "image_size"])]
    config: Option<PathBuf>,
    /// Override a key of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    overrides: Vec<String>,
    /// Images per step [default: 32].
    #[arg(long, value_name = "N")]
    batch_size: Option<NonZeroUsize>,
    /// Side of the images, px [default: 224].
    #[arg(long, value_name = "PX")]
    image_size: Option<usize>,
    /// Steps to time.
    #[arg(long, default_value = "7", value_name = "N")]
    steps: NonZeroUsize,
    /// Steps before those.
    #[arg(long, default_value_t = 2, value_name = "N")]
    warmup: usize,
    /// Precision that the operands of the blocks' products are rounded to (`train.precision`).
    #[arg(long, value_parser = super::precision(), default_value_t = Precision::F32)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArg,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl NetworkArgs {
    fn batch_size(&self) -> usize {
        self.batch_size.map_or(DEFAULT_BATCH_SIZE, NonZeroUsize::get)
    }

    /// The networks that are meant, by name.
    fn networks(&self, gelu: Gelu) -> Result<Vec<(String, MixerConfig)>, TrainError> {
        if let Some(path) = &self.config {
            let (plan, _) = Recipe::read(path, &self.overrides)?.resolve_by_itself()?;
            let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
            return Ok(vec![(
                visible(&name).into_owned(),
                MixerConfig { gelu, ..plan.model.network },
            )]);
        }
        let image_size = self.image_size.unwrap_or(IMAGE_SIZE);
        limits::check_image_size("--image-size", image_size)?;
        let names = match self.models.as_slice() {
            [] => vec!["S/32".to_owned(), "S/16".to_owned()],
            models => models.to_vec(),
        };
        let network = |name: String| {
            let config = Variant::parse(&name)?.config(image_size, 1000, gelu);
            config.validate()?;
            Ok((name, config))
        };
        names.into_iter().map(network).collect()
    }

    /// The device, if it computes in the precision.
    fn open_device(&self) -> Result<DeviceEntry, TrainError> {
        let entry = self.device.open()?;
        entry.check(self.precision)?;
        Ok(entry)
    }
}

/// A cell of a table.
fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

pub(super) fn run(command: &BenchCommand) -> Result<(), TrainError> {
    match command {
        BenchCommand::Train { steps, memory } => steps::run(Mode::Train, steps, memory),
        BenchCommand::Infer(steps) => steps::run(Mode::Infer, steps, &MemoryArgs::default()),
        BenchCommand::Products(args) => products::run(args),
        BenchCommand::Data(args) => data::run(args),
    }
}
