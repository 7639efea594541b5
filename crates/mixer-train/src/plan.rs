//! A run with every value resolved: data-set size × batch size become updates, the number of classes
//! meets the data, divisibility is checked and every default becomes a value. It is saved with the
//! run, and `mixer config show` prints it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mixer_data::{
    DataError, EvalResize, EvalTransform, Interpolation, MixSpec, OnCorrupt, Order, RandAugment,
    RandomErasing, Source, TrainCrop, TrainTransform,
};
use mixer_model::resolution::{MAX_PARAMS, ResizeMethod};
use mixer_model::weights::Preprocessing;
use mixer_model::{Gelu, Metadata, MixerConfig, Variant, count};
use serde::{Deserialize, Serialize};

use crate::config::{
    DataConfig, DataKind, HeadInit, ModelConfig, OptimizerKind, RunConfig, TrainConfig,
};
use crate::disk::retention::Retention;
use crate::error::TrainError;
use crate::input::dataset::{self, Dataset};
use crate::input::preprocessing;
use crate::run::early_stopping::EarlyStopping;
use crate::run::on_divergence::OnDivergence;
use crate::update::drop_path::{DropPath, DropPathScaling};
use crate::update::loss::Loss;
use crate::update::loss_scale::LossScaling;
use crate::update::optimizer::Rule;
use crate::update::parameter_rates::ParameterRates;
use crate::update::precision::Precision;
use crate::update::schedule::{Decay, Schedule};

/// The largest side of a network's input, px; that of `mixer-data`.
const MAX_IMAGE_SIZE: usize = 4096;

/// The largest number of examples per update.
const MAX_BATCH_SIZE: usize = 1 << 20;

/// The largest batch in one piece, as bytes of its pixels.
const MAX_BATCH_BYTES: u128 = 16 << 30;

/// Decoding threads; as many as the loader accepts.
const MAX_WORKERS: usize = 1024;

/// The longest run, updates.
const MAX_STEPS: u64 = 1_000_000_000_000;

/// What a run is for; it decides a few defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// From freshly initialised weights.
    Pretrain,
    /// From given weights.
    Finetune,
}

impl Task {
    /// The command that does it.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Task::Pretrain => "pretrain",
            Task::Finetune => "finetune",
        }
    }
}

/// What a plan needs to know of the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFacts {
    /// Examples to train on.
    pub train_examples: u64,
    /// Examples to evaluate on.
    pub val_examples: u64,
    /// Name of the split that is evaluated.
    pub val_split: String,
    /// Hash of the names and labels of the training examples, hexadecimal. A resumed run compares it.
    pub train_fingerprint: String,
    /// The same of the evaluation examples.
    pub val_fingerprint: String,
    /// Class names, in the order of the labels.
    pub classes: Vec<String>,
}

impl DataFacts {
    /// Counts and names of opened data.
    #[must_use]
    pub fn of(dataset: &Dataset) -> DataFacts {
        let fingerprint = |source: &dyn Source| format!("{:016x}", source.fingerprint());
        DataFacts {
            train_examples: dataset.train.len() as u64,
            val_examples: dataset.val.len() as u64,
            val_split: dataset.val_split.clone(),
            train_fingerprint: fingerprint(&*dataset.train),
            val_fingerprint: fingerprint(&*dataset.val),
            classes: dataset.train.class_names().to_vec(),
        }
    }
}

/// The weights that fine-tuning starts from, as far as a plan needs to know them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitFacts {
    /// Their architecture.
    pub config: MixerConfig,
    /// Class names and preprocessing, where the file has them.
    pub metadata: Metadata,
}

/// A run with every value resolved, in the sections of the configuration and under its names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// What the run is for.
    pub task: Task,
    /// Seed of everything random.
    pub seed: u64,
    /// The network.
    pub model: ModelPlan,
    /// How the run starts; absent in pre-training.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub init: Option<InitPlan>,
    /// The data and how it is prepared.
    pub data: DataPlan,
    /// The optimizer.
    pub optimizer: OptimizerPlan,
    /// The learning rate over the run.
    pub schedule: SchedulePlan,
    /// Batches, length, loss, and how often to evaluate and save.
    pub train: TrainPlan,
    /// The data as it was found.
    pub facts: DataFacts,
}

/// The network of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelPlan {
    /// Its dimensions.
    #[serde(flatten)]
    pub network: MixerConfig,
    /// Probability of dropping a branch of the last block.
    pub drop_path_rate: f64,
    /// Treatment of kept branches; absent where none is dropped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drop_path_scaling: Option<DropPathScaling>,
    /// Initial bias of the head; absent where the head of the weights is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub head_bias: Option<f32>,
}

impl ModelPlan {
    /// Stochastic depth.
    #[must_use]
    pub fn drop_path(&self) -> DropPath {
        let scaling = self.drop_path_scaling.unwrap_or(DropPathScaling::None);
        DropPath { rate: self.drop_path_rate, scaling }
    }
}

/// How a fine-tuning starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitPlan {
    /// The weights, as they were named.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights: Option<PathBuf>,
    /// What happens to the head: `reset` or `keep`.
    pub head: HeadInit,
    /// The weights as they were found.
    pub from: InitFacts,
}

impl InitPlan {
    /// Whether the head starts from zeros.
    #[must_use]
    pub fn resets_head(&self) -> bool {
        self.head == HeadInit::Reset
    }

    /// What happens to token mixing on the way to a network's resolution.
    #[must_use]
    pub fn resolution(&self, network: &MixerConfig) -> ResizeMethod {
        ResizeMethod::between(self.from.config.image_size, network.image_size)
    }
}

/// The data of a run and how it is prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPlan {
    /// Kind of source, where it was named.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<DataKind>,
    /// The folder that the splits lie in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<PathBuf>,
    /// Split to train on; absent for the built-in set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub train: Option<String>,
    /// Split to evaluate on; absent for the built-in set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub val: Option<String>,
    /// Size of the built-in training set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub train_examples: Option<usize>,
    /// Size of the built-in validation set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub val_examples: Option<usize>,
    /// How often a pass shows every training example.
    pub repeats: u32,
    /// Training crop.
    pub crop: TrainCrop,
    /// Whether every other training picture is mirrored.
    pub flip: bool,
    /// Random distortions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub randaugment: Option<RandAugment>,
    /// Random rectangles that are covered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub erasing: Option<RandomErasing>,
    /// Mixing of batches.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mix: Option<MixSpec>,
    /// How a picture gets the network's size in evaluation.
    pub eval_resize: EvalResize,
    /// Filter of every resize.
    pub interpolation: Interpolation,
    /// Mean per colour.
    pub mean: [f32; 3],
    /// Standard deviation per colour.
    pub std: [f32; 3],
    /// Whether pictures are turned as their EXIF data says; absent for the built-in set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub apply_exif_orientation: Option<bool>,
    /// Pixels above which a picture is refused; absent for the built-in set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_pixels: Option<u64>,
    /// What to do about unreadable examples.
    pub on_corrupt: OnCorrupt,
    /// Decoding threads.
    pub workers: usize,
    /// Memory for decoded batches that wait, MiB.
    pub queue_mib: usize,
}

/// The optimizer of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerPlan {
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Kind and constants.
    #[serde(flatten)]
    pub rule: Rule,
}

/// The learning rate over a run. See [`RunPlan::learning_rate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulePlan {
    /// Decay after warm-up.
    pub decay: Decay,
    /// Updates of linear warm-up from 0.
    pub warmup_steps: u64,
    /// The last rate as a fraction of the highest; absent unless the decay is linear.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub linear_end: Option<f64>,
}

/// Batches, length, loss, and how often a run evaluates and saves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainPlan {
    /// Examples per update.
    pub batch_size: usize,
    /// Examples per forward and backward pass.
    pub microbatch_size: usize,
    /// Length in updates.
    pub steps: u64,
    /// The loss.
    pub loss: Loss,
    /// Label smoothing.
    pub label_smoothing: f32,
    /// Largest norm of the whole gradient; never clipped when absent, which is written as 0.
    #[serde(with = "absent_as_zero")]
    pub clip_norm: Option<f64>,
    /// Parameters that are not trained, by the beginnings of their names in weights files.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub freeze: Vec<String>,
    /// Layer-wise decay of the learning rate; absent when all layers have the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub layer_decay: Option<f64>,
    /// Decay of the moving average of the weights; absent when none is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ema_decay: Option<f64>,
    /// In how many blocks the backward pass computes hidden units again.
    pub recompute_blocks: usize,
    /// What the operands of the blocks' products are rounded to.
    pub precision: Precision,
    /// How the loss is scaled; absent when it is not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss_scale: Option<LossScaling>,
    /// Updates between lines of metrics.
    pub log_every_steps: u64,
    /// Updates between evaluations.
    pub eval_every_steps: u64,
    /// When the run ends before its length; absent when it never does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub early_stopping: Option<EarlyStopping>,
    /// Examples per batch of evaluation.
    pub eval_batch_size: usize,
    /// Updates between checkpoints.
    pub checkpoint_every_steps: u64,
    /// Checkpoints that are kept.
    pub keep_checkpoints: usize,
    /// Checkpoints whose update is a multiple of this are kept for good.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub keep_checkpoint_every_steps: Option<u64>,
    /// Whether that of the best evaluation is kept.
    pub keep_best_checkpoint: bool,
    /// What to do about an update that is not finite.
    pub on_divergence: OnDivergence,
    /// Standard deviations from which on a loss or gradient norm is reported; none is when absent, which
    /// is written as 0.
    #[serde(with = "absent_as_zero")]
    pub outlier_z_score: Option<f64>,
}

/// A limit of which 0 means that there is none.
mod absent_as_zero {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(limit: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(limit.unwrap_or(0.0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        f64::deserialize(from).map(|limit| (limit > 0.0).then_some(limit))
    }
}

impl RunPlan {
    /// Resolves a configuration.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a value out of range, for keys that contradict each other, and for
    /// keys that would have no effect; [`TrainError::Model`] for dimensions that make no network.
    pub fn resolve(
        config: &RunConfig,
        task: Task,
        init: Option<&InitFacts>,
        facts: DataFacts,
    ) -> Result<RunPlan, TrainError> {
        let model = model(&config.model, init, facts.classes.len())?;
        let train = &config.train;
        let batch_size = positive("train.batch_size", train.batch_size, 512)?;
        let microbatch_size = positive("train.microbatch_size", train.microbatch_size, batch_size)?;
        if batch_size % microbatch_size != 0 {
            return Err(TrainError::config(format!(
                "`train.batch_size` is {batch_size}, expected a multiple of `train.microbatch_size`, {microbatch_size}"
            )));
        }
        let eval_batch_size =
            positive("train.eval_batch_size", train.eval_batch_size, microbatch_size)?;
        let microbatch_key = match train.microbatch_size {
            Some(_) => "train.microbatch_size",
            None => "train.batch_size",
        };
        check_batch(microbatch_key, microbatch_size, model.image_size)?;
        check_batch("train.eval_batch_size", eval_batch_size, model.image_size)?;
        if batch_size > MAX_BATCH_SIZE {
            return Err(TrainError::config(format!(
                "`train.batch_size` is {batch_size}, expected at most {MAX_BATCH_SIZE}"
            )));
        }
        if let Some(workers) = config.data.workers.filter(|workers| *workers > MAX_WORKERS) {
            return Err(TrainError::config(format!(
                "`data.workers` is {workers}, expected at most {MAX_WORKERS}"
            )));
        }
        let repeats = positive("data.repeats", config.data.repeats, 1)?;
        if repeats as usize > batch_size {
            return Err(TrainError::config(format!(
                "`data.repeats` is {repeats}, expected at most `train.batch_size`, {batch_size}: the repeats of an example belong into one update"
            )));
        }
        let steps_per_epoch = steps_per_epoch(facts.train_examples, repeats, batch_size).max(1.0);
        let total_steps = match (train.steps, train.epochs) {
            (Some(steps), None) if steps > 0 => steps,
            (None, Some(epochs)) if epochs > 0.0 && epochs.is_finite() => {
                (epochs * steps_per_epoch).round().max(1.0) as u64
            }
            (None, None) => {
                return Err(TrainError::config("neither `train.epochs` nor `train.steps` is set")
                    .with_hint("set the length of the run, for example `epochs = 10`"));
            }
            (Some(_), Some(_)) => {
                return Err(TrainError::config(
                    "both `train.epochs` and `train.steps` are set, expected one of them",
                ));
            }
            _ => {
                return Err(TrainError::config(
                    "the run is 0 updates long, expected `train.steps` or `train.epochs` above 0",
                ));
            }
        };
        if total_steps > MAX_STEPS {
            return Err(TrainError::config(format!(
                "the run is {total_steps} updates long, expected at most {MAX_STEPS}"
            )));
        }
        // Rounded up, so that a run of whole epochs does not evaluate twice at its end.
        let epoch_steps = (steps_per_epoch.ceil() as u64).clamp(1, total_steps);
        let eval_every_steps =
            positive("train.eval_every_steps", train.eval_every_steps, epoch_steps)?;
        let default_kind = match task {
            Task::Pretrain => OptimizerKind::Adamw,
            Task::Finetune => OptimizerKind::Sgd,
        };
        let kind = config.optimizer.kind.unwrap_or(default_kind);
        let data_plan = data_plan(&config.data, init, repeats, &facts, model.image_size)?;
        let init = match init {
            Some(from) => Some(init_plan(config, from, &model, &facts.classes)?),
            None => None,
        };
        let smoothing = train.label_smoothing.unwrap_or(0.0);
        in_range("train.label_smoothing", f64::from(smoothing), 0.0, 1.0)?;
        let recompute_blocks = train.recompute_blocks.unwrap_or(0);
        if recompute_blocks > model.num_blocks {
            return Err(TrainError::config(format!(
                "`train.recompute_blocks` is {recompute_blocks}, expected at most the {} blocks of the network",
                model.num_blocks
            )));
        }
        if let Some(decay) = train.ema_decay.filter(|decay| !(*decay > 0.0 && *decay < 1.0)) {
            return Err(TrainError::config(format!(
                "`train.ema_decay` is {decay}, expected above 0 and below 1"
            )));
        }
        let drop_path_rate = config.model.drop_path_rate.unwrap_or(0.0);
        in_range("model.drop_path_rate", drop_path_rate, 0.0, 1.0)?;
        if config.model.drop_path_scaling.is_some() && drop_path_rate == 0.0 {
            return Err(no_effect(
                "model.drop_path_scaling",
                "unless `model.drop_path_rate` is above 0",
            ));
        }
        let drop_path_scaling = (drop_path_rate > 0.0)
            .then_some(config.model.drop_path_scaling.unwrap_or(DropPathScaling::None));
        let keeps_head = init.as_ref().is_some_and(|init| !init.resets_head());
        let head_bias = config.model.head_bias.unwrap_or(0.0);
        if !head_bias.is_finite() {
            return Err(TrainError::config(format!(
                "`model.head_bias` is {head_bias}, expected a finite value"
            )));
        }
        let clip_norm = train.clip_norm.unwrap_or(1.0);
        in_range("train.clip_norm", clip_norm, 0.0, f64::MAX)?;
        let freeze = train.freeze.clone().unwrap_or_default();
        ParameterRates::new(&freeze, train.layer_decay, &model)?;
        if let Some(stopping) = &train.early_stopping {
            positive("train.early_stopping.patience", Some(stopping.patience), 1)?;
            in_range("train.early_stopping.min_delta", stopping.min_delta, 0.0, 1.0)?;
        }
        let checkpoint_every_steps = positive(
            "train.checkpoint_every_steps",
            train.checkpoint_every_steps,
            eval_every_steps,
        )?;
        let precision = train.precision.unwrap_or_default();
        let loss_scale =
            train.loss_scale.or_else(|| (precision == Precision::F16).then(LossScaling::default));
        if let Some(rule) = &loss_scale {
            rule.check().map_err(|expected| {
                TrainError::config(format!(
                    "`train.loss_scale.initial` is {}, expected {expected}",
                    rule.initial
                ))
            })?;
            let growth = Some(rule.growth_every_steps);
            positive("train.loss_scale.growth_every_steps", growth, 1)?;
        }
        let outlier_z_score = train.outlier_z_score.unwrap_or(6.0);
        in_range("train.outlier_z_score", outlier_z_score, 0.0, f64::MAX)?;
        if facts.val_examples == 0 || facts.train_examples == 0 {
            return Err(TrainError::config("a split of the data has no examples"));
        }
        let mut plan = RunPlan {
            task,
            seed: config.seed.unwrap_or(0),
            model: ModelPlan {
                network: model,
                drop_path_rate,
                drop_path_scaling,
                head_bias: (!keeps_head).then_some(head_bias),
            },
            init,
            data: data_plan,
            optimizer: OptimizerPlan {
                learning_rate: learning_rate(config, kind)?,
                rule: rule(config, kind)?,
            },
            schedule: schedule(config, total_steps)?,
            train: TrainPlan {
                batch_size,
                microbatch_size,
                steps: total_steps,
                loss: train.loss.unwrap_or(Loss::Softmax),
                label_smoothing: smoothing,
                clip_norm: (clip_norm > 0.0).then_some(clip_norm),
                freeze,
                layer_decay: train.layer_decay,
                ema_decay: train.ema_decay,
                recompute_blocks,
                precision,
                loss_scale,
                log_every_steps: positive("train.log_every_steps", train.log_every_steps, 10)?,
                eval_every_steps,
                early_stopping: train.early_stopping,
                eval_batch_size,
                checkpoint_every_steps,
                keep_checkpoints: 1,
                keep_checkpoint_every_steps: None,
                keep_best_checkpoint: false,
                on_divergence: OnDivergence::Stop,
                outlier_z_score: (outlier_z_score > 0.0).then_some(outlier_z_score),
            },
            facts,
        };
        plan.revise(&config.train)?;
        Ok(plan)
    }

    /// Takes over what may be changed when a run is continued: which checkpoints are kept, and what is
    /// done about updates that are not finite.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a value out of range.
    pub fn revise(&mut self, train: &TrainConfig) -> Result<(), TrainError> {
        let between = self.train.checkpoint_every_steps;
        if let Some(every) = train.keep_checkpoint_every_steps
            && (every == 0 || !every.is_multiple_of(between))
        {
            return Err(TrainError::config(format!(
                "`train.keep_checkpoint_every_steps` is {every}, expected a multiple of `train.checkpoint_every_steps`, {between}"
            )));
        }
        self.train.keep_checkpoints =
            positive("train.keep_checkpoints", train.keep_checkpoints, 2)?;
        self.train.keep_checkpoint_every_steps = train.keep_checkpoint_every_steps;
        self.train.keep_best_checkpoint = train.keep_best_checkpoint.unwrap_or(false);
        self.train.on_divergence = train.on_divergence.unwrap_or_default();
        Ok(())
    }

    /// Which checkpoints are kept.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            newest: self.train.keep_checkpoints,
            every_steps: self.train.keep_checkpoint_every_steps,
            best: self.train.keep_best_checkpoint,
        }
    }

    /// The learning rate of each update.
    #[must_use]
    pub fn learning_rate(&self) -> Schedule {
        Schedule {
            base: self.optimizer.learning_rate,
            decay: self.schedule.decay,
            warmup_steps: self.schedule.warmup_steps,
            total_steps: self.train.steps,
            linear_end: self.schedule.linear_end.unwrap_or(0.0),
        }
    }

    /// Augmentation.
    #[must_use]
    pub fn train_transform(&self) -> TrainTransform {
        TrainTransform {
            image_size: self.model.network.image_size as u32,
            crop: self.data.crop.clone(),
            flip: self.data.flip,
            interpolation: self.data.interpolation,
            randaugment: self.data.randaugment.clone(),
            erasing: self.data.erasing.clone(),
        }
    }

    /// Preparation of pictures in evaluation.
    #[must_use]
    pub fn eval_transform(&self) -> EvalTransform {
        EvalTransform {
            image_size: self.model.network.image_size as u32,
            resize: self.data.eval_resize.clone(),
            interpolation: self.data.interpolation,
        }
    }

    /// Preprocessing as it is written into weights files.
    #[must_use]
    pub fn preprocessing(&self) -> Preprocessing {
        let eval = self.eval_transform();
        Preprocessing {
            apply_exif_orientation: self.data.apply_exif_orientation.unwrap_or(false),
            ..preprocessing::preprocessing(&eval, self.data.mean, self.data.std)
        }
    }

    /// Updates in one pass over the training data, which shows every example
    /// [`repeats`](DataPlan::repeats) times; not a whole number.
    #[must_use]
    pub fn steps_per_epoch(&self) -> f64 {
        steps_per_epoch(self.facts.train_examples, self.data.repeats, self.train.batch_size)
    }

    /// Which example stands at which position of the training stream.
    #[must_use]
    pub fn order(&self) -> Order {
        Order::training(self.seed, self.data.repeats, self.train.batch_size)
    }

    /// Which parameters are trained, and how fast.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a plan that was not resolved but written by hand.
    pub fn parameter_rates(&self) -> Result<ParameterRates, TrainError> {
        ParameterRates::new(&self.train.freeze, self.train.layer_decay, &self.model.network)
    }

    /// What is worth saying about a plan that is legal.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.train.batch_size as u64 > self.facts.train_examples {
            warnings.push(format!(
                "`train.batch_size` is {}, more than the {} training examples: a batch holds some of them twice",
                self.train.batch_size, self.facts.train_examples
            ));
        }
        let transform = self.train_transform();
        if self.data.repeats > 1 && !transform.is_random() {
            warnings.push(format!(
                "`data.repeats` is {}, but nothing in the augmentation is random: the repeats of an example are the same picture",
                self.data.repeats
            ));
        }
        let size = transform.image_size;
        if let Some(RandAugment::BigVision { magnitude, .. }) = transform.randaugment
            && 10.0 * magnitude >= f64::from(size)
        {
            warnings.push(format!(
                "`data.randaugment` moves pictures by {} px, out of the {size} px that they have: the distances of `big_vision` are for 224 px",
                10.0 * magnitude
            ));
        }
        if self.train.eval_every_steps > self.train.steps {
            warnings.push(format!(
                "`train.eval_every_steps` is {}, more than the {} updates of the run: it is evaluated only at its end",
                self.train.eval_every_steps, self.train.steps
            ));
        }
        let evaluations = self.train.steps.div_ceil(self.train.eval_every_steps);
        if let Some(EarlyStopping { patience, .. }) = self.train.early_stopping
            && patience >= evaluations
        {
            warnings.push(format!(
                "`train.early_stopping.patience` is {patience}, but the run has {evaluations} evaluations: it cannot stop early"
            ));
        }
        if let Some(init) = &self.init
            && let method @ ResizeMethod::Interpolated = init.resolution(&self.model.network)
        {
            warnings.push(format!(
                "token mixing is {method}: an extension of the paper's method, not exact"
            ));
        }
        warnings
    }

    /// The plan as TOML.
    ///
    /// # Errors
    /// [`TrainError::Config`] if a value has no TOML form.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        toml::to_string(self).map_err(|error| TrainError::config(error.to_string()))
    }
}

fn steps_per_epoch(train_examples: u64, repeats: u32, batch_size: usize) -> f64 {
    train_examples as f64 * f64::from(repeats) / batch_size as f64
}

fn positive<T: PartialEq + From<u8>>(
    key: &str,
    value: Option<T>,
    default: T,
) -> Result<T, TrainError> {
    match value {
        Some(value) if value == T::from(0) => {
            Err(TrainError::config(format!("`{key}` is 0, expected at least 1")))
        }
        value => Ok(value.unwrap_or(default)),
    }
}

/// `low ≤ value < high`.
fn in_range(key: &str, value: f64, low: f64, high: f64) -> Result<(), TrainError> {
    if (low..high).contains(&value) {
        return Ok(());
    }
    let expected = if high == f64::MAX {
        format!("at least {low}")
    } else {
        format!("at least {low} and below {high}")
    };
    Err(TrainError::config(format!("`{key}` is {value}, expected {expected}")))
}

fn no_effect(key: &str, because: &str) -> TrainError {
    TrainError::config(format!("`{key}` has no effect {because}"))
}

fn model(
    config: &ModelConfig,
    init: Option<&InitFacts>,
    num_classes: usize,
) -> Result<MixerConfig, TrainError> {
    let dimensions = [
        ("model.patch_size", config.patch_size),
        ("model.hidden_dim", config.hidden_dim),
        ("model.num_blocks", config.num_blocks),
        ("model.tokens_mlp_dim", config.tokens_mlp_dim),
        ("model.channels_mlp_dim", config.channels_mlp_dim),
    ];
    let given = dimensions.iter().find(|(_, value)| value.is_some());
    if let Some(init) = init {
        return finetuned_model(config, init, num_classes, &dimensions);
    }
    let image_size = config.image_size.unwrap_or(224);
    let gelu = config.gelu.unwrap_or(Gelu::Tanh);
    let resolved = match (&config.variant, given) {
        (Some(variant), Some((key, _))) => {
            return Err(TrainError::config(format!(
                "both `model.variant = \"{variant}\"` and `{key}` are set, expected one of them"
            )));
        }
        (Some(variant), None) => Variant::parse(variant)?.config(image_size, num_classes, gelu),
        (None, _) => {
            let need = |(key, value): (&str, Option<usize>)| {
                value.ok_or_else(|| {
                    TrainError::config(format!("`{key}` is missing"))
                        .with_hint("or name a variant, for example `model.variant = \"S/16\"`")
                })
            };
            let hidden_dim = need(("model.hidden_dim", config.hidden_dim))?;
            MixerConfig {
                image_size,
                patch_size: need(("model.patch_size", config.patch_size))?,
                hidden_dim,
                tokens_mlp_dim: config.tokens_mlp_dim.unwrap_or((hidden_dim / 2).max(1)),
                channels_mlp_dim: config.channels_mlp_dim.unwrap_or(hidden_dim.saturating_mul(4)),
                num_blocks: need(("model.num_blocks", config.num_blocks))?,
                num_classes,
                gelu,
            }
        }
    };
    resolved.validate()?;
    check_image_size("model.image_size", resolved.image_size)?;
    let num_params = count::num_params(&resolved);
    if num_params > MAX_PARAMS {
        return Err(TrainError::config(format!(
            "the network would have {num_params} parameters, expected at most {MAX_PARAMS}"
        )));
    }
    Ok(resolved)
}

/// Refuses images that nothing decodes to, before a product of their sides overflows.
///
/// # Errors
/// [`TrainError::Config`] with the name that the size has for the user.
pub fn check_image_size(name: &str, image_size: usize) -> Result<(), TrainError> {
    if image_size > MAX_IMAGE_SIZE {
        return Err(TrainError::config(format!(
            "`{name}` is {image_size}, expected at most {MAX_IMAGE_SIZE} px"
        )));
    }
    Ok(())
}

/// Refuses batches that no machine holds.
pub(crate) fn check_batch(key: &str, examples: usize, image_size: usize) -> Result<(), TrainError> {
    let bytes = examples as u128 * 3 * (image_size as u128).pow(2);
    if bytes > MAX_BATCH_BYTES {
        return Err(TrainError::config(format!(
            "`{key}` is {examples}, expected at most {}: that many pictures of {image_size} px have {} GiB",
            MAX_BATCH_BYTES / (3 * (image_size as u128).pow(2)),
            MAX_BATCH_BYTES >> 30
        )));
    }
    Ok(())
}

/// The architecture is that of the weights; the configuration may change resolution, classes and
/// GELU, and may repeat what it is.
fn finetuned_model(
    config: &ModelConfig,
    init: &InitFacts,
    num_classes: usize,
    dimensions: &[(&str, Option<usize>)],
) -> Result<MixerConfig, TrainError> {
    let weights = &init.config;
    let image_size = config.image_size.unwrap_or(weights.image_size);
    let mut resolved = ResizeMethod::config(weights, image_size)?;
    resolved.num_classes = num_classes;
    resolved.gelu = config.gelu.unwrap_or(weights.gelu);
    let actual = [
        resolved.patch_size,
        resolved.hidden_dim,
        resolved.num_blocks,
        resolved.tokens_mlp_dim,
        resolved.channels_mlp_dim,
    ];
    for ((key, wanted), actual) in dimensions.iter().zip(actual) {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != actual) {
            return Err(TrainError::config(format!(
                "`{key}` is {wanted}, but the weights have {actual}"
            ))
            .with_hint("fine-tuning takes the architecture from the weights: leave the key out"));
        }
    }
    if let Some(name) = &config.variant {
        let variant = Variant::parse(name)?;
        if (variant.patch_size, variant.hidden_dim, variant.num_blocks)
            != (resolved.patch_size, resolved.hidden_dim, resolved.num_blocks)
        {
            return Err(TrainError::config(format!(
                "`model.variant` is {name}, but the weights are {weights}"
            ))
            .with_hint("fine-tuning takes the architecture from the weights: leave the key out"));
        }
    }
    Ok(resolved)
}

fn init_plan(
    config: &RunConfig,
    facts: &InitFacts,
    model: &MixerConfig,
    classes: &[String],
) -> Result<InitPlan, TrainError> {
    let same_count = facts.config.num_classes == model.num_classes;
    let same_classes = match &facts.metadata.classes {
        Some(names) => names == classes,
        None => same_count,
    };
    let reset_head = match config.init.head.unwrap_or(HeadInit::Auto) {
        HeadInit::Auto => !same_classes,
        HeadInit::Reset => true,
        HeadInit::Keep if same_count => false,
        HeadInit::Keep => {
            return Err(TrainError::config(format!(
                "`init.head = \"keep\"`, but the weights have {} classes and the data {}",
                facts.config.num_classes, model.num_classes
            )));
        }
    };
    if config.model.head_bias.is_some() && !reset_head {
        return Err(no_effect("model.head_bias", "when the head of the weights is kept"));
    }
    let metadata = Metadata { provenance: BTreeMap::new(), ..facts.metadata.clone() };
    Ok(InitPlan {
        weights: config.init.weights.clone(),
        head: if reset_head { HeadInit::Reset } else { HeadInit::Keep },
        from: InitFacts { config: facts.config.clone(), metadata },
    })
}

fn data_plan(
    config: &DataConfig,
    init: Option<&InitFacts>,
    repeats: u32,
    facts: &DataFacts,
    image_size: usize,
) -> Result<DataPlan, TrainError> {
    let inherited = init.and_then(|facts| facts.metadata.preprocessing);
    let inherited_eval = inherited.map(|rule| preprocessing::eval_transform(&rule, image_size));
    let interpolation = config
        .interpolation
        .or(inherited_eval.as_ref().map(|transform| transform.interpolation))
        .unwrap_or(Interpolation::Bilinear);
    let train = train_transform(config, interpolation, image_size);
    train.check().map_err(named_by_key)?;
    let eval = EvalTransform {
        image_size: image_size as u32,
        resize: config
            .eval_resize
            .clone()
            .or(inherited_eval.map(|transform| transform.resize))
            .unwrap_or(EvalResize::ResmallCrop { fraction: 0.875 }),
        interpolation,
    };
    eval.check().map_err(named_by_key)?;
    if let Some(mix) = &config.mix {
        mix.check().map_err(named_by_key)?;
    }
    let mean = config.mean.or(inherited.map(|p| p.mean)).unwrap_or([0.5; 3]);
    let std = config.std.or(inherited.map(|p| p.std)).unwrap_or([0.5; 3]);
    if let Some(bad) = std.iter().find(|std| !(**std > 0.0 && std.is_finite())) {
        return Err(TrainError::config(format!("`data.std` holds {bad}, expected values above 0")));
    }
    if let Some(bad) = mean.iter().find(|mean| !mean.is_finite()) {
        return Err(TrainError::config(format!("`data.mean` holds {bad}, expected finite values")));
    }
    let is_builtin = config.source == Some(DataKind::Builtin);
    let decode = dataset::decode_options(config);
    Ok(DataPlan {
        source: config.source,
        path: config.path.clone(),
        train: (!is_builtin).then(|| config.train.clone().unwrap_or_else(|| "train".to_owned())),
        val: (!is_builtin).then(|| facts.val_split.clone()),
        train_examples: is_builtin.then_some(config.train_examples.unwrap_or(20_000)),
        val_examples: is_builtin.then_some(config.val_examples.unwrap_or(2000)),
        repeats,
        crop: train.crop,
        flip: train.flip,
        randaugment: train.randaugment,
        erasing: train.erasing,
        mix: config.mix.clone(),
        eval_resize: eval.resize,
        interpolation,
        mean,
        std,
        apply_exif_orientation: (!is_builtin).then_some(decode.apply_orientation),
        max_pixels: (!is_builtin).then_some(decode.max_pixels),
        on_corrupt: config.on_corrupt.unwrap_or_default(),
        workers: dataset::workers(config),
        queue_mib: config.queue_mib.unwrap_or(256),
    })
}

/// Augmentation under a configuration.
pub(crate) fn train_transform(
    data: &DataConfig,
    interpolation: Interpolation,
    image_size: usize,
) -> TrainTransform {
    TrainTransform {
        image_size: image_size as u32,
        crop: data
            .crop
            .clone()
            .unwrap_or(TrainCrop::Inception { area: (0.05, 1.0), aspect: (0.75, 4.0 / 3.0) }),
        flip: data.flip.unwrap_or(true),
        interpolation,
        randaugment: data.randaugment.clone(),
        erasing: data.erasing.clone(),
    }
}

/// A setting of `mixer-data` under the name that the configuration has for it.
fn named_by_key(error: DataError) -> TrainError {
    match error {
        DataError::BadSetting { setting, found, expected } => {
            let key = match setting.strip_prefix("resize.") {
                Some(rest) => format!("data.eval_resize.{rest}"),
                None => format!("data.{setting}"),
            };
            TrainError::config(format!("`{key}` is {found}, expected {expected}"))
        }
        error => error.into(),
    }
}

fn rule(config: &RunConfig, kind: OptimizerKind) -> Result<Rule, TrainError> {
    let optimizer = &config.optimizer;
    let weight_decay = |default| -> Result<f64, TrainError> {
        let value = optimizer.weight_decay.unwrap_or(default);
        in_range("optimizer.weight_decay", value, 0.0, f64::MAX)?;
        Ok(value)
    };
    match kind {
        OptimizerKind::Adamw => {
            if optimizer.momentum.is_some() {
                return Err(no_effect("optimizer.momentum", "with AdamW"));
            }
            let beta1 = optimizer.beta1.unwrap_or(0.9);
            let beta2 = optimizer.beta2.unwrap_or(0.999);
            let epsilon = optimizer.epsilon.unwrap_or(1e-8);
            in_range("optimizer.beta1", beta1, 0.0, 1.0)?;
            in_range("optimizer.beta2", beta2, 0.0, 1.0)?;
            in_range("optimizer.epsilon", epsilon, 0.0, f64::MAX)?;
            Ok(Rule::Adamw { beta1, beta2, epsilon, weight_decay: weight_decay(0.1)? })
        }
        OptimizerKind::Sgd => {
            for (key, set) in [
                ("optimizer.beta1", optimizer.beta1.is_some()),
                ("optimizer.beta2", optimizer.beta2.is_some()),
                ("optimizer.epsilon", optimizer.epsilon.is_some()),
            ] {
                if set {
                    return Err(no_effect(key, "with SGD"));
                }
            }
            let momentum = optimizer.momentum.unwrap_or(0.9);
            in_range("optimizer.momentum", momentum, 0.0, 1.0)?;
            Ok(Rule::Sgd { momentum, weight_decay: weight_decay(0.0)? })
        }
    }
}

fn learning_rate(config: &RunConfig, kind: OptimizerKind) -> Result<f64, TrainError> {
    let base = config.optimizer.learning_rate.unwrap_or(match kind {
        OptimizerKind::Adamw => 0.001,
        OptimizerKind::Sgd => 0.03,
    });
    if !(base > 0.0 && base.is_finite()) {
        return Err(TrainError::config(format!(
            "`optimizer.learning_rate` is {base}, expected above 0"
        )));
    }
    Ok(base)
}

fn schedule(config: &RunConfig, total_steps: u64) -> Result<SchedulePlan, TrainError> {
    let decay = config.schedule.decay.unwrap_or(Decay::Cosine);
    if config.schedule.linear_end.is_some() && decay != Decay::Linear {
        return Err(no_effect("schedule.linear_end", "unless `schedule.decay = \"linear\"`"));
    }
    let linear_end = config.schedule.linear_end.unwrap_or(0.0);
    in_range("schedule.linear_end", linear_end, 0.0, 1.0)?;
    let warmup_steps = config.schedule.warmup_steps.unwrap_or(0);
    if warmup_steps >= total_steps {
        return Err(TrainError::config(format!(
            "`schedule.warmup_steps` is {warmup_steps}, expected fewer than the {total_steps} updates of the run"
        )));
    }
    let linear_end = (decay == Decay::Linear).then_some(linear_end);
    Ok(SchedulePlan { decay, warmup_steps, linear_end })
}
