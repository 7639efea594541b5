//! The thread that writes checkpoints and weights while training goes on.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mixer_model::{ModelError, Weights};

use crate::disk::checkpoint::{self, Checkpoint};
use crate::disk::operations::{Disk, LocalDisk};
use crate::disk::retention::{Pruner, Retention};
use crate::error::{CheckpointFault, TrainError};
use crate::run::interrupt;
use crate::show::progress::say;

/// Something to write.
enum Job {
    /// A checkpoint, behind the lines of metrics that it counts on.
    Checkpoint { checkpoint: Box<Checkpoint>, metrics: std::fs::File },
    /// A weights file, after so many updates.
    Weights { weights: Box<Weights>, path: PathBuf, step: u64 },
}

/// The kinds of jobs: at most one of each is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Checkpoint,
    Weights,
}

/// The end of a job.
struct Report {
    kind: Kind,
    took: Duration,
    /// Of a checkpoint, where it is.
    result: Result<Option<PathBuf>, TrainError>,
}

/// Writes in a thread of its own, in the order in which it is told.
///
/// # Errors
/// That of a job is returned by the next call of whatever method.
pub(crate) struct BackgroundWriter {
    jobs: Option<Sender<Job>>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
    under_way: Vec<Kind>,
    /// The newest checkpoint.
    newest: Option<PathBuf>,
    longest_save: Option<Duration>,
    checkpoints: u64,
}

impl BackgroundWriter {
    /// Will write checkpoints below `directory`.
    ///
    /// # Errors
    /// [`TrainError::Thread`] when no thread can be started.
    pub(crate) fn start(directory: &Path, retention: Retention) -> Result<Self, TrainError> {
        let (jobs, received) = channel();
        let (report, reports) = channel();
        let mut worker = Worker {
            disk: LocalDisk,
            directory: directory.to_owned(),
            pruner: Pruner::new(retention),
        };
        let work = move || {
            for job in received {
                // Nobody listens any more when the run has failed.
                drop(report.send(worker.work(job)));
            }
        };
        let thread = std::thread::Builder::new().name("checkpoints".to_owned()).spawn(work);
        let thread = thread.map_err(|source| TrainError::Thread { source })?;
        Ok(Self {
            jobs: Some(jobs),
            reports,
            thread: Some(thread),
            under_way: Vec::new(),
            newest: None,
            longest_save: None,
            checkpoints: 0,
        })
    }

    /// A writer that is given nothing to write.
    pub(crate) fn idle() -> Self {
        Self {
            jobs: None,
            reports: channel().1,
            thread: None,
            under_way: Vec::new(),
            newest: None,
            longest_save: None,
            checkpoints: 0,
        }
    }

    /// Returns the error of what was written since the last call, and does not wait.
    pub(crate) fn check(&mut self) -> Result<(), TrainError> {
        while let Ok(report) = self.reports.try_recv() {
            self.note(report)?;
        }
        Ok(())
    }

    /// Waits until the last checkpoint is on disk, so that there is never more than one in memory.
    pub(crate) fn wait_for_checkpoint(&mut self) -> Result<(), TrainError> {
        self.wait_while(|under_way| under_way.contains(&Kind::Checkpoint))
    }

    /// Waits until everything is on disk.
    pub(crate) fn wait(&mut self) -> Result<(), TrainError> {
        self.wait_while(|under_way| !under_way.is_empty())
    }

    /// Takes a checkpoint to write, and the file of metrics to sync before it. Before it is copied to the
    /// host, [`BackgroundWriter::wait_for_checkpoint`].
    pub(crate) fn checkpoint(
        &mut self,
        checkpoint: Checkpoint,
        metrics: std::fs::File,
    ) -> Result<(), TrainError> {
        self.send(Kind::Checkpoint, Job::Checkpoint { checkpoint: Box::new(checkpoint), metrics })
    }

    /// Takes weights after `step` updates to write to `path`.
    pub(crate) fn weights(
        &mut self,
        weights: Weights,
        path: PathBuf,
        step: u64,
    ) -> Result<(), TrainError> {
        self.wait_while(|under_way| under_way.contains(&Kind::Weights))?;
        self.send(Kind::Weights, Job::Weights { weights: Box::new(weights), path, step })
    }

    /// The newest checkpoint of this process.
    pub(crate) fn newest(&self) -> Option<&Path> {
        self.newest.as_deref()
    }

    /// The longest time that a checkpoint took.
    pub(crate) fn longest_save(&self) -> Option<Duration> {
        self.longest_save
    }

    /// Number of checkpoints written.
    pub(crate) fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    fn send(&mut self, kind: Kind, job: Job) -> Result<(), TrainError> {
        self.under_way.push(kind);
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if sent { Ok(()) } else { Err(thread_ended()) }
    }

    fn wait_while(&mut self, waits: impl Fn(&[Kind]) -> bool) -> Result<(), TrainError> {
        while waits(&self.under_way) {
            let report = self.reports.recv().map_err(|_| thread_ended())?;
            self.note(report)?;
        }
        Ok(())
    }

    fn note(&mut self, report: Report) -> Result<(), TrainError> {
        let Report { kind, took, result } = report;
        if let Some(index) = self.under_way.iter().position(|under_way| *under_way == kind) {
            self.under_way.remove(index);
        }
        if let Some(path) = result? {
            self.newest = Some(path);
            self.checkpoints += 1;
            self.longest_save = self.longest_save.max(Some(took));
        }
        Ok(())
    }
}

impl Drop for BackgroundWriter {
    /// Writes all that was taken, also when the run has failed.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Its panic is known by the reports that are missing.
            drop(thread.join());
        }
        for report in self.reports.try_iter() {
            if let Err(error) = report.result {
                say(format_args!("warning: {error}"));
            }
        }
    }
}

/// The tools of the thread.
struct Worker<D> {
    disk: D,
    directory: PathBuf,
    pruner: Pruner,
}

impl<D: Disk> Worker<D> {
    fn work(&mut self, job: Job) -> Report {
        let started = Instant::now();
        let (kind, result) = match job {
            Job::Checkpoint { checkpoint, metrics } => {
                (Kind::Checkpoint, self.save(&checkpoint, &metrics).map(Some))
            }
            Job::Weights { weights, path, step } => {
                (Kind::Weights, write_weights(&weights, &path, step).map(|()| None))
            }
        };
        Report { kind, took: started.elapsed(), result }
    }

    fn save(
        &mut self,
        checkpoint: &Checkpoint,
        metrics: &std::fs::File,
    ) -> Result<PathBuf, TrainError> {
        metrics.sync_data().map_err(|error| {
            let reason = format!("the metrics before it cannot be synced: {error}");
            TrainError::checkpoint(CheckpointFault::CannotWrite, reason, &self.directory)
        })?;
        let path = checkpoint.write_to(&self.disk, &self.directory)?;
        // Read back, before anything older is removed.
        checkpoint::verify(&path)?;
        interrupt::saved(checkpoint.state.step);
        let best = checkpoint.state.best.map(|(step, _)| step);
        self.pruner.prune(&self.disk, &self.directory, &path, best)?;
        Ok(path)
    }
}

/// Writes the weights of a run after `step` updates.
///
/// # Errors
/// [`TrainError::DivergedAfter`] where they are not finite, [`TrainError::Model`] where they cannot be written.
fn write_weights(weights: &Weights, path: &Path, step: u64) -> Result<(), TrainError> {
    weights.write_safetensors(path).map_err(|error| match error {
        ModelError::NotFinite { name, count, .. } => {
            let found = format!("{count} values of `{name}` are not finite");
            TrainError::DivergedAfter { found, step }
        }
        error => error.into(),
    })
}

fn thread_ended() -> TrainError {
    TrainError::Io(std::io::Error::other("the thread that writes checkpoints has ended"))
}
