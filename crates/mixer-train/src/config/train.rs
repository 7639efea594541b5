//! `[train]`: batches, length, loss, intervals.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::limits::{MAX_BATCH_SIZE, MAX_STEPS};
use crate::run::early_stopping::EarlyStopping;
use crate::run::on_divergence::OnDivergence;
use crate::update::distillation::Distillation;
use crate::update::loss::Loss;
use crate::update::loss_scale::LossScaling;
use mixer_model::Precision;

/// Examples per update, the paper's number in fine-tuning.
pub const BATCH_SIZE: usize = 512;

/// The loss.
pub const LOSS: Loss = Loss::Softmax;

/// Part of the target that is spread over all classes.
pub const LABEL_SMOOTHING: f32 = 0.0;

/// Largest norm of the whole gradient.
pub const CLIP_NORM: f64 = 1.0;

/// Layer-wise decay of the learning rate: none.
pub const LAYER_DECAY: f64 = 1.0;

/// Blocks whose hidden units are computed again.
pub const RECOMPUTE_BLOCKS: usize = 0;

/// Rounding of operands: none.
pub const PRECISION: Precision = Precision::F32;

/// Updates between lines of metrics.
pub const LOG_EVERY_STEPS: u64 = 10;

/// Evaluation before the first update.
pub const EVAL_AT_START: bool = false;

/// Checkpoints that are kept.
pub const KEEP_CHECKPOINTS: usize = 2;

/// Retention of the checkpoint of the best evaluation.
pub const KEEP_BEST_CHECKPOINT: bool = false;

/// Fate of an update that is not finite.
pub const ON_DIVERGENCE: OnDivergence = OnDivergence::Stop;

/// Standard deviations from which on an update is reported.
pub const OUTLIER_Z_SCORE: f64 = 6.0;

/// Rounding of gradients between processes: none.
pub const EXCHANGE_PRECISION: Precision = Precision::F32;

/// Longest wait of a process for another one of the run, s.
pub const RANK_TIMEOUT_SECS: u64 = 1800;

/// Batches, length, loss, intervals.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Examples per update; the default is the paper's in fine-tuning.
    #[schemars(extend("x-unit" = "examples", "minimum" = 1, "maximum" = MAX_BATCH_SIZE, "default" = BATCH_SIZE))]
    pub batch_size: Option<usize>,
    /// Examples per forward and backward pass; divides `batch_size`.
    ///
    /// Gradients are averaged, so that less memory gives the same update up to rounding. With `data.mix` it
    /// also says who may be mixed with whom, and may then not change when a run is continued.
    #[schemars(extend("x-unit" = "examples", "minimum" = 1, "x-default" = "`batch_size`", "x-resume" = "rounding without mixing"))]
    pub microbatch_size: Option<usize>,
    /// Length in passes over the data, which need not be whole; either this or `steps`.
    ///
    /// With `data.repeats = N` a pass shows every example N times.
    #[schemars(extend("x-unit" = "passes over the data", "exclusiveMinimum" = 0, "x-resume" = "longer"))]
    pub epochs: Option<f64>,
    /// Length in updates; either this or `epochs`.
    #[schemars(extend("x-unit" = "updates", "minimum" = 1, "maximum" = MAX_STEPS, "x-resume" = "longer"))]
    pub steps: Option<u64>,
    /// Loss: `softmax` is cross-entropy, `sigmoid` binary cross-entropy per class, summed.
    ///
    /// `sigmoid` goes with `model.head_bias`.
    #[schemars(extend("default" = LOSS))]
    pub loss: Option<Loss>,
    /// A teacher whose probabilities are learned besides the labels, `{ weights = "runs/large", temperature = 2, weight = 0.7 }`.
    ///
    /// The loss is `(1 - weight)` times that of the labels and `weight · temperature²` times the Kullback-Leibler
    /// divergence of the student's probabilities from the teacher's, with the logits of both divided by `temperature`
    /// (Hinton et al. 2015). `weights` is needed; `temperature` is 1 by default and `weight`, above 0 and at most 1, 0.5.
    /// The teacher sees the very pictures that the student sees, after augmentation, mixup and CutMix, normalised and
    /// cut into patches as it knows them. It has the same resolution and the same classes, in whatever order, is not
    /// trained, and computes in `precision`, by default `train.precision`. `loss` is `softmax`. Evaluations are of
    /// the student alone. A run that is continued needs the same teacher, which may have moved: `weights` may change.
    #[schemars(extend("x-default" = "none"))]
    pub teacher: Option<Distillation>,
    /// Part of the target that is spread over all classes; not applied in evaluation.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1, "default" = LABEL_SMOOTHING))]
    pub label_smoothing: Option<f32>,
    /// Largest norm of the whole gradient, to which a larger one is scaled down; 0 never clips.
    #[schemars(extend("x-unit" = "norm", "minimum" = 0, "default" = CLIP_NORM))]
    pub clip_norm: Option<f64>,
    /// Parameters that are not trained: names in weights files, or beginnings of them up to a dot.
    ///
    /// `["stem", "blocks.0", "blocks.1.mlp_tokens", "norm"]`; `mixer weights inspect` prints the names. They
    /// get no update, no decay and no moments, and the gradient norm does not count them. The backward pass
    /// ends below the lowest block that has something to train, so freezing from the stem upwards saves time.
    #[schemars(extend("x-unit" = "names", "x-default" = "none"))]
    pub freeze: Option<Vec<String>>,
    /// Layer-wise decay of the learning rate, as BEiT's.
    ///
    /// The rate of a parameter is that of the schedule times `layer_decay^(L + 1 - layer)`. The stem is layer
    /// 0, block `i` is layer `i + 1`, and the last LayerNorm and the head are layer `L + 1`, with factor 1.
    /// (timm gives the last LayerNorm the rate of the last block.) Weight decay, which is multiplied by the
    /// learning rate, falls with it.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1, "default" = LAYER_DECAY))]
    pub layer_decay: Option<f64>,
    /// Decay per update of an exponential moving average of the weights, for example 0.9999.
    ///
    /// In update `t` it is at most `(1 + t) / (10 + t)`, so that the initial weights are forgotten. The
    /// average is evaluated besides the weights, decides which evaluation is the best, and is what
    /// `best.safetensors` and `final.safetensors` hold.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1, "x-default" = "none is kept"))]
    pub ema_decay: Option<f64>,
    /// Blocks, from the first on, whose hidden units of channel mixing the backward pass computes again.
    ///
    /// Each of them keeps `batch · tokens · channels_mlp_dim` floats less; all of them take some 13 % more
    /// time. At most `num_blocks`.
    #[schemars(extend("x-unit" = "blocks", "minimum" = 0, "default" = RECOMPUTE_BLOCKS, "x-resume" = "rounding"))]
    pub recompute_blocks: Option<usize>,
    /// Rounding of the operands of the blocks' matrix products.
    ///
    /// Weights, their gradients, normalisation, activation, loss and sums stay f32. On GPUs,
    /// activations from the stem to the last block are kept in it too. `bf16` needs a GPU that computes in it
    /// (NVIDIA: compute capability 8.0), or `flex` on a CPU with AVX512-BF16, where it takes some 0.55 of the
    /// time. `f16` is for GPUs without bf16, and brings loss scaling with it. Where a device cannot, it is
    /// refused with exit code 7.
    #[schemars(extend("default" = PRECISION))]
    pub precision: Option<Precision>,
    /// Loss scaling, `{ initial = 65536, growth_every_steps = 2000 }`.
    ///
    /// The loss is multiplied by a factor, so that its gradients do not fall below what f16 can hold, and
    /// they are divided by it again in f32. Where gradients overflow, the update is left out and the factor
    /// halved; after so many updates in a row without that, it is doubled. `initial` is a power of two, at
    /// least 1. Gradients that overflow at a factor of 1, and losses that are not finite, are what
    /// `on_divergence` is about. On a GPU every update is waited for.
    #[schemars(extend("x-default" = "these values with `f16`, else none"))]
    pub loss_scale: Option<LossScaling>,
    /// Updates between lines of training metrics.
    #[schemars(extend("x-unit" = "updates", "minimum" = 1, "default" = LOG_EVERY_STEPS, "x-resume" = "free"))]
    pub log_every_steps: Option<u64>,
    /// Updates between evaluations; the last update is always evaluated.
    #[schemars(extend("x-unit" = "updates", "minimum" = 1, "x-default" = "one epoch, rounded up", "x-from" = "data", "x-resume" = "free"))]
    pub eval_every_steps: Option<u64>,
    /// Evaluation before the first update too.
    ///
    /// In fine-tuning that keeps the head, it says what the weights can do already. It is a line of the metrics
    /// and nothing else: it decides neither `best.safetensors` nor `early_stopping`.
    #[schemars(extend("default" = EVAL_AT_START, "x-resume" = "free"))]
    pub eval_at_start: Option<bool>,
    /// The end of a run that no longer improves, `{ patience = 5, min_delta = 0.001 }`.
    ///
    /// The run ends when `patience` evaluations in a row have not improved top-1 on `data.val` by more than
    /// `min_delta`, a fraction in [0, 1), by default 0.
    #[schemars(extend("x-default" = "runs to its end", "x-resume" = "free"))]
    pub early_stopping: Option<EarlyStopping>,
    /// Examples per batch of evaluation.
    #[schemars(extend("x-unit" = "examples", "minimum" = 1, "x-default" = "`microbatch_size`", "x-resume" = "rounding"))]
    pub eval_batch_size: Option<usize>,
    /// Updates between checkpoints; the last update always has one.
    #[schemars(extend("x-unit" = "updates", "minimum" = 1, "x-default" = "`eval_every_steps`", "x-from" = "data", "x-resume" = "free"))]
    pub checkpoint_every_steps: Option<u64>,
    /// Number of newest checkpoints that are kept; older ones are removed, and damaged ones do not count.
    #[schemars(extend("x-unit" = "checkpoints", "minimum" = 1, "default" = KEEP_CHECKPOINTS, "x-resume" = "free"))]
    pub keep_checkpoints: Option<usize>,
    /// Checkpoints whose update is a multiple of this are kept for good.
    ///
    /// It is itself a multiple of `checkpoint_every_steps`.
    #[schemars(extend("x-unit" = "updates", "minimum" = 1, "x-default" = "none", "x-resume" = "free"))]
    pub keep_checkpoint_every_steps: Option<u64>,
    /// Retention of the checkpoint of the best evaluation too.
    ///
    /// Where none is due at an evaluation that is the best so far, one is written. (The weights of the best
    /// evaluation are in `best.safetensors` in any case.)
    #[schemars(extend("default" = KEEP_BEST_CHECKPOINT, "x-resume" = "free"))]
    pub keep_best_checkpoint: Option<bool>,
    /// Fate of an update whose loss or gradient norm is not finite: `"stop"` or `{ skip = { at_most = 3 } }`.
    ///
    /// `"stop"` ends the run with exit code 6, and keeps the batch for `--replay`. `skip` leaves so many
    /// updates out, going on with the next batch, before it ends the run after all.
    #[schemars(extend("default" = ON_DIVERGENCE, "x-resume" = "free"))]
    pub on_divergence: Option<OnDivergence>,
    /// Rounding of gradients on their way between the processes of a run, on CUDA devices: `"f32"` or `"bf16"`,
    /// which is half the bytes.
    ///
    /// On other devices they are never rounded: any number of processes has the same bits.
    #[schemars(extend("default" = EXCHANGE_PRECISION, "x-resume" = "rounding"))]
    pub exchange_precision: Option<Precision>,
    /// Longest time that a process of a run waits for another one, before it ends with exit code 8.
    ///
    /// After a minute it says for whom it waits. What the slowest process opens, evaluates and saves has to fit.
    #[schemars(extend("x-unit" = "seconds", "minimum" = 1, "default" = RANK_TIMEOUT_SECS, "x-resume" = "free"))]
    pub rank_timeout_secs: Option<u64>,
    /// Standard deviations above the mean of the last 100 updates from which on losses and gradient norms are
    /// reported.
    ///
    /// A line goes to stderr and to `metrics.jsonl`, once there are 30 updates. 0 reports none.
    #[schemars(extend("minimum" = 0, "default" = OUTLIER_Z_SCORE, "x-resume" = "free"))]
    pub outlier_z_score: Option<f64>,
}
