//! `[schedule]`: the learning rate over the run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::update::schedule::Decay;

/// Decay after warm-up.
pub const DECAY: Decay = Decay::Cosine;

/// Updates of warm-up.
pub const WARMUP_STEPS: u64 = 0;

/// The last rate of a linear decay, as a fraction of the highest.
pub const LINEAR_END: f64 = 0.0;

/// The learning rate over the run.
///
/// The rate of update t, counted from 0, is `learning_rate · min(1, t / warmup_steps) · decay(p)`, where p
/// goes from 0 at the end of warm-up to 1 at the end of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Shape of the decay after warm-up.
    ///
    /// `cosine`: ½ (1 + cos πp). `linear`: `linear_end` + (1 - `linear_end`)(1 - p). `constant`: 1.
    #[schemars(extend("default" = DECAY))]
    pub decay: Option<Decay>,
    /// Linear warm-up from 0, shorter than the run.
    #[schemars(extend("x-unit" = "updates", "minimum" = 0, "default" = WARMUP_STEPS))]
    pub warmup_steps: Option<u64>,
    /// Warm-up of the part by which a run was made longer, whose schedule begins anew there.
    ///
    /// With `--extend`, the rate rises from 0 again over so many updates and then decays to the new end of the
    /// run. Without this key the schedule is that of a run of the new length. An error in a run that was never
    /// made longer.
    #[schemars(extend("x-unit" = "updates", "minimum" = 0, "x-default" = "none: one schedule over the new length", "x-resume" = "longer"))]
    pub rewarm_steps: Option<u64>,
    /// The last rate as a fraction of the highest; an error unless `decay = "linear"`.
    #[schemars(extend("x-unit" = "fraction", "minimum" = 0, "exclusiveMaximum" = 1, "default" = LINEAR_END))]
    pub linear_end: Option<f64>,
}
