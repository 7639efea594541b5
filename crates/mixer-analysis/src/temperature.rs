//! The temperature that makes a classifier's confidence honest.

/// The `T > 0` that minimises the mean cross-entropy of `logits / T` (Guo et al. 2017), between `e⁻³` and
/// `e⁴`. `logits` are `[N, K]`, row after row; `None` without examples, or where a logit is no number.
///
/// It changes no prediction. The loss is convex in `1 / T`, so Newton's method, kept between bounds, finds
/// the only minimum.
#[must_use]
pub fn temperature(logits: &[f32], labels: &[usize]) -> Option<f64> {
    let classes = logits.len().checked_div(labels.len())?;
    let rows = || logits.chunks_exact(classes).zip(labels);
    let (mut low, mut high) = ((-4.0f64).exp(), 3.0f64.exp());
    let mut inverse = 1.0;
    for _ in 0..200 {
        let (mut slope, mut curvature) = (0.0, 0.0);
        for (row, &label) in rows() {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
            for &logit in row {
                let from_largest = f64::from(logit) - f64::from(largest);
                let weight = (inverse * from_largest).exp();
                sum += weight;
                first += weight * from_largest;
                second += weight * from_largest * from_largest;
            }
            let mean = first / sum;
            slope += mean - (f64::from(row[label]) - f64::from(largest));
            curvature += second / sum - mean * mean;
        }
        if !slope.is_finite() {
            return None;
        }
        if slope > 0.0 {
            high = inverse
        } else {
            low = inverse
        }
        let newton = inverse - slope / curvature;
        let next = if newton > low && newton < high { newton } else { (low + high) / 2.0 };
        let is_settled = (next - inverse).abs() <= 1e-13 * inverse;
        inverse = next;
        if is_settled {
            break;
        }
    }
    Some(1.0 / inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_temperature() {
        assert_eq!(temperature(&[], &[]), None);
        assert_eq!(temperature(&[f32::NAN, 1.0], &[0]), None);
    }

    #[test]
    fn who_is_always_right_may_be_as_sure_as_the_bounds_allow() {
        let found = temperature(&[2.0, 0.0, 0.0, 2.0], &[0, 1]).unwrap();
        assert!((found - (-3.0f64).exp()).abs() < 1e-9, "{found}");
    }
}
