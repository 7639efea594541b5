//! The learning rate over a run.

use serde::{Deserialize, Serialize};

use crate::config::ScheduleConfig;
use crate::config::schedule::{DECAY, LINEAR_END, WARMUP_STEPS};
use crate::error::TrainError;
use crate::update::schedule::Decay;

/// The learning rate over a run. See [`RunPlan::learning_rate`](super::RunPlan::learning_rate).
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

impl SchedulePlan {
    /// Resolves the section for the length of a run.
    pub(super) fn resolve(config: &ScheduleConfig, steps: u64) -> Result<Self, TrainError> {
        let decay = config.decay.unwrap_or(DECAY);
        if config.linear_end.is_some() && decay != Decay::Linear {
            return Err(TrainError::no_effect(
                "schedule.linear_end",
                "unless `schedule.decay = \"linear\"`",
            ));
        }
        let warmup_steps = config.warmup_steps.unwrap_or(WARMUP_STEPS);
        if warmup_steps >= steps {
            return Err(TrainError::config(format!(
                "`schedule.warmup_steps` is {warmup_steps}, expected fewer than the {steps} updates of the run"
            )));
        }
        let linear_end = config.linear_end.unwrap_or(LINEAR_END);
        Ok(Self { decay, warmup_steps, linear_end: (decay == Decay::Linear).then_some(linear_end) })
    }
}
