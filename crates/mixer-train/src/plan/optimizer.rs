//! The optimizer of a run.

use serde::{Deserialize, Serialize};

use crate::config::optimizer::{
    BETA1, BETA2, EPSILON, LEARNING_RATE_ADAMW, LEARNING_RATE_SGD, MOMENTUM, OptimizerConfig,
    OptimizerKind, WEIGHT_DECAY_ADAMW, WEIGHT_DECAY_SGD,
};
use crate::error::TrainError;
use crate::plan::task::Task;
use crate::update::optimizer::{FirstMomentDtype, Rule};
use crate::update::sam::Sam;

/// The optimizer of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerPlan {
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Type of the first moment, or of the momentum.
    #[serde(default)]
    pub first_moment_dtype: FirstMomentDtype,
    /// Kind and constants.
    #[serde(flatten)]
    pub rule: Rule,
    /// Sharpness-aware minimisation; absent where an update has one pass.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sam: Option<Sam>,
}

impl OptimizerPlan {
    /// Resolves the section.
    pub(super) fn resolve(config: &OptimizerConfig, task: Task) -> Result<Self, TrainError> {
        let usual = match task {
            Task::Pretrain => OptimizerKind::Adamw,
            Task::Finetune => OptimizerKind::Sgd,
        };
        let first_moment_dtype = config.first_moment_dtype.unwrap_or_default();
        let sam = config.sam;
        if let Some(Err((name, found, expected))) = sam.map(|sam| sam.check()) {
            return Err(TrainError::config(format!(
                "`optimizer.sam.{name}` is {found}, expected {expected}"
            )));
        }
        match config.kind.unwrap_or(usual) {
            OptimizerKind::Adamw => {
                if config.momentum.is_some() {
                    return Err(TrainError::no_effect("optimizer.momentum", "with AdamW"));
                }
                Ok(Self {
                    learning_rate: config.learning_rate.unwrap_or(LEARNING_RATE_ADAMW),
                    first_moment_dtype,
                    rule: Rule::Adamw {
                        beta1: config.beta1.unwrap_or(BETA1),
                        beta2: config.beta2.unwrap_or(BETA2),
                        epsilon: config.epsilon.unwrap_or(EPSILON),
                        weight_decay: config.weight_decay.unwrap_or(WEIGHT_DECAY_ADAMW),
                    },
                    sam,
                })
            }
            OptimizerKind::Sgd => {
                for (key, set) in [
                    ("optimizer.beta1", config.beta1.is_some()),
                    ("optimizer.beta2", config.beta2.is_some()),
                    ("optimizer.epsilon", config.epsilon.is_some()),
                ] {
                    if set {
                        return Err(TrainError::no_effect(key, "with SGD"));
                    }
                }
                Ok(Self {
                    learning_rate: config.learning_rate.unwrap_or(LEARNING_RATE_SGD),
                    first_moment_dtype,
                    rule: Rule::Sgd {
                        momentum: config.momentum.unwrap_or(MOMENTUM),
                        weight_decay: config.weight_decay.unwrap_or(WEIGHT_DECAY_SGD),
                    },
                    sam,
                })
            }
        }
    }
}
