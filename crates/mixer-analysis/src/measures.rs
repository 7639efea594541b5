//! The result of an evaluation in depth.

use serde::{Deserialize, Serialize};

/// Result of an evaluation; its JSON form is part of the interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Examples.
    pub n: u64,
    /// Fraction of examples whose label has the largest logit; of equal ones the first class wins.
    pub top1: f64,
    /// Fraction of examples whose label is among the five largest.
    pub top5: f64,
    /// Mean cross-entropy of the softmax.
    pub loss: f64,
    /// Expected calibration error (Guo et al. 2017): mean distance of accuracy from confidence over 15
    /// equal bins of confidence, weighted by their examples.
    pub ece: f64,
    /// Maximum calibration error: the largest of these distances.
    pub mce: f64,
    /// Mean Brier score, in `[0, 2]`.
    pub brier: f64,
    /// Each class, in the order of the outputs.
    pub per_class: Vec<ClassMeasure>,
    /// Predictions of each class.
    pub confusion: Confusion,
    /// The bins of `ece` that hold examples, by confidence; absent in results of older versions.
    #[serde(default)]
    pub calibration: Vec<CalibrationBin>,
}

/// Examples of about the same confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Examples.
    pub n: u64,
    /// Mean of their confidence.
    pub confidence: f64,
    /// Fraction of them that are right.
    pub accuracy: f64,
}

/// One class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassMeasure {
    /// Its output.
    pub class: usize,
    /// Examples of it.
    pub n: u64,
    /// Fraction of them that are right; absent where there are none.
    pub top1: Option<f64>,
}

impl Measures {
    /// Mean accuracy of the classes that occur (balanced accuracy).
    #[must_use]
    pub fn mean_per_class(&self) -> f64 {
        let present: Vec<f64> = self.per_class.iter().filter_map(|class| class.top1).collect();
        present.iter().sum::<f64>() / present.len() as f64
    }

    /// Half the width of the 95 % interval (Wilson 1927) of a fraction of `n` examples.
    #[must_use]
    pub fn half_width(fraction: f64, n: u64) -> f64 {
        let (n, z) = (n as f64, 1.959_963_984_540_054);
        z / (1.0 + z * z / n) * (fraction * (1.0 - fraction) / n + z * z / (4.0 * n * n)).sqrt()
    }
}

/// Predictions of each class: rows are truth, columns predictions. As JSON, a list of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    num_classes: usize,
    counts: Vec<u64>,
}

/// Examples of one class that were taken for another, and the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ConfusedPair {
    /// The class.
    pub truth: usize,
    /// Class that they were taken for.
    pub prediction: usize,
    /// Number of such examples.
    pub n: u64,
    /// Number of examples of the other class that were taken for this one.
    pub reverse: u64,
}

impl Confusion {
    pub(crate) fn new(num_classes: usize, counts: Vec<u64>) -> Self {
        Self { num_classes, counts }
    }

    /// Classes.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        self.num_classes
    }

    /// Predictions of class `truth`, `[K]`.
    #[must_use]
    pub fn row(&self, truth: usize) -> &[u64] {
        &self.counts[truth * self.num_classes..][..self.num_classes]
    }

    /// The `limit` pairs that are confused most; of equals the first.
    #[must_use]
    pub fn most_confused(&self, limit: usize) -> Vec<ConfusedPair> {
        let k = self.num_classes;
        let cells = (0..k * k).filter(|cell| cell / k != cell % k && self.counts[*cell] > 0);
        let mut pairs: Vec<ConfusedPair> = cells
            .map(|cell| ConfusedPair {
                truth: cell / k,
                prediction: cell % k,
                n: self.counts[cell],
                reverse: self.counts[cell % k * k + cell / k],
            })
            .collect();
        pairs.sort_by_key(|pair| (std::cmp::Reverse(pair.n), pair.truth, pair.prediction));
        pairs.truncate(limit);
        pairs
    }
}

impl Serialize for Confusion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((0..self.num_classes).map(|truth| self.row(truth)))
    }
}

impl<'de> Deserialize<'de> for Confusion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = Vec::<Vec<u64>>::deserialize(deserializer)?;
        let num_classes = rows.len();
        if rows.iter().any(|row| row.len() != num_classes) {
            return Err(serde::de::Error::custom("a confusion matrix is square"));
        }
        Ok(Self::new(num_classes, rows.concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_confused_pairs_come_first() {
        let confusion = Confusion::new(3, vec![5, 2, 0, 1, 5, 2, 0, 0, 9]);
        let pairs = confusion.most_confused(2);
        assert_eq!(pairs[0], ConfusedPair { truth: 0, prediction: 1, n: 2, reverse: 1 });
        assert_eq!(pairs[1], ConfusedPair { truth: 1, prediction: 2, n: 2, reverse: 0 });
        assert_eq!(confusion.most_confused(9).len(), 3);
    }

    #[test]
    fn intervals_are_wilsons() {
        // 0.7 of 100: [0.6042, 0.7811].
        assert!((Measures::half_width(0.7, 100) - 0.088_46).abs() < 1e-4);
        assert!(Measures::half_width(1.0, 10) > 0.1);
    }
}
