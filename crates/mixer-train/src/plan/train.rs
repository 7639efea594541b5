//! Batches, length, loss and intervals of a run.

use mixer_model::MixerConfig;
use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::config::limits::{MAX_STEPS, check_batch};
use crate::config::train::{
    BATCH_SIZE, CLIP_NORM, EVAL_AT_START, EXCHANGE_PRECISION, KEEP_BEST_CHECKPOINT,
    KEEP_CHECKPOINTS, LABEL_SMOOTHING, LOG_EVERY_STEPS, LOSS, ON_DIVERGENCE, OUTLIER_Z_SCORE,
    PRECISION, RANK_TIMEOUT_SECS, RECOMPUTE_BLOCKS,
};
use crate::error::TrainError;
use crate::run::early_stopping::EarlyStopping;
use crate::run::on_divergence::OnDivergence;
use crate::update::distillation::Distillation;
use crate::update::loss::Loss;
use crate::update::loss_scale::LossScaling;
use crate::update::parameter_rates::ParameterRates;
use mixer_model::Precision;

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
    /// The teacher; absent when labels alone are learned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub teacher: Option<Distillation>,
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
    /// Blocks whose hidden units the backward pass computes again.
    pub recompute_blocks: usize,
    /// Rounding of the operands of the blocks' products.
    pub precision: Precision,
    /// Scaling of the loss; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss_scale: Option<LossScaling>,
    /// Updates between lines of metrics.
    pub log_every_steps: u64,
    /// Updates between evaluations.
    pub eval_every_steps: u64,
    /// Evaluation before its first update.
    #[serde(default)]
    pub eval_at_start: bool,
    /// End of the run before its length; absent when it never ends so.
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
    /// Retention of that of the best evaluation.
    pub keep_best_checkpoint: bool,
    /// Fate of an update that is not finite.
    pub on_divergence: OnDivergence,
    /// Rounding of gradients between processes.
    #[serde(default = "exchange_precision")]
    pub exchange_precision: Precision,
    /// Longest wait of a process for another one, s.
    #[serde(default = "rank_timeout_secs")]
    pub rank_timeout_secs: u64,
    /// Standard deviations from which on a loss or gradient norm is reported; none is when absent, which
    /// is written as 0.
    #[serde(with = "absent_as_zero")]
    pub outlier_z_score: Option<f64>,
}

impl TrainPlan {
    /// Resolves the section for a network and a pass of so many examples.
    pub(super) fn resolve(
        config: &TrainConfig,
        network: &MixerConfig,
        pass: f64,
    ) -> Result<Self, TrainError> {
        let batch_size = config.batch_size.unwrap_or(BATCH_SIZE);
        let microbatch_size = config.microbatch_size.unwrap_or(batch_size);
        if !batch_size.is_multiple_of(microbatch_size) {
            return Err(TrainError::config(format!(
                "`train.batch_size` is {batch_size}, expected a multiple of `train.microbatch_size`, {microbatch_size}"
            )));
        }
        let microbatch_key = match config.microbatch_size {
            Some(_) => "train.microbatch_size",
            None => "train.batch_size",
        };
        check_batch(microbatch_key, microbatch_size, network.image_size)?;
        let eval_batch_size = config.eval_batch_size.unwrap_or(microbatch_size);
        check_batch("train.eval_batch_size", eval_batch_size, network.image_size)?;
        let steps_per_epoch = pass / batch_size as f64;
        let steps = steps(config, steps_per_epoch)?;
        // Rounded up, so that a run of whole epochs does not evaluate twice at its end.
        let epoch_steps = (steps_per_epoch.ceil() as u64).clamp(1, steps);
        let eval_every_steps = config.eval_every_steps.unwrap_or(epoch_steps);
        let checkpoint_every_steps = config.checkpoint_every_steps.unwrap_or(eval_every_steps);
        if let Some(every) = config.keep_checkpoint_every_steps
            && !every.is_multiple_of(checkpoint_every_steps)
        {
            return Err(TrainError::config(format!(
                "`train.keep_checkpoint_every_steps` is {every}, expected a multiple of `train.checkpoint_every_steps`, {checkpoint_every_steps}"
            )));
        }
        let recompute_blocks = config.recompute_blocks.unwrap_or(RECOMPUTE_BLOCKS);
        if recompute_blocks > 0 && !network.has_tokens() {
            return Err(TrainError::no_effect(
                "train.recompute_blocks",
                "in a BiT-ResNet, which has no channel mixing",
            ));
        }
        if recompute_blocks > network.num_blocks {
            return Err(TrainError::config(format!(
                "`train.recompute_blocks` is {recompute_blocks}, expected at most the {} blocks of the network",
                network.num_blocks
            )));
        }
        let freeze = config.freeze.clone().unwrap_or_default();
        ParameterRates::new(&freeze, config.layer_decay, network)?;
        if let Some(stopping) = &config.early_stopping {
            check_early_stopping(stopping)?;
        }
        let precision = config.precision.unwrap_or(PRECISION);
        let loss_scale =
            config.loss_scale.or_else(|| (precision == Precision::F16).then(LossScaling::default));
        if let Some(rule) = &loss_scale {
            check_loss_scale(rule)?;
        }
        let loss = config.loss.unwrap_or(LOSS);
        let teacher = config.teacher.clone().map(|teacher| {
            let precision = Some(teacher.precision.unwrap_or(precision));
            Distillation { precision, ..teacher }
        });
        if let Some(teacher) = &teacher {
            check_teacher(teacher, loss)?;
        }
        let exchange_precision = config.exchange_precision.unwrap_or(EXCHANGE_PRECISION);
        if exchange_precision == Precision::F16 {
            return Err(TrainError::config(
                "`train.exchange_precision` is \"f16\", expected \"f32\" or \"bf16\"",
            ));
        }
        let above_zero = |limit: f64| (limit > 0.0).then_some(limit);
        Ok(Self {
            batch_size,
            microbatch_size,
            steps,
            loss,
            teacher,
            label_smoothing: config.label_smoothing.unwrap_or(LABEL_SMOOTHING),
            clip_norm: above_zero(config.clip_norm.unwrap_or(CLIP_NORM)),
            freeze,
            layer_decay: config.layer_decay.filter(|decay| *decay < 1.0),
            ema_decay: config.ema_decay,
            recompute_blocks,
            precision,
            loss_scale,
            log_every_steps: config.log_every_steps.unwrap_or(LOG_EVERY_STEPS),
            eval_every_steps,
            eval_at_start: config.eval_at_start.unwrap_or(EVAL_AT_START),
            early_stopping: config.early_stopping,
            eval_batch_size,
            checkpoint_every_steps,
            keep_checkpoints: config.keep_checkpoints.unwrap_or(KEEP_CHECKPOINTS),
            keep_checkpoint_every_steps: config.keep_checkpoint_every_steps,
            keep_best_checkpoint: config.keep_best_checkpoint.unwrap_or(KEEP_BEST_CHECKPOINT),
            on_divergence: config.on_divergence.unwrap_or(ON_DIVERGENCE),
            exchange_precision,
            rank_timeout_secs: config.rank_timeout_secs.unwrap_or(RANK_TIMEOUT_SECS),
            outlier_z_score: above_zero(config.outlier_z_score.unwrap_or(OUTLIER_Z_SCORE)),
        })
    }
}

/// That of plans from before there was the key.
fn exchange_precision() -> Precision {
    EXCHANGE_PRECISION
}

/// That of plans from before there was the key.
fn rank_timeout_secs() -> u64 {
    RANK_TIMEOUT_SECS
}

/// The length in updates: passes over the data times examples, by the size of a batch.
fn steps(config: &TrainConfig, steps_per_epoch: f64) -> Result<u64, TrainError> {
    let steps = match (config.steps, config.epochs) {
        (Some(steps), None) => steps,
        (None, Some(epochs)) => (epochs * steps_per_epoch).round().max(1.0) as u64,
        (None, None) => {
            return Err(TrainError::config("neither `train.epochs` nor `train.steps` is set")
                .with_hint("set the length of the run, for example `epochs = 10`"));
        }
        (Some(_), Some(_)) => {
            return Err(TrainError::config(
                "both `train.epochs` and `train.steps` are set, expected one of them",
            ));
        }
    };
    if steps > MAX_STEPS {
        return Err(TrainError::config(format!(
            "the run is {steps} updates long, expected at most {MAX_STEPS}"
        )));
    }
    Ok(steps)
}

fn check_early_stopping(rule: &EarlyStopping) -> Result<(), TrainError> {
    if rule.patience == 0 {
        return Err(TrainError::config(
            "`train.early_stopping.patience` is 0, expected at least 1",
        ));
    }
    if !(0.0..1.0).contains(&rule.min_delta) {
        return Err(TrainError::config(format!(
            "`train.early_stopping.min_delta` is {}, expected at least 0 and below 1",
            rule.min_delta
        )));
    }
    Ok(())
}

fn check_teacher(teacher: &Distillation, loss: Loss) -> Result<(), TrainError> {
    if let Err((name, found, expected)) = teacher.check() {
        return Err(TrainError::config(format!(
            "`train.teacher.{name}` is {found}, expected {expected}"
        )));
    }
    if loss != Loss::Softmax {
        return Err(TrainError::config(
            "`train.loss` is \"sigmoid\", expected \"softmax\": a teacher is learned from as a distribution over the classes",
        ));
    }
    Ok(())
}

fn check_loss_scale(rule: &LossScaling) -> Result<(), TrainError> {
    if let Err(expected) = rule.check() {
        return Err(TrainError::config(format!(
            "`train.loss_scale.initial` is {}, expected {expected}",
            rule.initial
        )));
    }
    if rule.growth_every_steps == 0 {
        return Err(TrainError::config(
            "`train.loss_scale.growth_every_steps` is 0, expected at least 1",
        ));
    }
    Ok(())
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
