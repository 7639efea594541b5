//! `mixer bench --mode products`.

use std::num::NonZeroUsize;

use super::{BenchArgs, Format, optional, refuse_without_effect};
use crate::bench::products::{ProductMeasurement, measure};
use crate::error::TrainError;

pub(super) fn run(args: &BenchArgs) -> Result<(), TrainError> {
    let without_effect =
        [("--profile", args.profile), ("--recompute-blocks", args.recompute_blocks != 0)];
    let given = without_effect.into_iter().find_map(|(name, is_given)| is_given.then_some(name));
    refuse_without_effect(given.or(args.data.given()), "with `--mode products`")?;
    let networks = args.networks()?;
    let entry = args.device.open()?;
    entry.check(args.precision)?;
    let batch_size = args.batch_size.map_or(32, NonZeroUsize::get);
    let runs = (args.warmup.unwrap_or(2), args.steps.map_or(7, NonZeroUsize::get));
    let mut measurements = Vec::new();
    for (name, config) in &networks {
        measurements.extend(measure((name, config), batch_size, args.precision, &entry, runs)?);
    }
    match args.format {
        Format::Json => crate::cli::print_json(&measurements),
        Format::Table => crate::cli::print(&table(&measurements)),
    }
}

fn table(measurements: &[ProductMeasurement]) -> String {
    let mut text = format!(
        "{:<6} {:<13} {:>8} {:>8} {:>8} {:>6} {:>10} {:>10} {:>12} {:>10}\n",
        "model", "product", "m", "n", "k", "count", "Burn ms", "GFLOP/s", "cuBLASLt ms", "GFLOP/s"
    );
    for measurement in measurements {
        let product = &measurement.product;
        text += &format!(
            "{:<6} {:<13} {:>8} {:>8} {:>8} {:>6} {:>10.3} {:>10.0} {:>12} {:>10}\n",
            measurement.model,
            product.name,
            product.m,
            product.n,
            product.k,
            product.count,
            measurement.burn_ms,
            measurement.burn_gflops,
            optional(measurement.cublaslt_ms, 3),
            optional(measurement.cublaslt_gflops, 0),
        );
    }
    text + "[m, k] times [k, n], count of them; dX and dW: gradients of input and weight"
}
