//! Checkpoints: everything that a run needs to go on as if it had never stopped.
//!
//! A checkpoint is a directory that appears whole or not at all: it is written aside, every file and
//! the directory are synced, and then it is renamed. A manifest of sizes and checksums tells a damaged
//! one, which is named and passed over for the one before.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use mixer_model::{HostTensor, Metadata, Mixer, Weights};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::early_stopping::Stagnation;
use crate::error::{CANNOT_WRITE_CHECKPOINT, TrainError};
use crate::evaluation::Evaluation;
use crate::optimizer::{Optimizer, Rule};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";

/// What a run has to remember besides tensors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Updates done. The position in the data follows from it.
    pub step: u64,
    /// Bytes of `metrics.jsonl` that belong to these updates.
    pub metrics_bytes: u64,
    /// Sum of the losses since the last line of metrics.
    pub loss_sum: f64,
    /// Sum of the gradient norms since the last line of metrics.
    pub grad_norm_sum: f64,
    /// Updates since the last line of metrics.
    pub summed_steps: u64,
    /// The best evaluation so far and its update.
    pub best: Option<(u64, Evaluation)>,
    /// The update of the last evaluation that was finished.
    pub evaluated_step: u64,
    /// Examples passed over so far.
    pub skipped: u64,
    /// How long top-1 has not improved; counted only with early stopping.
    #[serde(default)]
    pub stagnation: Stagnation,
}

/// Sizes and SHA-256 checksums by file name.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest(BTreeMap<String, (u64, String)>);

/// A checkpoint in memory.
#[derive(Debug)]
pub struct Checkpoint {
    /// Counters.
    pub state: RunState,
    /// The network's weights.
    pub weights: Weights,
    /// The optimizer's moments, and the averages of the weights where there are some.
    pub moments: BTreeMap<String, HostTensor>,
    /// Updates that the optimizer has counted.
    pub optimizer_step: u64,
}

impl Checkpoint {
    /// Copies a run's state to the host.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the metadata does not fit the network.
    pub fn capture(
        mixer: &Mixer,
        optimizer: &Optimizer,
        state: RunState,
        metadata: Metadata,
    ) -> Result<Checkpoint, TrainError> {
        let (optimizer_step, moments) = optimizer.to_host();
        Ok(Checkpoint { state, weights: mixer.to_weights(metadata)?, moments, optimizer_step })
    }

    /// The optimizer that it holds.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the moments are not those of the rule.
    pub fn optimizer(
        &self,
        rule: Rule,
        ema_decay: Option<f64>,
        device: &burn::tensor::Device,
        path: &Path,
    ) -> Result<Optimizer, TrainError> {
        let (step, state) = (self.optimizer_step, self.moments.clone());
        Optimizer::from_host(rule, ema_decay, step, state, device)
            .map_err(|reason| broken(path, reason))
    }

    /// Writes the checkpoint below `directory` as `step_00000100` and returns where.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] or [`TrainError::Model`] with the file; nothing is left behind and no
    /// older checkpoint is touched.
    pub fn write(&self, directory: &Path) -> Result<PathBuf, TrainError> {
        let name = format!("step_{:08}", self.state.step);
        let path = directory.join(&name);
        let aside = directory.join(format!(".{name}.tmp"));
        let result = self.write_aside(&aside, &path);
        if result.is_err() {
            // The error that is reported is the first one; `prune` removes what is left.
            drop(fs_err::remove_dir_all(&aside));
        }
        result.map(|()| path)
    }

    fn write_aside(&self, aside: &Path, path: &Path) -> Result<(), TrainError> {
        let failed = |source: std::io::Error| cannot_write(path, &source);
        if aside.exists() {
            fs_err::remove_dir_all(aside).map_err(failed)?;
        }
        fs_err::create_dir_all(aside).map_err(failed)?;
        let state = serde_json::to_vec_pretty(&self.state)
            .map_err(|error| broken(path, error.to_string()))?;
        let files = [
            (MODEL, self.weights.to_safetensors_bytes()?),
            (OPTIMIZER, self.moments_bytes(path)?),
            (STATE, state),
        ];
        let mut manifest = Manifest(BTreeMap::new());
        for (name, bytes) in files {
            write_synced(&aside.join(name), &bytes).map_err(failed)?;
            manifest.0.insert(name.to_owned(), (bytes.len() as u64, checksum(&bytes)));
        }
        let manifest = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| broken(path, error.to_string()))?;
        write_synced(&aside.join(MANIFEST), &manifest).map_err(failed)?;
        sync_directory(aside).map_err(failed)?;
        if path.exists() {
            // The same update again, after a resume from an older checkpoint.
            fs_err::remove_dir_all(path).map_err(failed)?;
        }
        fs_err::rename(aside, path).map_err(failed)?;
        if let Some(parent) = path.parent() {
            sync_directory(parent).map_err(failed)?;
        }
        Ok(())
    }

    fn moments_bytes(&self, path: &Path) -> Result<Vec<u8>, TrainError> {
        let raw: BTreeMap<&str, Vec<u8>> = self
            .moments
            .iter()
            .map(|(name, t)| (name.as_str(), t.data.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let mut views = Vec::with_capacity(raw.len());
        for (name, bytes) in &raw {
            let shape = self.moments[*name].shape.clone();
            let view = TensorView::new(Dtype::F32, shape, bytes)
                .map_err(|error| broken(path, error.to_string()))?;
            views.push((*name, view));
        }
        let step = [("step".to_owned(), self.optimizer_step.to_string())];
        safetensors::serialize(views, Some(step.into_iter().collect()))
            .map_err(|error| broken(path, error.to_string()))
    }

    /// Reads a checkpoint and checks it against its manifest.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] that names the damaged file.
    pub fn read(path: &Path) -> Result<Checkpoint, TrainError> {
        let unreadable = |source: std::io::Error| broken(path, source.to_string());
        let manifest = fs_err::read(path.join(MANIFEST)).map_err(unreadable)?;
        let manifest: Manifest = serde_json::from_slice(&manifest)
            .map_err(|error| broken(path, format!("`{MANIFEST}` cannot be parsed: {error}")))?;
        let mut files = BTreeMap::new();
        for name in [MODEL, OPTIMIZER, STATE] {
            let bytes = fs_err::read(path.join(name)).map_err(unreadable)?;
            let Some((size, expected)) = manifest.0.get(name) else {
                return Err(broken(path, format!("`{MANIFEST}` does not list `{name}`")));
            };
            if bytes.len() as u64 != *size {
                let found = bytes.len();
                return Err(broken(path, format!("`{name}` has {found} bytes, expected {size}")));
            }
            if checksum(&bytes) != *expected {
                return Err(broken(path, format!("`{name}` does not have its checksum")));
            }
            files.insert(name, bytes);
        }
        let state = serde_json::from_slice(&files[STATE])
            .map_err(|error| broken(path, format!("`{STATE}` cannot be parsed: {error}")))?;
        let weights = Weights::read(&path.join(MODEL), None)?;
        let (optimizer_step, moments) = read_moments(&files[OPTIMIZER])
            .map_err(|reason| broken(path, format!("`{OPTIMIZER}`: {reason}")))?;
        Ok(Checkpoint { state, weights, moments, optimizer_step })
    }
}

fn read_moments(bytes: &[u8]) -> Result<(u64, BTreeMap<String, HostTensor>), String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let step = header.metadata().as_ref().and_then(|m| m.get("step")).and_then(|s| s.parse().ok());
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut moments = BTreeMap::new();
    for (name, view) in file.iter() {
        let (values, rest) = view.data().as_chunks::<4>();
        if view.dtype() != Dtype::F32 || !rest.is_empty() {
            return Err(format!("`{name}` is not f32"));
        }
        let data = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        moments.insert(name.to_owned(), HostTensor { shape: view.shape().to_vec(), data });
    }
    Ok((step.ok_or("the step is missing")?, moments))
}

/// The checkpoints below a directory, newest first.
///
/// # Errors
/// [`TrainError::Io`] when the directory cannot be listed.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix("step_")).map(str::parse::<u64>);
        if let Some(Ok(step)) = step {
            found.push((step, entry.path()));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The newest checkpoint that is whole; `warn` is told of every damaged one that is passed over.
///
/// # Errors
/// [`TrainError::Io`] when the directory cannot be listed.
pub fn newest(
    directory: &Path,
    mut warn: impl FnMut(&TrainError),
) -> Result<Option<(PathBuf, Checkpoint)>, TrainError> {
    for path in list(directory)? {
        match Checkpoint::read(&path) {
            Ok(checkpoint) => return Ok(Some((path, checkpoint))),
            Err(error) => warn(&error),
        }
    }
    Ok(None)
}

/// Removes all but the newest `keep` checkpoints, and what a killed process was writing.
///
/// # Errors
/// [`TrainError::Io`] when one cannot be removed.
pub fn prune(directory: &Path, keep: usize) -> Result<(), TrainError> {
    for path in list(directory)?.into_iter().skip(keep.max(1)) {
        fs_err::remove_dir_all(path)?;
    }
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(".step_") && name.ends_with(".tmp")) {
            fs_err::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn broken(path: &Path, reason: String) -> TrainError {
    TrainError::Checkpoint { action: "damaged checkpoint", reason, path: path.to_owned() }
}

fn cannot_write(path: &Path, source: &std::io::Error) -> TrainError {
    TrainError::Checkpoint {
        action: CANNOT_WRITE_CHECKPOINT,
        reason: source.to_string(),
        path: path.to_owned(),
    }
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file and waits until it is on disk.
fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs_err::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes names in a directory durable. Only Unix can; elsewhere a rename has to do.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        fs_err::File::open(path)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_survive_json_to_the_last_bit() {
        // serde_json's fast parser is off by one unit in the last place for about one f64 in ten.
        let mut value = 0.1f64;
        for _ in 0..10_000 {
            value = (value * 1.000_731_9 + 1e-3).rem_euclid(7.0);
            let state =
                RunState { loss_sum: value, grad_norm_sum: value / 3.0, ..RunState::default() };
            let text = serde_json::to_vec_pretty(&state).unwrap();
            assert_eq!(serde_json::from_slice::<RunState>(&text).unwrap(), state);
        }
    }
}
