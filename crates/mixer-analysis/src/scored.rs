//! One example's logits beside its label.

/// The logits of an example, as numbers that are compared and added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The class of the largest logit, the first of equals.
    pub prediction: usize,
    /// Softmax probability of the prediction.
    pub confidence: f64,
    /// Softmax probability of the label.
    pub probability: f64,
    /// Classes that come before the label, see [`rank`].
    pub rank: usize,
    /// Cross-entropy: the logarithm of the sum of exponentials less the label's logit.
    pub loss: f64,
    /// Brier score: `Σ (p − 1[label])²` over the classes, in `[0, 2]`.
    pub brier: f64,
}

impl Scored {
    /// Compares logits `[K]` with the label. Logits that are no numbers are never right: their loss is no
    /// number either.
    ///
    /// # Source
    /// Cross-entropy is computed from logits, as big_vision does: probabilities lose what is improbable.
    #[must_use]
    pub fn new(logits: &[f32], label: usize) -> Self {
        let (prediction, largest) = argmax(logits);
        let exponentials = logits.iter().map(|&logit| (f64::from(logit) - largest).exp());
        let sum: f64 = exponentials.clone().sum();
        let own = logits.get(label).map_or(f64::NAN, |&logit| f64::from(logit));
        let brier = exponentials.enumerate().map(|(class, exponential)| {
            let is_label = f64::from(u8::from(class == label));
            (exponential / sum - is_label).powi(2)
        });
        Self {
            prediction,
            confidence: 1.0 / sum,
            probability: (own - largest).exp() / sum,
            rank: rank(logits, label),
            loss: sum.ln() + largest - own,
            brier: brier.sum(),
        }
    }
}

/// The class of the largest logit, the first of equals, and that logit.
fn argmax(logits: &[f32]) -> (usize, f64) {
    let mut best = (0, f64::NEG_INFINITY);
    for (class, &logit) in logits.iter().enumerate() {
        if f64::from(logit) > best.1 {
            best = (class, f64::from(logit));
        }
    }
    best
}

/// Number of classes that come before the label's: those with a larger logit, and equal ones of a smaller
/// index, as in `argmax`. A label whose logit is no number comes last of all.
#[must_use]
pub fn rank(logits: &[f32], label: usize) -> usize {
    let Some(&own) = logits.get(label) else { return usize::MAX };
    if own.is_nan() {
        return usize::MAX;
    }
    let is_before =
        |&(class, &logit): &(usize, &f32)| logit > own || (logit == own && class < label);
    logits.iter().enumerate().filter(is_before).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_counts_better_classes_and_breaks_ties_downwards() {
        assert_eq!(rank(&[1.0, 3.0, 2.0], 1), 0);
        assert_eq!(rank(&[1.0, 3.0, 2.0], 0), 2);
        assert_eq!(rank(&[1.0, 1.0], 0), 0);
        assert_eq!(rank(&[1.0, 1.0], 1), 1);
        assert_eq!(rank(&[f32::NAN, 1.0], 0), usize::MAX);
        assert_eq!(rank(&[1.0, 2.0], 2), usize::MAX);
    }

    #[test]
    fn certainty_has_exact_values() {
        let right = Scored::new(&[60.0, -60.0], 0);
        assert_eq!((right.prediction, right.confidence, right.rank), (0, 1.0, 0));
        assert!(right.loss >= 0.0 && right.loss < 1e-50 && right.brier < 1e-100);
        let wrong = Scored::new(&[60.0, -60.0], 1);
        assert_eq!((wrong.loss, wrong.brier, wrong.rank), (120.0, 2.0, 1));
    }

    #[test]
    fn what_is_no_number_is_never_right() {
        let scored = Scored::new(&[f32::NAN, f32::NAN], 0);
        assert!(scored.loss.is_nan() && scored.rank == usize::MAX);
    }
}
