//! `mixer bench train|infer|products|data`.

mod data;
mod products;
mod steps;

use std::num::NonZeroUsize;

use clap::{Args, Subcommand};
use mixer_model::{Gelu, MixerConfig, Precision, Variant};

use super::{DeviceArg, Format};
use crate::bench::Mode;
use crate::config::limits;
use crate::config::model::IMAGE_SIZE;
use crate::device::DeviceEntry;
use crate::error::TrainError;

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Measure whole updates on data in memory: forward, backward, clipping, AdamW.
    Train {
        #[command(flatten)]
        steps: steps::StepArgs,
        /// In how many blocks the backward pass computes hidden units again, for less memory
        /// (`train.recompute_blocks`).
        #[arg(long, default_value_t = 0, value_name = "N")]
        recompute_blocks: usize,
    },
    /// Measure logits of data in memory.
    Infer(steps::StepArgs),
    /// Measure the matrix products of a training step by themselves: Burn's kernels, and cuBLASLt.
    Products(NetworkArgs),
    /// Measure the way from files to patches: no network and no device.
    Data(data::DataArgs),
}

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
    /// Images per step.
    #[arg(long, default_value = "32", value_name = "N")]
    batch_size: NonZeroUsize,
    /// Side of the images, px.
    #[arg(long, default_value_t = IMAGE_SIZE, value_name = "PX")]
    image_size: usize,
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
    /// The networks that are meant, by name.
    fn networks(&self, gelu: Gelu) -> Result<Vec<(String, MixerConfig)>, TrainError> {
        limits::check_image_size("--image-size", self.image_size)?;
        let names = match self.models.as_slice() {
            [] => vec!["S/32".to_owned(), "S/16".to_owned()],
            models => models.to_vec(),
        };
        let network = |name: String| {
            let config = Variant::parse(&name)?.config(self.image_size, 1000, gelu);
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
        BenchCommand::Train { steps, recompute_blocks } => {
            steps::run(Mode::Train, steps, *recompute_blocks)
        }
        BenchCommand::Infer(steps) => steps::run(Mode::Infer, steps, 0),
        BenchCommand::Products(args) => products::run(args),
        BenchCommand::Data(args) => data::run(args),
    }
}
