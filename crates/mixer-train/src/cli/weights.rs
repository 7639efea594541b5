//! `mixer weights inspect|verify|convert|export|resize`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use fs_err as fs;
use mixer_model::weights::OnnxInput;
use mixer_model::{Gelu, MixerConfig, Weights};
use serde::Serialize;
use serde_json::Value;

use super::{Format, WeightsArg, target};
use crate::disk::checkpoint::{self, Checkpoint};
use crate::disk::run_dir::{self, RunDir, SWEEP_REPORT};
use crate::error::{CheckpointFault, TrainError};
use crate::look::model_card::{Origin, model_card};
use crate::show::progress::say;
use crate::show::visible::visible;

#[derive(Debug, Subcommand)]
pub(super) enum WeightsCommand {
    /// List what is in a weights file, whatever network it is of.
    Inspect {
        /// A run directory, or a .safetensors, .npz or .pth file.
        weights: PathBuf,
        /// Form of the result.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Check weights files, checkpoints and whole run directories, and name what is damaged.
    ///
    /// Checkpoints are compared with the checksums in their manifest; weights are read, fitted into their
    /// network and searched for values that are not finite. Exit code 5 when anything is damaged.
    Verify {
        /// Run directories, checkpoints, or .safetensors, .npz or .pth files.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Write weights as safetensors with timm's names and layouts, and all that is known of them; or, for
    /// the official JAX code, as .npz with its names and layouts.
    Convert {
        #[command(flatten)]
        weights: WeightsArg,
        #[command(flatten)]
        out: OutArg,
    },
    /// Write what another program loads, with classes and preparation of pictures: a folder for timm, a file
    /// for ONNX.
    #[command(after_help = "Examples: mixer weights export runs/pets pets_timm --to timm; \
                            mixer weights export runs/pets pets.onnx --to onnx")]
    Export(ExportArgs),
    /// Change the resolution: exactly for a multiple of the present one, by interpolation otherwise.
    Resize {
        #[command(flatten)]
        weights: WeightsArg,
        /// The new side of the input, px.
        #[arg(long, value_name = "PX")]
        image_size: usize,
        #[command(flatten)]
        out: OutArg,
    },
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    weights: WeightsArg,
    /// The folder or the file to make; an existing one is refused.
    #[arg(value_name = "OUT", required_unless_present = "out")]
    target: Option<PathBuf>,
    /// The same, by name.
    #[arg(long, value_name = "OUT", conflicts_with = "target")]
    out: Option<PathBuf>,
    /// The program that loads it.
    #[arg(long, value_enum)]
    to: Program,
    /// With ONNX: normalise in the model, whose input is then red, green and blue from 0 to 255.
    #[arg(long)]
    pixels: bool,
}

/// A program that loads weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Program {
    /// PyTorch Image Models: `timm.create_model('local-dir:OUT', pretrained=True)`.
    Timm,
    /// Whatever runs ONNX models: opset 17, f32, any number of pictures at once.
    Onnx,
}

#[derive(Debug, Clone, Args)]
pub(super) struct OutArg {
    /// The file to write, .safetensors or .npz; an existing one is refused.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl OutArg {
    /// The format that the ending of the file says.
    fn format(&self) -> Result<OutFormat, TrainError> {
        let ending = self.out.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("safetensors") => Ok(OutFormat::Safetensors),
            Some("npz") => Ok(OutFormat::Npz),
            found => {
                let found = found.map_or_else(|| "no ending".to_owned(), |e| format!("`.{e}`"));
                let message =
                    format!("{found}, expected `.safetensors` or `.npz`: {}", self.out.display());
                let hint = "for PyTorch, `safetensors.torch.load_file` reads a `.safetensors` file; for timm, \
                            `mixer weights export WEIGHTS DIR --to timm` writes a folder";
                Err(TrainError::usage(message).with_hint(hint))
            }
        }
    }

    /// Finds out before the work whether its result can be written.
    fn check(&self) -> Result<(), TrainError> {
        self.format()?;
        target::new_file(&self.out, "--out")
    }
}

/// A format that weights are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutFormat {
    Safetensors,
    Npz,
}

pub(super) fn run(command: WeightsCommand) -> Result<(), TrainError> {
    match command {
        WeightsCommand::Inspect { weights, format } => {
            inspect(&run_dir::weights_file(&weights)?, format)
        }
        WeightsCommand::Verify { paths } => verify(&paths),
        WeightsCommand::Convert { weights, out } => {
            out.check()?;
            write(&weights.read()?, &out)
        }
        WeightsCommand::Export(args) => export(&args),
        WeightsCommand::Resize { weights, image_size, out } => {
            out.check()?;
            let resized = weights.read()?.resized(image_size)?;
            if let Some(how) = resized.metadata.provenance.get("resolution") {
                // Of other networks it is positions, or nothing.
                let is_mixer = resized.config.tokens.mlp_dim().is_some();
                let changed = if is_mixer { "token mixing" } else { "weights" };
                say(format_args!("{changed}: {how}"));
            }
            write(&resized, &out)
        }
    }
}

fn export(args: &ExportArgs) -> Result<(), TrainError> {
    let Some(out) = args.target.as_ref().or(args.out.as_ref()) else {
        return Err(TrainError::usage("`OUT` is missing"));
    };
    if args.pixels && args.to != Program::Onnx {
        return Err(TrainError::usage("`--pixels` has no effect without `--to onnx`"));
    }
    match args.to {
        Program::Timm => target::new_folder(out, "--out")?,
        Program::Onnx => target::new_file(out, "--out")?,
    }
    let weights = args.weights.read()?;
    let without_classes = weights.metadata.classes.is_none();
    match args.to {
        Program::Timm => {
            let origin = Origin::of(&args.weights.weights).unwrap_or_else(|error| {
                say(format_args!("note: the card has no results: {error}"));
                None
            });
            weights.write_timm_folder(out, |file| model_card(&weights, origin.as_ref(), file))?;
            say(format_args!("{} for timm written: {}", weights.config, out.display()));
            say_order_is_inside(&weights);
            if without_classes {
                say("note: these weights name no classes, so there is no `class_map.txt`");
            }
            say(format_args!("how to use it: {}", out.join("README.md").display()));
        }
        Program::Onnx => {
            let input = if args.pixels { OnnxInput::Pixels } else { OnnxInput::Normalised };
            weights.write_onnx(out, input)?;
            say(format_args!("{} for ONNX written: {}", weights.config, out.display()));
            if !weights.shuffle().is_none() {
                say(format_args!(
                    "note: the model shuffles pictures by itself ({})",
                    weights.shuffle()
                ));
            }
            if without_classes {
                say("note: these weights name no classes, so the model names none");
            }
        }
    }
    Ok(())
}

/// Says that a file for those who do not shuffle pictures is for pictures as they are.
fn say_order_is_inside(weights: &Weights) {
    if !weights.shuffle().is_none() {
        say(format_args!(
            "note: these weights were trained with shuffled {}; what is written takes pictures as they are",
            weights.shuffle()
        ));
    }
}

fn write(weights: &Weights, out: &OutArg) -> Result<(), TrainError> {
    match out.format()? {
        OutFormat::Safetensors => weights.write_safetensors(&out.out)?,
        OutFormat::Npz => {
            weights.write_npz(&out.out)?;
            say("note: `.npz` holds no class names and no preprocessing");
            say_order_is_inside(weights);
            if weights.config.gelu != Gelu::Tanh {
                say(format_args!(
                    "note: these weights are for GELU {}; a reader of `.npz` takes tanh, mixer too without \
                     `--gelu {0}`",
                    weights.config.gelu
                ));
            }
        }
    }
    say(format_args!("{} written: {}", weights.config, out.out.display()));
    Ok(())
}

/// Prints a line for each thing that was checked.
fn verify(paths: &[PathBuf]) -> Result<(), TrainError> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(parts(path)?);
    }
    let mut damaged = Vec::new();
    for file in &files {
        match check(file) {
            Ok(what) => {
                let file = file.display().to_string();
                super::print(&format!("whole    {}: {what}", visible(&file)))?;
            }
            // A run that is under way has removed it meanwhile.
            Err(_) if !file.exists() && !paths.contains(file) => {}
            Err(error) => {
                super::print(&format!("damaged  {}", visible(&error.to_string())))?;
                damaged.push(file);
            }
        }
    }
    let Some(first) = damaged.first() else { return Ok(()) };
    let reason = format!("{} of {} are damaged, the first", damaged.len(), files.len());
    Err(TrainError::checkpoint(CheckpointFault::Verified, reason, *first))
}

/// The files to check: everything in a run directory, or the path itself.
fn parts(path: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let run = RunDir::new(path);
    if !run.exists() && path.join(SWEEP_REPORT).is_file() {
        let mut members: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(path)? {
            members.push(entry?.path());
        }
        members.retain(|member| RunDir::new(member).exists());
        members.sort();
        let parts: Result<Vec<_>, _> = members.iter().map(|member| parts(member)).collect();
        return Ok(parts?.concat());
    }
    if !run.exists() {
        return Ok(vec![path.to_owned()]);
    }
    let mut parts = checkpoint::list(&run.checkpoints())?;
    parts.reverse();
    let weights = [run.best(), run.last(), run.last_unaveraged()];
    parts.extend(weights.into_iter().filter(|file| file.exists()));
    if parts.is_empty() {
        let message = "the run has neither checkpoints nor weights yet";
        return Err(TrainError::run_dir(message, path));
    }
    Ok(parts)
}

/// Reads a checkpoint or a weights file, and says what it is.
fn check(path: &Path) -> Result<String, TrainError> {
    if path.is_dir() {
        let checkpoint = Checkpoint::read(path)?;
        return Ok(format!("checkpoint of step {}", checkpoint.state.step));
    }
    let weights = Weights::read(path, None)?;
    if let Some((name, count)) = weights.non_finite().into_iter().next() {
        let reason = format!("{count} values of `{name}`, and perhaps others");
        return Err(TrainError::checkpoint(CheckpointFault::NotFinite, reason, path));
    }
    Ok(weights.config.to_string())
}

/// The listing of a weights file; its JSON form is part of the interface.
#[derive(Debug, Serialize)]
struct Listing<'a> {
    /// Absent where the file holds no Mixer.
    architecture: Option<&'a MixerConfig>,
    /// The reason why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    format: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    tensors: Vec<Listed<'a>>,
    metadata: &'a BTreeMap<String, String>,
}

/// A tensor in a listing.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: &'a str,
    dtype: &'a str,
    shape: &'a [usize],
    /// Values that are NaN or infinite; `null` where the type has none.
    non_finite: Option<usize>,
}

/// An entry of the metadata; of an object in JSON, each value that is in it.
fn parts_of_metadata(key: &str, value: &str) -> Vec<(String, String)> {
    let Ok(object @ Value::Object(_)) = serde_json::from_str(value) else {
        return vec![(key.to_owned(), value.to_owned())];
    };
    let (mut parts, mut left) = (Vec::new(), vec![(key.to_owned(), object)]);
    while let Some((key, value)) = left.pop() {
        match value {
            Value::Object(entries) => {
                left.extend(
                    entries.into_iter().rev().map(|(name, v)| (format!("{key}.{name}"), v)),
                );
            }
            Value::String(text) => parts.push((key, text)),
            other => parts.push((key, other.to_string())),
        }
    }
    parts
}

/// A line that is cut where a terminal ends; the JSON has all of it.
fn one_line(text: &str) -> String {
    const WIDTH: usize = 80;
    if text.chars().count() <= WIDTH {
        return format!("{text}\n");
    }
    format!("{}…\n", text.chars().take(WIDTH - 1).collect::<String>())
}

fn inspect(path: &Path, format: Format) -> Result<(), TrainError> {
    let info = Weights::file_info(path)?;
    if format == Format::Json {
        let tensors = info.tensors.iter().zip(&info.non_finite);
        return super::print_json(&Listing {
            architecture: info.architecture.as_ref().ok(),
            reason: info.architecture.as_ref().err().map(ToString::to_string),
            format: info.format.to_string(),
            note: info.note.as_deref(),
            tensors: tensors
                .map(|(tensor, non_finite)| Listed {
                    name: &tensor.name,
                    dtype: &tensor.dtype,
                    shape: &tensor.shape,
                    non_finite: *non_finite,
                })
                .collect(),
            metadata: &info.metadata,
        });
    }
    let mut text = match &info.architecture {
        Ok(config) if config.has_tokens() => {
            format!("architecture: {config}, gelu {}\n", config.gelu)
        }
        Ok(config) => format!("architecture: {config}\n"),
        Err(error) => format!("architecture: {}\n", visible(&error.to_string())),
    };
    text += &format!("format: {}\n", info.format);
    if let Some(note) = &info.note {
        text += &format!("note: {}\n", visible(note));
    }
    let width = info.tensors.iter().map(|tensor| visible(&tensor.name).chars().count()).max();
    let width = width.unwrap_or(0).min(60);
    let mut total = 0usize;
    let mut broken = 0;
    let mut lines = String::new();
    for (tensor, non_finite) in info.tensors.iter().zip(&info.non_finite) {
        let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
        total =
            total.saturating_add(tensor.shape.iter().fold(1, |n, &size| n.saturating_mul(size)));
        let note = match non_finite {
            Some(count) if *count > 0 => {
                broken += count;
                format!("  {count} values are not finite")
            }
            _ => String::new(),
        };
        lines += &format!(
            "{:<width$} {:<4} [{}]{note}\n",
            visible(&tensor.name),
            visible(&tensor.dtype),
            shape.join(", ")
        );
    }
    text += &format!("{} tensors, {total} values", info.tensors.len());
    if broken > 0 {
        text += &format!(", {broken} of them not finite");
    }
    text += "\n";
    for (key, value) in &info.metadata {
        for (key, value) in parts_of_metadata(key, value) {
            text += &one_line(&format!("metadata.{}: {}", visible(&key), visible(&value)));
        }
    }
    super::print(&(text + &lines))
}
