//! The learning rate as a pure function of the update.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shape of the decay after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// `½ (1 + cos πp)`.
    Cosine,
    /// `end + (1 − end)(1 − p)`.
    Linear,
    /// 1.
    Constant,
}

/// Learning rate over a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Rate at the end of warm-up.
    pub base: f64,
    /// Decay after warm-up.
    pub decay: Decay,
    /// Updates of linear warm-up from 0.
    pub warmup_steps: u64,
    /// Updates in all.
    pub total_steps: u64,
    /// End of a linear decay, as a fraction of `base`.
    pub linear_end: f64,
}

impl Schedule {
    /// The rate of update `step`, counted from 0:
    /// `base · min(1, step / warmup) · decay(clip((step − warmup) / (total − warmup), 0, 1))`.
    ///
    /// # Source
    /// `vit_jax/utils.py@c6de1e5`, `big_vision/utils.py@0127fb6`.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        let (step, warmup, total) =
            (step as f64, self.warmup_steps as f64, self.total_steps as f64);
        let rise = if warmup > 0.0 { (step / warmup).min(1.0) } else { 1.0 };
        let progress =
            if total > warmup { ((step - warmup) / (total - warmup)).clamp(0.0, 1.0) } else { 0.0 };
        let decay = match self.decay {
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Decay::Linear => self.linear_end + (1.0 - self.linear_end) * (1.0 - progress),
            Decay::Constant => 1.0,
        };
        self.base * rise * decay
    }

    /// The last rate of the decay, and the highest.
    fn ends(&self) -> (f64, f64) {
        let last = match self.decay {
            Decay::Cosine => 0.0,
            Decay::Linear => self.linear_end,
            Decay::Constant => 1.0,
        };
        (self.base * last, self.base)
    }
}

/// The learning rate of a run that may have been made longer: each of its lengths had a schedule of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct LearningRate {
    /// By the update from which on each counts; the first one from update 0.
    pub(crate) stages: Vec<Stage>,
}

/// A schedule that counts from an update of the run on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stage {
    /// The first update that it decides.
    pub(crate) from: u64,
    /// The update of the run that is its update 0.
    pub(crate) origin: u64,
    pub(crate) schedule: Schedule,
}

impl LearningRate {
    /// That of a run with one schedule from its start to its end.
    #[must_use]
    pub fn of(schedule: Schedule) -> Self {
        Self { stages: vec![Stage { from: 0, origin: 0, schedule }] }
    }

    /// The rate of update `step` of the run, counted from 0.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        let stage = self.stage(step);
        stage.map_or(0.0, |stage| stage.schedule.rate(step.saturating_sub(stage.origin)))
    }

    /// The last rate of the decay that update `step` is in, and the highest.
    #[must_use]
    pub fn ends(&self, step: u64) -> (f64, f64) {
        self.stage(step).map_or((0.0, 0.0), |stage| stage.schedule.ends())
    }

    fn stage(&self, step: u64) -> Option<&Stage> {
        self.stages.iter().rev().find(|stage| stage.from <= step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(decay: Decay, linear_end: f64) -> Schedule {
        Schedule { base: 0.8, decay, warmup_steps: 4, total_steps: 12, linear_end }
    }

    #[test]
    fn warm_up_rises_from_zero_to_the_base_without_a_jump() {
        let s = schedule(Decay::Cosine, 0.0);
        assert_eq!(s.rate(0), 0.0);
        assert!((s.rate(2) - 0.4).abs() < 1e-15);
        assert!((s.rate(4) - 0.8).abs() < 1e-15);
        assert!(s.rate(5) < s.rate(4));
    }

    #[test]
    fn decays_reach_their_ends() {
        assert!((schedule(Decay::Cosine, 0.0).rate(8) - 0.4).abs() < 1e-15);
        assert!(schedule(Decay::Cosine, 0.0).rate(12).abs() < 1e-15);
        assert!((schedule(Decay::Linear, 0.25).rate(8) - 0.5).abs() < 1e-15);
        assert!((schedule(Decay::Linear, 0.25).rate(12) - 0.2).abs() < 1e-15);
        assert_eq!(schedule(Decay::Constant, 0.0).rate(12), 0.8);
        assert!((schedule(Decay::Linear, 0.25).rate(100) - 0.2).abs() < 1e-15);
    }

    #[test]
    fn no_warm_up_starts_at_the_base() {
        let s = Schedule { warmup_steps: 0, ..schedule(Decay::Cosine, 0.0) };
        assert_eq!(s.rate(0), 0.8);
    }
}
