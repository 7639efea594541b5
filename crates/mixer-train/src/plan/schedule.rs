//! The learning rate over a run.

use serde::{Deserialize, Serialize};

use crate::config::ScheduleConfig;
use crate::config::schedule::{DECAY, LINEAR_END, WARMUP_STEPS};
use crate::error::TrainError;
use crate::update::schedule::{Decay, LearningRate, Schedule, Stage};

/// The learning rate over a run. See [`RunPlan::learning_rate`](super::RunPlan::learning_rate).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulePlan {
    /// Decay after warm-up.
    pub decay: Decay,
    /// Updates of linear warm-up from 0.
    pub warmup_steps: u64,
    /// Updates of warm-up after the run was made longer; absent where its schedule did not begin anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rewarm_steps: Option<u64>,
    /// The last rate as a fraction of the highest; absent unless the decay is linear.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub linear_end: Option<f64>,
    /// The lengths of a run that was made longer, the first and the present one among them; empty for others.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lengths: Vec<Length>,
}

/// A length that a run had from an update on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Length {
    /// The first update of it.
    pub from: u64,
    /// Updates in all.
    pub steps: u64,
    /// Updates of warm-up, where the schedule began anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rewarm_steps: Option<u64>,
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
        if let Some(rewarm_steps) = config.rewarm_steps
            && rewarm_steps >= steps
        {
            return Err(TrainError::config(format!(
                "`schedule.rewarm_steps` is {rewarm_steps}, expected fewer than the {steps} updates of the run"
            )));
        }
        let linear_end = config.linear_end.unwrap_or(LINEAR_END);
        Ok(Self {
            decay,
            warmup_steps,
            rewarm_steps: config.rewarm_steps,
            linear_end: (decay == Decay::Linear).then_some(linear_end),
            lengths: Vec::new(),
        })
    }

    /// Refuses a warm-up of an extension that there was none of.
    pub(crate) fn check_rewarming(&self) -> Result<(), TrainError> {
        if self.rewarm_steps.is_some() && self.lengths.is_empty() {
            let because = "in a run that is not made longer with `--extend`";
            return Err(TrainError::no_effect("schedule.rewarm_steps", because));
        }
        Ok(())
    }

    /// Takes note that a run of `before` updates goes on for `steps` in all, after `done` of them.
    pub(super) fn extend(&mut self, done: u64, before: u64, steps: u64) -> Result<(), TrainError> {
        let left = steps.saturating_sub(done);
        if let Some(rewarm_steps) = self.rewarm_steps
            && rewarm_steps >= left
        {
            return Err(TrainError::config(format!(
                "`schedule.rewarm_steps` is {rewarm_steps}, expected fewer than the {left} updates that are left"
            )));
        }
        if self.lengths.is_empty() {
            self.lengths.push(Length { from: 0, steps: before, rewarm_steps: None });
        }
        // Of an extension of which no update is left.
        self.lengths.retain(|length| length.from < done);
        self.lengths.push(Length { from: done, steps, rewarm_steps: self.rewarm_steps });
        Ok(())
    }

    /// The update from which on the run has its present length, where that was not its first.
    #[must_use]
    pub fn extended_at(&self) -> Option<u64> {
        self.lengths.last().map(|length| length.from)
    }

    /// The learning rate of each update of a run of `steps` with this highest one.
    pub(super) fn learning_rate(&self, base: f64, steps: u64) -> LearningRate {
        let whole = [Length { from: 0, steps, rewarm_steps: None }];
        let lengths = if self.lengths.is_empty() { &whole[..] } else { &self.lengths };
        let stage = |length: &Length| {
            let (origin, warmup_steps) = match length.rewarm_steps {
                Some(rewarm_steps) => (length.from, rewarm_steps),
                None => (0, self.warmup_steps),
            };
            let schedule = Schedule {
                base,
                decay: self.decay,
                warmup_steps,
                total_steps: length.steps.saturating_sub(origin),
                linear_end: self.linear_end.unwrap_or(0.0),
            };
            Stage { from: length.from, origin, schedule }
        };
        LearningRate { stages: lengths.iter().map(stage).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(config: ScheduleConfig) -> SchedulePlan {
        SchedulePlan::resolve(&config, 8).unwrap()
    }

    #[test]
    fn a_longer_run_has_one_schedule_over_its_new_length_or_begins_a_new_one() {
        let linear = ScheduleConfig {
            decay: Some(Decay::Linear),
            warmup_steps: Some(2),
            ..ScheduleConfig::default()
        };
        let mut whole = plan(linear.clone());
        whole.extend(6, 8, 12).unwrap();
        let rate = whole.learning_rate(1.0, 12);
        let expected = [0.0, 0.5, 1.0, 5.0 / 6.0, 4.0 / 6.0, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1];
        for (step, expected) in (0..).zip(expected) {
            assert!((rate.rate(step) - expected).abs() < 1e-12, "{step}: {}", rate.rate(step));
        }
        let mut anew = plan(ScheduleConfig { rewarm_steps: Some(2), ..linear });
        anew.extend(6, 8, 12).unwrap();
        assert_eq!(anew.extended_at(), Some(6));
        let rate = anew.learning_rate(1.0, 12);
        let expected = [0.0, 0.5, 1.0, 5.0 / 6.0, 4.0 / 6.0, 0.5, 0.0, 0.5, 1.0, 0.75, 0.5, 0.25];
        for (step, expected) in (0..).zip(expected) {
            assert!((rate.rate(step) - expected).abs() < 1e-12, "{step}: {}", rate.rate(step));
        }
        // Longer once more, after two updates of which the second was lost.
        anew.extend(7, 12, 20).unwrap();
        anew.extend(7, 20, 17).unwrap();
        let froms: Vec<(u64, u64)> = anew.lengths.iter().map(|l| (l.from, l.steps)).collect();
        assert_eq!(froms, [(0, 8), (6, 12), (7, 17)]);
        assert_eq!(anew.learning_rate(1.0, 17).rate(8), 0.5);
        assert!(anew.extend(7, 17, 9).is_err(), "two updates are no room for two of warm-up");
    }
}
