//! `mixer bench`.

mod data;
mod products;

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use mixer_model::{MixerConfig, Variant};

use super::{DeviceArg, GeluArg};
use crate::bench::{Bench, Mode, measure};
use crate::config::limits;
use crate::error::TrainError;
use crate::update::precision::Precision;

#[derive(Debug, Clone, Args)]
pub(super) struct BenchArgs {
    /// A variant; may be repeated [default: S/32 and S/16].
    #[arg(long = "model", value_name = "S/16")]
    models: Vec<String>,
    /// What to measure.
    #[arg(long, value_enum, default_value_t = ModeArg::Train)]
    mode: ModeArg,
    /// Images per step, or per batch of data [default: 32, or the configuration's].
    #[arg(long, value_name = "N")]
    batch_size: Option<NonZeroUsize>,
    /// Side of the images, px [default: 224, or the configuration's].
    #[arg(long, value_name = "PX")]
    image_size: Option<usize>,
    /// Steps to time [default: 7].
    #[arg(long, value_name = "N")]
    steps: Option<NonZeroUsize>,
    /// Steps before those [default: 2].
    #[arg(long, value_name = "N")]
    warmup: Option<usize>,
    /// On a CUDA device, also print the time of each kernel and product over the timed steps, which then
    /// wait for each other.
    #[arg(long)]
    profile: bool,
    /// What the operands of the blocks' products are rounded to (`train.precision`).
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// In how many blocks the backward pass computes hidden units again, for less memory
    /// (`train.recompute_blocks`).
    #[arg(long, default_value_t = 0, value_name = "N")]
    recompute_blocks: usize,
    /// Form of GELU.
    #[arg(long, value_enum, default_value_t = GeluArg::Erf)]
    gelu: GeluArg,
    #[command(flatten)]
    device: DeviceArg,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    data: data::DataArgs,
}

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// Whole updates on data in memory: forward, backward, clipping, AdamW.
    Train,
    /// Logits of data in memory.
    Infer,
    /// The matrix products of a training step by themselves: Burn's kernels, and cuBLASLt.
    Products,
    /// From files to patches: no network and no device.
    Data,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl BenchArgs {
    /// The networks that are meant, by name.
    fn networks(&self) -> Result<Vec<(String, MixerConfig)>, TrainError> {
        let image_size = self.image_size.unwrap_or(224);
        limits::check_image_size("--image-size", image_size)?;
        let names = match self.models.as_slice() {
            [] => vec!["S/32".to_owned(), "S/16".to_owned()],
            models => models.to_vec(),
        };
        let network = |name: String| {
            let config = Variant::parse(&name)?.config(image_size, 1000, self.gelu.into());
            config.validate()?;
            Ok((name, config))
        };
        names.into_iter().map(network).collect()
    }

    /// An option that was given and that says something about a network, if any.
    fn network_option(&self) -> Option<&'static str> {
        [
            ("--model", !self.models.is_empty()),
            ("--steps", self.steps.is_some()),
            ("--warmup", self.warmup.is_some()),
            ("--profile", self.profile),
            ("--precision", self.precision != Precision::F32),
            ("--recompute-blocks", self.recompute_blocks != 0),
            ("--device", self.device.device != "auto"),
        ]
        .into_iter()
        .find_map(|(name, is_given)| is_given.then_some(name))
    }
}

/// A cell of a table.
fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn refuse_without_effect(option: Option<&str>, when: &str) -> Result<(), TrainError> {
    match option {
        Some(option) => Err(TrainError::usage(format!("`{option}` has no effect {when}"))),
        None => Ok(()),
    }
}

pub(super) fn run(args: &BenchArgs) -> Result<(), TrainError> {
    let batch_size = args.batch_size.map(NonZeroUsize::get);
    let mode = match args.mode {
        ModeArg::Train => Mode::Train,
        ModeArg::Infer => Mode::Infer,
        ModeArg::Products => return products::run(args),
        ModeArg::Data => {
            refuse_without_effect(args.network_option(), "with `--mode data`")?;
            let found = data::measured(&args.data, args.image_size, batch_size)?;
            return match args.format {
                Format::Json => super::print_json(&found),
                Format::Table => super::print(&data::table(&found)),
            };
        }
    };
    refuse_without_effect(args.data.given(), "without `--mode data`")?;
    let mut benches = Vec::new();
    for (model, config) in args.networks()? {
        benches.push(Bench {
            model,
            config,
            mode,
            batch_size: batch_size.unwrap_or(32),
            precision: args.precision,
            recompute_blocks: args.recompute_blocks,
            steps: args.steps.map_or(7, NonZeroUsize::get),
            warmup: args.warmup.unwrap_or(2),
            profile: None,
        });
    }
    let entry = args.device.open()?;
    args.precision.check(&entry)?;
    if args.profile && entry.cuda_index().is_none() {
        return Err(TrainError::usage(format!(
            "`--profile` has no effect on device `{}`: it accounts for the kernels of a CUDA device",
            entry.name
        )));
    }
    let profile = entry.cuda_index().filter(|_| args.profile);
    let mut measurements = Vec::with_capacity(benches.len());
    for bench in &mut benches {
        bench.profile = profile;
        measurements.push(measure(bench, &entry.name, &entry.device)?);
        #[cfg(feature = "cuda")]
        if let Some(index) = bench.profile {
            super::print(&crate::bench::profile(bench, index))?;
        }
    }
    if let Format::Json = args.format {
        return super::print_json(&measurements);
    }
    let mut text = format!(
        "{:<6} {:>6} {:>9} {:>6} {:>8} {:>10} {:>10} {:>9} {:>9} {:>6} {:>10}\n",
        "model",
        "mode",
        "precision",
        "batch",
        "threads",
        "step ms",
        "images/s",
        "GFLOP/s",
        "FMA peak",
        "share",
        "memory MB"
    );
    for m in &measurements {
        text += &format!(
            "{:<6} {:>6} {:>9} {:>6} {:>8} {:>10.1} {:>10.2} {:>9.1} {:>9} {:>6} {:>10}\n",
            m.model,
            format!("{:?}", m.mode).to_lowercase(),
            m.precision.name(),
            m.batch_size,
            m.threads,
            m.step_ms,
            m.images_per_sec,
            m.gflops,
            optional(m.fma_peak_gflops, 1),
            optional(m.share_of_peak, 2),
            optional(m.peak_memory_mb, 0),
        );
    }
    text += "step ms: median; FMA peak: of f32; memory: peak of the process over its start, known for the first row only";
    super::print(&text)
}
