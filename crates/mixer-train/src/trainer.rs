//! The loop: batches in, updates out; evaluates, logs and saves on the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mixer_data::{BatchMix, Loader, LoaderConfig, MixKind, SkippedExample};
use mixer_model::{Compute, Mixer, Weights};

use crate::backend::DeviceEntry;
use crate::checkpoint::{self, Checkpoint, RunState};
use crate::dataset::Dataset;
use crate::error::TrainError;
use crate::evaluation::{Evaluation, Evaluator};
use crate::input::Normaliser;
use crate::interrupt;
use crate::loss::{mixed_targets, smoothed_targets};
use crate::metrics::{Metric, MetricsFile};
use crate::optimizer::{Clip, GradientSum, Optimizer};
use crate::plan::RunPlan;
use crate::progress::Progress;
use crate::run_dir::{self, RunDir};

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
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The last evaluation; absent when the run had already ended before.
    pub last: Option<Evaluation>,
    /// The best evaluation and its update.
    pub best: Option<(u64, Evaluation)>,
    /// The update that early stopping ended the run at; absent when it went to its end.
    pub stopped_at: Option<u64>,
    /// Time in this process.
    pub elapsed: Duration,
}

/// What an update found, still on the device.
struct Pending {
    /// Updates done, this one included.
    step: u64,
    lr: f64,
    /// Loss and squared norm of the gradient, `[2]`.
    values: Tensor<1>,
}

/// A run in memory.
///
/// The network is not in it: an update takes it and gives it back, so that nobody else holds its
/// tensors and they are written in place.
struct Run<'a> {
    trainer: &'a Trainer,
    optimizer: Optimizer,
    state: RunState,
    metrics: MetricsFile,
    normaliser: Normaliser,
    loader: Loader,
    since_line: Interval,
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
    /// Runs to the end, from `initial` weights or from the newest checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`] after Ctrl-C, with a checkpoint written; [`TrainError::Diverged`]
    /// before an update that is not finite; whatever reading data and writing files can raise.
    pub fn run(
        &self,
        initial: impl FnOnce() -> Result<Weights, TrainError>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Outcome, TrainError> {
        let started = Instant::now();
        interrupt::listen();
        let total = self.plan.schedule.total_steps;
        let (mut run, mut mixer) = Run::start(self, initial, checkpoint)?;
        let mut last = None;
        let mut saved = run.state.step;
        let mut progress = Progress::new("step", total, run.state.step);
        let result = loop {
            let step = run.state.step;
            if self.is_due(step, self.plan.eval_every_steps) && run.state.evaluated_step < step {
                match run.evaluate(&mixer, &mut progress)? {
                    Some(evaluation) => last = Some(evaluation),
                    None => break run.interrupted(&mixer, &mut progress),
                }
            }
            if self.is_due(step, self.plan.checkpoint_every_steps) && saved < step {
                run.save(&mixer, &mut progress)?;
                saved = step;
            }
            if step == total {
                break Ok(());
            }
            if self.plan.early_stopping.is_some_and(|rule| run.state.stagnation.is_over(rule)) {
                // So that the same command finds that nothing is left to do.
                if saved < step {
                    run.save(&mixer, &mut progress)?;
                }
                break Ok(());
            }
            if interrupt::requested() {
                break run.interrupted(&mixer, &mut progress);
            }
            mixer = run.update(mixer, &mut progress)?;
        };
        progress.finish();
        result?;
        match run.optimizer.averaged(&mixer) {
            Some(average) => {
                run.write_weights(&average, &self.run_dir.last())?;
                run.write_weights(&mixer, &self.run_dir.last_unaveraged())?;
            }
            None => run.write_weights(&mixer, &self.run_dir.last())?,
        }
        let stopped_at = Some(run.state.step).filter(|step| *step < total);
        Ok(Outcome { last, best: run.state.best, stopped_at, elapsed: started.elapsed() })
    }

    fn is_due(&self, step: u64, every: u64) -> bool {
        step > 0 && (step.is_multiple_of(every) || step == self.plan.schedule.total_steps)
    }

    fn evaluator(&self) -> Evaluator {
        Evaluator {
            transform: self.plan.eval_transform.clone(),
            preprocessing: self.plan.preprocessing,
            loss: self.plan.loss,
            batch_size: self.plan.eval_batch_size,
            workers: self.workers,
            queue_bytes: self.queue_bytes,
            on_corrupt: self.plan.on_corrupt,
        }
    }

    fn autodiff_device(&self) -> Device {
        self.device.device.clone().autodiff()
    }
}

impl<'a> Run<'a> {
    fn start(
        trainer: &'a Trainer,
        initial: impl FnOnce() -> Result<Weights, TrainError>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<(Run<'a>, Mixer), TrainError> {
        let plan = &trainer.plan;
        let device = trainer.autodiff_device();
        let rates = plan.parameter_rates()?;
        let (mixer, optimizer, state) = match checkpoint {
            Some(checkpoint) => {
                checkpoint.weights.check_fits(&plan.model)?;
                let rule = plan.optimizer.clone();
                let path = trainer.run_dir.checkpoints();
                let device_of_state = &trainer.device.device;
                let optimizer =
                    checkpoint.optimizer(rule, plan.ema_decay, device_of_state, &path)?;
                let mixer = Mixer::from_weights(checkpoint.weights, &device)?;
                (mixer, optimizer, checkpoint.state)
            }
            None => {
                let weights = initial()?;
                weights.check_fits(&plan.model)?;
                let optimizer = Optimizer::new(plan.optimizer.clone(), plan.ema_decay);
                (Mixer::from_weights(weights, &device)?, optimizer, RunState::default())
            }
        };
        let loader = Loader::train_in_order(
            Arc::clone(&trainer.dataset.train),
            plan.train_transform.clone(),
            plan.seed,
            plan.order(),
            state.step * plan.batch_size as u64,
            LoaderConfig {
                batch_size: plan.microbatch_size,
                patch_size: plan.model.patch_size,
                workers: trainer.workers,
                queue_bytes: trainer.queue_bytes,
                on_corrupt: plan.on_corrupt,
            },
        )?;
        let compute =
            Compute { precision: plan.precision.into(), recompute_blocks: plan.recompute_blocks };
        let mixer = rates.frozen(mixer.with_compute(compute));
        let run = Run {
            trainer,
            optimizer: optimizer.with_rates(rates),
            metrics: MetricsFile::open(&trainer.run_dir.metrics(), state.metrics_bytes)?,
            state,
            normaliser: Normaliser::new(&plan.preprocessing, plan.model.patch_size, &device),
            loader,
            since_line: Interval::start(),
            pending: None,
        };
        Ok((run, mixer))
    }

    /// One update over `batch_size` examples.
    fn update(&mut self, mixer: Mixer, progress: &mut Progress) -> Result<Mixer, TrainError> {
        let plan = &self.trainer.plan;
        let microbatches = plan.batch_size / plan.microbatch_size;
        let mut gradients = GradientSum::default();
        let mut loss_sum = Tensor::<1>::zeros([1], &self.trainer.device.device);
        let mix = plan
            .mix
            .as_ref()
            .map(|mix| mix.draw(plan.seed, self.state.step, plan.model.image_size as u32));
        for _ in 0..microbatches {
            let waiting = Instant::now();
            let Some(mut batch) = self.loader.next_batch()? else {
                unreachable!("a training stream does not end");
            };
            self.since_line.waited += waiting.elapsed();
            self.report_skipped(&batch.skipped, "train", progress)?;
            let rows = plan.microbatch_size;
            let mut targets =
                smoothed_targets(&batch.labels, plan.model.num_classes, plan.label_smoothing);
            let partners = mix.as_ref().map_or(Vec::new(), |mix| mix.partners(rows));
            if let Some(mix) = &mix {
                mix.apply_cutmix(&mut batch)?;
                targets = mixed_targets(&targets, &partners, mix.lambda);
            }
            let positions = batch.first_position..batch.first_position + rows as u64;
            let scales = plan
                .drop_path
                .branch_scales(plan.model.num_blocks, plan.seed, positions)
                .map(|scales| self.normaliser.matrix(scales, 2 * plan.model.num_blocks));
            let mut patches = self.normaliser.patches(&batch);
            if let Some(BatchMix { kind: MixKind::Mixup, lambda, .. }) = &mix {
                patches = self.normaliser.mixed(patches, &partners, *lambda);
            }
            let logits = mixer.forward_training(patches, scales);
            let targets = self.normaliser.matrix(targets, rows);
            let loss = plan.loss.per_example(logits, targets).mean() / microbatches as f64;
            loss_sum = loss_sum + loss.clone().inner();
            gradients.add(&mixer, &loss.backward());
            self.since_line.examples += rows as u64;
            self.loader.recycle(batch);
        }
        let squared_norm = gradients
            .squared_norm()
            .unwrap_or_else(|| Tensor::zeros([1], &self.trainer.device.device));
        let lr = plan.schedule.rate(self.state.step);
        let pending = Pending {
            step: self.state.step + 1,
            lr,
            values: Tensor::cat(vec![loss_sum, squared_norm.clone()], 0),
        };
        let clip = plan.clip_norm.map(|limit| Clip { squared_norm, limit });
        // A GPU is given the update before anybody waits for its values, so that it always has work. What
        // is not finite is then found one update later, before anything of it is evaluated or saved.
        let previous = if self.trainer.device.is_gpu() {
            self.pending.replace(pending)
        } else {
            self.settle(pending, progress)?;
            None
        };
        let mixer = self.optimizer.update(mixer, gradients, clip.as_ref(), lr);
        self.state.step += 1;
        if let Some(pending) = previous {
            self.settle(pending, progress)?;
        }
        Ok(mixer)
    }

    /// Reads what the newest update of a GPU found: before anything is evaluated or saved, so that
    /// nothing is that came of numbers that are not finite.
    fn settle_pending(&mut self, progress: &mut Progress) -> Result<(), TrainError> {
        self.pending.take().map_or(Ok(()), |pending| self.settle(pending, progress))
    }

    /// Reads what an update found, refuses what is not finite, and logs it.
    fn settle(&mut self, pending: Pending, progress: &mut Progress) -> Result<(), TrainError> {
        let Pending { step, lr, values } = pending;
        // SYNC: the loss and the norm in one read.
        let values = values.into_data();
        let mut values = values.iter::<f32>().map(f64::from);
        let loss = values.next().unwrap_or(f64::NAN);
        let grad_norm = values.next().unwrap_or(f64::NAN).sqrt();
        for (quantity, value) in [("loss", loss), ("gradient norm", grad_norm)] {
            if !value.is_finite() {
                return Err(TrainError::Diverged { quantity, value, step: step - 1 });
            }
        }
        let rate = self.since_line.images_per_sec();
        progress.update(step, || format!("loss {loss:.4} lr {lr:.2e} {rate:.0} images/s"));
        self.log(step, lr, loss, grad_norm)
    }

    /// Adds an update to the sums and writes a line when one is due.
    fn log(&mut self, step: u64, lr: f64, loss: f64, grad_norm: f64) -> Result<(), TrainError> {
        let plan = &self.trainer.plan;
        self.state.loss_sum += loss;
        self.state.grad_norm_sum += grad_norm;
        self.state.summed_steps += 1;
        if !self.trainer.is_due(step, plan.log_every_steps) {
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
    /// result; `None` when Ctrl-C came first, and then it will be done again after the resume.
    fn evaluate(
        &mut self,
        mixer: &Mixer,
        progress: &mut Progress,
    ) -> Result<Option<Evaluation>, TrainError> {
        self.settle_pending(progress)?;
        let trainer = self.trainer;
        let started = Instant::now();
        let evaluator = trainer.evaluator();
        let device = &trainer.device.device;
        let go_on = |_| !interrupt::requested();
        let mut skipped = Vec::new();
        let skip = |example: &SkippedExample| skipped.push(example.clone());
        let Some(evaluation) =
            evaluator.run(&mixer.valid(), device, &trainer.dataset.val, go_on, skip)?
        else {
            return Ok(None);
        };
        let mut evaluations = vec![(None, evaluation)];
        let average = self.optimizer.averaged(mixer);
        if let Some(average) = &average {
            // It reads, and so passes over, what the evaluation before has read.
            let skip = |_: &SkippedExample| ();
            match evaluator.run(average, device, &trainer.dataset.val, go_on, skip)? {
                Some(evaluation) => evaluations.push((Some("average"), evaluation)),
                None => return Ok(None),
            }
        }
        self.report_skipped(&skipped, &trainer.plan.data.val_split, progress)?;
        let step = self.state.step;
        let split = &trainer.plan.data.val_split;
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
        if let Some(rule) = trainer.plan.early_stopping {
            self.state.stagnation.observe(rule, evaluation.top1);
        }
        if self.state.best.is_none_or(|(_, best)| evaluation.top1 > best.top1) {
            self.state.best = Some((step, evaluation));
            self.write_weights(average.as_ref().unwrap_or(mixer), &trainer.run_dir.best())?;
        }
        // An evaluation is no training time.
        self.since_line.started += started.elapsed();
        Ok(Some(evaluation))
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

    /// Writes a checkpoint and removes what is too old.
    fn save(
        &mut self,
        mixer: &Mixer,
        progress: &mut Progress,
    ) -> Result<std::path::PathBuf, TrainError> {
        self.settle_pending(progress)?;
        let started = Instant::now();
        self.state.metrics_bytes = self.metrics.sync()?;
        let directory = self.trainer.run_dir.checkpoints();
        let metadata = self.metadata();
        let state = self.state.clone();
        let path =
            Checkpoint::capture(mixer, &self.optimizer, state, metadata)?.write(&directory)?;
        checkpoint::prune(&directory, self.trainer.plan.keep_checkpoints)?;
        self.since_line.started += started.elapsed();
        Ok(path)
    }

    fn interrupted(&mut self, mixer: &Mixer, progress: &mut Progress) -> Result<(), TrainError> {
        let path = self.save(mixer, progress)?;
        Err(TrainError::Interrupted { step: self.state.step, path })
    }

    fn write_weights(&self, mixer: &Mixer, path: &std::path::Path) -> Result<(), TrainError> {
        Ok(mixer.to_weights(self.metadata())?.write_safetensors(path)?)
    }

    fn metadata(&self) -> mixer_model::Metadata {
        let plan = &self.trainer.plan;
        let mut provenance = vec![
            ("mixer_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("step", self.state.step.to_string()),
            ("train_examples", plan.data.train_examples.to_string()),
        ];
        if let Some(init) = &plan.init {
            provenance
                .push(("resolution", format!("{} from {} px", init.resolution, init.image_size)));
        }
        if let Some(decay) = plan.ema_decay {
            provenance.push(("ema_decay", decay.to_string()));
        }
        run_dir::metadata(plan, &provenance)
    }
}
