//! `mixer summary`.

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use mixer_model::{
    Gelu, Kernels, MixerConfig, Precision, SecondPass, TrainingMemory, TrainingSetup, VARIANTS,
    Variant, count,
};
use serde::Serialize;

use super::Format;
use super::memory_args::MemoryArgs;
use crate::config::limits;
use crate::config::model::IMAGE_SIZE;
use crate::config::train::BATCH_SIZE;
use crate::error::TrainError;

#[derive(Debug, Clone, Args)]
pub(super) struct SummaryArgs {
    /// A variant; may be repeated [default: all that have a name].
    #[arg(
        long = "model",
        value_name = "B/16",
        value_parser = super::suggested::variant(),
        hide_possible_values = true
    )]
    models: Vec<String>,
    /// Side of the input, px.
    #[arg(long, default_value_t = IMAGE_SIZE, value_name = "PX")]
    image_size: usize,
    /// Outputs of the head.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    num_classes: usize,
    /// Examples per update, of all processes together.
    #[arg(long, default_value_t = BATCH_SIZE, value_name = "N")]
    batch_size: usize,
    /// Examples per forward and backward pass of a process [default: its part of the batch].
    #[arg(long, value_name = "N")]
    microbatch_size: Option<usize>,
    /// Processes that share a batch, each with weights, gradients and moments of its own.
    #[arg(long, default_value = "1", value_name = "N")]
    processes: NonZeroUsize,
    /// Precision of the blocks' products (`train.precision`).
    #[arg(long, value_parser = super::precision(), default_value_t = Precision::F32)]
    precision: Precision,
    /// Whose kernels the memory is counted for; none is opened.
    #[arg(long, value_enum, default_value_t = KernelsArg::Cpu)]
    device: KernelsArg,
    /// The optimizer.
    #[arg(long, value_enum, default_value_t = OptimizerArg::Adamw)]
    optimizer: OptimizerArg,
    #[command(flatten)]
    memory_args: MemoryArgs,
    /// Count a moving average of the weights too (`train.ema_decay`).
    #[arg(long)]
    ema: bool,
    /// Count the second pass of sharpness-aware updates (`optimizer.sam`), of GSAM with the first gradient.
    #[arg(long, value_enum, value_name = "KIND", num_args = 0..=1, default_missing_value = "sam")]
    sam: Option<SamArg>,
    /// Memory of each process, as `80GiB`, to find the largest batch for.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum KernelsArg {
    /// `flex`.
    Cpu,
    /// `cuda`.
    Cuda,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum OptimizerArg {
    Adamw,
    Sgd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum SamArg {
    /// Or ASAM.
    Sam,
    /// With `alpha`.
    Gsam,
}

/// One architecture; the JSON form is part of the interface.
#[derive(Debug, Serialize)]
struct Row {
    model: String,
    image_size: usize,
    /// Absent for a network of convolutions.
    tokens: Option<usize>,
    parameters: u64,
    parameters_without_head: u64,
    macs: u64,
    /// Of one example, forward and backward; twice with `--sam`.
    training_flops: u64,
    weights_bytes: u64,
    batch_size: usize,
    processes: usize,
    microbatch_size: u64,
    precision: Precision,
    device: KernelsArg,
    optimizer: OptimizerArg,
    sam: Option<SamArg>,
    /// Bytes in each process, by part.
    training_memory: TrainingMemory,
    peak_bytes: u64,
    /// Examples in one pass of a process that fit into `--memory`.
    largest_microbatch: Option<u64>,
    /// The same for all processes together.
    largest_batch: Option<u64>,
}

impl SummaryArgs {
    /// One process, for a network that has been checked.
    fn setup(&self, config: &MixerConfig) -> Result<TrainingSetup, TrainError> {
        let (batch, processes) = (self.batch_size, self.processes.get());
        if !(1..=limits::MAX_BATCH_SIZE).contains(&batch) {
            return Err(TrainError::usage(format!(
                "`--batch-size` is {batch}, expected 1 to {}",
                limits::MAX_BATCH_SIZE
            )));
        }
        if !batch.is_multiple_of(processes) {
            return Err(TrainError::usage(format!(
                "`--batch-size` is {batch}, expected a multiple of the {processes} of `--processes`"
            )));
        }
        let part = batch / processes;
        let microbatch = self.microbatch_size.unwrap_or(part);
        if microbatch == 0 || !part.is_multiple_of(microbatch) {
            return Err(TrainError::usage(format!(
                "`--microbatch-size` is {microbatch}, expected a divisor of {part}, the batch of a process"
            )));
        }
        self.memory_args.check(config)?;
        let first = self.memory_args.first_moment_dtype.dtype().size() as u64;
        Ok(TrainingSetup {
            kernels: match self.device {
                KernelsArg::Cpu => Kernels::Cpu,
                KernelsArg::Cuda => Kernels::Cuda,
            },
            microbatch_size: microbatch as u64,
            accumulates: microbatch < part,
            precision: self.precision,
            recompute_blocks: self.memory_args.recompute_blocks,
            moment_bytes: match self.optimizer {
                OptimizerArg::Adamw => first + 4,
                OptimizerArg::Sgd => first,
            },
            has_average: self.ema,
            second_pass: self.sam.map(|kind| SecondPass {
                examples: part as u64,
                keeps_gradient: kind == SamArg::Gsam,
            }),
        })
    }

    fn row(&self, name: &str, memory: Option<u64>) -> Result<(Row, Variant), TrainError> {
        let variant = Variant::parse(name)?;
        let config: MixerConfig = variant.config(self.image_size, self.num_classes, Gelu::Tanh);
        config.validate()?;
        limits::check_image_size("--image-size", self.image_size)?;
        let setup = self.setup(&config)?;
        let training_memory = TrainingMemory::new(&config, &setup);
        let largest =
            memory.map(|bytes| TrainingMemory::largest_microbatch(&config, &setup, bytes));
        let passes = if self.sam.is_some() { 2 } else { 1 };
        let row = Row {
            model: name.to_owned(),
            image_size: self.image_size,
            tokens: config.has_tokens().then_some(config.num_tokens()),
            parameters: count::num_params(&config),
            parameters_without_head: count::num_params_without_head(&config),
            macs: count::macs(&config),
            training_flops: count::training_flops(&config).saturating_mul(passes),
            weights_bytes: count::weights_bytes(&config),
            batch_size: self.batch_size,
            processes: self.processes.get(),
            microbatch_size: setup.microbatch_size,
            precision: self.precision,
            device: self.device,
            optimizer: self.optimizer,
            sam: self.sam,
            training_memory,
            peak_bytes: training_memory.peak(),
            largest_microbatch: largest,
            largest_batch: largest.map(|n| n.saturating_mul(self.processes.get() as u64)),
        };
        Ok((row, variant))
    }
}

pub(super) fn run(args: &SummaryArgs) -> Result<(), TrainError> {
    let memory = args.memory.as_deref().map(bytes).transpose()?;
    let names: Vec<String> = match args.models.as_slice() {
        [] => VARIANTS.iter().map(|variant| variant.name.to_owned()).collect(),
        models => models.to_vec(),
    };
    let rows: Vec<(Row, Variant)> =
        names.iter().map(|name| args.row(name, memory)).collect::<Result<_, _>>()?;
    match args.format {
        Format::Json => {
            super::print_json(&rows.into_iter().map(|(row, _)| row).collect::<Vec<_>>())
        }
        Format::Table => super::print(&table(args, &rows)),
    }
}

fn table(args: &SummaryArgs, rows: &[(Row, Variant)]) -> String {
    // That of the paper's names, and of others what they need.
    let width = rows.iter().map(|(row, _)| row.model.chars().count()).max().unwrap_or(0).max(6);
    let mut text = format!(
        "{:<width$} {:>6} {:>10} {:>12} {:>7} {:>8} {:>13}\n",
        "model", "tokens", "parameters", "without head", "paper M", "GMACs", "training GFLOP"
    );
    for (row, variant) in rows {
        let paper = variant
            .paper_millions
            .filter(|_| args.image_size == 224)
            .map_or_else(|| "-".to_owned(), |millions| millions.to_string());
        text += &format!(
            "{:<width$} {:>6} {:>10} {:>12} {:>7} {:>8.3} {:>14.2}\n",
            row.model,
            row.tokens.map_or_else(|| "-".to_owned(), |tokens| tokens.to_string()),
            row.parameters,
            row.parameters_without_head,
            paper,
            row.macs as f64 / 1e9,
            row.training_flops as f64 / 1e9,
        );
    }
    text += &format!(
        "GMACs: multiply-accumulates of one image forward, at {} px\n\
         training GFLOP: operations of one image forward and backward{}\n\n",
        args.image_size,
        if args.sam.is_some() { ", twice" } else { "" }
    );
    text += &format!(
        "{:<width$} {:>7} {:>7} {:>7} {:>6}{} {:>9} {:>7} {:>7} {:>8}",
        "MiB",
        "weights",
        "grads",
        "moments",
        "EMA",
        args.sam.map_or("", |_| "     SAM"),
        "kept",
        "scratch",
        "input",
        "peak"
    );
    text += if args.memory.is_some() { "    fits\n" } else { "\n" };
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    for (row, _) in rows {
        let memory = &row.training_memory;
        text += &format!(
            "{:<width$} {:>7} {:>7} {:>7} {:>6}{} {:>9} {:>7} {:>7} {:>8}",
            row.model,
            mib(memory.weights),
            mib(memory.gradients),
            mib(memory.moments),
            mib(memory.average),
            args.sam.map_or(String::new(), |_| format!(" {:>7}", mib(memory.second_pass))),
            mib(memory.activations),
            mib(memory.scratch),
            mib(memory.input),
            mib(row.peak_bytes),
        );
        text += &row.largest_microbatch.map_or("\n".to_owned(), |n| format!(" {n:>7}\n"));
    }
    let processes = args.processes.get();
    text += &format!(
        "memory of training in {} on {}, {} examples in a pass\n\
         kept: activations for the backward pass; gradients take their place, so the\n\
         peak is less than the sum; scratch is estimated\n",
        args.precision,
        match args.device {
            KernelsArg::Cpu => "a CPU",
            KernelsArg::Cuda => "an NVIDIA GPU",
        },
        rows.first().map_or(0, |(row, _)| row.microbatch_size),
    );
    if processes > 1 {
        text += &format!(
            "each of {processes} processes: weights, gradients, moments and EMA are in all of them,\n\
             the batch of {} is shared\n",
            args.batch_size
        );
    }
    if args.sam.is_some() {
        text += "SAM: the weights of the second pass, the pixels of the batch, of GSAM the first gradient\n";
    }
    if let Some(memory) = &args.memory {
        let per = if processes > 1 { " of a process" } else { "" };
        text += &format!("fits: the most examples in a pass{per} within {memory}\n");
    }
    text
}

/// A size as it is typed, in bytes.
fn bytes(text: &str) -> Result<u64, TrainError> {
    let refused = || {
        TrainError::usage(format!(
            "`--memory` is `{text}`, expected a number with a unit (MB, MiB, GB, GiB, TB, TiB)"
        ))
        .with_hint("an H100 has `--memory 80GiB`")
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let factor: f64 = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "mib" => f64::from(1 << 20),
        "gib" => f64::from(1 << 30),
        "tib" => 1024.0 * f64::from(1 << 30),
        _ => return Err(refused()),
    };
    let number: f64 = digits.trim().parse().map_err(|_| refused())?;
    let bytes = number * factor;
    if !(1.0..1e18).contains(&bytes) {
        return Err(refused());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, expected) in [
            ("80GiB", 80 << 30),
            ("80 gib", 80 << 30),
            ("24GB", 24_000_000_000),
            ("1.5MiB", 3 << 19),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for text in
            ["", "80", "GiB", "-1GB", "nanGB", "infGB", "0GB", "1e30GB", "8 0GB", "8PB", "8é"]
        {
            let error = bytes(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && !error.contains('\n'), "{error}");
        }
    }
}
