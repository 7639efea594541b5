//! GELU and its slope on vectors, to within 2e-6 of their values everywhere.
//!
//! `f32::exp` and `erff` are calls of some ten nanoseconds, which together would cost more than the
//! matrix products of a small Mixer.

use crate::simd::Simd;
use crate::spec::{TANH_CUBIC, TANH_SLOPE};

/// An activation function.
pub(crate) trait Activation: Copy + Send + Sync {
    /// `f(x)`.
    fn value<S: Simd>(self, s: S, x: S::V) -> S::V;
    /// `f(x)` and `f′(x)`, which share their exponential.
    fn value_and_slope<S: Simd>(self, s: S, x: S::V) -> (S::V, S::V);
}

/// `x Φ(x)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Erf;

/// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tanh;

/// `a₀ + a₁ x + …` with the highest coefficient first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut sum = s.splat(coefficients[0]);
    for coefficient in &coefficients[1..] {
        sum = s.mul_add(sum, x, s.splat(*coefficient));
    }
    sum
}

/// `exp(x + rest)` for `x ≤ 0` and a small `rest`, relative error below 2e-7; stays above 1e-38.
#[inline(always)]
fn exp_negative<S: Simd>(s: S, x: S::V, rest: S::V) -> S::V {
    // Adding 1.5 · 2²³ rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has few bits, so that its product with an integer is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = s.max(x, s.splat(-86.5));
    let rounded = s.mul_add(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(rounded, s.splat(ROUND));
    let r = s.mul_add(n, s.splat(-LN_2_HIGH), x);
    let r = s.mul_add(n, s.splat(-LN_2_LOW), s.add(r, rest));
    // Taylor's coefficients: |r| ≤ ln 2 / 2, where the eighth term is 5e-9.
    let p = polynomial(
        s,
        r,
        [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0],
    );
    s.mul(p, s.exp2_of_rounded(rounded))
}

/// `Φ(x)` and `exp(−x²/2)`.
#[inline(always)]
fn normal<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let magnitude = s.abs(x);
    // Beyond 13 both are zero in f32; bounding keeps squares finite.
    let bounded = s.sub(s.splat(0.0), s.max(s.sub(s.splat(0.0), magnitude), s.splat(-13.15)));
    // x² as an exact square and a small rest: rounding x² would show eightyfold in the exponential
    // far in the tail.
    let high = s.truncate(bounded);
    let half = s.splat(-0.5);
    let main = s.mul(half, s.mul(high, high));
    let rest = s.mul(half, s.mul(s.sub(bounded, high), s.add(bounded, high)));
    let exp = exp_negative(s, main, rest);
    // Φ(−|x|) = exp(−x²/2) · t · P(t), t = 1 / (1 + 0.3 |x|): a minimax fit over |x| ≤ 15, relative
    // error 1e-7 before rounding.
    let t = s.reciprocal(s.mul_add(bounded, s.splat(0.3), s.splat(1.0)));
    let p = polynomial(
        s,
        t,
        [
            0.005_488_779,
            0.010_566_459,
            -0.108_633_87,
            0.154_609_67,
            -0.020_570_137,
            0.115_561_18,
            0.102_964_58,
            0.120_363_2,
            0.119_650_19,
        ],
    );
    let tail = s.mul(exp, s.mul(t, p));
    (s.select_negative(x, tail, s.sub(s.splat(1.0), tail)), exp)
}

/// `1 / √(2π)`.
const DENSITY: f32 = 0.398_942_3;

impl Activation for Erf {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::V) -> S::V {
        // No number passes `max` and the choice by sign as if it were one; the product brings it back.
        s.mul(x, normal(s, x).0)
    }

    #[inline(always)]
    fn value_and_slope<S: Simd>(self, s: S, x: S::V) -> (S::V, S::V) {
        let (cdf, exp) = normal(s, x);
        (s.mul(x, cdf), s.mul_add(s.mul(x, s.splat(DENSITY)), exp, cdf))
    }
}

/// `σ(2z)` with `z` the tanh form's argument, which is `½ (1 + tanh z)` without its cancellation;
/// `1 − σ(2z)`, likewise; and `x²`, bounded.
#[inline(always)]
fn tanh_gate<S: Simd>(s: S, x: S::V) -> (S::V, S::V, S::V) {
    const LINEAR: f32 = (2.0 * TANH_SLOPE) as f32;
    const CUBIC: f32 = (2.0 * TANH_SLOPE * TANH_CUBIC) as f32;
    let zero = s.splat(0.0);
    // Where x² is 1e4 the gate is 0 or 1 long since, and nothing overflows yet.
    let square = s.sub(zero, s.max(s.sub(zero, s.mul(x, x)), s.splat(-1e4)));
    let z2 = s.mul(s.abs(x), s.mul_add(square, s.splat(CUBIC), s.splat(LINEAR)));
    let exp = exp_negative(s, s.sub(zero, z2), zero);
    let sigmoid = s.reciprocal(s.add(s.splat(1.0), exp));
    let other = s.mul(exp, sigmoid);
    (s.select_negative(x, other, sigmoid), s.select_negative(x, sigmoid, other), square)
}

impl Activation for Tanh {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.mul(x, tanh_gate(s, x).0)
    }

    #[inline(always)]
    fn value_and_slope<S: Simd>(self, s: S, x: S::V) -> (S::V, S::V) {
        let (gate, other, square) = tanh_gate(s, x);
        tanh_value_and_slope(s, x, gate, other, square)
    }
}

/// From what the gates give.
#[inline(always)]
fn tanh_value_and_slope<S: Simd>(
    s: S,
    x: S::V,
    gate: S::V,
    other: S::V,
    square: S::V,
) -> (S::V, S::V) {
    const LINEAR: f32 = (2.0 * TANH_SLOPE) as f32;
    const CUBIC: f32 = (6.0 * TANH_SLOPE * TANH_CUBIC) as f32;
    let inner = s.mul_add(square, s.splat(CUBIC), s.splat(LINEAR));
    let value = s.mul(x, gate);
    (value, s.mul_add(s.mul(value, other), inner, gate))
}

/// [`Erf`] to within 2e-5, for values that are rounded to bf16, which is 2e-3.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CoarseErf;

/// [`Tanh`] likewise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CoarseTanh;

/// `2ˣ` for `−125 ≤ x ≤ 0`, relative error below 3e-6.
#[inline(always)]
fn coarse_exp2<S: Simd>(s: S, x: S::V) -> S::V {
    const ROUND: f32 = 12_582_912.0;
    let rounded = s.add(x, s.splat(ROUND));
    let f = s.sub(x, s.sub(rounded, s.splat(ROUND)));
    // A minimax fit over |f| ≤ ½.
    let p = polynomial(s, f, [0.009_570_041, 0.055_917_91, 0.240_247_46, 0.693_121_8, 0.999_999_3]);
    s.mul(p, s.exp2_of_rounded(rounded))
}

/// `Φ(x)` and `exp(−x²/2)`.
#[inline(always)]
fn coarse_normal<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    const HALF_LOG2_E: f32 = 0.5 * std::f32::consts::LOG2_E;
    let below = s.max(s.sub(s.splat(0.0), s.abs(x)), s.splat(-13.15));
    let exp = coarse_exp2(s, s.mul(s.mul(below, below), s.splat(-HALF_LOG2_E)));
    // As in `normal`, with a shorter fit: relative error 6e-6.
    let t = s.reciprocal(s.mul_add(below, s.splat(-0.3), s.splat(1.0)));
    let p = polynomial(
        s,
        t,
        [-0.078_817_73, 0.221_244, -0.022_950_18, 0.147_468_39, 0.112_903_74, 0.120_154_54],
    );
    let tail = s.mul(exp, s.mul(t, p));
    (s.select_negative(x, tail, s.sub(s.splat(1.0), tail)), exp)
}

impl Activation for CoarseErf {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.mul(x, coarse_normal(s, x).0)
    }

    #[inline(always)]
    fn value_and_slope<S: Simd>(self, s: S, x: S::V) -> (S::V, S::V) {
        let (cdf, exp) = coarse_normal(s, x);
        (s.mul(x, cdf), s.mul_add(s.mul(x, s.splat(DENSITY)), exp, cdf))
    }
}

/// `σ(2z)`, `1 − σ(2z)` and `x²`, as `tanh_gate` gives them.
#[inline(always)]
fn coarse_tanh_gate<S: Simd>(s: S, x: S::V) -> (S::V, S::V, S::V) {
    const LINEAR: f32 = -2.0 * TANH_SLOPE as f32 * std::f32::consts::LOG2_E;
    let zero = s.splat(0.0);
    let square = s.sub(zero, s.max(s.sub(zero, s.mul(x, x)), s.splat(-1e4)));
    let inner = s.mul_add(square, s.splat(LINEAR * TANH_CUBIC as f32), s.splat(LINEAR));
    let exp = coarse_exp2(s, s.max(s.mul(s.abs(x), inner), s.splat(-125.0)));
    let sigmoid = s.reciprocal(s.add(s.splat(1.0), exp));
    let other = s.mul(exp, sigmoid);
    (s.select_negative(x, other, sigmoid), s.select_negative(x, sigmoid, other), square)
}

impl Activation for CoarseTanh {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.mul(x, coarse_tanh_gate(s, x).0)
    }

    #[inline(always)]
    fn value_and_slope<S: Simd>(self, s: S, x: S::V) -> (S::V, S::V) {
        let (gate, other, square) = coarse_tanh_gate(s, x);
        tanh_value_and_slope(s, x, gate, other, square)
    }
}

/// Φ through the complementary error function, in f64, by its continued fraction or series.
#[cfg(test)]
pub(crate) fn cdf_f64(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let erfc = if z < 2.5 {
        let mut term = z;
        let mut sum = z;
        for n in 1..200 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        1.0 - sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut fraction = 0.0;
        for n in (1..200).rev() {
            fraction = f64::from(n) / 2.0 / (z + fraction);
        }
        (-z * z).exp() / (z + fraction) / std::f64::consts::PI.sqrt()
    };
    if x < 0.0 { 0.5 * erfc } else { 1.0 - 0.5 * erfc }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{InstructionSet, Kernel, dispatch_to};

    struct Job<'a, A> {
        activation: A,
        x: &'a [f32],
        values: &'a mut [f32],
        slopes: &'a mut [f32],
    }

    impl<A: Activation> Kernel for Job<'_, A> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for i in (0..self.x.len()).step_by(S::LANES) {
                // SAFETY: the slices are whole registers long.
                unsafe {
                    let x = s.load(self.x.as_ptr().add(i));
                    let (value, slope) = self.activation.value_and_slope(s, x);
                    s.store(self.values.as_mut_ptr().add(i), value);
                    s.store(self.slopes.as_mut_ptr().add(i), slope);
                }
            }
        }
    }

    /// `(x, value, slope)` of every instruction set; both functions must agree on the value.
    fn evaluate(activation: impl Activation, x: &[f32]) -> Vec<(f32, f32, f32)> {
        let len = x.len().next_multiple_of(16);
        let padded: Vec<f32> =
            x.iter().copied().chain(std::iter::repeat_n(0.0, len - x.len())).collect();
        let mut results = Vec::new();
        for set in InstructionSet::available() {
            let (mut values, mut slopes) = (vec![0.0; len], vec![0.0; len]);
            let (values_of, slopes_of) = (&mut values, &mut slopes);
            dispatch_to(set, Job { activation, x: &padded, values: values_of, slopes: slopes_of });
            results.extend(x.iter().zip(values).zip(slopes).map(|((&x, v), s)| (x, v, s)));
        }
        results
    }

    fn samples() -> Vec<f32> {
        let grid = (-60_000..=60_000).map(|i| i as f32 / 5000.0);
        let tiny = [1e-30, -1e-30, 1e-8, -1e-8, 1e-40, -1e-40, 0.3, -0.3];
        grid.chain(tiny).collect()
    }

    #[test]
    fn gelu_erf_is_within_2e_6_of_float64_everywhere() {
        let (mut worst, mut worst_slope) = (0.0f64, 0.0f64);
        for (x, value, slope) in evaluate(Erf, &samples()) {
            let x = f64::from(x);
            let expected = x * cdf_f64(x);
            let error = (f64::from(value) - expected).abs();
            // Below the smallest normal number there are no digits left to compare.
            if expected.abs() > 1.2e-38 {
                worst = worst.max(error / expected.abs());
            }
            let pdf = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            worst_slope = worst_slope.max((f64::from(slope) - (cdf_f64(x) + x * pdf)).abs());
        }
        println!("value {worst:.2e} relative, slope {worst_slope:.2e} absolute");
        assert!(worst < 2e-6 && worst_slope < 5e-7, "{worst:.2e} {worst_slope:.2e}");
    }

    #[test]
    fn gelu_tanh_agrees_with_float64() {
        let (mut worst, mut worst_tail, mut worst_slope) = (0.0f64, 0.0f64, 0.0f64);
        for (x, value, slope) in evaluate(Tanh, &samples()) {
            let x = f64::from(x);
            let gate = 1.0 / (1.0 + (-2.0 * TANH_SLOPE * (x + TANH_CUBIC * x.powi(3))).exp());
            let expected = x * gate;
            let error = (f64::from(value) - expected).abs() / expected.abs();
            match expected.abs() {
                e if e > 1e-4 || x.abs() < 1e-3 && e > 1.2e-38 => worst = worst.max(error),
                // Far in the tail the rounding of the exponent shows, as many times as it is large.
                e if e > 1e-30 => worst_tail = worst_tail.max(error),
                _ => {}
            }
            let inner = 2.0 * TANH_SLOPE * (1.0 + 3.0 * TANH_CUBIC * x * x);
            let expected = gate + x * gate * (1.0 - gate) * inner;
            worst_slope = worst_slope.max((f64::from(slope) - expected).abs());
        }
        println!("value {worst:.2e}, tail {worst_tail:.2e} relative, slope {worst_slope:.2e}");
        assert!(
            worst < 2e-6 && worst_tail < 2e-5 && worst_slope < 2e-6,
            "{worst:.2e} {worst_tail:.2e} {worst_slope:.2e}"
        );
    }

    #[test]
    fn special_values_pass_through() {
        let x = [f32::NAN, 0.0, f32::INFINITY, 50.0, -50.0, 1e20, -1e20];
        for results in [evaluate(Erf, &x), evaluate(Tanh, &x)] {
            for results in results.chunks_exact(x.len()) {
                let [nan, zero, infinite, large, small, huge, tiny] = results else { panic!() };
                assert!(nan.1.is_nan() && nan.2.is_nan());
                assert!(zero.1 == 0.0 && (zero.2 - 0.5).abs() < 1e-6);
                assert_eq!(infinite.1, f32::INFINITY);
                assert_eq!((large.1, huge.1), (50.0, 1e20));
                assert!(small.1.abs() < 1e-30 && tiny.1.abs() < 1e-15, "{small:?} {tiny:?}");
                assert!((large.2 - 1.0).abs() < 1e-6 && (huge.2 - 1.0).abs() < 1e-6);
                assert!(small.2.abs() < 1e-30 && tiny.2.abs() < 1e-12);
            }
        }
    }

    /// Wherever bf16 has digits: the value is 2⁻¹⁴ of its own last one off at most.
    #[test]
    fn coarse_gelu_is_far_more_exact_than_bf16() {
        let (mut worst, mut worst_slope) = (0.0f64, 0.0f64);
        let x: Vec<f32> = samples().into_iter().filter(|x| x.abs() > 1e-37).collect();
        let mut compare = |exact: Vec<(f32, f32, f32)>, coarse: Vec<(f32, f32, f32)>| {
            for ((x, value, slope), (_, found, found_slope)) in exact.into_iter().zip(coarse) {
                if value.abs() > 1e-30 {
                    let error = f64::from(found) - f64::from(value);
                    worst = worst.max(error.abs() / f64::from(value.abs()));
                }
                let error = f64::from(found_slope) - f64::from(slope);
                assert!(found.is_finite() && found_slope.is_finite(), "{x}");
                worst_slope = worst_slope.max(error.abs());
            }
        };
        compare(evaluate(Erf, &x), evaluate(CoarseErf, &x));
        compare(evaluate(Tanh, &x), evaluate(CoarseTanh, &x));
        println!("relative error {worst:.2e}, of the slope {worst_slope:.2e}");
        assert!(worst < 6e-5, "{worst:.2e}");
        assert!(worst_slope < 2e-5, "{worst_slope:.2e}");
    }
}
