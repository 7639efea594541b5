//! The sums of an evaluation.

use crate::measures::{CalibrationBin, ClassMeasure, Confusion, Measures};
use crate::scored::Scored;

/// Bins of confidence: the field's number.
const BINS: usize = 15;

/// Sums over the examples of an evaluation, in their order.
#[derive(Debug, Clone)]
pub struct Tally {
    num_classes: usize,
    n: u64,
    top1: u64,
    top5: u64,
    loss: f64,
    brier: f64,
    bins: [Bin; BINS],
    /// Rows are truth, columns predictions.
    confusion: Vec<u64>,
}

/// Examples whose confidence lies in one range.
#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    n: u64,
    right: u64,
    confidence: f64,
}

impl Tally {
    /// Nothing yet, of `num_classes` classes.
    #[must_use]
    pub fn new(num_classes: usize) -> Self {
        Self {
            num_classes,
            n: 0,
            top1: 0,
            top5: 0,
            loss: 0.0,
            brier: 0.0,
            bins: [Bin::default(); BINS],
            confusion: vec![0; num_classes * num_classes],
        }
    }

    /// Adds an example, and tells what was added. `logits` are `[K]`, `label` is below `K`.
    pub fn add(&mut self, logits: &[f32], label: usize) -> Scored {
        let scored = Scored::new(logits, label);
        let is_right = scored.rank == 0;
        self.n += 1;
        self.top1 += u64::from(is_right);
        self.top5 += u64::from(scored.rank < 5);
        self.loss += scored.loss;
        self.brier += scored.brier;
        // Bin b holds b / 15 < confidence ≤ (b + 1) / 15. The cast takes what is no number to 0.
        let bin = ((scored.confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        let bin = &mut self.bins[bin];
        bin.n += 1;
        bin.right += u64::from(is_right);
        bin.confidence += scored.confidence;
        if let Some(cell) = self.confusion.get_mut(label * self.num_classes + scored.prediction) {
            *cell += 1;
        }
        scored
    }

    /// The measures of what was added.
    #[must_use]
    pub fn measures(&self) -> Measures {
        let n = self.n as f64;
        let calibration: Vec<CalibrationBin> =
            self.bins.iter().filter(|bin| bin.n > 0).map(Bin::calibration).collect();
        let gap = |bin: &CalibrationBin| (bin.accuracy - bin.confidence).abs();
        let per_class = (0..self.num_classes).map(|class| self.class(class)).collect();
        Measures {
            n: self.n,
            top1: self.top1 as f64 / n,
            top5: self.top5 as f64 / n,
            loss: self.loss / n,
            ece: calibration.iter().map(|bin| bin.n as f64 / n * gap(bin)).sum(),
            mce: calibration.iter().map(gap).fold(0.0, f64::max),
            brier: self.brier / n,
            per_class,
            confusion: Confusion::new(self.num_classes, self.confusion.clone()),
            calibration,
        }
    }

    fn class(&self, class: usize) -> ClassMeasure {
        let row = &self.confusion[class * self.num_classes..][..self.num_classes];
        let n: u64 = row.iter().sum();
        let top1 = (n > 0).then(|| row[class] as f64 / n as f64);
        ClassMeasure { class, n, top1 }
    }
}

impl Bin {
    fn calibration(&self) -> CalibrationBin {
        let n = self.n as f64;
        CalibrationBin {
            n: self.n,
            confidence: self.confidence / n,
            accuracy: self.right as f64 / n,
        }
    }
}
