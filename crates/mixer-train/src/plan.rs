//! A run with every value resolved: data-set size × batch size become updates, the number of classes
//! meets the data, divisibility is checked and every default becomes a value. It is saved with the
//! run, and `mixer config show` prints it.

use mixer_data::{
    DataError, EvalResize, EvalTransform, Interpolation, MixSpec, OnCorrupt, Order, RandAugment,
    Source, TrainCrop, TrainTransform,
};
use mixer_model::weights::{MAX_PARAMS, Preprocessing, ResizeMethod};
use mixer_model::{Gelu, Metadata, MixerConfig, Variant, Weights, count};
use serde::{Deserialize, Serialize};

use crate::config::{DataConfig, HeadInit, ModelConfig, OptimizerKind, RunConfig, TrainConfig};
use crate::disk::retention::Retention;
use crate::error::TrainError;
use crate::input::dataset::Dataset;
use crate::input::preprocessing;
use crate::run::early_stopping::EarlyStopping;
use crate::run::on_divergence::OnDivergence;
use crate::update::drop_path::{DropPath, DropPathScaling};
use crate::update::loss::Loss;
use crate::update::loss_scale::LossScaling;
use crate::update::optimizer::Rule;
use crate::update::parameter_rates::ParameterRates;
use crate::update::schedule::{Decay, Schedule};
use mixer_model::Precision;

/// Side of the network's input where nothing says another, px.
pub const DEFAULT_IMAGE_SIZE: usize = 224;

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
#[derive(Debug, Clone)]
pub struct InitFacts {
    /// Their architecture.
    pub config: MixerConfig,
    /// Class names and preprocessing, where the file has them.
    pub metadata: Metadata,
}

impl InitFacts {
    /// Architecture and metadata of weights.
    #[must_use]
    pub fn of(weights: &Weights) -> InitFacts {
        InitFacts { config: weights.config.clone(), metadata: weights.metadata.clone() }
    }
}

/// How a run starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitPlan {
    /// Resolution of the weights, px; it differs from the model's when token mixing is expanded.
    pub image_size: usize,
    /// What happens to token mixing.
    pub resolution: String,
    /// Whether the head starts from zeros.
    pub reset_head: bool,
}

/// A run with every value resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// What the run is for.
    pub task: Task,
    /// Seed of everything random.
    pub seed: u64,
    /// Examples per update.
    pub batch_size: usize,
    /// Examples per forward and backward pass.
    pub microbatch_size: usize,
    /// Examples per batch of evaluation.
    pub eval_batch_size: usize,
    /// The loss.
    pub loss: Loss,
    /// Label smoothing.
    pub label_smoothing: f32,
    /// Largest norm of the whole gradient; absent when it is never clipped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
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
    #[serde(default)]
    pub precision: Precision,
    /// How the loss is scaled; absent when it is not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss_scale: Option<LossScaling>,
    /// Updates between lines of metrics.
    pub log_every_steps: u64,
    /// Updates between evaluations.
    pub eval_every_steps: u64,
    /// Updates between checkpoints.
    pub checkpoint_every_steps: u64,
    /// Checkpoints that are kept.
    pub keep_checkpoints: usize,
    /// Checkpoints whose update is a multiple of this are kept for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_checkpoint_every_steps: Option<u64>,
    /// Whether that of the best evaluation is kept.
    #[serde(default)]
    pub keep_best_checkpoint: bool,
    /// What to do about an update that is not finite.
    #[serde(default)]
    pub on_divergence: OnDivergence,
    /// Standard deviations from which on a loss or gradient norm is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_z_score: Option<f64>,
    /// When the run ends before its length; absent when it never does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub early_stopping: Option<EarlyStopping>,
    /// Initial bias of the head.
    pub head_bias: f32,
    /// How often an epoch shows every training example.
    #[serde(skip_serializing_if = "is_one", default = "one")]
    pub repeats: u32,
    /// What to do about unreadable examples.
    pub on_corrupt: OnCorrupt,
    /// The network.
    pub model: MixerConfig,
    /// Stochastic depth.
    pub drop_path: DropPath,
    /// How the run starts; absent in pre-training.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub init: Option<InitPlan>,
    /// The optimizer.
    pub optimizer: Rule,
    /// The learning rate.
    pub schedule: Schedule,
    /// Augmentation.
    pub train_transform: TrainTransform,
    /// Mixing of batches.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mix: Option<MixSpec>,
    /// Preprocessing of evaluation.
    pub eval_transform: EvalTransform,
    /// Preprocessing as it is written into weights files.
    pub preprocessing: Preprocessing,
    /// The data.
    pub data: DataFacts,
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
        data: DataFacts,
    ) -> Result<RunPlan, TrainError> {
        let model = model(&config.model, init, data.classes.len())?;
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
        let steps_per_epoch = steps_per_epoch(data.train_examples, repeats, batch_size).max(1.0);
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
        let (train_transform, eval_transform, preprocessing) =
            transforms(config, init, model.image_size)?;
        if let Some(mix) = &config.data.mix {
            mix.check().map_err(named_by_key)?;
        }
        let init = match init {
            Some(facts) => Some(init_plan(config, facts, &model, &data.classes)?),
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
        if data.val_examples == 0 || data.train_examples == 0 {
            return Err(TrainError::config("a split of the data has no examples"));
        }
        let mut plan = RunPlan {
            task,
            seed: config.seed.unwrap_or(0),
            batch_size,
            microbatch_size,
            eval_batch_size,
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
            checkpoint_every_steps,
            keep_checkpoints: 1,
            keep_checkpoint_every_steps: None,
            keep_best_checkpoint: false,
            on_divergence: OnDivergence::Stop,
            outlier_z_score: (outlier_z_score > 0.0).then_some(outlier_z_score),
            early_stopping: train.early_stopping,
            head_bias,
            repeats,
            on_corrupt: config.data.on_corrupt.unwrap_or_default(),
            model,
            drop_path: DropPath {
                rate: drop_path_rate,
                scaling: config.model.drop_path_scaling.unwrap_or(DropPathScaling::None),
            },
            init,
            optimizer: rule(config, kind)?,
            schedule: schedule(config, kind, total_steps)?,
            train_transform,
            mix: config.data.mix.clone(),
            eval_transform,
            preprocessing,
            data,
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
        let between = self.checkpoint_every_steps;
        if let Some(every) = train.keep_checkpoint_every_steps
            && (every == 0 || !every.is_multiple_of(between))
        {
            return Err(TrainError::config(format!(
                "`train.keep_checkpoint_every_steps` is {every}, expected a multiple of `train.checkpoint_every_steps`, {between}"
            )));
        }
        self.keep_checkpoints = positive("train.keep_checkpoints", train.keep_checkpoints, 2)?;
        self.keep_checkpoint_every_steps = train.keep_checkpoint_every_steps;
        self.keep_best_checkpoint = train.keep_best_checkpoint.unwrap_or(false);
        self.on_divergence = train.on_divergence.unwrap_or_default();
        Ok(())
    }

    /// Which checkpoints are kept.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            newest: self.keep_checkpoints,
            every_steps: self.keep_checkpoint_every_steps,
            best: self.keep_best_checkpoint,
        }
    }

    /// Updates in one pass over the training data, which shows every example
    /// [`repeats`](RunPlan::repeats) times; not a whole number.
    #[must_use]
    pub fn steps_per_epoch(&self) -> f64 {
        steps_per_epoch(self.data.train_examples, self.repeats, self.batch_size)
    }

    /// Which example stands at which position of the training stream.
    #[must_use]
    pub fn order(&self) -> Order {
        Order::training(self.seed, self.repeats, self.batch_size)
    }

    /// Which parameters are trained, and how fast.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a plan that was not resolved but written by hand.
    pub fn parameter_rates(&self) -> Result<ParameterRates, TrainError> {
        ParameterRates::new(&self.freeze, self.layer_decay, &self.model)
    }

    /// What is worth saying about a plan that is legal.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.batch_size as u64 > self.data.train_examples {
            warnings.push(format!(
                "`train.batch_size` is {}, more than the {} training examples: a batch holds some of them twice",
                self.batch_size, self.data.train_examples
            ));
        }
        let transform = &self.train_transform;
        if self.repeats > 1 && !transform.is_random() {
            warnings.push(format!(
                "`data.repeats` is {}, but nothing in the augmentation is random: the repeats of an example are the same picture",
                self.repeats
            ));
        }
        let size = self.train_transform.image_size;
        if let Some(RandAugment::BigVision { magnitude, .. }) = self.train_transform.randaugment
            && 10.0 * magnitude >= f64::from(size)
        {
            warnings.push(format!(
                "`data.randaugment` moves pictures by {} px, out of the {size} px that they have: the distances of `big_vision` are for 224 px",
                10.0 * magnitude
            ));
        }
        if self.eval_every_steps > self.schedule.total_steps {
            warnings.push(format!(
                "`train.eval_every_steps` is {}, more than the {} updates of the run: it is evaluated only at its end",
                self.eval_every_steps, self.schedule.total_steps
            ));
        }
        let evaluations = self.schedule.total_steps.div_ceil(self.eval_every_steps);
        if let Some(EarlyStopping { patience, .. }) = self.early_stopping
            && patience >= evaluations
        {
            warnings.push(format!(
                "`train.early_stopping.patience` is {patience}, but the run has {evaluations} evaluations: it cannot stop early"
            ));
        }
        if let Some(init) = &self.init
            && init.resolution.contains("interpolat")
        {
            warnings.push(format!(
                "token mixing is {}: an extension of the paper's method, not exact",
                init.resolution
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

// Plans of runs that were started before there were repeats have none.
fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(repeats: &u32) -> bool {
    *repeats == 1
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
    let image_size = config.image_size.unwrap_or(DEFAULT_IMAGE_SIZE);
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
    Ok(InitPlan {
        image_size: facts.config.image_size,
        resolution: ResizeMethod::between(facts.config.image_size, model.image_size).to_string(),
        reset_head,
    })
}

fn transforms(
    config: &RunConfig,
    init: Option<&InitFacts>,
    image_size: usize,
) -> Result<(TrainTransform, EvalTransform, Preprocessing), TrainError> {
    let data = &config.data;
    let inherited = init.and_then(|facts| facts.metadata.preprocessing);
    let inherited_eval = inherited.map(|rule| preprocessing::eval_transform(&rule, image_size));
    let interpolation = data
        .interpolation
        .or(inherited_eval.as_ref().map(|transform| transform.interpolation))
        .unwrap_or(Interpolation::Bilinear);
    let train = train_transform(data, interpolation, image_size);
    train.check().map_err(named_by_key)?;
    let eval = EvalTransform {
        image_size: image_size as u32,
        resize: data
            .eval_resize
            .clone()
            .or(inherited_eval.map(|transform| transform.resize))
            .unwrap_or(EvalResize::ResmallCrop { fraction: 0.875 }),
        interpolation,
    };
    eval.check().map_err(named_by_key)?;
    let mean = data.mean.or(inherited.map(|p| p.mean)).unwrap_or([0.5; 3]);
    let std = data.std.or(inherited.map(|p| p.std)).unwrap_or([0.5; 3]);
    if let Some(bad) = std.iter().find(|std| !(**std > 0.0 && std.is_finite())) {
        return Err(TrainError::config(format!("`data.std` holds {bad}, expected values above 0")));
    }
    if let Some(bad) = mean.iter().find(|mean| !mean.is_finite()) {
        return Err(TrainError::config(format!("`data.mean` holds {bad}, expected finite values")));
    }
    let preprocessing = Preprocessing {
        apply_exif_orientation: data.apply_exif_orientation.unwrap_or(false),
        ..preprocessing::preprocessing(&eval, mean, std)
    };
    Ok((train, eval, preprocessing))
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

fn schedule(
    config: &RunConfig,
    kind: OptimizerKind,
    total_steps: u64,
) -> Result<Schedule, TrainError> {
    let base = config.optimizer.learning_rate.unwrap_or(match kind {
        OptimizerKind::Adamw => 0.001,
        OptimizerKind::Sgd => 0.03,
    });
    if !(base > 0.0 && base.is_finite()) {
        return Err(TrainError::config(format!(
            "`optimizer.learning_rate` is {base}, expected above 0"
        )));
    }
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
    Ok(Schedule { base, decay, warmup_steps, total_steps, linear_end })
}
