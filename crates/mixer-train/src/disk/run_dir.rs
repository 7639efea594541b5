//! A run on disk: which file is where, and whose directory it is.

use std::fs::TryLockError;
use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mixer_model::{Metadata, Weights};

use crate::config::RunConfig;
use crate::disk::atomic;
use crate::disk::environment::{self, Environment};
use crate::error::{CheckpointFault, TrainError};
use crate::plan::RunPlan;
use crate::show::progress::say;

/// The comparison of a sweep, in the directory above those of its members.
pub const SWEEP_REPORT: &str = "sweep.json";

/// Locked while a process trains here.
const LOCK: &str = "run.lock";

/// A run directory.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Names a run directory; nothing is touched.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration as typed, with overrides.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// Every value resolved.
    #[must_use]
    pub fn plan(&self) -> PathBuf {
        self.path.join("plan.toml")
    }

    /// Origin of the run.
    #[must_use]
    pub fn environment(&self) -> PathBuf {
        self.path.join("environment.json")
    }

    /// The folder of event files, for TensorBoard.
    #[must_use]
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Folder of an update that was not finite.
    #[must_use]
    pub fn divergence(&self) -> PathBuf {
        self.path.join("divergence")
    }

    /// Weights of the best evaluation.
    #[must_use]
    pub fn best(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// Weights of the last update; their moving average where one is kept.
    #[must_use]
    pub fn last(&self) -> PathBuf {
        self.path.join("final.safetensors")
    }

    /// Weights of the last update themselves, where a moving average is kept.
    #[must_use]
    pub fn last_unaveraged(&self) -> PathBuf {
        self.path.join("final_unaveraged.safetensors")
    }

    /// `true` where a run was started here.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.plan().exists()
    }

    /// Keeps other processes from training here for as long as the file lives; the operating system
    /// lets go of it when this process ends in whatever way. It holds who has it, for people to read.
    ///
    /// # Errors
    /// [`TrainError::RunDir`] when another process trains here, with its number, and [`TrainError::Checkpoint`]
    /// when the directory cannot be written to.
    pub fn lock(&self) -> Result<std::fs::File, TrainError> {
        let path = self.path.join(LOCK);
        // Not of `fs_err`, whose errors name the path: these do it once, and have the words of the system.
        let cannot_write = |error: std::io::Error| {
            TrainError::checkpoint(CheckpointFault::CannotWriteRunDir, error.to_string(), &path)
        };
        let mut options = std::fs::OpenOptions::new();
        let open = options.create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.map_err(cannot_write)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    holder => holder.to_owned(),
                };
                let message = format!("{holder} is training in the run directory");
                return Err(TrainError::run_dir(message, &self.path)
                    .with_hint("wait for it, or choose another one with `--run-dir`"));
            }
            // Some network file systems cannot lock; there it has to do without.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let on = environment::host().map_or(String::new(), |host| format!(" on {host}"));
        let written =
            file.set_len(0).and_then(|()| writeln!(file, "process {}{on}", std::process::id()));
        written.map_err(cannot_write)?;
        Ok(file)
    }

    /// `true` where a process trains here.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        let Ok(file) = fs::File::open(self.path.join(LOCK)) else { return false };
        // It is let go of at once, with the file.
        matches!(file.file().try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Makes the directory for a new run, locks it, and writes its configuration, plan and environment.
    ///
    /// # Errors
    /// [`TrainError::RunDir`] when something else is there, [`TrainError::Checkpoint`] or [`TrainError::Io`]
    /// when it cannot be made or written to.
    pub fn create(
        &self,
        config_text: &str,
        plan: &RunPlan,
        environment: &Environment,
    ) -> Result<std::fs::File, TrainError> {
        let refused = |message: String| {
            TrainError::run_dir(message, &self.path)
                .with_hint("choose another one with `--run-dir`")
        };
        let just_started = || {
            TrainError::run_dir("another process has just started a run here", &self.path)
                .with_hint("run the same command again to continue it")
        };
        if self.path.exists() && !self.path.is_dir() {
            return Err(refused("found a file, expected a run directory or nothing".to_owned()));
        }
        if self.exists() {
            return Err(just_started());
        }
        if self.path.is_dir() {
            for entry in fs::read_dir(&self.path)? {
                let path = entry?.path();
                if !self.is_left_by_a_start(&path) {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    return Err(refused(format!("the directory holds `{name}` but no run")));
                }
            }
        }
        std::fs::create_dir_all(&self.path).map_err(|error| {
            let (fault, reason) = (CheckpointFault::CannotMakeRunDir, error.to_string());
            TrainError::checkpoint(fault, reason, &self.path)
        })?;
        let lock = self.lock()?;
        if self.exists() {
            return Err(just_started());
        }
        fs::create_dir_all(self.checkpoints())?;
        self.write_origin(config_text, plan, environment)?;
        Ok(lock)
    }

    /// Makes the directory that of a new run, where no update of the old one was saved: what there is of it
    /// goes. For who holds the lock.
    ///
    /// # Errors
    /// [`TrainError::Io`] when something cannot be removed or written.
    pub fn start_over(
        &self,
        config_text: &str,
        plan: &RunPlan,
        environment: &Environment,
    ) -> Result<(), TrainError> {
        self.remove_leftovers()?;
        for file in [self.best(), self.metrics()] {
            remove_if_there(&file)?;
        }
        if self.divergence().is_dir() {
            fs::remove_dir_all(self.divergence())?;
        }
        fs::create_dir_all(self.checkpoints())?;
        self.write_origin(config_text, plan, environment)
    }

    fn write_origin(
        &self,
        config_text: &str,
        plan: &RunPlan,
        environment: &Environment,
    ) -> Result<(), TrainError> {
        let environment = serde_json::to_vec_pretty(environment).map_err(std::io::Error::other)?;
        atomic::write(&self.environment(), &environment)?;
        self.write_plan(config_text, plan)
    }

    /// Writes configuration and plan, each so that it is there whole or not at all.
    ///
    /// # Errors
    /// [`TrainError::Io`] when one cannot be written.
    pub fn write_plan(&self, config_text: &str, plan: &RunPlan) -> Result<(), TrainError> {
        atomic::write(&self.config(), config_text.as_bytes())?;
        // Last: its presence is what makes the directory a run.
        Ok(atomic::write(&self.plan(), plan.to_toml()?.as_bytes())?)
    }

    /// Removes the weights of the last update, which say that the run has come to its end.
    ///
    /// # Errors
    /// [`TrainError::Io`] when they cannot be removed.
    pub fn reopen(&self) -> Result<(), TrainError> {
        remove_if_there(&self.last())?;
        remove_if_there(&self.last_unaveraged())
    }

    /// `true` for the leavings of a process that was killed before it wrote the plan.
    fn is_left_by_a_start(&self, path: &Path) -> bool {
        let files = [self.config(), self.environment(), self.plan()];
        files.iter().any(|file| path == file || path == atomic::aside(file))
            || path == self.checkpoints()
            || path == self.path.join(LOCK)
    }

    /// Removes what a killed process was writing beside its weights files. For who holds the lock.
    ///
    /// # Errors
    /// [`TrainError::Io`] when it cannot be removed.
    pub fn remove_leftovers(&self) -> Result<(), TrainError> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') && name.contains(".safetensors.") && name.ends_with(".tmp") {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Reads the plan.
    ///
    /// # Errors
    /// [`TrainError::RunDir`] when it is none, [`TrainError::Io`] when it cannot be read.
    pub fn read_plan(&self) -> Result<RunPlan, TrainError> {
        let text = fs::read_to_string(self.plan())?;
        let typed = || Ok(RunConfig::parse(&fs::read_to_string(self.config())?, &[])?.0);
        RunPlan::from_toml(&text, typed).map_err(|error| {
            TrainError::run_dir(format!("its `plan.toml` cannot be read: {error}"), &self.path)
                .with_hint("restore the file, or choose another directory with `--run-dir`")
        })
    }
}

fn remove_if_there(file: &Path) -> Result<(), TrainError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The weights file that a user means: a file, or a run directory's best, or its last.
///
/// # Errors
/// [`TrainError::RunDir`] for a directory without weights, [`TrainError::Model`] for one of weights in a
/// form that is not read.
pub fn weights_file(path: &Path) -> Result<PathBuf, TrainError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let run = RunDir::new(run_of(path)?);
    if let Some(file) = [run.best(), run.last()].into_iter().find(|file| file.exists()) {
        return Ok(file);
    }
    if !run.exists()
        && let Some(file) = mixer_model::weights::weights_in_folder(path)?
    {
        return Ok(file);
    }
    let message =
        "the directory holds no weights, expected `best.safetensors` or `final.safetensors`";
    Err(TrainError::run_dir(message, path)
        .with_hint("weights appear with the first evaluation of a run"))
}

/// The run directory that a user means: that of a sweep stands for its winner, any other path for itself.
///
/// # Errors
/// [`TrainError::RunDir`] for a sweep that has no winner yet, or whose report cannot be read.
pub fn run_of(path: &Path) -> Result<PathBuf, TrainError> {
    let report = path.join(SWEEP_REPORT);
    if RunDir::new(path).exists() || !report.is_file() {
        return Ok(path.to_owned());
    }
    let text = fs::read_to_string(&report)?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        TrainError::run_dir(format!("its `{SWEEP_REPORT}` cannot be read: {error}"), path)
    })?;
    let winner = value.get("winner").and_then(serde_json::Value::as_str).ok_or_else(|| {
        TrainError::run_dir("the sweep has no winner yet", path)
            .with_hint("the same command continues a sweep; a member of it is a run directory too")
    })?;
    // A name alone, so that a report from elsewhere leads nowhere else.
    Ok(path.join(Path::new(winner).file_name().unwrap_or_default()))
}

/// Metadata that a run writes into its weights files.
#[must_use]
pub fn metadata(plan: &RunPlan, provenance: &[(&str, String)]) -> Metadata {
    Metadata {
        classes: Some(plan.facts.classes.clone()),
        preprocessing: Some(plan.preprocessing()),
        temperature: None,
        provenance: provenance.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
    }
}

/// Reads the weights that a user means by `path`. See [`weights_file`].
///
/// # Errors
/// [`TrainError::Model`] when they cannot be read.
pub fn read_weights(path: &Path, gelu: Option<mixer_model::Gelu>) -> Result<Weights, TrainError> {
    let file = weights_file(path)?;
    let (weights, note) = Weights::read_with_note(&file, gelu)?;
    if let Some(note) = note {
        say(format_args!("note: {note}: {}", file.display()));
    }
    if let Some((name, count)) = weights.non_finite().into_iter().next() {
        say(format_args!(
            "warning: {count} values of `{name}` are not finite, and perhaps others: {}",
            file.display()
        ));
    }
    Ok(weights)
}
