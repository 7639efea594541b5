//! `mixer features`, and the splits that a path names.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use mixer_data::{Source, open_split};
use mixer_model::HostTensor;
use mixer_model::weights::{write_npy, write_tensors};

use super::predict::quoted;
use super::{ClassifierArgs, DeviceArg, target};
use crate::classifier::Classifier;
use crate::disk::atomic;
use crate::error::TrainError;
use crate::look::features::Features;
use crate::show::progress::Progress;

#[derive(Debug, Clone, Args)]
pub(super) struct FeaturesArgs {
    #[command(flatten)]
    classifier: ClassifierArgs,
    /// A split: a folder of classes, a list, or a pattern of shards, with an optional range:
    /// `pets/train[:10%]`.
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// The file to write, .npy or .safetensors; paths and classes go beside it, as .csv. Existing files
    /// are refused.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Examples per batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    #[command(flatten)]
    device: DeviceArg,
}

pub(super) fn run(args: &FeaturesArgs) -> Result<(), TrainError> {
    let ending = args.out.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    let is_npy = match ending.as_deref() {
        Some("npy") => true,
        Some("safetensors") => false,
        _ => {
            let message =
                format!("the ending is not `.npy` or `.safetensors`: {}", args.out.display());
            return Err(TrainError::usage(message));
        }
    };
    let table = args.out.with_extension("csv");
    for path in [&args.out, &table] {
        target::new_file(path, "--out")?;
    }
    let classifier = args.classifier.open(&args.device.open()?)?;
    let source = split_at(&args.data, None, &classifier)?;
    let features = features(&classifier, &source, usize::from(args.batch_size))?;
    let shape = vec![features.labels.len(), features.dim];
    let mut bytes = Vec::new();
    if is_npy {
        write_npy(&mut bytes, &shape, &features.values)?;
    } else {
        let tensor = HostTensor { shape: shape.clone(), data: features.values };
        let tensors = [("features".to_owned(), tensor)].into();
        write_tensors(&mut bytes, &tensors, &Default::default(), |_| false)?;
    }
    let mut csv = b"path,label,class\n".to_vec();
    for (path, &label) in features.paths.iter().zip(&features.labels) {
        let class = source.class_names().get(label as usize).map_or("", String::as_str);
        writeln!(csv, "{},{label},{}", quoted(path), quoted(class))?;
    }
    atomic::write(&table, &csv)?;
    atomic::write(&args.out, &bytes)?;
    super::print(&format!(
        "{} × {} features: {}\npaths and classes: {}",
        shape[0],
        shape[1],
        args.out.display(),
        table.display()
    ))
}

/// Opens the split that a path names: its last part may have a range, or be a pattern of shards.
pub(super) fn split_at(
    path: &Path,
    classes: Option<&[String]>,
    classifier: &Classifier,
) -> Result<Arc<dyn Source>, TrainError> {
    let (root, split) = match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(root), Some(split)) if root.as_os_str().is_empty() => (Path::new("."), split),
        (Some(root), Some(split)) => (root, split),
        _ => (path, "."),
    };
    Ok(open_split(None, root, split, classes, &classifier.decode_options())?)
}

/// The features of a split, with a sign that it works.
pub(super) fn features(
    classifier: &Classifier,
    source: &Arc<dyn Source>,
    batch_size: usize,
) -> Result<Features, TrainError> {
    let mut progress = Progress::new("example", source.len() as u64, 0);
    let features = Features::of(classifier, source, batch_size, |done| {
        progress.update(done);
    });
    progress.finish();
    features
}
