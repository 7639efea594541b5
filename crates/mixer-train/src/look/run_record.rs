//! Facts about a run from its directory alone.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;

use crate::config::RunConfig;
use crate::disk::checkpoint;
use crate::disk::environment::Environment;
use crate::disk::metrics::{self, Metric};
use crate::disk::run_dir::RunDir;
use crate::error::TrainError;
use crate::plan::RunPlan;

/// A run, as its directory tells it.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// The directory.
    pub path: PathBuf,
    /// Its last part, or as much of it as tells it from others.
    pub name: String,
    /// Every value resolved.
    pub plan: RunPlan,
    /// Origin of the run, where it is told.
    pub environment: Option<Environment>,
    /// Every line of metrics.
    pub metrics: Vec<Metric>,
    /// `true` where the last line is cut off; it is left out.
    pub is_cut: bool,
}

/// Progress of a run; its JSON form is part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// All updates are made.
    Done,
    /// A process trains it.
    Running,
    /// The same command goes on with it.
    Stopped,
}

impl RunState {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// An evaluation of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Evaluated {
    /// Updates done.
    pub step: u64,
    /// Mean loss.
    pub loss: f64,
    /// Accuracy.
    pub top1: f64,
    /// Examples counted.
    pub n: u64,
}

impl RunRecord {
    /// Reads a run directory and changes nothing.
    ///
    /// # Errors
    /// [`TrainError::RunDir`] for a directory that is none of a run, or whose plan cannot be read;
    /// [`TrainError::Checkpoint`] for a damaged line of metrics.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let run_dir = RunDir::new(path);
        if !run_dir.exists() {
            let found = match path {
                path if path.is_dir() => "the directory holds no run",
                path if path.exists() => "this is a file, expected a run directory",
                _ => "no such run directory",
            };
            return Err(TrainError::run_dir(found, path).with_hint(
                "name a directory that `mixer pretrain` or `mixer finetune` trained in; `mixer runs DIR` lists \
                 those below a folder",
            ));
        }
        let text = fs::read_to_string(run_dir.plan())?;
        let typed = || Ok(RunConfig::parse(&fs::read_to_string(run_dir.config())?, &[])?.0);
        let plan = RunPlan::from_toml(&text, typed).map_err(|error| {
            TrainError::run_dir(format!("its `plan.toml` cannot be read: {error}"), path)
        })?;
        let (metrics, is_cut) = match run_dir.metrics() {
            file if file.exists() => (metrics::read(&file)?, metrics::is_cut(&file)?),
            _ => (Vec::new(), false),
        };
        let environment = fs::read_to_string(run_dir.environment()).ok();
        let name = path.canonicalize().ok();
        let name = name.as_deref().unwrap_or(path).file_name().unwrap_or(path.as_os_str());
        Ok(Self {
            path: path.to_owned(),
            name: name.to_string_lossy().into_owned(),
            plan,
            environment: environment.and_then(|text| serde_json::from_str(&text).ok()),
            metrics,
            is_cut,
        })
    }

    /// The runs in a folder and in the folders below it, in the order of their paths; what cannot be read is
    /// told to `skipped`.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the folder cannot be read.
    pub fn below(
        folder: &Path,
        mut skipped: impl FnMut(&TrainError),
    ) -> Result<Vec<Self>, TrainError> {
        let (mut runs, mut folders) = (Vec::new(), vec![folder.to_owned()]);
        while let Some(folder) = folders.pop() {
            if RunDir::new(&folder).exists() {
                match Self::read(&folder) {
                    Ok(run) => runs.push(run),
                    Err(error) => skipped(&error),
                }
                continue;
            }
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                // A link could lead back to where it lies.
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        runs.sort_by(|a: &Self, b| a.path.cmp(&b.path));
        Ok(runs)
    }

    /// Updates done, as far as metrics and checkpoints know: a run may have been stopped between two lines.
    #[must_use]
    pub fn steps(&self) -> u64 {
        let saved = checkpoint::list(&RunDir::new(&self.path).checkpoints()).unwrap_or_default();
        let saved = saved.first().and_then(|path| checkpoint::step_of(path));
        let step = |metric: &Metric| match metric {
            Metric::Train { step, .. } | Metric::Eval { step, .. } => Some(*step),
            _ => None,
        };
        self.metrics.iter().filter_map(step).chain(saved).max().unwrap_or(0)
    }

    /// Progress of the run.
    #[must_use]
    pub fn state(&self) -> RunState {
        let run_dir = RunDir::new(&self.path);
        if run_dir.is_locked() {
            RunState::Running
        } else if run_dir.last().exists() {
            RunState::Done
        } else {
            RunState::Stopped
        }
    }

    /// The evaluations, in their order.
    pub fn evaluations(&self) -> impl DoubleEndedIterator<Item = Evaluated> + '_ {
        self.metrics.iter().filter_map(|metric| match *metric {
            Metric::Eval { step, loss, top1, n, .. } => Some(Evaluated { step, loss, top1, n }),
            _ => None,
        })
    }

    /// The evaluation with the highest top-1, the first of equals: that of `best.safetensors`. What the start can
    /// do counts as no result; where an average of the weights is kept, its evaluations count.
    #[must_use]
    pub fn best(&self) -> Option<Evaluated> {
        let is_averaged = self.plan.train.ema_decay.is_some();
        let counted = self.metrics.iter().filter_map(|metric| match metric {
            Metric::Eval { step, loss, top1, n, weights, .. }
                if *step > 0 && weights.is_some() == is_averaged =>
            {
                Some(Evaluated { step: *step, loss: *loss, top1: *top1, n: *n })
            }
            _ => None,
        });
        counted.fold(None, |best: Option<Evaluated>, found| match best {
            Some(best) if best.top1 >= found.top1 => Some(best),
            _ => Some(found),
        })
    }

    /// Training time over all its lives, seconds.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        self.metrics.iter().rev().find_map(|metric| match metric {
            Metric::Train { elapsed_secs, .. } | Metric::Eval { elapsed_secs, .. } => *elapsed_secs,
            _ => None,
        })
    }

    /// Median training throughput.
    #[must_use]
    pub fn images_per_sec(&self) -> Option<f64> {
        let speed = |metric: &Metric| match metric {
            Metric::Train { images_per_sec, .. } => Some(*images_per_sec),
            _ => None,
        };
        let mut speeds: Vec<f64> = self.metrics.iter().filter_map(speed).collect();
        speeds.sort_by(f64::total_cmp);
        speeds.get(speeds.len() / 2).copied()
    }

    /// Every value of the plan under its key, in the order of the plan, as TOML; without what was found of
    /// the data.
    #[must_use]
    pub fn values(&self) -> Vec<(String, String)> {
        let text = self.plan.to_toml().unwrap_or_default();
        let values = crate::disk::tensorboard::hyper_parameters(&text);
        values.into_iter().map(|(key, value)| (key, value.to_string())).collect()
    }
}

/// The keys in which runs differ, each with the value of every run; `None` where a run has none.
#[must_use]
pub fn differences(runs: &[RunRecord]) -> Vec<(String, Vec<Option<String>>)> {
    let all: Vec<Vec<(String, String)>> = runs.iter().map(RunRecord::values).collect();
    let mut keys: Vec<&String> = all.iter().flatten().map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    let lines = keys.into_iter().map(|key| {
        let of_run = |values: &Vec<(String, String)>| {
            values.iter().find(|(found, _)| found == key).map(|(_, value)| value.clone())
        };
        (key.clone(), all.iter().map(of_run).collect::<Vec<_>>())
    });
    lines.filter(|(_, values)| values.iter().any(|value| *value != values[0])).collect()
}

/// A fraction as percent, to the digits that `n` examples support, with half of its 95 % interval.
#[must_use]
pub fn percent(fraction: f64, n: u64) -> String {
    let width = 100.0 * mixer_analysis::Measures::half_width(fraction, n);
    let digits = if width >= 1.0 { 1 } else { 2 };
    format!("{:.digits$} ± {width:.digits$}", 100.0 * fraction)
}
