//! Losses and gradient norms that stand out from those before.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Number of values that an outlier is compared with.
const WINDOW: usize = 100;

/// With fewer, nothing stands out.
const FEWEST: usize = 30;

/// The values of the last updates; part of a checkpoint, so that a resumed run finds the same outliers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Window {
    values: VecDeque<f64>,
}

/// A value's distance from those before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlier {
    /// Mean of the window.
    pub mean: f64,
    /// Standard deviation of the window.
    pub std: f64,
    /// Standard deviations that the value lies above the mean.
    pub z_score: f64,
}

impl Window {
    /// Compares a value with those before it and takes it in. Only what is larger stands out: a loss
    /// that falls is what training is for.
    pub fn observe(&mut self, value: f64, threshold: f64) -> Option<Outlier> {
        let found = self.compare(value).filter(|outlier| outlier.z_score >= threshold);
        if self.values.len() == WINDOW {
            self.values.pop_front();
        }
        self.values.push_back(value);
        found
    }

    fn compare(&self, value: f64) -> Option<Outlier> {
        if self.values.len() < FEWEST {
            return None;
        }
        let n = self.values.len() as f64;
        let mean = self.values.iter().sum::<f64>() / n;
        let variance = self.values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let std = variance.sqrt();
        (std > 0.0).then(|| Outlier { mean, std, z_score: (value - mean) / std })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_far_above_stands_out() {
        let mut window = Window::default();
        // Alternates between 1 and 3: mean 2, standard deviation 1.
        for i in 0..WINDOW {
            assert_eq!(window.observe([1.0, 3.0][i % 2], 6.0), None);
        }
        let found = window.clone().observe(8.5, 6.0).unwrap();
        assert_eq!(found, Outlier { mean: 2.0, std: 1.0, z_score: 6.5 });
        assert_eq!(window.clone().observe(7.5, 6.0), None);
        assert_eq!(window.observe(-100.0, 6.0), None);
        assert_eq!(window.values.len(), WINDOW);
    }

    #[test]
    fn a_short_or_constant_past_tells_nothing() {
        let mut window = Window::default();
        for _ in 0..FEWEST - 1 {
            assert_eq!(window.observe(1.0, 1.0), None);
        }
        assert_eq!(window.observe(1e9, 1.0), None, "too few values before it");
        let mut constant = Window { values: [1.0; 50].into() };
        assert_eq!(constant.observe(2.0, 1.0), None);
    }
}
