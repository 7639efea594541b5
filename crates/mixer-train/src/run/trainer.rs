//! The loop: batches in, updates out; evaluates, logs and saves on the way.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mixer_data::SkippedExample;
use mixer_model::{Compute, Mixer, Weights, count};

use crate::device::DeviceEntry;
use crate::disk::background_writer::BackgroundWriter;
use crate::disk::checkpoint::{Checkpoint, RunState};
use crate::disk::metrics::{Metric, MetricsFile};
use crate::disk::retention::Retention;
use crate::disk::run_dir::{self, RunDir};
use crate::error::TrainError;
use crate::input::dataset::Dataset;
use crate::plan::RunPlan;
use crate::run::divergence::{Divergence, Values};
use crate::run::evaluation::{Evaluation, Evaluator};
use crate::run::interrupt;
use crate::run::on_divergence::OnDivergence;
use crate::run::stop::Stop;
use crate::run::time_limit::TimeLimit;
use crate::show::progress::Progress;
use crate::update::batch_gradient::{BatchGradient, Gradient};
use crate::update::loss_scale::LossScale;
use crate::update::optimizer::{Clip, Optimizer};

/// Everything that a run is made of.
pub struct Trainer {
    /// Every value resolved.
    pub plan: RunPlan,
    /// What to train and to evaluate on.
    pub dataset: Dataset,
    /// Where the run lives.
    pub run_dir: RunDir,
    /// What it runs on.
    pub device: DeviceEntry,
    /// Decoding threads.
    pub workers: usize,
    /// Memory for decoded batches, bytes.
    pub queue_bytes: usize,
    /// When it has to be over.
    pub time_limit: Option<TimeLimit>,
}

/// At what a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Its length.
    Finished,
    /// Early stopping.
    StoppedEarly,
    /// The time limit, with the checkpoint to go on from; absent before the first update.
    TimeLimit(Option<PathBuf>),
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// At what.
    pub ended: Ended,
    /// Updates done.
    pub step: u64,
    /// The last evaluation; absent when the run had already ended before.
    pub last: Option<Evaluation>,
    /// The best evaluation and its update.
    pub best: Option<(u64, Evaluation)>,
    /// Time in this process.
    pub elapsed: Duration,
    /// Checkpoints written in this process.
    pub checkpoints: u64,
    /// Time that training stood still for saving.
    pub saving: Duration,
}

/// What the gradient norm is called in messages and metrics.
const GRADIENT_NORM: &str = "gradient norm";

/// What an update found, still on the device.
struct Pending {
    /// The update, from 0.
    step: u64,
    lr: f64,
    /// Loss and squared norm of the gradient, `[2]`.
    values: Tensor<1>,
    /// Index of each example.
    indices: Vec<u64>,
}

/// An update that is not finite.
struct NotFinite {
    quantity: &'static str,
    value: f64,
    pending: Pending,
}

/// A run in memory.
///
/// The network is not in it: an update takes it and gives it back, so that nobody else holds its
/// tensors and they are written in place.
struct Run<'a> {
    trainer: &'a Trainer,
    optimizer: Optimizer,
    state: RunState,
    /// The update of the newest checkpoint, written or under way.
    saved: Option<u64>,
    /// Where it is, when it was there before this process.
    resumed_from: Option<PathBuf>,
    metrics: MetricsFile,
    writer: BackgroundWriter,
    gradient: BatchGradient<'a>,
    since_line: Interval,
    /// Time that training stood still for saving.
    saving: Duration,
    /// Whether an update was done in this process.
    is_warm: bool,
    /// The longest update but for the first.
    longest_update: Duration,
    last_finite: Option<Values>,
    /// The newest update of a GPU: its values are read when the next one is under way.
    pending: Option<Pending>,
}

/// Time since the last line of metrics.
struct Interval {
    started: Instant,
    waited: Duration,
    examples: u64,
}

impl Interval {
    fn start() -> Interval {
        Interval { started: Instant::now(), waited: Duration::ZERO, examples: 0 }
    }

    fn images_per_sec(&self) -> f64 {
        self.examples as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    fn data_wait(&self) -> f64 {
        self.waited.as_secs_f64() / self.started.elapsed().as_secs_f64().max(1e-9)
    }
}

impl Trainer {
    /// Runs to the end, from `initial` weights or from a checkpoint and where it lies.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`] after a signal, with a checkpoint written; [`TrainError::Diverged`]
    /// before an update that is not finite; whatever reading data and writing files can raise. What was
    /// trained before data could not be read is saved first.
    pub fn run(
        &self,
        initial: impl FnOnce() -> Result<Weights, TrainError>,
        checkpoint: Option<(PathBuf, Checkpoint)>,
    ) -> Result<Outcome, TrainError> {
        let started = Instant::now();
        interrupt::listen();
        let total = self.plan.train.steps;
        let (mut run, mut mixer) = Run::start(self, initial, checkpoint)?;
        let mut last = None;
        let mut progress = Progress::new("step", total, run.state.step);
        let ended = loop {
            let step = run.state.step;
            let is_due = self.is_due(step, self.plan.train.eval_every_steps)
                && run.state.evaluated_step < step;
            let is_first = self.plan.train.eval_at_start && step == 0 && run.state.best.is_none();
            if is_due || is_first {
                match run.evaluate(&mixer, &mut progress)? {
                    Ok(evaluation) => last = Some(evaluation),
                    Err(stop) => break run.stopped(stop, &mixer, &mut progress),
                }
            }
            if run.is_checkpoint_due() {
                run.save(&mixer, &mut progress)?;
            }
            if step == total {
                break Ok(Ended::Finished);
            }
            if self.plan.train.early_stopping.is_some_and(|rule| run.state.stagnation.is_over(rule))
            {
                // So that the same command finds that nothing is left to do.
                run.save(&mixer, &mut progress)?;
                break Ok(Ended::StoppedEarly);
            }
            match run.update(mixer, &mut progress)? {
                (trained, None) => mixer = trained,
                (trained, Some(stop)) => {
                    mixer = trained;
                    break run.stopped(stop, &mixer, &mut progress);
                }
            }
        };
        progress.finish();
        let ended = ended?;
        run.writer.wait()?;
        if !matches!(ended, Ended::TimeLimit(_)) {
            match run.optimizer.averaged(&mixer) {
                // The one that tells that a run has come to its end is the last.
                Some(average) => {
                    run.weights(&mixer)?.write_safetensors(&self.run_dir.last_unaveraged())?;
                    run.weights(&average)?.write_safetensors(&self.run_dir.last())?;
                }
                None => run.weights(&mixer)?.write_safetensors(&self.run_dir.last())?,
            }
        }
        Ok(Outcome {
            ended,
            step: run.state.step,
            last,
            best: run.state.best,
            elapsed: started.elapsed(),
            checkpoints: run.writer.checkpoints(),
            saving: run.saving,
        })
    }

    fn is_due(&self, step: u64, every: u64) -> bool {
        step > 0 && (step.is_multiple_of(every) || step == self.plan.train.steps)
    }

    fn evaluator(&self) -> Evaluator {
        Evaluator {
            transform: self.plan.eval_transform(),
            preprocessing: self.plan.preprocessing(),
            loss: self.plan.train.loss,
            batch_size: self.plan.train.eval_batch_size,
            workers: self.workers,
            queue_bytes: self.queue_bytes,
            on_corrupt: self.plan.data.on_corrupt,
        }
    }

    /// Whether to stop now rather than begin something that takes as long as `piece`.
    fn stop_requested(
        &self,
        piece: Duration,
        longest_save: Option<Duration>,
        checkpoint_bytes: u64,
    ) -> Option<Stop> {
        if interrupt::requested() {
            return Some(Stop::Interrupted);
        }
        let limit = self.time_limit?;
        (!limit.allows(piece, longest_save, checkpoint_bytes)).then_some(Stop::TimeLimit)
    }

    pub(crate) fn autodiff_device(&self) -> Device {
        self.device.device.clone().autodiff()
    }

    /// Network, optimizer and counters of a checkpoint, or of the first update.
    pub(crate) fn restore(
        &self,
        initial: impl FnOnce() -> Result<Weights, TrainError>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<(Mixer, Optimizer, RunState), TrainError> {
        let plan = &self.plan;
        let rates = plan.parameter_rates()?;
        let device = self.autodiff_device();
        let (weights, optimizer, mut state) = match checkpoint {
            Some(mut checkpoint) => {
                let (rule, path) = (plan.optimizer.rule.clone(), self.run_dir.checkpoints());
                let on = &self.device.device;
                let optimizer = checkpoint.take_optimizer(rule, plan.train.ema_decay, on, &path)?;
                (checkpoint.weights, optimizer, checkpoint.state)
            }
            None => {
                let optimizer = Optimizer::new(plan.optimizer.rule.clone(), plan.train.ema_decay);
                (initial()?, optimizer, RunState::default())
            }
        };
        weights.check_fits(&plan.model.network)?;
        state.loss_scale = state.loss_scale.or(plan.train.loss_scale.map(LossScale::start));
        let compute = Compute {
            precision: plan.train.precision.into(),
            recompute_blocks: plan.train.recompute_blocks,
        };
        let mixer = Mixer::from_weights(weights, &device)?.with_compute(compute);
        Ok((rates.frozen(mixer), optimizer.with_rates(rates), state))
    }

    /// Bytes of a checkpoint, nearly: the parameters, and what the optimizer keeps of them.
    fn checkpoint_bytes(&self) -> u64 {
        let kept = 1
            + self.plan.optimizer.rule.num_moments()
            + usize::from(self.plan.train.ema_decay.is_some());
        4 * kept as u64 * count::num_params(&self.plan.model.network) as u64
    }
}

impl<'a> Run<'a> {
    fn start(
        trainer: &'a Trainer,
        initial: impl FnOnce() -> Result<Weights, TrainError>,
        checkpoint: Option<(PathBuf, Checkpoint)>,
    ) -> Result<(Run<'a>, Mixer), TrainError> {
        let (resumed_from, checkpoint) = checkpoint.unzip();
        let (mixer, optimizer, state) = trainer.restore(initial, checkpoint)?;
        interrupt::updated(state.step);
        interrupt::saved(state.step);
        let skipped = state.skipped_train.iter().copied();
        let device = trainer.autodiff_device();
        let gradient = BatchGradient::new(trainer, state.step, skipped, &device)?;
        let directory = trainer.run_dir.checkpoints();
        let run = Run {
            trainer,
            optimizer,
            metrics: MetricsFile::open(&trainer.run_dir.metrics(), state.metrics_bytes)?,
            writer: BackgroundWriter::start(&directory, Retention::of(&trainer.plan.train))?,
            saved: resumed_from.as_ref().map(|_| state.step),
            resumed_from,
            state,
            gradient,
            since_line: Interval::start(),
            saving: Duration::ZERO,
            is_warm: false,
            longest_update: Duration::ZERO,
            last_finite: None,
            pending: None,
        };
        Ok((run, mixer))
    }

    /// One update over `batch_size` examples. Asked to stop in the middle of it, the batch is given up:
    /// the weights are those before it.
    fn update(
        &mut self,
        mixer: Mixer,
        progress: &mut Progress,
    ) -> Result<(Mixer, Option<Stop>), TrainError> {
        let started = Instant::now();
        let trainer = self.trainer;
        let plan = &trainer.plan;
        let step = self.state.step;
        self.writer.check()?;
        let (longest_save, bytes) = (self.writer.longest_save(), trainer.checkpoint_bytes());
        let piece =
            self.longest_update * plan.train.microbatch_size as u32 / plan.train.batch_size as u32;
        let stop = || trainer.stop_requested(piece, longest_save, bytes);
        let found = match self.gradient.next(&mixer, step, self.state.loss_factor(), stop, |_| ()) {
            Ok(Ok(found)) => found,
            Ok(Err(stop)) => return Ok((mixer, Some(stop))),
            Err(error) => return Err(self.saved_before(error, &mixer, progress)),
        };
        let Gradient { sum, loss, squared_norm, indices, skipped, waited } = found;
        self.since_line.waited += waited;
        self.since_line.examples += plan.train.batch_size as u64;
        self.state.skipped_train.extend(skipped.iter().map(|example| example.index));
        self.report_skipped(&skipped, "train", progress)?;
        let lr = plan.learning_rate().rate(step);
        let values = Tensor::cat(vec![loss, squared_norm.clone()], 0);
        let pending = Pending { step, lr, values, indices };
        let clip = plan.train.clip_norm.map(|limit| Clip { squared_norm, limit });
        // A GPU is given the update before anybody waits for its values, so that it always has work. What
        // is not finite is then found one update later, before anything of it is evaluated or saved. To be
        // left out, it has to be found before.
        let may_be_left_out =
            plan.train.on_divergence != OnDivergence::Stop || plan.train.loss_scale.is_some();
        let is_late = trainer.device.is_gpu() && !may_be_left_out;
        let previous = if is_late {
            self.pending.replace(pending)
        } else {
            match self.settle(pending, progress)? {
                Ok(()) => None,
                Err(found) => {
                    if !self.lower_loss_scale(&found, progress)? {
                        self.diverged(found, Some(&mixer), progress)?;
                    }
                    self.updated(started);
                    return Ok((mixer, None));
                }
            }
        };
        let mixer = self.optimizer.update(mixer, sum, clip.as_ref(), lr);
        if let Some(pending) = previous
            && let Err(found) = self.settle(pending, progress)?
        {
            self.diverged(found, None, progress)?;
        }
        self.updated(started);
        Ok((mixer, None))
    }

    /// Counts an update, be it applied or left out.
    fn updated(&mut self, started: Instant) {
        self.state.step += 1;
        interrupt::updated(self.state.step);
        // The first one of a process may compile kernels.
        if std::mem::replace(&mut self.is_warm, true) {
            self.longest_update = self.longest_update.max(started.elapsed());
        }
    }

    /// Reads what the newest update of a GPU found: before anything is evaluated or saved, so that
    /// nothing is that came of numbers that are not finite.
    fn settle_pending(&mut self, progress: &mut Progress) -> Result<(), TrainError> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        match self.settle(pending, progress)? {
            Ok(()) => Ok(()),
            Err(found) => self.diverged(found, None, progress),
        }
    }

    /// Reads what an update found and logs it, if it is finite.
    fn settle(
        &mut self,
        pending: Pending,
        progress: &mut Progress,
    ) -> Result<Result<(), NotFinite>, TrainError> {
        // SYNC: the loss and the norm in one read.
        let values = pending.values.clone().into_data();
        let mut values = values.iter::<f32>().map(f64::from);
        let loss = values.next().unwrap_or(f64::NAN);
        let grad_norm = values.next().unwrap_or(f64::NAN).sqrt();
        for (quantity, value) in [("loss", loss), (GRADIENT_NORM, grad_norm)] {
            if !value.is_finite() {
                return Ok(Err(NotFinite { quantity, value, pending }));
            }
        }
        let Pending { step, lr, .. } = pending;
        self.last_finite = Some(Values { step, loss, grad_norm });
        let rate = self.since_line.images_per_sec();
        progress.update(step + 1, || format!("loss {loss:.4} lr {lr:.2e} {rate:.0} images/s"));
        self.report_outliers(step + 1, loss, grad_norm, progress)?;
        self.state.loss_sum += loss;
        self.state.grad_norm_sum += grad_norm;
        self.state.summed_steps += 1;
        if let (Some(rule), Some(scale)) =
            (self.trainer.plan.train.loss_scale, &mut self.state.loss_scale)
            && scale.applied(rule)
        {
            let factor = scale.factor;
            self.metrics.write(&Metric::LossScale { step: step + 1, factor })?;
        }
        self.log(step + 1, lr)?;
        Ok(Ok(()))
    }

    /// Leaves out an update whose gradients, but not whose loss, overflowed, where a smaller factor of the
    /// loss can help. Returns whether it did.
    fn lower_loss_scale(
        &mut self,
        found: &NotFinite,
        progress: &mut Progress,
    ) -> Result<bool, TrainError> {
        let Some(scale) = &mut self.state.loss_scale else { return Ok(false) };
        if found.quantity != GRADIENT_NORM || !scale.overflowed() {
            return Ok(false);
        }
        let factor = scale.factor;
        let Pending { step, lr, .. } = found.pending;
        progress.note(&format!(
            "step {step}: gradients overflowed: the update is left out, the loss is multiplied by {factor} now"
        ));
        self.metrics.write(&Metric::LossScale { step: step + 1, factor })?;
        self.log(step + 1, lr)?;
        Ok(true)
    }

    /// Leaves an update out, where the plan allows it; otherwise keeps what is needed to replay it, and
    /// ends the run. `before` is the network before the update, where it is still there.
    fn diverged(
        &mut self,
        found: NotFinite,
        before: Option<&Mixer>,
        progress: &mut Progress,
    ) -> Result<(), TrainError> {
        let NotFinite { quantity, value, pending: Pending { step, lr, indices, .. } } = found;
        if let OnDivergence::Skip { at_most } = self.trainer.plan.train.on_divergence
            && self.state.diverged < at_most
        {
            self.state.diverged += 1;
            let left = at_most - self.state.diverged;
            progress.note(&format!(
                "warning: {quantity} is {value} at step {step}: the update is left out; {left} more may be"
            ));
            let (quantity, value) = (quantity.to_owned(), value.to_string());
            self.metrics.write(&Metric::Diverged { step: step + 1, quantity, value })?;
            return self.log(step + 1, lr);
        }
        let divergence = Divergence {
            mixer_version: env!("CARGO_PKG_VERSION").to_owned(),
            step,
            quantity: quantity.to_owned(),
            value: value.to_string(),
            learning_rate: lr,
            last_finite: self.last_finite,
            examples: indices,
            state: None,
        };
        let kept = before.map(|mixer| self.capture(mixer)).transpose();
        let file = kept.and_then(|state| divergence.write(&self.trainer.run_dir, state.as_ref()));
        match &file {
            Ok(file) => {
                progress.note(&format!("the batch is kept for `--replay {}`", file.display()))
            }
            Err(error) => progress.note(&format!("warning: the batch could not be kept: {error}")),
        }
        Err(TrainError::Diverged { quantity, value, step })
    }

    /// Says and logs what stands out.
    fn report_outliers(
        &mut self,
        step: u64,
        loss: f64,
        grad_norm: f64,
        progress: &Progress,
    ) -> Result<(), TrainError> {
        let Some(threshold) = self.trainer.plan.train.outlier_z_score else { return Ok(()) };
        let windows = &mut self.state.windows;
        for (quantity, value, window) in
            [("loss", loss, &mut windows.loss), (GRADIENT_NORM, grad_norm, &mut windows.grad_norm)]
        {
            if let Some(outlier) = window.observe(value, threshold) {
                let (mean, std, z_score) = (outlier.mean, outlier.std, outlier.z_score);
                progress.note(&format!(
                    "step {step}: {quantity} {value:.4} stands out: {z_score:.1} standard deviations above {mean:.4}"
                ));
                let quantity = quantity.to_owned();
                self.metrics.write(&Metric::Outlier {
                    step,
                    quantity,
                    value,
                    mean,
                    std,
                    z_score,
                })?;
            }
        }
        Ok(())
    }

    /// Writes a line of metrics when one is due.
    fn log(&mut self, step: u64, lr: f64) -> Result<(), TrainError> {
        let plan = &self.trainer.plan;
        // All updates since the last line may have been left out.
        if !self.trainer.is_due(step, plan.train.log_every_steps) || self.state.summed_steps == 0 {
            return Ok(());
        }
        let n = self.state.summed_steps as f64;
        self.metrics.write(&Metric::Train {
            step,
            epoch: step as f64 / plan.steps_per_epoch(),
            loss: self.state.loss_sum / n,
            lr,
            grad_norm: self.state.grad_norm_sum / n,
            images_per_sec: self.since_line.images_per_sec(),
            data_wait: self.since_line.data_wait(),
        })?;
        (self.state.loss_sum, self.state.grad_norm_sum, self.state.summed_steps) = (0.0, 0.0, 0);
        self.since_line = Interval::start();
        Ok(())
    }

    /// Evaluates the weights, and their moving average where one is kept, which then counts as the
    /// result. What is asked to stop comes first; it will be done again after the resume.
    fn evaluate(
        &mut self,
        mixer: &Mixer,
        progress: &mut Progress,
    ) -> Result<Result<Evaluation, Stop>, TrainError> {
        self.settle_pending(progress)?;
        let trainer = self.trainer;
        let started = Instant::now();
        let evaluator = trainer.evaluator();
        let device = &trainer.device.device;
        let (longest_save, bytes) = (self.writer.longest_save(), trainer.checkpoint_bytes());
        let stop = || trainer.stop_requested(Duration::ZERO, longest_save, bytes);
        let go_on = |_| stop().is_none();
        let mut skipped = Vec::new();
        let skip = |example: &SkippedExample| skipped.push(example.clone());
        let evaluation;
        let mut evaluations = Vec::new();
        let average = self.optimizer.averaged(mixer);
        match evaluator.run(&mixer.valid(), device, &trainer.dataset.val, go_on, skip) {
            Ok(Some(of_weights)) => {
                evaluation = of_weights;
                evaluations.push((None, of_weights));
            }
            Ok(None) => return Ok(Err(stop().unwrap_or(Stop::Interrupted))),
            Err(error) => return Err(self.saved_before(error, mixer, progress)),
        }
        if let Some(average) = &average {
            // It reads, and so passes over, what the evaluation before has read.
            let skip = |_: &SkippedExample| ();
            match evaluator.run(average, device, &trainer.dataset.val, go_on, skip) {
                Ok(Some(evaluation)) => evaluations.push((Some("average"), evaluation)),
                Ok(None) => return Ok(Err(stop().unwrap_or(Stop::Interrupted))),
                Err(error) => return Err(self.saved_before(error, mixer, progress)),
            }
        }
        self.report_skipped(&skipped, &trainer.plan.facts.val_split, progress)?;
        let step = self.state.step;
        let split = &trainer.plan.facts.val_split;
        for &(weights, Evaluation { loss, top1, top5, n }) in &evaluations {
            let (split, weights) = (split.clone(), weights.map(str::to_owned));
            let of = weights.as_ref().map_or(String::new(), |weights| format!(" {weights}"));
            progress.note(&format!(
                "step {step} (epoch {:.2}){of}: {split} loss {loss:.4}, top-1 {:.2} %, top-5 {:.2} % of {n}",
                step as f64 / trainer.plan.steps_per_epoch(),
                100.0 * top1,
                100.0 * top5
            ));
            self.metrics.write(&Metric::Eval { step, split, weights, loss, top1, top5, n })?;
        }
        let evaluation = evaluations.last().map_or(evaluation, |(_, evaluation)| *evaluation);
        self.state.evaluated_step = step;
        // A checkpoint from before it, as of a run that was stopped in it, does not know of it.
        self.saved = None;
        if let Some(rule) = trainer.plan.train.early_stopping {
            self.state.stagnation.observe(rule, evaluation.top1);
        }
        let evaluated = started.elapsed();
        if self.state.best.is_none_or(|(_, best)| evaluation.top1 > best.top1) {
            self.state.best = Some((step, evaluation));
            let weights = self.weights(average.as_ref().unwrap_or(mixer))?;
            self.writer.weights(weights, trainer.run_dir.best())?;
        }
        self.saving += started.elapsed() - evaluated;
        // An evaluation is no training time.
        self.since_line.started += started.elapsed();
        Ok(Ok(evaluation))
    }

    /// Says, counts and logs what was passed over.
    fn report_skipped(
        &mut self,
        skipped: &[SkippedExample],
        split: &str,
        progress: &Progress,
    ) -> Result<(), TrainError> {
        for SkippedExample { index, reason } in skipped {
            progress.note(&format!("warning: passed over an example of {split}: {reason}"));
            self.state.skipped += 1;
            self.metrics.write(&Metric::Skipped {
                step: self.state.step,
                split: split.to_owned(),
                index: *index,
                reason: reason.clone(),
            })?;
        }
        Ok(())
    }

    /// Whether the update that was just done is to be saved.
    fn is_checkpoint_due(&self) -> bool {
        let (plan, step) = (&self.trainer.plan, self.state.step);
        let is_best = plan.train.keep_best_checkpoint
            && self.state.best.is_some_and(|(best, _)| best == step);
        // Taken in any case.
        let is_asked_for = interrupt::take_save_request() && step > 0;
        self.trainer.is_due(step, plan.train.checkpoint_every_steps) || is_best || is_asked_for
    }

    /// Has a checkpoint written, if there is none of this update: it is copied to the host, and training
    /// goes on.
    fn save(&mut self, mixer: &Mixer, progress: &mut Progress) -> Result<(), TrainError> {
        self.settle_pending(progress)?;
        if self.saved == Some(self.state.step) {
            return Ok(());
        }
        let started = Instant::now();
        self.writer.wait_for_checkpoint()?;
        let checkpoint = self.capture(mixer)?;
        self.writer.checkpoint(checkpoint, self.metrics.handle()?)?;
        self.saved = Some(self.state.step);
        self.saving += started.elapsed();
        self.since_line.started += started.elapsed();
        Ok(())
    }

    /// Copies everything to the host.
    fn capture(&mut self, mixer: &Mixer) -> Result<Checkpoint, TrainError> {
        self.state.metrics_bytes = self.metrics.bytes();
        Checkpoint::capture(mixer, &self.optimizer, self.state.clone(), self.metadata())
    }

    /// Saves, waits until it is on disk, and returns where; `None` where nothing was trained yet.
    fn save_and_wait(
        &mut self,
        mixer: &Mixer,
        progress: &mut Progress,
    ) -> Result<Option<PathBuf>, TrainError> {
        if self.state.step > 0 {
            self.save(mixer, progress)?;
        }
        self.writer.wait()?;
        Ok(self.writer.newest().map(Path::to_owned).or(self.resumed_from.clone()))
    }

    /// Ends the run before its time.
    fn stopped(
        &mut self,
        stop: Stop,
        mixer: &Mixer,
        progress: &mut Progress,
    ) -> Result<Ended, TrainError> {
        let path = self.save_and_wait(mixer, progress)?;
        match stop {
            Stop::Interrupted => Err(TrainError::Interrupted { step: self.state.step, path }),
            // Again and again, it would never come further.
            Stop::TimeLimit if !self.is_warm => Err(TrainError::usage(
                "the time limit leaves no room for an update and a checkpoint after it",
            )
            .with_hint("raise `--max-time`")),
            Stop::TimeLimit => Ok(Ended::TimeLimit(path)),
        }
    }

    /// Saves what was trained before data could not be read, and gives that error back.
    fn saved_before(
        &mut self,
        error: TrainError,
        mixer: &Mixer,
        progress: &mut Progress,
    ) -> TrainError {
        match self.save_and_wait(mixer, progress) {
            Ok(Some(path)) => progress.note(&format!("checkpoint written: {}", path.display())),
            Ok(None) => {}
            Err(second) => progress.note(&format!("warning: {second}")),
        }
        error
    }

    /// Copies weights to the host.
    fn weights(&self, mixer: &Mixer) -> Result<Weights, TrainError> {
        Ok(mixer.to_weights(self.metadata())?)
    }

    fn metadata(&self) -> mixer_model::Metadata {
        let plan = &self.trainer.plan;
        let mut provenance = vec![
            ("mixer_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("step", self.state.step.to_string()),
            ("train_examples", plan.facts.train_examples.to_string()),
        ];
        if let Some(init) = &plan.init {
            let method = init.resolution(&plan.model.network);
            let resolution = format!("{method} from {} px", init.from.config.image_size);
            provenance.push(("resolution", resolution));
        }
        if let Some(decay) = plan.train.ema_decay {
            provenance.push(("ema_decay", decay.to_string()));
        }
        run_dir::metadata(plan, &provenance)
    }
}
