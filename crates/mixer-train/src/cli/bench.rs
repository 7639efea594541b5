//! `mixer bench`.

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use mixer_model::Variant;

use super::{DeviceArg, GeluArg};
use crate::bench::{Bench, Mode, measure};
use crate::error::TrainError;
use crate::plan;
use crate::precision::Precision;

#[derive(Debug, Clone, Args)]
pub(super) struct BenchArgs {
    /// A variant; may be repeated [default: S/32 and S/16].
    #[arg(long = "model", value_name = "S/16")]
    models: Vec<String>,
    /// What to measure.
    #[arg(long, value_enum, default_value_t = Mode::Train)]
    mode: Mode,
    /// Images per step.
    #[arg(long, default_value = "32", value_name = "N")]
    batch_size: NonZeroUsize,
    /// Side of the images, px.
    #[arg(long, default_value_t = 224, value_name = "PX")]
    image_size: usize,
    /// Steps to time.
    #[arg(long, default_value = "7", value_name = "N")]
    steps: NonZeroUsize,
    /// Steps before those.
    #[arg(long, default_value_t = 2, value_name = "N")]
    warmup: usize,
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
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(super) fn run(args: &BenchArgs) -> Result<(), TrainError> {
    plan::check_image_size("--image-size", args.image_size)?;
    let names = match args.models.as_slice() {
        [] => vec!["S/32".to_owned(), "S/16".to_owned()],
        models => models.to_vec(),
    };
    let mut benches = Vec::with_capacity(names.len());
    for model in names {
        let config = Variant::parse(&model)?.config(args.image_size, 1000, args.gelu.into());
        config.validate()?;
        let (batch_size, steps) = (args.batch_size.get(), args.steps.get());
        benches.push(Bench {
            model,
            config,
            mode: args.mode,
            batch_size,
            precision: args.precision,
            recompute_blocks: args.recompute_blocks,
            steps,
            warmup: args.warmup,
            profile: args.profile,
        });
    }
    let entry = args.device.open()?;
    args.precision.check(&entry)?;
    let mut measurements = Vec::with_capacity(benches.len());
    for bench in &benches {
        measurements.push(measure(bench, &entry.name, &entry.device)?);
        #[cfg(feature = "cuda")]
        if bench.profile {
            super::print(&crate::bench::profile(bench))?;
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
    let optional = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
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
