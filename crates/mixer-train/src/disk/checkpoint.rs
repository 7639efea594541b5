//! Checkpoints: everything that a run needs to go on as if it had never stopped.
//!
//! A checkpoint is a directory that appears whole or not at all: it is written aside, every file and
//! the directory are synced, and then it is renamed. A manifest of sizes and checksums tells a damaged
//! one, which is named and passed over for the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use mixer_model::weights::read_tensors;
use mixer_model::{HostTensor, Metadata, Mixer, ModelError, Weights};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::disk::operations::{Disk, LocalDisk, NewFile};
use crate::error::{CheckpointFault, TrainError};
use crate::run::early_stopping::Stagnation;
use crate::run::evaluation::Evaluation;
use crate::run::outliers::Window;
use crate::update::loss_scale::LossScale;
use crate::update::optimizer::{FirstMomentDtype, Optimizer, Rule};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";

/// End of the names of first moments.
const FIRST_MOMENT: &str = ".0";

/// Memory of a run besides its tensors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Updates done. The position in the data follows from it.
    pub step: u64,
    /// Bytes of `metrics.jsonl` that belong to these updates.
    pub metrics_bytes: u64,
    /// Training time of the run, over all its lives, seconds.
    #[serde(default)]
    pub elapsed_secs: f64,
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
    /// Examples passed over so far, in training and in every evaluation.
    pub skipped: u64,
    /// Indices of those of the training split: each counts and is reported once.
    #[serde(default)]
    pub skipped_train: BTreeSet<u64>,
    /// The factor of the loss; absent where it is not scaled.
    #[serde(default)]
    pub loss_scale: Option<LossScale>,
    /// Updates left out because they were not finite.
    #[serde(default)]
    pub diverged: u64,
    /// The last losses and gradient norms.
    #[serde(default)]
    pub windows: Windows,
    /// Evaluations without improvement of top-1; counted only with early stopping.
    #[serde(default)]
    pub stagnation: Stagnation,
}

impl RunState {
    /// Factor of the loss.
    #[must_use]
    pub fn loss_factor(&self) -> f64 {
        self.loss_scale.map_or(1.0, |scale| scale.factor)
    }
}

/// The past that outliers are compared with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// Losses of the last updates.
    pub loss: Window,
    /// Gradient norms of the last updates.
    pub grad_norm: Window,
}

/// Sizes and SHA-256 checksums by file name.
#[derive(Debug, Default, Serialize, Deserialize)]
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
    /// Type that the first moments are written in. A checkpoint that was read has f32, which holds both.
    pub first_moment_dtype: FirstMomentDtype,
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
    ) -> Result<Self, TrainError> {
        let (optimizer_step, moments) = optimizer.to_host();
        let first_moment_dtype = optimizer.first_moment_dtype();
        let weights = mixer.to_weights(metadata)?;
        Ok(Self { state, weights, moments, first_moment_dtype, optimizer_step })
    }

    /// Takes out the optimizer that it holds.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the moments are not those of the rule and of the network.
    pub fn take_optimizer(
        &mut self,
        rule: Rule,
        ema_decay: Option<f64>,
        device: &burn::tensor::Device,
        path: &Path,
    ) -> Result<Optimizer, TrainError> {
        for (name, moment) in &self.moments {
            let network = &self.weights.config;
            let parameter = name.rsplit_once('.').and_then(|(of, _)| network.weights_name(of));
            let parameter = parameter.and_then(|parameter| self.weights.tensors.get(&parameter));
            let expected = parameter.map(|tensor| tensor.data.len());
            if expected != Some(moment.data.len()) {
                let expected = expected.map_or("no such".to_owned(), |len| len.to_string());
                let found = moment.data.len();
                let reason =
                    format!("`{OPTIMIZER}`: `{name}` has {found} values, expected {expected}");
                return Err(broken(path, reason));
            }
        }
        let (step, state) = (self.optimizer_step, std::mem::take(&mut self.moments));
        Optimizer::from_host(rule, ema_decay, step, state, device)
            .map_err(|reason| broken(path, reason))
    }

    /// Writes the checkpoint below `directory` as `step_00000100` and returns where. One that is there
    /// already is left as it is when it is whole and of the same state.
    ///
    /// # Errors
    /// [`TrainError::DivergedAfter`] where something in it is not finite: nobody could go on from it.
    /// [`TrainError::Checkpoint`] or [`TrainError::Model`] with the file; nothing is left behind and no older
    /// checkpoint is touched.
    pub fn write(&self, directory: &Path) -> Result<PathBuf, TrainError> {
        self.write_to(&LocalDisk, directory)
    }

    /// [`Checkpoint::write`] to a disk.
    pub(crate) fn write_to(
        &self,
        disk: &dyn Disk,
        directory: &Path,
    ) -> Result<PathBuf, TrainError> {
        let step = self.state.step;
        self.check_finite().map_err(|found| TrainError::DivergedAfter { found, step })?;
        let path = directory.join(directory_name(step));
        if verify(&path).is_ok() && read_state(&path).is_ok_and(|state| state == self.state) {
            return Ok(path);
        }
        let aside = hidden(&path, "new");
        let result = self.write_aside(disk, &aside, &path);
        if result.is_err() {
            // The error that is reported is the first one; `prune` removes what is left.
            drop(disk.remove_directory(&aside));
        }
        result.map(|()| path)
    }

    /// Refuses weights, moments and averages that are not finite, with the first of them.
    fn check_finite(&self) -> Result<(), String> {
        let of_weights = self.weights.non_finite().into_iter().next();
        let count = |(name, tensor): (_, &HostTensor)| {
            (name, tensor.data.iter().filter(|value| !value.is_finite()).count())
        };
        let of_moments = || {
            let moments = self.moments.iter().map(|(name, tensor)| (name.as_str(), tensor));
            moments.map(count).find(|(_, count)| *count > 0)
        };
        match of_weights.or_else(of_moments) {
            Some((name, count)) => Err(format!("{count} values of `{name}` are not finite")),
            None => Ok(()),
        }
    }

    fn write_aside(&self, disk: &dyn Disk, aside: &Path, path: &Path) -> Result<(), TrainError> {
        let failed = |source: std::io::Error| cannot_write(path, &source);
        if aside.exists() {
            disk.remove_directory(aside).map_err(failed)?;
        }
        disk.create_directory(aside).map_err(failed)?;
        let mut manifest = Manifest::default();
        let mut write =
            |name: &str, content: &dyn Fn(&mut HashedFile) -> Result<(), TrainError>| {
                let file = disk.create_file(&aside.join(name)).map_err(failed)?;
                let mut out = HashedFile::new(file);
                content(&mut out)?;
                manifest.0.insert(name.to_owned(), out.finish().map_err(failed)?);
                Ok::<(), TrainError>(())
            };
        write(MODEL, &|out| match self.weights.write_safetensors_to(out) {
            Err(ModelError::Io { source }) => Err(failed(source)),
            result => Ok(result?),
        })?;
        write(OPTIMIZER, &|out| {
            let step = BTreeMap::from([("step", self.optimizer_step.to_string())]);
            let is_bf16 = self.first_moment_dtype == FirstMomentDtype::Bf16;
            let in_bf16 = |name: &str| is_bf16 && name.ends_with(FIRST_MOMENT);
            mixer_model::weights::write_tensors(out, &self.moments, &step, in_bf16).map_err(failed)
        })?;
        write(STATE, &|out| {
            serde_json::to_writer_pretty(out, &self.state).map_err(|error| failed(error.into()))
        })?;
        let manifest =
            serde_json::to_vec_pretty(&manifest).map_err(|error| failed(error.into()))?;
        let mut file = disk.create_file(&aside.join(MANIFEST)).map_err(failed)?;
        file.write_all(&manifest).and_then(|()| file.sync()).map_err(failed)?;
        drop(file);
        disk.sync_directory(aside).map_err(failed)?;
        if path.exists() {
            // A damaged one, or one from before the evaluation of this update. It goes only when the new
            // one is in its place; a kill between the two renames is made good by `recover`.
            let old = hidden(path, "old");
            if old.exists() {
                disk.remove_directory(&old).map_err(failed)?;
            }
            disk.rename(path, &old).map_err(failed)?;
        }
        disk.rename(aside, path).map_err(failed)?;
        match path.parent() {
            Some(parent) => disk.sync_directory(parent).map_err(failed),
            None => Ok(()),
        }
    }

    /// Reads a checkpoint and checks it against its manifest. One with values that are not finite, as older
    /// versions wrote them, counts as damaged.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] that names the damaged file.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        verify(path)?;
        let state = read_state(path)?;
        if let Some(step) = step_of(path).filter(|step| *step != state.step) {
            let found = state.step;
            return Err(broken(path, format!("`{STATE}` is of step {found}, expected {step}")));
        }
        let weights = Weights::read(&path.join(MODEL), None)?;
        let (optimizer_step, moments) = read_moments(&path.join(OPTIMIZER))
            .map_err(|reason| broken(path, format!("`{OPTIMIZER}`: {reason}")))?;
        let first_moment_dtype = FirstMomentDtype::F32;
        let read = Self { state, weights, moments, first_moment_dtype, optimizer_step };
        read.check_finite().map_err(|found| broken(path, found))?;
        Ok(read)
    }
}

/// Compares every file of a checkpoint with its size and checksum in the manifest. Nothing is parsed but
/// the manifest.
///
/// # Errors
/// [`TrainError::Checkpoint`] that names the damaged file.
pub fn verify(path: &Path) -> Result<(), TrainError> {
    let unreadable = |source: std::io::Error| broken(path, source.to_string());
    let mut manifest = Vec::new();
    let file = fs::File::open(path.join(MANIFEST)).map_err(unreadable)?;
    file.take(MAX_MANIFEST_BYTES).read_to_end(&mut manifest).map_err(unreadable)?;
    let manifest: Manifest = serde_json::from_slice(&manifest)
        .map_err(|error| broken(path, format!("`{MANIFEST}` cannot be parsed: {error}")))?;
    for name in [MODEL, OPTIMIZER, STATE] {
        let Some((size, expected)) = manifest.0.get(name) else {
            return Err(broken(path, format!("`{MANIFEST}` does not list `{name}`")));
        };
        let file = fs::File::open(path.join(name)).map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?.len();
        if found != *size {
            return Err(broken(path, format!("`{name}` has {found} bytes, expected {size}")));
        }
        // A device has no size, and no end.
        let mut file = file.take(*size);
        let mut hash = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match file.read(&mut buffer).map_err(unreadable)? {
                0 => break,
                read => hash.update(&buffer[..read]),
            }
        }
        if hexadecimal(hash) != *expected {
            return Err(broken(path, format!("`{name}` does not have its checksum")));
        }
    }
    Ok(())
}

fn read_state(path: &Path) -> Result<RunState, TrainError> {
    let state = fs::read(path.join(STATE)).map_err(|source| broken(path, source.to_string()))?;
    serde_json::from_slice(&state)
        .map_err(|error| broken(path, format!("`{STATE}` cannot be parsed: {error}")))
}

fn read_moments(path: &Path) -> Result<(u64, BTreeMap<String, HostTensor>), String> {
    let (moments, metadata) = read_tensors(path).map_err(|error| match error {
        ModelError::Unreadable { reason, .. } => reason,
        error => error.to_string(),
    })?;
    let step = metadata.get("step").and_then(|step| step.parse().ok());
    Ok((step.ok_or("the step is missing")?, moments))
}

/// The name of the checkpoint of an update.
#[must_use]
pub fn directory_name(step: u64) -> String {
    format!("step_{step:08}")
}

/// The update that a checkpoint is of, by its name.
#[must_use]
pub fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step_")?.parse().ok()
}

/// The checkpoints below a directory, newest first.
///
/// # Errors
/// [`TrainError::Io`] when the directory cannot be listed.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let entries = match fs::read_dir(directory) {
        // Anything else must not look like a run that has none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(step) = step_of(&path) {
            found.push((step, path));
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

/// Gives the checkpoints their names that were written to their end by a process that was killed then. For
/// who holds the lock, before they are listed.
pub(crate) fn recover(directory: &Path) -> Result<(), TrainError> {
    if !directory.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let aside = entry?.path();
        let name = aside.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| name.strip_prefix('.')?.strip_suffix(".new.tmp"));
        if let Some(path) = name.map(|name| directory.join(name))
            && !path.exists()
            && verify(&aside).is_ok()
        {
            fs::rename(&aside, &path)?;
        }
    }
    Ok(())
}

/// A name beside `path` that [`list`] does not see and [`is_leftover`] does.
pub(crate) fn hidden(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}.tmp"))
}

/// `true` for what a killed process was writing or removing.
pub(crate) fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(".step_") && name.ends_with(".tmp"))
}

/// More than any manifest has.
const MAX_MANIFEST_BYTES: u64 = 64 << 10;

/// Bytes read or written at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// A file that is being written, with its size and checksum so far.
struct HashedFile {
    file: BufWriter<Box<dyn NewFile>>,
    hash: Sha256,
    bytes: u64,
}

impl HashedFile {
    fn new(file: Box<dyn NewFile>) -> Self {
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Self { file, hash: Sha256::new(), bytes: 0 }
    }

    /// Waits until it is on disk.
    fn finish(mut self) -> std::io::Result<(u64, String)> {
        self.file.flush()?;
        self.file.get_mut().sync()?;
        Ok((self.bytes, hexadecimal(self.hash)))
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

pub(crate) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn broken(path: &Path, reason: String) -> TrainError {
    TrainError::checkpoint(CheckpointFault::Damaged, reason, path)
}

fn cannot_write(path: &Path, source: &std::io::Error) -> TrainError {
    TrainError::checkpoint(CheckpointFault::CannotWrite, source.to_string(), path)
}

#[cfg(test)]
mod tests {
    use std::io::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, LazyLock};

    use mixer_model::{Gelu, MixerConfig, init};

    use super::*;
    use crate::disk::retention::{Pruner, Retention};

    /// A disk whose operation number `fails` gives the error `errno`.
    #[derive(Clone)]
    struct FaultyDisk {
        done: Arc<AtomicUsize>,
        fails: usize,
        errno: i32,
    }

    struct FaultyFile(Box<dyn NewFile>, FaultyDisk);

    impl FaultyDisk {
        fn step(&self) -> std::io::Result<()> {
            match self.done.fetch_add(1, Ordering::SeqCst) == self.fails {
                true => Err(Error::from_raw_os_error(self.errno)),
                false => Ok(()),
            }
        }
    }

    impl Disk for FaultyDisk {
        fn create_directory(&self, path: &Path) -> std::io::Result<()> {
            self.step().and_then(|()| LocalDisk.create_directory(path))
        }

        fn create_file(&self, path: &Path) -> std::io::Result<Box<dyn NewFile>> {
            self.step()?;
            Ok(Box::new(FaultyFile(LocalDisk.create_file(path)?, self.clone())))
        }

        fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
            self.step().and_then(|()| LocalDisk.rename(from, to))
        }

        fn remove_directory(&self, path: &Path) -> std::io::Result<()> {
            self.step().and_then(|()| LocalDisk.remove_directory(path))
        }

        fn sync_directory(&self, path: &Path) -> std::io::Result<()> {
            self.step().and_then(|()| LocalDisk.sync_directory(path))
        }
    }

    impl Write for FaultyFile {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1.step().and_then(|()| self.0.write(bytes))
        }

        fn flush(&mut self) -> std::io::Result<()> {
            self.0.flush()
        }
    }

    impl NewFile for FaultyFile {
        fn sync(&mut self) -> std::io::Result<()> {
            self.1.step().and_then(|()| self.0.sync())
        }
    }

    /// A network of some 1.5 MB, so that its file takes several writes.
    static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| {
        let config = MixerConfig {
            image_size: 16,
            patch_size: 4,
            hidden_dim: 128,
            tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 64 },
            channels_mlp_dim: 512,
            num_blocks: 2,
            num_classes: 10,
            gelu: Gelu::Tanh,
        };
        init::weights(&config, 0, 0.0).unwrap()
    });

    fn checkpoint(step: u64) -> Checkpoint {
        let weights = WEIGHTS.clone();
        let moments = BTreeMap::from([("stem.0".to_owned(), HostTensor::filled(&[999], 1.0))]);
        let state = RunState { step, ..RunState::default() };
        let first_moment_dtype = FirstMomentDtype::F32;
        Checkpoint { state, weights, moments, first_moment_dtype, optimizer_step: step }
    }

    /// Writes and prunes as the thread does that writes.
    fn save(disk: &dyn Disk, directory: &Path, step: u64) -> Result<(), TrainError> {
        let path = checkpoint(step).write_to(disk, directory)?;
        verify(&path)?;
        let retention = Retention { newest: 2, every_steps: None, best: false };
        Pruner::new(retention).prune(disk, directory, &path, None)
    }

    fn whole(directory: &Path) -> Vec<u64> {
        let found = list(directory).unwrap();
        found.iter().filter(|path| verify(path).is_ok()).filter_map(|path| step_of(path)).collect()
    }

    #[test]
    fn whatever_operation_fails_no_whole_checkpoint_is_lost() {
        const ENOSPC: i32 = 28;
        const EIO: i32 = 5;
        const EACCES: i32 = 13;
        for errno in [ENOSPC, EIO, EACCES] {
            let mut fails = 0;
            loop {
                let directory = tempfile::tempdir().unwrap();
                let directory = directory.path();
                save(&LocalDisk, directory, 1).unwrap();
                save(&LocalDisk, directory, 2).unwrap();
                let disk = FaultyDisk { done: Arc::default(), fails, errno };
                let result = save(&disk, directory, 3);
                let left = whole(directory);
                if disk.done.load(Ordering::SeqCst) <= fails {
                    // It got by without the operation that would have failed.
                    result.unwrap();
                    assert_eq!(left, [3, 2]);
                    break;
                }
                // The first operation may fail and be made good: the removal of what a failure left.
                let is_error = result.is_err();
                assert!(left.ends_with(&[2, 1]) || left == [3, 2], "operation {fails}: {left:?}");
                // Removing the oldest may fail, and is tried again the next time.
                assert!(is_error || left[0] == 3, "operation {fails}: an error is not told");
                let listed: Vec<u64> =
                    list(directory).unwrap().iter().filter_map(|path| step_of(path)).collect();
                assert_eq!(listed, left, "operation {fails}: a part of a checkpoint is in sight");
                recover(directory).unwrap();
                let (newest, _) = newest(directory, |_| ()).unwrap().unwrap();
                assert_eq!(step_of(&newest), left.first().copied());
                // The next one finds no obstacle, and tidies up.
                save(&LocalDisk, directory, 4).unwrap();
                assert_eq!(whole(directory), [4, if left[0] == 3 { 3 } else { 2 }]);
                let leftovers = std::fs::read_dir(directory).unwrap().count() - 2;
                assert_eq!(leftovers, 0, "operation {fails}");
                fails += 1;
            }
            assert!(fails > 15, "{fails} operations");
        }
    }

    #[test]
    fn a_checkpoint_that_only_lacks_its_name_is_found() {
        let directory = tempfile::tempdir().unwrap();
        checkpoint(1).write(directory.path()).unwrap();
        let path = checkpoint(2).write(directory.path()).unwrap();
        // As a kill leaves them between the renames, and in the middle of writing.
        std::fs::rename(&path, hidden(&path, "new")).unwrap();
        let half = directory.path().join(".step_00000003.new.tmp");
        std::fs::create_dir(&half).unwrap();
        std::fs::copy(hidden(&path, "new").join(MODEL), half.join(MODEL)).unwrap();
        recover(directory.path()).unwrap();
        let (found, read) = newest(directory.path(), |_| ()).unwrap().unwrap();
        assert_eq!((found, read.state.step), (path, 2));
        assert_eq!(whole(directory.path()), [2, 1]);
    }

    #[test]
    fn what_was_just_written_stays_whatever_else_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        // Whole by its checksums, but of no use to this version of the program.
        save(&LocalDisk, directory, 90).unwrap();
        save(&LocalDisk, directory, 80).unwrap();
        save(&LocalDisk, directory, 10).unwrap();
        assert_eq!(whole(directory), [90, 80, 10]);
    }

    #[test]
    fn a_best_loss_that_is_not_finite_can_be_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut bad = checkpoint(5);
        let evaluation = Evaluation { loss: f64::NAN, top1: 0.5, top5: 0.5, n: 2 };
        bad.state.best = Some((5, evaluation));
        let path = bad.write(directory.path()).unwrap();
        let (step, best) = Checkpoint::read(&path).unwrap().state.best.unwrap();
        assert!(step == 5 && best.loss.is_nan() && best.top1 == 0.5);
    }

    #[test]
    fn what_is_not_finite_is_never_written_and_never_gone_on_from() {
        let directory = tempfile::tempdir().unwrap();
        let sound = checkpoint(5).write(directory.path()).unwrap();
        let (mut weights, mut moments) = (checkpoint(6), checkpoint(6));
        let last = weights.weights.tensors.values_mut().last().unwrap();
        last.data[3] = f32::INFINITY;
        moments.moments.insert("stem.1".to_owned(), HostTensor::filled(&[2], f32::NAN));
        for (bad, what) in [(weights, "1 values of `stem.proj.weight`"), (moments, "`stem.1`")] {
            let error = bad.write(directory.path()).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
            assert_eq!(error.exit_code(), 6);
            assert_eq!(list(directory.path()).unwrap(), [sound.as_path()]);
            // As a version wrote it that did not look.
            let path = directory.path().join(directory_name(6));
            bad.write_aside(&LocalDisk, &hidden(&path, "new"), &path).unwrap();
            verify(&path).unwrap();
            let mut warnings = Vec::new();
            let found = newest(directory.path(), |error| warnings.push(error.to_string()));
            assert_eq!(found.unwrap().unwrap().0, sound);
            assert!(warnings[0].contains("are not finite"), "{warnings:?}");
            std::fs::remove_dir_all(path).unwrap();
        }
    }

    #[test]
    fn a_whole_checkpoint_of_the_same_update_stays_and_a_damaged_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = checkpoint(7).write(directory.path()).unwrap();
        let manifest = path.join(MANIFEST);
        let written = std::fs::metadata(&manifest).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        checkpoint(7).write(directory.path()).unwrap();
        assert_eq!(std::fs::metadata(&manifest).unwrap().modified().unwrap(), written);
        std::fs::write(path.join(STATE), "{}").unwrap();
        assert!(verify(&path).is_err());
        checkpoint(7).write(directory.path()).unwrap();
        verify(&path).unwrap();
        // As after the evaluation that was interrupted the first time.
        let mut evaluated = checkpoint(7);
        evaluated.state.evaluated_step = 7;
        evaluated.write(directory.path()).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap().state, evaluated.state);
    }

    #[test]
    fn every_damage_is_found_and_names_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = checkpoint(7).write(directory.path()).unwrap();
        for name in [MODEL, OPTIMIZER, STATE, MANIFEST] {
            let file = path.join(name);
            let good = std::fs::read(&file).unwrap();
            let mut tries: Vec<Option<Vec<u8>>> = vec![None];
            for at in (0..good.len()).step_by(good.len() / 50 + 1) {
                let mut flipped = good.clone();
                flipped[at] ^= 1 << (at % 8);
                tries.push(Some(flipped));
                tries.push(Some(good[..at].to_vec()));
            }
            tries.push(Some([&good[..], b"}"].concat()));
            for bad in tries {
                match &bad {
                    Some(bad) => std::fs::write(&file, bad).unwrap(),
                    None => std::fs::remove_file(&file).unwrap(),
                }
                let error = match verify(&path) {
                    Err(error) => error.to_string(),
                    // A changed space between the words of the manifest says the same.
                    Ok(_) => {
                        assert_eq!(name, MANIFEST);
                        continue;
                    }
                };
                // A manifest that is read but says something else blames the file that it is about.
                assert!(name == MANIFEST || error.contains(name), "{name}: {error}");
                assert!(!error.contains('\n'), "{error}");
            }
            std::fs::write(&file, good).unwrap();
        }
        verify(&path).unwrap();
    }

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
