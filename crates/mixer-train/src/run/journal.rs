//! The account that a run gives of itself. Every [`Event`] is worded here and nowhere else: as a line for
//! people and as a line of `metrics.jsonl`. Another rendering is another method of `Event`, and a line in
//! [`Journal::record`].

use std::path::Path;
use std::time::Instant;

use mixer_data::SkippedExample;

use crate::disk::environment::now;
use crate::disk::metrics::{Metric, MetricsFile};
use crate::error::TrainError;
use crate::run::evaluation::Evaluation;
use crate::run::outliers::Outlier;
use crate::run::quantity::Quantity;
use crate::show::progress::Progress;
use crate::update::loss::Loss;

/// Something that happened in a run. `step` counts updates, the one that it is about included.
pub(crate) enum Event<'a> {
    /// An update was finite.
    Update { step: u64, loss: f64, lr: f64, images_per_sec: f64 },
    /// A number of updates is over.
    Interval(Interval),
    /// The weights, or their moving average, were evaluated.
    Evaluation {
        step: u64,
        epoch: f64,
        split: &'a str,
        is_average: bool,
        loss: Loss,
        found: Evaluation,
    },
    /// A value stands out.
    Outlier { step: u64, quantity: Quantity, value: f64, found: Outlier },
    /// An update that is not finite was left out; `left` more may be.
    LeftOut { step: u64, quantity: Quantity, value: f64, left: u64 },
    /// The gradients of an update overflowed; it was left out, and the loss is multiplied by less.
    Overflow { step: u64, factor: f64 },
    /// The loss is multiplied by more.
    LossScaleGrew { step: u64, factor: f64 },
    /// An example was passed over.
    Skipped { step: u64, split: &'a str, example: &'a SkippedExample },
}

/// The means of the updates since the line of metrics before.
pub(crate) struct Interval {
    pub(crate) step: u64,
    pub(crate) epoch: f64,
    pub(crate) loss: f64,
    pub(crate) lr: f64,
    pub(crate) grad_norm: f64,
    pub(crate) images_per_sec: f64,
    pub(crate) data_wait: f64,
}

impl Event<'_> {
    /// The line for people; absent where they need none, or see it in the bar.
    fn line(&self) -> Option<String> {
        match self {
            Event::Update { .. } | Event::Interval(_) | Event::LossScaleGrew { .. } => None,
            Event::Evaluation { step, epoch, split, is_average, loss, found } => {
                let of = if *is_average { " average" } else { "" };
                // The one that nobody expects is named.
                let kind = match loss {
                    Loss::Softmax => "",
                    Loss::Sigmoid => "sigmoid ",
                };
                let Evaluation { loss, top1, top5, n } = found;
                Some(format!(
                    "step {step} (epoch {epoch:.2}){of}: {split} {kind}loss {loss:.4}, top-1 {:.2} %, top-5 {:.2} % of {n}",
                    100.0 * top1,
                    100.0 * top5
                ))
            }
            Event::Outlier { step, quantity, value, found: Outlier { mean, z_score, .. } } => {
                Some(format!(
                    "step {step}: {quantity} {value:.4} stands out: {z_score:.1} standard deviations above {mean:.4}"
                ))
            }
            Event::LeftOut { step, quantity, value, left } => Some(format!(
                "warning: {quantity} is {value} at step {}: the update is left out; {left} more may be",
                step - 1
            )),
            Event::Overflow { step, factor } => Some(format!(
                "step {}: gradients overflowed: the update is left out, the loss is multiplied by {factor} now",
                step - 1
            )),
            Event::Skipped { split, example, .. } => {
                Some(format!("warning: passed over an example of {split}: {}", example.reason))
            }
        }
    }

    /// The line of `metrics.jsonl`; absent for what is summed up later. `elapsed_secs` is the training time
    /// so far.
    fn metric(&self, elapsed_secs: f64) -> Option<Metric> {
        Some(match *self {
            Event::Update { .. } => return None,
            Event::Interval(Interval {
                step,
                epoch,
                loss,
                lr,
                grad_norm,
                images_per_sec,
                data_wait,
            }) => Metric::Train {
                step,
                epoch,
                loss,
                lr,
                grad_norm,
                images_per_sec,
                data_wait,
                elapsed_secs: Some(elapsed_secs),
                time: Some(now()),
            },
            Event::Evaluation { step, split, is_average, loss, found, .. } => Metric::Eval {
                step,
                split: split.to_owned(),
                weights: is_average.then(|| "average".to_owned()),
                loss: found.loss,
                loss_kind: Some(loss),
                top1: found.top1,
                top5: found.top5,
                n: found.n,
                elapsed_secs: Some(elapsed_secs),
                time: Some(now()),
            },
            Event::Outlier { step, quantity, value, found: Outlier { mean, std, z_score } } => {
                Metric::Outlier { step, quantity, value, mean, std, z_score }
            }
            Event::LeftOut { step, quantity, value, .. } => {
                Metric::Diverged { step, quantity, value: value.to_string() }
            }
            Event::Overflow { step, factor } | Event::LossScaleGrew { step, factor } => {
                Metric::LossScale { step, factor }
            }
            Event::Skipped { step, split, example } => Metric::Skipped {
                step,
                split: split.to_owned(),
                index: example.index,
                reason: example.reason.clone(),
            },
        })
    }
}

/// The journal of a run: its bar or its lines on the terminal, and its file of metrics.
pub(crate) struct Journal {
    progress: Progress,
    metrics: MetricsFile,
    /// Training time of the lives of the run before this process, seconds.
    elapsed_before: f64,
    started: Instant,
}

impl Journal {
    /// The journal of a run of `total` updates that goes on after `done` of them and `elapsed_before` seconds;
    /// the file of metrics is cut to `metrics_bytes`.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the file cannot be opened.
    pub(crate) fn open(
        metrics: &Path,
        metrics_bytes: u64,
        (done, total): (u64, u64),
        elapsed_before: f64,
    ) -> Result<Self, TrainError> {
        Ok(Self {
            metrics: MetricsFile::open(metrics, metrics_bytes)?,
            progress: Progress::new("step", total, done),
            elapsed_before,
            started: Instant::now(),
        })
    }

    /// Tells of an event.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when its line of metrics cannot be written.
    pub(crate) fn record(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        if let Event::Update { step, loss, lr, images_per_sec } = event {
            self.progress.update(*step, || {
                format!("loss {loss:.4} lr {lr:.2e} {images_per_sec:.0} images/s")
            });
        }
        if let Some(line) = event.line() {
            self.note(&line);
        }
        if let Some(metric) = event.metric(self.elapsed_secs()) {
            self.metrics.write(&metric)?;
        }
        Ok(())
    }

    /// Tells people alone.
    pub(crate) fn note(&self, line: &str) {
        self.progress.note(line);
    }

    /// Training time of the run so far, over all its lives, evaluations and checkpoints included; seconds, to
    /// the millisecond.
    pub(crate) fn elapsed_secs(&self) -> f64 {
        let elapsed = self.elapsed_before + self.started.elapsed().as_secs_f64();
        (1000.0 * elapsed).round() / 1000.0
    }

    /// The file of metrics.
    pub(crate) fn metrics(&self) -> &MetricsFile {
        &self.metrics
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.progress.finish();
    }
}
