//! The few-shot linear probe of the Mixer paper: least squares on frozen features.

use thiserror::Error;

use crate::cholesky::solve;
use crate::matrix::Matrix;
use crate::numpy_random::NumpyRandom;

/// Value of the feature that stands for the bias.
const BIAS: f64 = 100.0;

/// Added to deviations.
const EPSILON: f64 = 1e-5;

/// The support of a few-shot probe: of each class, in their order, the first `shots` of a permutation of its
/// examples. A class with fewer gives what it has.
///
/// All shots of a seed come from the same permutations, so that one shot is part of five.
///
/// # Source
/// `big_vision/evaluators/fewshot_lsr.py@0127fb6`: one `numpy.random.default_rng(seed)` for all classes.
#[must_use]
pub fn few_shot_support(labels: &[u32], num_classes: usize, seed: u64, shots: usize) -> Vec<usize> {
    let mut random = NumpyRandom::new(seed);
    let mut of_class = vec![Vec::new(); num_classes];
    for (example, &label) in labels.iter().enumerate() {
        if let Some(examples) = of_class.get_mut(label as usize) {
            examples.push(example);
        }
    }
    let chosen = of_class.into_iter().flat_map(|examples| {
        let mut examples = random.permutation(examples);
        examples.truncate(shots);
        examples
    });
    chosen.collect()
}

/// A linear classifier by regularised least squares on whitened features and targets of ±1.
///
/// With `x` whitened by mean and population deviation (plus 1e-5) of the support, and one feature more that
/// is 100 everywhere, the weights minimise `|X W − T|² + l2 |W|²`.
///
/// # Source
/// Mixer paper, section 3; `big_vision/evaluators/fewshot_lsr.py@0127fb6`, which computes in f32 what is
/// computed in f64 here.
#[derive(Debug, Clone)]
pub struct LinearProbe {
    mean: Vec<f64>,
    deviation: Vec<f64>,
    /// `[D, K]`.
    weights: Matrix,
    /// Of the bias feature, `[K]`.
    bias: Vec<f64>,
}

/// A probe that cannot be fitted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// No support.
    #[error("a probe needs at least one example")]
    Empty,
    /// A feature that is no number.
    #[error("a feature of the support is no finite number")]
    NotFinite,
    /// A regularisation that leaves the system singular.
    #[error("the strength of the regularisation has to be above 0")]
    Singular,
}

impl LinearProbe {
    /// Fits features `[N, D]`, row after row, to labels `[N]` below `num_classes`.
    ///
    /// # Errors
    /// [`ProbeError`] for no examples, features that are not finite, and an `l2` that is not positive.
    pub fn fit(
        features: &[f32],
        labels: &[u32],
        num_classes: usize,
        l2: f64,
    ) -> Result<Self, ProbeError> {
        let n = labels.len();
        if n == 0 || features.is_empty() {
            return Err(ProbeError::Empty);
        }
        if !features.iter().all(|feature| feature.is_finite()) {
            return Err(ProbeError::NotFinite);
        }
        if l2.is_nan() || l2 <= 0.0 {
            return Err(ProbeError::Singular);
        }
        let dim = features.len() / n;
        let (mean, deviation) = moments(features, dim);
        let x = whitened(features, &mean, &deviation);
        // Whitened columns add up to 0, so the bias is a system of its own, and its weights are known.
        let mut counts = vec![0u64; num_classes];
        labels.iter().for_each(|&label| counts[label as usize] += 1);
        let total = n as f64;
        let bias = counts
            .iter()
            .map(|&count| BIAS * (2.0 * count as f64 - total) / (BIAS * BIAS * total + l2))
            .collect();
        let weights = if n > dim {
            let mut system = x.transposed_product(&x);
            regularise(&mut system, l2);
            solve(system, &x_times_targets(&x, labels, num_classes))
        } else {
            let mut targets = Matrix::zeros(n, num_classes);
            for (i, &label) in labels.iter().enumerate() {
                targets.row_mut(i).fill(-1.0);
                targets.row_mut(i)[label as usize] = 1.0;
            }
            let mut system = x.product_transposed(&x);
            regularise(&mut system, l2);
            solve(system, &targets).map(|solution| x.transposed_product(&solution))
        };
        let weights = weights.ok_or(ProbeError::Singular)?;
        Ok(Self { mean, deviation, weights, bias })
    }

    /// Scores of features `[N, D]`: `[N, K]`, row after row.
    #[must_use]
    pub fn scores(&self, features: &[f32]) -> Vec<f64> {
        let mut scores = whitened(features, &self.mean, &self.deviation).product(&self.weights);
        for row in 0..scores.rows {
            for (score, bias) in scores.row_mut(row).iter_mut().zip(&self.bias) {
                *score += BIAS * bias;
            }
        }
        scores.values
    }

    /// Fraction of the examples whose label has the largest score, the first of equals.
    #[must_use]
    pub fn accuracy(&self, features: &[f32], labels: &[u32]) -> f64 {
        // In pieces, so that memory does not grow with the examples.
        let (dim, classes) = (self.mean.len(), self.bias.len());
        let pieces = features.chunks(1024 * dim).zip(labels.chunks(1024));
        let right: usize = pieces
            .map(|(features, labels)| {
                let scores = self.scores(features);
                let rows = scores.chunks_exact(classes).zip(labels);
                rows.filter(|(row, label)| largest(row) == **label as usize).count()
            })
            .sum();
        right as f64 / labels.len() as f64
    }

    /// The weights `[D + 1, K]`, row after row; the last row is that of the bias feature.
    #[must_use]
    pub fn weights(&self) -> Vec<f64> {
        self.weights.values.iter().chain(&self.bias).copied().collect()
    }
}

/// The index of the largest value, the first of equals.
pub(crate) fn largest(values: &[f64]) -> usize {
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (0..values.len()).fold(0, better)
}

fn moments(features: &[f32], dim: usize) -> (Vec<f64>, Vec<f64>) {
    let n = (features.len() / dim) as f64;
    let mut mean = vec![0.0; dim];
    for row in features.chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    mean.iter_mut().for_each(|sum| *sum /= n);
    let mut deviation = vec![0.0; dim];
    for row in features.chunks_exact(dim) {
        for ((sum, mean), &x) in deviation.iter_mut().zip(&mean).zip(row) {
            *sum += (f64::from(x) - mean).powi(2);
        }
    }
    deviation.iter_mut().for_each(|sum| *sum = (*sum / n).sqrt() + EPSILON);
    (mean, deviation)
}

fn whitened(features: &[f32], mean: &[f64], deviation: &[f64]) -> Matrix {
    let dim = mean.len();
    let mut x = Matrix::zeros(features.len() / dim, dim);
    for (to, from) in x.values.chunks_exact_mut(dim).zip(features.chunks_exact(dim)) {
        let columns = mean.iter().zip(deviation);
        for ((to, &x), (mean, deviation)) in to.iter_mut().zip(from).zip(columns) {
            *to = (f64::from(x) - mean) / deviation;
        }
    }
    x
}

/// `Xᵀ T` without `T`: twice the sum of a class' rows less the sum of all.
fn x_times_targets(x: &Matrix, labels: &[u32], num_classes: usize) -> Matrix {
    let mut product = Matrix::zeros(x.columns, num_classes);
    let mut all = vec![0.0; x.columns];
    for (i, &label) in labels.iter().enumerate() {
        for (feature, value) in x.row(i).iter().enumerate() {
            product.row_mut(feature)[label as usize] += 2.0 * value;
            all[feature] += value;
        }
    }
    for (feature, sum) in all.into_iter().enumerate() {
        product.row_mut(feature).iter_mut().for_each(|value| *value -= sum);
    }
    product
}

fn regularise(system: &mut Matrix, l2: f64) {
    (0..system.rows).for_each(|i| system.row_mut(i)[i] += l2);
}
