//! The loop: batches in, updates out; evaluates, logs and saves on the way.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Tensor;
use mixer_data::SkippedExample;
use mixer_model::Mixer;

use crate::disk::background_writer::BackgroundWriter;
use crate::disk::checkpoint::{Checkpoint, RunState};
use crate::disk::metrics::MetricsFile;
use crate::disk::retention::Retention;
use crate::error::{TrainError, exit_code};
use crate::group::{is_first, verdict};
use crate::halt::{Halt, Stop};
use crate::run::divergence::{Divergence, Values};
use crate::run::evaluation::Evaluation;
use crate::run::interrupt;
use crate::run::job::{Job, Start};
use crate::run::journal::{self, Evaluated, Event, Journal};
use crate::run::on_divergence::OnDivergence;
use crate::run::passes::Passes;
use crate::run::quantity::Quantity;
use crate::run::time_limit::TimeLimit;
use crate::run::together::{Joined, Together};
use crate::update::batch_gradient::{Gradient, Microbatch};
use crate::update::optimizer::{Clip, Optimizer};

/// The events at which a run ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Its length.
    Finished,
    /// Early stopping.
    StoppedEarly,
    /// The time limit, with the checkpoint to go on from; absent before the first update.
    TimeLimit(Option<PathBuf>),
}

/// The end of a run, and what it came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The event at which it ended.
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

/// The values of an update, still on the device.
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
    quantity: Quantity,
    value: f64,
    step: u64,
    lr: f64,
    /// Index of each example.
    indices: Vec<u64>,
}

impl Pending {
    /// Reads the values; waits until the device has them.
    fn read(self) -> Result<(Values, f64), NotFinite> {
        let Self { step, lr, values, indices } = self;
        // SYNC: the loss and the norm in one read.
        let values = values.into_data();
        let mut values = values.iter::<f32>().map(f64::from);
        let loss = values.next().unwrap_or(f64::NAN);
        let grad_norm = values.next().unwrap_or(f64::NAN).sqrt();
        for (quantity, value) in [(Quantity::Loss, loss), (Quantity::GradientNorm, grad_norm)] {
            if !value.is_finite() {
                return Err(NotFinite { quantity, value, step, lr, indices });
            }
        }
        Ok((Values { step, loss, grad_norm }, lr))
    }
}

/// The next thing that a run does.
enum Next {
    /// An update with this gradient, which was begun then.
    Update(Instant, Box<Gradient>),
    /// Nothing: it is over.
    End(Ended),
}

/// A run in memory.
///
/// The network is not in it: an update takes it and gives it back, so that nobody else holds its
/// tensors and they are written in place.
struct Run<'a> {
    job: &'a Job,
    time_limit: Option<TimeLimit>,
    optimizer: Optimizer,
    state: RunState,
    /// The update of the newest checkpoint, written or under way.
    saved: Option<u64>,
    /// Its place, when it was there before this process.
    resumed_from: Option<PathBuf>,
    journal: Journal,
    writer: BackgroundWriter,
    passes: Passes<'a>,
    since_line: Interval,
    /// The last evaluation of this process.
    last: Option<Evaluation>,
    /// Time that training stood still for saving.
    saving: Duration,
    /// `true` once an update was done in this process.
    is_warm: bool,
    /// The longest update but for the first.
    longest_update: Duration,
    last_finite: Option<Values>,
    /// The newest update of a GPU: its values are read when the next one is under way.
    pending: Option<Pending>,
    /// A checkpoint was asked for.
    is_save_asked: bool,
    together: Together<'a>,
}

/// Time since the last line of metrics.
struct Interval {
    started: Instant,
    waited: Duration,
    /// With other processes.
    together: Duration,
    examples: u64,
}

impl Interval {
    fn start() -> Self {
        let (started, none) = (Instant::now(), Duration::ZERO);
        Self { started, waited: none, together: none, examples: 0 }
    }

    fn images_per_sec(&self) -> f64 {
        self.examples as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    fn data_wait(&self) -> f64 {
        self.share(self.waited)
    }

    fn share(&self, of: Duration) -> f64 {
        of.as_secs_f64() / self.started.elapsed().as_secs_f64().max(1e-9)
    }
}

/// Runs a job to its end.
///
/// # Errors
/// [`TrainError::Interrupted`] after a signal, with a checkpoint written; [`TrainError::Diverged`]
/// before an update that is not finite, [`TrainError::DivergedAfter`] where an evaluation or the weights are
/// not; whatever reading data and writing files can raise. What was
/// trained before data could not be read is saved first.
pub fn train(
    job: &Job,
    start: Start,
    time_limit: Option<TimeLimit>,
) -> Result<Outcome, TrainError> {
    let started = Instant::now();
    interrupt::listen();
    let group = &*job.group;
    let (run, mixer) = verdict::all(group, Run::start(job, start, time_limit))?;
    let outcome = run.finished(mixer);
    // Together: a launcher ends the others when the first one has failed, and one may still be writing.
    let outcome = verdict::all(group, outcome)?;
    Ok(Outcome { elapsed: started.elapsed(), ..outcome })
}

impl<'a> Run<'a> {
    fn start(
        job: &'a Job,
        start: Start,
        time_limit: Option<TimeLimit>,
    ) -> Result<(Self, Mixer), TrainError> {
        let resumed_from = match &start {
            Start::Checkpoint(path, _) => Some(path.clone()),
            Start::Weights(_) => None,
        };
        let (mixer, optimizer, state) = job.restore(start)?;
        interrupt::updated(state.step);
        interrupt::saved(state.step);
        let run = Self {
            passes: Passes::new(job, &state)?,
            journal: Journal::open(
                job,
                state.metrics_bytes,
                state.step,
                state.elapsed_secs,
                state.best.map(|(_, best)| best.top1),
            )?,
            writer: if is_first(&*job.group) {
                let retention = Retention::of(&job.plan.train);
                BackgroundWriter::start(&job.run_dir.checkpoints(), retention)?
            } else {
                BackgroundWriter::idle()
            },
            job,
            time_limit,
            optimizer,
            saved: resumed_from.as_ref().map(|_| state.step),
            resumed_from,
            state,
            since_line: Interval::start(),
            last: None,
            saving: Duration::ZERO,
            is_warm: false,
            longest_update: Duration::ZERO,
            last_finite: None,
            pending: None,
            is_save_asked: false,
            together: Together::new(job),
        };
        Ok((run, mixer))
    }

    /// Trains to the end. When it returns, everything is on disk.
    fn finished(mut self, mut mixer: Mixer) -> Result<Outcome, TrainError> {
        let end = loop {
            match self.next(&mixer) {
                Ok(Next::Update(started, gradient)) => {
                    let updated = self.update(mixer, started, *gradient);
                    mixer = updated.map_err(|error| self.together.told(error))?;
                }
                Ok(Next::End(ended)) => break Ok(ended),
                Err(halt) => break Err(halt),
            }
        };
        let ended = match end {
            Ok(ended) => Ok(ended),
            Err(Halt::Stop(stop)) => self.stopped(stop, &mixer),
            Err(Halt::Failed(error)) => {
                let error = self.together.told(error);
                Err(self.failed(error, &mixer))
            }
        };
        self.journal.finish();
        let ended = ended?;
        self.finish(&ended, &mixer)?;
        Ok(Outcome {
            ended,
            step: self.state.step,
            last: self.last,
            best: self.state.best,
            elapsed: Duration::ZERO,
            checkpoints: self.writer.checkpoints(),
            saving: self.saving,
        })
    }

    /// Does what is due after the last update, and computes the gradient of the next one.
    fn next(&mut self, mixer: &Mixer) -> Result<Next, Halt> {
        let (plan, step) = (&self.job.plan, self.state.step);
        let is_due =
            self.is_due(step, plan.train.eval_every_steps) && self.state.evaluated_step < step;
        let is_first = plan.train.eval_at_start && step == 0 && self.last.is_none();
        if is_due || is_first {
            self.evaluate(mixer)?;
        }
        if self.is_checkpoint_due() {
            self.save(mixer)?;
        }
        if step == plan.train.steps {
            return Ok(Next::End(Ended::Finished));
        }
        if plan.schedule.extended_at() == Some(step) {
            // Who makes a run longer wants more of it, also where it had stopped early.
            self.state.stagnation.evaluations = 0;
        }
        if plan.train.early_stopping.is_some_and(|rule| self.state.stagnation.is_over(rule)) {
            // So that the same command finds that nothing is left to do.
            self.save(mixer)?;
            return Ok(Next::End(Ended::StoppedEarly));
        }
        let started = Instant::now();
        let piece =
            self.longest_update * plan.train.microbatch_size as u32 / plan.train.batch_size as u32;
        let stop = self.stop_before(piece);
        let (journal, together) = (&mut self.journal, &mut self.together);
        let ready = self.writer.check();
        let watch = |_: Microbatch<'_>| journal.microbatch();
        let Joined { gradient, is_save_asked, time } =
            self.passes.next(mixer, &self.state, together, ready, stop, watch)?;
        self.since_line.together += time;
        self.is_save_asked |= is_save_asked;
        Ok(Next::Update(started, Box::new(gradient)))
    }

    fn is_due(&self, step: u64, every: u64) -> bool {
        step > 0 && (step.is_multiple_of(every) || step == self.job.plan.train.steps)
    }

    /// The question whether to stop rather than begin something that takes as long as `piece`.
    fn stop_before(&self, piece: Duration) -> impl Fn() -> Option<Stop> + use<> {
        let (limit, longest_save) = (self.time_limit, self.writer.longest_save());
        let bytes = self.job.checkpoint_bytes();
        move || {
            if interrupt::requested() {
                return Some(Stop::Interrupted);
            }
            (!limit?.allows(piece, longest_save, bytes)).then_some(Stop::TimeLimit)
        }
    }

    /// Applies an update, or leaves it out where it is not finite and may be.
    fn update(
        &mut self,
        mixer: Mixer,
        started: Instant,
        gradient: Gradient,
    ) -> Result<Mixer, TrainError> {
        let (job, step) = (self.job, self.state.step);
        let plan = &job.plan;
        let Gradient { sum, loss, indices, skipped, waited } = gradient;
        let squared_norm = sum.squared_norm().unwrap_or_else(|| loss.zeros_like());
        let squared_norm = self.together.number(squared_norm);
        self.since_line.waited += waited;
        self.since_line.examples += plan.train.batch_size as u64;
        self.state.skipped_train.extend(skipped.iter().map(|example| example.index));
        self.report_skipped(&skipped, "train")?;
        let lr = plan.learning_rate().rate(step);
        let values = Tensor::cat(vec![loss, squared_norm.clone()], 0);
        let pending = Pending { step, lr, values, indices };
        let clip = plan.train.clip_norm.map(|limit| Clip { squared_norm, limit });
        // A GPU is given the update before anybody waits for its values, so that it always has work. What
        // is not finite is then found one update later, before anything of it is evaluated or saved. To be
        // left out, it has to be found before.
        let may_be_left_out =
            plan.train.on_divergence != OnDivergence::Stop || plan.train.loss_scale.is_some();
        let is_late = job.device.is_gpu() && !may_be_left_out;
        let previous = if is_late {
            self.pending.replace(pending)
        } else {
            match pending.read() {
                Ok((values, lr)) => self.was_finite(values, lr)?,
                Err(found) => {
                    if !self.lower_loss_scale(&found)? {
                        self.diverged(found, Some(&mixer))?;
                    }
                    self.updated(started);
                    return Ok(mixer);
                }
            }
            None
        };
        let mixer = self.optimizer.update(mixer, sum, clip.as_ref(), lr);
        self.settle(previous)?;
        self.updated(started);
        Ok(mixer)
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

    /// Reads the values of an update that was applied before anybody saw them.
    fn settle(&mut self, pending: Option<Pending>) -> Result<(), TrainError> {
        match pending.map(Pending::read) {
            None => Ok(()),
            Some(Ok((values, lr))) => self.was_finite(values, lr),
            Some(Err(found)) => self.diverged(found, None),
        }
    }

    /// Settles the newest update of a GPU: before anything is evaluated or saved, because no number that is
    /// not finite may get there.
    fn settle_pending(&mut self) -> Result<(), TrainError> {
        let pending = self.pending.take();
        self.settle(pending)
    }

    /// Takes the values of an update into account.
    fn was_finite(&mut self, values: Values, lr: f64) -> Result<(), TrainError> {
        let Values { step, loss, grad_norm } = values;
        let step = step + 1;
        self.last_finite = Some(values);
        let (images_per_sec, data_wait) =
            (self.since_line.images_per_sec(), self.since_line.data_wait());
        self.journal.record(&Event::Update { loss, lr, images_per_sec, data_wait })?;
        self.report_outliers(step, loss, grad_norm)?;
        self.state.loss_sum += loss;
        self.state.grad_norm_sum += grad_norm;
        self.state.summed_steps += 1;
        if let (Some(rule), Some(scale)) =
            (self.job.plan.train.loss_scale, &mut self.state.loss_scale)
            && scale.applied(rule)
        {
            let factor = scale.factor;
            self.journal.record(&Event::LossScaleGrew { step, factor })?;
        }
        self.log(step, lr)
    }

    /// Leaves out an update whose gradients, but not whose loss, overflowed, where a smaller factor of the
    /// loss can help. Returns whether it did.
    fn lower_loss_scale(&mut self, found: &NotFinite) -> Result<bool, TrainError> {
        let Some(scale) = &mut self.state.loss_scale else { return Ok(false) };
        if found.quantity != Quantity::GradientNorm || !scale.overflowed() {
            return Ok(false);
        }
        let (step, factor) = (found.step + 1, scale.factor);
        self.journal.record(&Event::Overflow { step, factor })?;
        self.log(step, found.lr)?;
        Ok(true)
    }

    /// Leaves an update out, where the plan allows it; otherwise keeps what is needed to replay it, and
    /// ends the run. `before` is the network before the update, where it is still there.
    fn diverged(&mut self, found: NotFinite, before: Option<&Mixer>) -> Result<(), TrainError> {
        let NotFinite { quantity, value, step, lr, indices } = found;
        if let OnDivergence::Skip { at_most } = self.job.plan.train.on_divergence
            && self.state.diverged < at_most
        {
            self.state.diverged += 1;
            let left = at_most - self.state.diverged;
            self.journal.record(&Event::LeftOut { step: step + 1, quantity, value, left })?;
            return self.log(step + 1, lr);
        }
        // Every process has the same values, and so is here.
        let indices = self.together.indices(indices)?;
        let divergence = Divergence {
            mixer_version: env!("CARGO_PKG_VERSION").to_owned(),
            step,
            quantity,
            value: value.to_string(),
            learning_rate: lr,
            last_finite: self.last_finite,
            examples: indices,
            state: None,
        };
        if !is_first(&*self.job.group) {
            return Err(TrainError::Diverged { quantity, value, step });
        }
        let kept = before.map(|mixer| self.capture(mixer)).transpose();
        let file = kept.and_then(|state| divergence.write(&self.job.run_dir, state.as_ref()));
        self.journal.note(&match &file {
            Ok(file) => format!("the batch is kept for `--replay {}`", file.display()),
            Err(error) => format!("warning: the batch could not be kept: {error}"),
        });
        Err(TrainError::Diverged { quantity, value, step })
    }

    /// Records the values that stand out.
    fn report_outliers(&mut self, step: u64, loss: f64, grad_norm: f64) -> Result<(), TrainError> {
        let Some(threshold) = self.job.plan.train.outlier_z_score else { return Ok(()) };
        let windows = &mut self.state.windows;
        for (quantity, value, window) in [
            (Quantity::Loss, loss, &mut windows.loss),
            (Quantity::GradientNorm, grad_norm, &mut windows.grad_norm),
        ] {
            if let Some(found) = window.observe(value, threshold) {
                self.journal.record(&Event::Outlier { step, quantity, value, found })?;
            }
        }
        Ok(())
    }

    /// Records the means of the last updates when they are due.
    fn log(&mut self, step: u64, lr: f64) -> Result<(), TrainError> {
        let plan = &self.job.plan;
        // All updates since the last line may have been left out.
        if !self.is_due(step, plan.train.log_every_steps) || self.state.summed_steps == 0 {
            return Ok(());
        }
        let n = self.state.summed_steps as f64;
        self.journal.record(&Event::Interval(journal::Interval {
            step,
            epoch: step as f64 / plan.steps_per_epoch(),
            loss: self.state.loss_sum / n,
            lr,
            grad_norm: self.state.grad_norm_sum / n,
            images_per_sec: self.since_line.images_per_sec(),
            data_wait: self.since_line.data_wait(),
            exchange: (self.job.group.size() > 1)
                .then(|| self.since_line.share(self.since_line.together)),
        }))?;
        (self.state.loss_sum, self.state.grad_norm_sum, self.state.summed_steps) = (0.0, 0.0, 0);
        self.since_line = Interval::start();
        Ok(())
    }

    /// Evaluates the weights, and their moving average where one is kept, which then counts as the
    /// result. A request to stop comes first: the evaluation is done again after the resume.
    fn evaluate(&mut self, mixer: &Mixer) -> Result<(), Halt> {
        self.settle_pending()?;
        let job = self.job;
        let (plan, step, started) = (&job.plan, self.state.step, Instant::now());
        let (evaluator, device, val) = (job.evaluator(), &job.device.device, &job.dataset.val);
        let asked = self.stop_before(Duration::ZERO);
        let part = evaluator.share(val.len(), &*job.group);
        let (journal, num_examples) = (&self.journal, part.len());
        let stop = |done| {
            journal.evaluating(done, num_examples);
            asked()
        };
        let average = self.optimizer.averaged(mixer);
        let mut skipped = Vec::new();
        let skip = |example: &SkippedExample| skipped.push(example.clone());
        let own = evaluator.scores(&mixer.valid(), device, val, part.clone(), stop, skip);
        let own = own.and_then(|scores| {
            let mut of = vec![scores];
            if let Some(average) = &average {
                // It reads, and so passes over, what the evaluation before has read.
                of.push(evaluator.scores(average, device, val, part, stop, |_| ())?);
            }
            Ok(of)
        });
        let (evaluations, skipped) = self.together.evaluations(own, skipped)?;
        self.report_skipped(&skipped, &plan.facts.val_split)?;
        for (index, &found) in evaluations.iter().enumerate() {
            let split = plan.facts.val_split.as_str();
            // Where the average is evaluated too, it is what counts; what the start can do already is no result.
            let counts = index + 1 == evaluations.len() && step > 0;
            let is_best = counts && self.state.best.is_none_or(|(_, best)| found.top1 > best.top1);
            self.journal.record(&Event::Evaluation(Evaluated {
                step,
                epoch: step as f64 / plan.steps_per_epoch(),
                split,
                is_average: index > 0,
                is_best,
                num_classes: plan.model.network.num_classes,
                loss: plan.train.loss,
                found,
            }))?;
            if !found.loss.is_finite() {
                let found = format!("the loss on `{split}` is {}", found.loss);
                return Err(TrainError::DivergedAfter { found, step }.into());
            }
            self.last = Some(found);
        }
        self.state.evaluated_step = step;
        // A checkpoint from before it, as of a run that was stopped in it, does not know of it.
        self.saved = None;
        let evaluated = started.elapsed();
        // What the start can do already is no result of training.
        if let Some(counts) = self.last.filter(|_| step > 0) {
            if let Some(rule) = plan.train.early_stopping {
                self.state.stagnation.observe(rule, counts.top1);
            }
            if self.state.best.is_none_or(|(_, best)| counts.top1 > best.top1) {
                self.state.best = Some((step, counts));
                self.write_weights(average.as_ref().unwrap_or(mixer), job.run_dir.best())?;
            }
        }
        self.saving += started.elapsed() - evaluated;
        // An evaluation is no training time.
        self.since_line.started += started.elapsed();
        Ok(())
    }

    /// Counts and records the examples that were passed over.
    fn report_skipped(
        &mut self,
        skipped: &[SkippedExample],
        split: &str,
    ) -> Result<(), TrainError> {
        for example in skipped {
            self.state.skipped += 1;
            self.journal.record(&Event::Skipped { step: self.state.step, split, example })?;
        }
        Ok(())
    }

    /// `true` where the update that was just done is to be saved.
    fn is_checkpoint_due(&mut self) -> bool {
        // Taken in any case.
        let is_asked_for = std::mem::take(&mut self.is_save_asked);
        let (plan, step) = (&self.job.plan, self.state.step);
        let is_best = plan.train.keep_best_checkpoint
            && self.state.best.is_some_and(|(best, _)| best == step);
        self.is_due(step, plan.train.checkpoint_every_steps) || is_best || is_asked_for
    }

    /// Has a checkpoint written, if there is none of this update: it is copied to the host, and training
    /// goes on.
    fn save(&mut self, mixer: &Mixer) -> Result<(), TrainError> {
        self.settle_pending()?;
        if self.saved == Some(self.state.step) {
            return Ok(());
        }
        let started = Instant::now();
        self.together.check_replicas(mixer, self.state.step)?;
        self.writer.wait_for_checkpoint()?;
        if let Some(metrics) = self.journal.metrics() {
            let metrics = metrics.handle()?;
            let checkpoint = self.capture(mixer)?;
            self.writer.checkpoint(checkpoint, metrics)?;
        }
        self.saved = Some(self.state.step);
        self.saving += started.elapsed();
        self.since_line.started += started.elapsed();
        Ok(())
    }

    /// Copies everything to the host.
    fn capture(&mut self, mixer: &Mixer) -> Result<Checkpoint, TrainError> {
        self.state.metrics_bytes = self.journal.metrics().map_or(0, MetricsFile::bytes);
        self.state.elapsed_secs = self.journal.elapsed_secs();
        let metadata = self.job.metadata(self.state.step);
        Checkpoint::capture(mixer, &self.optimizer, self.state.clone(), metadata)
    }

    /// Saves, waits until it is on disk, and returns where; `None` where nothing was trained yet.
    fn save_and_wait(&mut self, mixer: &Mixer) -> Result<Option<PathBuf>, TrainError> {
        if self.state.step > 0 {
            self.save(mixer)?;
        }
        self.writer.wait()?;
        Ok(self.writer.newest().map(Path::to_owned).or(self.resumed_from.clone()))
    }

    /// Ends the run before its time.
    fn stopped(&mut self, stop: Stop, mixer: &Mixer) -> Result<Ended, TrainError> {
        let path = self.save_and_wait(mixer)?;
        match stop {
            Stop::Interrupted => Err(TrainError::Interrupted { step: self.state.step, path }),
            // The same command would come no further either.
            Stop::TimeLimit if !self.is_warm => Err(TrainError::usage(
                "the time limit leaves no room for an update and a checkpoint after it",
            )
            .with_hint("raise `--max-time`")),
            Stop::TimeLimit => Ok(Ended::TimeLimit(path)),
        }
    }

    /// Ends the run with an error. What was trained before data could not be read is saved.
    fn failed(&mut self, error: TrainError, mixer: &Mixer) -> TrainError {
        if error.exit_code() == exit_code::DATA {
            match self.save_and_wait(mixer) {
                Ok(Some(path)) => {
                    self.journal.note(&format!("checkpoint written: {}", path.display()));
                }
                Ok(None) => {}
                Err(second) => self.journal.note(&format!("warning: {second}")),
            }
        }
        error
    }

    /// Waits until everything is on disk, and writes the last weights where the run is over.
    fn finish(&mut self, ended: &Ended, mixer: &Mixer) -> Result<(), TrainError> {
        self.writer.wait()?;
        if matches!(ended, Ended::TimeLimit(_)) || !is_first(&*self.job.group) {
            return Ok(());
        }
        let (job, step) = (self.job, self.state.step);
        let average = self.optimizer.averaged(mixer);
        if average.is_some() {
            self.write_weights(mixer, job.run_dir.last_unaveraged())?;
        }
        let last = average.as_ref().unwrap_or(mixer);
        // Not once more where the same command finds nothing left to do.
        if !job.run_dir.last().exists() {
            self.journal.weights(&last.to_weights(job.metadata(step))?, step)?;
        }
        // This file tells that a run has come to its end.
        self.write_weights(last, job.run_dir.last())?;
        self.writer.wait()
    }

    /// Has weights written: they are copied to the host, and training goes on.
    fn write_weights(&mut self, mixer: &Mixer, path: PathBuf) -> Result<(), TrainError> {
        if !is_first(&*self.job.group) {
            return Ok(());
        }
        let step = self.state.step;
        let weights = mixer.to_weights(self.job.metadata(step))?;
        self.writer.weights(weights, path, step)
    }
}
