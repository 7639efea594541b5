//! `mixer bench train` and `mixer bench infer`.

use clap::Args;
use mixer_model::Gelu;

use super::{NetworkArgs, optional};
use crate::bench::{Bench, Measurement, Mode, measure};
use crate::cli::memory_args::MemoryArgs;
use crate::cli::{self, Format};
use crate::error::TrainError;
use crate::update::optimizer::FirstMomentDtype;

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct StepArgs {
    #[command(flatten)]
    network: NetworkArgs,
    /// Form of GELU.
    #[arg(long, value_parser = cli::gelu(), default_value_t = Gelu::Erf)]
    gelu: Gelu,
    /// On a CUDA device, also print the time of each kernel and product over the timed steps, which then
    /// wait for each other.
    #[arg(long)]
    profile: bool,
}

pub(super) fn run(mode: Mode, args: &StepArgs, memory: &MemoryArgs) -> Result<(), TrainError> {
    let network = &args.network;
    let networks = network.networks(args.gelu)?;
    let entry = network.open_device()?;
    if args.profile && entry.cuda_index().is_none() {
        return Err(TrainError::usage(format!(
            "`--profile` has no effect on device `{}`: it accounts for the kernels of a CUDA device",
            entry.name
        )));
    }
    let profile = entry.cuda_index().filter(|_| args.profile);
    for (_, config) in &networks {
        memory.check(config)?;
    }
    let MemoryArgs { recompute_blocks, first_moment_dtype } = *memory;
    if first_moment_dtype != FirstMomentDtype::F32 && entry.is_gpu() {
        return Err(TrainError::usage(format!(
            "`--first-moment-dtype` is bf16 on device `{}`, expected f32: only CPUs keep it in bf16",
            entry.name
        )));
    }
    let mut measurements = Vec::with_capacity(networks.len());
    for (model, config) in networks {
        let bench = Bench {
            model,
            config,
            mode,
            batch_size: network.batch_size(),
            precision: network.precision,
            recompute_blocks,
            first_moment_dtype,
            steps: network.steps.get(),
            warmup: network.warmup,
            profile,
        };
        measurements.push(measure(&bench, &entry)?);
        #[cfg(feature = "cuda")]
        if let Some(index) = bench.profile {
            cli::print(&crate::bench::profile(&bench, index))?;
        }
    }
    match network.format {
        Format::Json => cli::print_json(&measurements),
        Format::Table => cli::print(&table(&measurements)),
    }
}

fn table(measurements: &[Measurement]) -> String {
    let mut text = format!(
        "{:<6} {:>5} {:>4} {:>5} {:>7} {:>8} {:>8} {:>8} {:>8} {:>5} {:>5}\n",
        "model",
        "mode",
        "in",
        "batch",
        "threads",
        "step ms",
        "images/s",
        "GFLOP/s",
        "FMA peak",
        "share",
        "MB"
    );
    for m in measurements {
        text += &format!(
            "{:<6} {:>5} {:>4} {:>5} {:>7} {:>8.1} {:>8.2} {:>8.1} {:>8} {:>5} {:>5}\n",
            m.model,
            format!("{:?}", m.mode).to_lowercase(),
            m.precision.to_string(),
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
    text + "step ms: median; in: precision; FMA peak: of f32; MB: peak memory of the process\n\
            over its start, known for the first row only"
}
