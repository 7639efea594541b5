//! `mixer bench products`.

use mixer_model::Gelu;

use super::{NetworkArgs, optional};
use crate::bench::products::{ProductMeasurement, measure};
use crate::cli::{self, Format};
use crate::error::TrainError;

pub(super) fn run(args: &NetworkArgs) -> Result<(), TrainError> {
    // No product depends on the form of GELU.
    let networks = args.networks(Gelu::Tanh)?;
    let entry = args.open_device()?;
    let runs = (args.warmup, args.steps.get());
    let mut measurements = Vec::new();
    for (name, config) in &networks {
        let batch_size = args.batch_size();
        measurements.extend(measure((name, config), batch_size, args.precision, &entry, runs)?);
    }
    match args.format {
        Format::Json => cli::print_json(&measurements),
        Format::Table => cli::print(&table(&measurements)),
    }
}

fn table(measurements: &[ProductMeasurement]) -> String {
    let mut text = format!(
        "{:<5} {:<12} {:>6} {:>6} {:>6} {:>5} {:>8} {:>7} {:>8} {:>7}\n",
        "model", "product", "m", "n", "k", "count", "Burn ms", "GFLOP/s", "Lt ms", "GFLOP/s"
    );
    for measurement in measurements {
        let product = &measurement.product;
        text += &format!(
            "{:<5} {:<12} {:>6} {:>6} {:>6} {:>5} {:>8.3} {:>7.0} {:>8} {:>7}\n",
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
    text + "[m, k] times [k, n], count of them; dX and dW: gradients of input and weight;\n\
            Lt: cuBLASLt"
}
