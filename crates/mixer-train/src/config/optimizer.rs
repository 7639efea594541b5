//! `[optimizer]`: the rule of the update and its constants.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::update::optimizer::FirstMomentDtype;
use crate::update::sam::Sam;

/// Highest learning rate with AdamW.
pub const LEARNING_RATE_ADAMW: f64 = 0.001;

/// Highest learning rate with SGD, the paper's in fine-tuning.
pub const LEARNING_RATE_SGD: f64 = 0.03;

/// The largest learning rate that can be meant: an update of f32 weights holds no more.
pub const MAX_LEARNING_RATE: f64 = 1e30;

/// Decay of kernels with AdamW.
pub const WEIGHT_DECAY_ADAMW: f64 = 0.1;

/// Decay of kernels with SGD.
pub const WEIGHT_DECAY_SGD: f64 = 0.0;

/// Decay of the momentum.
pub const MOMENTUM: f64 = 0.9;

/// Decay of the first moment.
pub const BETA1: f64 = 0.9;

/// Decay of the second moment.
pub const BETA2: f64 = 0.999;

/// Summand of the root of the second moment.
pub const EPSILON: f64 = 1e-8;

/// The least of it: at 0, the first update of a head of zeros is 0 / 0.
pub const MIN_EPSILON: f64 = 1e-30;

/// Rule of the update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay on kernels.
    Adamw,
    /// Gradient descent with momentum.
    Sgd,
}

/// The optimizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The rule; the defaults are the paper's choices.
    #[schemars(extend("x-default" = "`adamw` in pre-training, `sgd` in fine-tuning"))]
    pub kind: Option<OptimizerKind>,
    /// Highest learning rate.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = MAX_LEARNING_RATE, "x-default" = format!("{LEARNING_RATE_ADAMW} for AdamW, {LEARNING_RATE_SGD} for SGD")))]
    pub learning_rate: Option<f64>,
    /// Decoupled decay, multiplied by the learning rate, on kernels only (not on biases and LayerNorm).
    #[schemars(extend("minimum" = 0, "x-default" = format!("{WEIGHT_DECAY_ADAMW} for AdamW, {WEIGHT_DECAY_SGD} for SGD")))]
    pub weight_decay: Option<f64>,
    /// SGD only: decay of the momentum.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1, "default" = MOMENTUM))]
    pub momentum: Option<f64>,
    /// AdamW only: decay of the first moment.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1, "default" = BETA1))]
    pub beta1: Option<f64>,
    /// AdamW only: decay of the second moment.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1, "default" = BETA2))]
    pub beta2: Option<f64>,
    /// AdamW only: added to the root of the second moment.
    #[schemars(extend("minimum" = MIN_EPSILON, "default" = EPSILON))]
    pub epsilon: Option<f64>,
    /// Type in which AdamW's first moment, or the momentum of SGD, is kept; bf16 is half the bytes.
    ///
    /// An update computes in f32, and rounds what it keeps to the nearest, as `mu_dtype` and
    /// `accumulator_dtype` of optax. On CPUs; GPUs refuse `"bf16"` with exit code 7.
    #[schemars(extend("default" = FirstMomentDtype::default()))]
    pub first_moment_dtype: Option<FirstMomentDtype>,
    /// Sharpness-aware minimisation, `{ rho = 0.1, rho_min = 0, adaptive = false, every = 1, alpha = 0 }`.
    ///
    /// An update takes the gradient twice for the same batch and the same draws: at the weights, and where they are
    /// when they are moved by `rho` along it (SAM). The second gradient is what is clipped and applied, to the weights
    /// as they were. An update takes twice the time. `rho` alone is needed.
    ///
    /// The first gradient is that of the whole batch, of all microbatches and processes. The radius follows the
    /// learning rate from `rho` at its highest to `rho_min` at the end of its decay. With `adaptive` each weight moves
    /// in proportion to its size (ASAM), and `rho` is some ten times as large. With `every = k` the updates 0, k, 2k, …
    /// take two passes, and the others one. `alpha` is the share of the first gradient, as far as it is orthogonal to
    /// the second, that is taken off it (GSAM). Metrics have the loss at the weights themselves, and the norm of the
    /// gradient that is applied.
    #[schemars(extend("x-default" = "none"))]
    pub sam: Option<Sam>,
}
