//! Stochastic depth: which residual branches an example skips.

use mixer_data::ExampleRng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Stream of [`ExampleRng`] that decides about branches; apart from those of the augmentation.
const STREAM: u64 = 0x6470;

/// Treatment of a branch that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropPathScaling {
    /// Nothing, as in the Mixer authors' code: branches are stronger in evaluation than on average in
    /// training.
    None,
    /// It is divided by its probability, as in timm: the expectation is the same in both.
    Keep,
}

/// Stochastic depth of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropPath {
    /// Probability of dropping a branch of the last block, rising linearly from 0 at the first.
    pub rate: f64,
    /// Treatment of kept branches.
    pub scaling: DropPathScaling,
}

impl DropPath {
    /// The factor of every branch, `[2 L · B]` in row order: rows `2 i` and `2 i + 1` are token and
    /// channel mixing of block `i`. `None` when nothing is ever dropped.
    ///
    /// `positions` are the examples' places in the training stream.
    ///
    /// # Determinism
    /// A pure function of its arguments.
    #[must_use]
    pub fn branch_scales(
        &self,
        num_blocks: usize,
        seed: u64,
        positions: std::ops::Range<u64>,
    ) -> Option<Vec<f32>> {
        if self.rate == 0.0 {
            return None;
        }
        let batch = positions.end.saturating_sub(positions.start) as usize;
        let mut scales = vec![1.0; 2 * num_blocks * batch];
        for (column, position) in positions.enumerate() {
            let mut random = ExampleRng::new(seed, 0, position, STREAM);
            for (row, scales) in scales.chunks_exact_mut(batch).enumerate() {
                let depth = (row / 2) as f64 / num_blocks.saturating_sub(1).max(1) as f64;
                let rate = self.rate * depth;
                let kept = match self.scaling {
                    DropPathScaling::None => 1.0,
                    DropPathScaling::Keep => 1.0 / (1.0 - rate),
                };
                scales[column] = if random.uniform() < rate { 0.0 } else { kept as f32 };
            }
        }
        Some(scales)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_linearly_and_kept_branches_keep_the_expectation() {
        let drop = DropPath { rate: 0.4, scaling: DropPathScaling::Keep };
        let (blocks, batch) = (5, 20_000);
        let scales = drop.branch_scales(blocks, 3, 0..batch).unwrap();
        for (row, scales) in scales.chunks_exact(batch as usize).enumerate() {
            let rate = 0.4 * (row / 2) as f64 / 4.0;
            let dropped = scales.iter().filter(|s| **s == 0.0).count() as f64 / batch as f64;
            assert!((dropped - rate).abs() < 0.02, "row {row}: {dropped}");
            let mean = scales.iter().map(|s| f64::from(*s)).sum::<f64>() / batch as f64;
            assert!((mean - 1.0).abs() < 0.03, "row {row}: {mean}");
        }
    }

    #[test]
    fn an_example_keeps_its_branches_wherever_its_batch_starts() {
        let drop = DropPath { rate: 0.5, scaling: DropPathScaling::None };
        let whole = drop.branch_scales(3, 1, 0..10).unwrap();
        let part = drop.branch_scales(3, 1, 4..6).unwrap();
        for row in 0..6 {
            assert_eq!(whole[row * 10 + 4..row * 10 + 6], part[row * 2..row * 2 + 2]);
        }
        assert!(whole.iter().all(|s| *s == 0.0 || *s == 1.0));
        assert_eq!(DropPath { rate: 0.0, ..drop }.branch_scales(3, 1, 0..10), None);
    }
}
