//! The end of a run before its length: after a number of evaluations without improvement.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ends a run whose top-1 on the evaluation split no longer improves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// Evaluations in a row without improvement after which the run ends; at least 1.
    pub patience: u64,
    /// Gain of top-1, a fraction in [0, 1], that an improvement must exceed. Default 0.
    #[serde(default)]
    pub min_delta: f64,
}

/// Memory of early stopping; part of a checkpoint, so that a resumed run stops at the same
/// update.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stagnation {
    /// Top-1 of the last improvement.
    pub reference: Option<f64>,
    /// Evaluations since then.
    pub evaluations: u64,
}

impl Stagnation {
    /// Takes note of an evaluation.
    pub fn observe(&mut self, rule: EarlyStopping, top1: f64) {
        if self.reference.is_none_or(|reference| top1 > reference + rule.min_delta) {
            *self = Self { reference: Some(top1), evaluations: 0 };
        } else {
            self.evaluations += 1;
        }
    }

    /// `true` once the run is to end.
    #[must_use]
    pub fn is_over(&self, rule: EarlyStopping) -> bool {
        self.evaluations >= rule.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The evaluation, counted from 1, after which the rule stops.
    fn stops_after(rule: EarlyStopping, accuracies: &[f64]) -> Option<usize> {
        let mut state = Stagnation::default();
        accuracies
            .iter()
            .position(|&top1| {
                state.observe(rule, top1);
                state.is_over(rule)
            })
            .map(|index| index + 1)
    }

    #[test]
    fn a_run_stops_after_as_many_evaluations_without_improvement_as_it_has_patience() {
        let rule = EarlyStopping { patience: 2, min_delta: 0.0 };
        assert_eq!(stops_after(rule, &[0.1, 0.2, 0.2, 0.19, 0.3]), Some(4));
        assert_eq!(stops_after(rule, &[0.1, 0.05, 0.2, 0.1, 0.3, 0.1, 0.1]), Some(7));
        assert_eq!(stops_after(rule, &[0.1, 0.2, 0.3, 0.4]), None);
        assert_eq!(stops_after(EarlyStopping { patience: 1, ..rule }, &[0.1, 0.1]), Some(2));
    }

    #[test]
    fn gains_up_to_the_smallest_one_that_counts_add_up() {
        let rule = EarlyStopping { patience: 2, min_delta: 0.1 };
        // 0.5 and 0.55 are no improvement on 0.45, 0.6 is one.
        assert_eq!(stops_after(rule, &[0.45, 0.5, 0.6, 0.65, 0.69]), Some(5));
        assert_eq!(stops_after(rule, &[0.45, 0.5, 0.55, 0.9]), Some(3));
    }
}
