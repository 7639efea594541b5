//! Classification losses on soft targets.

use burn::tensor::{Tensor, activation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kind of loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Cross-entropy over one distribution per example.
    Softmax,
    /// Binary cross-entropy per class, summed over classes: what the paper's ImageNet recipe uses,
    /// with a head bias near `−ln K`.
    Sigmoid,
}

impl Loss {
    /// The loss of each example.
    ///
    /// # Shapes
    /// - `logits`, `targets`: `[B, K]`
    /// - output: `[B]`
    ///
    /// # Source
    /// `big_vision/utils.py@0127fb6` (`softmax_xent`, `sigmoid_xent`).
    #[must_use]
    pub fn per_example(self, logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
        let terms = match self {
            Self::Softmax => targets * activation::log_softmax(logits, 1),
            Self::Sigmoid => {
                let negative = activation::log_sigmoid(-logits.clone());
                let positive = activation::log_sigmoid(logits);
                targets.clone() * positive + (-targets + 1.0) * negative
            }
        };
        -terms.sum_dim(1).squeeze_dim::<1>(1)
    }
}

/// Targets of integer labels: `1 − smoothing` on the class plus `smoothing / K` everywhere.
///
/// The result is `[B · K]` in row order, on the host, where labels are.
#[must_use]
pub fn smoothed_targets(labels: &[u32], num_classes: usize, smoothing: f32) -> Vec<f32> {
    let mut targets = vec![smoothing / num_classes as f32; labels.len() * num_classes];
    for (row, &label) in targets.chunks_exact_mut(num_classes).zip(labels) {
        if let Some(target) = row.get_mut(label as usize) {
            *target += 1.0 - smoothing;
        }
    }
    targets
}

/// Targets after mixing: `share` of an example's own and the rest of its partner's.
///
/// # Shapes
/// - `targets`: `[R · K]` in row order, of which the first `B` rows are mixed; `num_classes`: `K`
/// - `partners`: `[B]`, each below `R`
/// - output: `[B · K]`
#[must_use]
pub fn mixed_targets(
    targets: &[f32],
    num_classes: usize,
    partners: &[usize],
    share: f32,
) -> Vec<f32> {
    let row = |example: usize| &targets[example * num_classes..(example + 1) * num_classes];
    let mixed = |(example, &partner): (usize, &usize)| {
        let both = row(example).iter().zip(row(partner));
        both.map(|(own, other)| share * own + (1.0 - share) * other).collect::<Vec<_>>()
    };
    partners.iter().enumerate().flat_map(mixed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_targets_are_shares_of_both() {
        let targets = smoothed_targets(&[0, 1, 2], 3, 0.0);
        let mixed = mixed_targets(&targets, 3, &[2, 0, 1], 0.75);
        assert_eq!(mixed, [0.75, 0.0, 0.25, 0.25, 0.75, 0.0, 0.0, 0.25, 0.75]);
        assert_eq!(mixed_targets(&targets, 3, &[0, 1, 2], 0.75), targets);
        assert_eq!(mixed_targets(&targets, 3, &[2, 0], 0.75), mixed[..6]);
    }

    #[test]
    fn smoothed_targets_are_distributions() {
        let targets = smoothed_targets(&[2, 0], 4, 0.1);
        assert_eq!(targets.len(), 8);
        assert!((targets[2] - 0.925).abs() < 1e-6 && (targets[0] - 0.025).abs() < 1e-6);
        assert!((targets[4] - 0.925).abs() < 1e-6);
        assert!((targets.iter().sum::<f32>() - 2.0).abs() < 1e-6);
        assert_eq!(smoothed_targets(&[1], 3, 0.0), [0.0, 1.0, 0.0]);
    }
}
