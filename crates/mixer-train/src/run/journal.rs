//! The account that a run gives of itself. Every [`Event`] is worded here and nowhere else: as a line for
//! people and as a line of `metrics.jsonl`, which TensorBoard's event file follows. Another rendering is
//! another method of `Event`, and a line in [`Journal::record`].

use std::time::Instant;

use mixer_data::SkippedExample;
use mixer_model::Weights;

use crate::disk::environment::now;
use crate::disk::metrics::{Metric, MetricsFile};
use crate::disk::tensorboard::EventFile;
use crate::draw::unit_pictures::token_mixing;
use crate::error::TrainError;
use crate::group::is_first;
use crate::run::evaluation::Evaluation;
use crate::run::job::Job;
use crate::run::outliers::Outlier;
use crate::run::quantity::Quantity;
use crate::show::console::Tone;
use crate::show::progress::Progress;
use crate::update::loss::Loss;

/// Something that happened in a run. `step` counts updates, the one that it is about included.
pub(crate) enum Event<'a> {
    /// An update was finite.
    Update { loss: f64, lr: f64, images_per_sec: f64, data_wait: f64 },
    /// A number of updates is over.
    Interval(Interval),
    /// The weights, or their moving average, were evaluated.
    Evaluation(Evaluated<'a>),
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

/// An evaluation of a run.
#[derive(Clone, Copy)]
pub(crate) struct Evaluated<'a> {
    /// Updates done.
    pub(crate) step: u64,
    /// Passes over the training data done.
    pub(crate) epoch: f64,
    /// Name of the split.
    pub(crate) split: &'a str,
    /// `true` for the moving average of the weights.
    pub(crate) is_average: bool,
    /// `true` for the best one so far.
    pub(crate) is_best: bool,
    /// Classes of the network.
    pub(crate) num_classes: usize,
    /// The loss that was measured.
    pub(crate) loss: Loss,
    /// The result.
    pub(crate) found: Evaluation,
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
    /// Absent where there are no other processes.
    pub(crate) exchange: Option<f64>,
}

impl Evaluated<'_> {
    /// The line for people.
    fn line(&self) -> String {
        let Self { step, epoch, split, found, .. } = self;
        let of = if self.is_average { " average" } else { "" };
        let top5 = if Evaluation::has_top5(self.num_classes) {
            format!(", top-5 {:.2} %", 100.0 * found.top5)
        } else {
            String::new()
        };
        let best = if self.is_best { ", best" } else { "" };
        // The one that nobody expects is named.
        let kind = match self.loss {
            Loss::Softmax => "",
            Loss::Sigmoid => "sigmoid ",
        };
        format!(
            "step {step} (epoch {epoch:.2}){of}: {split} {kind}loss {:.4}, top-1 {:.2} %{top5}{best}",
            found.loss,
            100.0 * found.top1,
        )
    }
}

impl Event<'_> {
    /// The line for people; absent where they need none, or see it in the bar.
    fn line(&self) -> Option<String> {
        match self {
            Event::Update { .. } | Event::Interval(_) | Event::LossScaleGrew { .. } => None,
            Event::Evaluation(evaluated) => Some(evaluated.line()),
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
                exchange,
            }) => Metric::Train {
                step,
                epoch,
                loss,
                lr,
                grad_norm,
                images_per_sec,
                data_wait,
                exchange,
                elapsed_secs: Some(elapsed_secs),
                time: Some(now()),
            },
            Event::Evaluation(Evaluated { step, split, is_average, loss, found, .. }) => {
                Metric::Eval {
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
                }
            }
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

/// The way that a run has to go, in updates.
#[derive(Debug, Clone, Copy)]
struct Length {
    total: u64,
    /// Microbatches of each.
    microbatches: u64,
    /// Updates of an epoch.
    per_epoch: f64,
}

/// The journal of a run: its bar or its lines on the terminal, its file of metrics, and its event file.
pub(crate) struct Journal {
    progress: Progress,
    length: Length,
    /// Microbatches done.
    microbatches: u64,
    /// The last update.
    update: Option<Shown>,
    loss: Smoothed,
    /// Top-1 of the best evaluation.
    best: Option<f64>,
    /// Absent where another process writes them.
    files: Option<Files>,
    /// Processes that each do as many microbatches as this one.
    ranks: u64,
    /// Training time of the lives of the run before this process, seconds.
    elapsed_before: f64,
    started: Instant,
}

/// The files of a run that grow with it.
struct Files {
    metrics: MetricsFile,
    events: EventFile,
}

/// The part of an update that is watched.
#[derive(Debug, Clone, Copy)]
struct Shown {
    lr: f64,
    images_per_sec: f64,
    data_wait: f64,
}

/// A mean in which a value counts less with every one after it.
#[derive(Debug, Clone, Copy, Default)]
struct Smoothed {
    sum: f64,
    weight: f64,
}

impl Smoothed {
    /// Part of a value's weight that is left after the next value.
    const KEPT: f64 = 0.95;

    fn add(&mut self, value: f64) {
        self.sum = Self::KEPT * self.sum + (1.0 - Self::KEPT) * value;
        self.weight = Self::KEPT * self.weight + (1.0 - Self::KEPT);
    }

    fn value(self) -> f64 {
        self.sum / self.weight
    }
}

impl Journal {
    /// The journal of a run that goes on after `done` updates and `elapsed_before` seconds, with the top-1 of
    /// its best evaluation so far; the file of metrics is cut to `metrics_bytes`.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when a file cannot be opened.
    pub(crate) fn open(
        job: &Job,
        metrics_bytes: u64,
        done: u64,
        elapsed_before: f64,
        best: Option<f64>,
    ) -> Result<Self, TrainError> {
        let (plan, run_dir) = (&job.plan, &job.run_dir);
        let files = if is_first(&*job.group) {
            let metrics = MetricsFile::open(&run_dir.metrics(), metrics_bytes)?;
            let mut events = EventFile::new(run_dir.tensorboard(), done);
            if done == 0 {
                events.introduce(plan)?;
            }
            Some(Files { metrics, events })
        } else {
            None
        };
        let total = plan.train.steps;
        let microbatches = (plan.train.batch_size / plan.train.microbatch_size) as u64;
        Ok(Self {
            files,
            ranks: job.group.size() as u64,
            progress: Progress::new("microbatch", total * microbatches, done * microbatches),
            length: Length { total, microbatches, per_epoch: plan.steps_per_epoch() },
            microbatches: done * microbatches,
            update: None,
            loss: Smoothed::default(),
            best,
            elapsed_before,
            started: Instant::now(),
        })
    }

    /// Tells of an event.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when its line of metrics cannot be written.
    pub(crate) fn record(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        let mut tone = Tone::Plain;
        match *event {
            Event::Update { loss, lr, images_per_sec, data_wait, .. } => {
                self.loss.add(loss);
                self.update = Some(Shown { lr, images_per_sec, data_wait });
                self.show();
            }
            Event::Evaluation(Evaluated { is_best: true, found, .. }) => {
                self.best = Some(found.top1);
                tone = Tone::Good;
            }
            _ => {}
        }
        if let Some(line) = event.line() {
            self.progress.note(&line, tone);
        }
        let elapsed = self.elapsed_secs();
        if let (Some(files), Some(metric)) = (&mut self.files, event.metric(elapsed)) {
            files.metrics.write(&metric)?;
            files.events.metric(&metric)?;
        }
        Ok(())
    }

    /// Shows the weights at the end of the run.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the event file cannot be written to.
    pub(crate) fn weights(&mut self, weights: &Weights, step: u64) -> Result<(), TrainError> {
        match &mut self.files {
            // A Vision Transformer has no weights between places.
            Some(files) if weights.config.tokens.mlp_dim().is_some() => {
                let picture = token_mixing(weights, 0)?;
                files.events.picture(step, "weights/token_mixing_0", &picture)
            }
            _ => Ok(()),
        }
    }

    /// Tells that the gradient of a microbatch is computed.
    pub(crate) fn microbatch(&mut self) {
        // The others do as much meanwhile.
        self.microbatches += self.ranks;
        // With the last one comes the update, which has more to say.
        if !self.microbatches.is_multiple_of(self.length.microbatches) {
            self.show();
        }
    }

    /// Tells how far an evaluation is.
    pub(crate) fn evaluating(&self, done: u64, total: usize) {
        self.progress.meanwhile(|| format!("evaluating {done}/{total}"));
    }

    /// Moves the bar.
    fn show(&mut self) {
        let Self { length, update, loss, best, .. } = *self;
        let updates = self.microbatches as f64 / length.microbatches as f64;
        let epochs = length.total as f64 / length.per_epoch;
        self.progress.update_with(self.microbatches, || {
            let place = format!(
                "step {}/{}, epoch {:.2}/{epochs:.1}",
                updates as u64,
                length.total,
                updates / length.per_epoch,
            );
            let mut parts = Vec::new();
            if let Some(Shown { lr, images_per_sec, data_wait }) = update {
                parts.push(format!("loss {:.4}", loss.value()));
                parts.push(format!("lr {lr:.2e}"));
                parts.push(format!("{images_per_sec:.0} images/s"));
                parts.push(format!("wait {:.0} %", 100.0 * data_wait));
            }
            parts.extend(best.map(|top1| format!("best {:.2} %", 100.0 * top1)));
            (place, parts.join("  "))
        });
    }

    /// Tells people alone.
    pub(crate) fn note(&self, line: &str) {
        self.progress.note(line, Tone::Plain);
    }

    /// Training time of the run so far, over all its lives, evaluations and checkpoints included; seconds, to
    /// the millisecond.
    pub(crate) fn elapsed_secs(&self) -> f64 {
        let elapsed = self.elapsed_before + self.started.elapsed().as_secs_f64();
        (1000.0 * elapsed).round() / 1000.0
    }

    /// The file of metrics; absent where another process writes it.
    pub(crate) fn metrics(&self) -> Option<&MetricsFile> {
        self.files.as_ref().map(|files| &files.metrics)
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.progress.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smoothed_loss_begins_with_the_first_one_and_follows() {
        let mut loss = Smoothed::default();
        loss.add(2.0);
        assert!((loss.value() - 2.0).abs() < 1e-12);
        loss.add(1.0);
        assert!((loss.value() - (0.95 * 2.0 + 1.0) / 1.95).abs() < 1e-12);
        (0..500).for_each(|_| loss.add(1.0));
        assert!((loss.value() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn top_5_is_told_of_more_than_five_classes_alone() {
        let found = Evaluation { loss: 0.5, top1: 0.25, top5: 1.0, n: 4 };
        let line = |num_classes, is_best| {
            let evaluated = Evaluated {
                step: 3,
                epoch: 0.5,
                split: "val",
                is_average: false,
                is_best,
                num_classes,
                loss: Loss::Softmax,
                found,
            };
            evaluated.line()
        };
        assert_eq!(line(5, false), "step 3 (epoch 0.50): val loss 0.5000, top-1 25.00 %");
        assert_eq!(
            line(6, true),
            "step 3 (epoch 0.50): val loss 0.5000, top-1 25.00 %, top-5 100.00 %, best"
        );
    }
}
