//! GELU and its derivative for one `f32`, branch-free so that loops over them vectorise.
//!
//! `f32::exp` and `libm::erff` are calls, which no compiler vectorises: together they cost more than
//! the matrix products of a small Mixer.

/// `eˣ` for `x ≤ 0`, relative error below 2e-7; underflows to about 1e-38 instead of 0.
#[inline(always)]
fn exp_negative(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.max(-87.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    // Taylor's coefficients: |r| ≤ ln 2 / 2, where the eighth term is 5e-9.
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(exponent)
}

/// `Φ(x)` and `φ(x)`, the standard normal's distribution and density.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let magnitude = x.abs();
    let exp = exp_negative(-0.5 * magnitude * magnitude);
    // Φ(−|x|) = exp(−x²/2) · t · P(t), t = 1 / (1 + 0.3 |x|): a minimax fit over |x| ≤ 15, relative
    // error 1e-7 before rounding.
    let t = 1.0 / (1.0 + 0.3 * magnitude);
    let p = 0.005_488_779;
    let p = p * t + 0.010_566_459;
    let p = p * t - 0.108_633_87;
    let p = p * t + 0.154_609_67;
    let p = p * t - 0.020_570_137;
    let p = p * t + 0.115_561_18;
    let p = p * t + 0.102_964_58;
    let p = p * t + 0.120_363_2;
    let p = p * t + 0.119_650_19;
    let tail = exp * t * p;
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    (cdf, exp * 0.398_942_3)
}

/// `x Φ(x)`.
#[inline(always)]
pub(crate) fn gelu_erf(x: f32) -> f32 {
    // A NaN passes `max` and the comparison in `normal` as if it were a number, so it is brought
    // back by the product.
    x * normal(x).0
}

/// `Φ(x) + x φ(x)`.
#[inline(always)]
pub(crate) fn gelu_erf_derivative(x: f32) -> f32 {
    let (cdf, pdf) = normal(x);
    cdf + x * pdf
}

/// `σ(2z)` with `z` the tanh form's argument, which is `½ (1 + tanh z)` without its cancellation.
#[inline(always)]
fn tanh_gate(x: f32) -> f32 {
    let z2 = 2.0
        * super::default::TANH_SLOPE as f32
        * x
        * (1.0 + super::default::TANH_CUBIC as f32 * x * x);
    let exp = exp_negative(-z2.abs());
    let sigmoid = 1.0 / (1.0 + exp);
    if z2 < 0.0 { exp * sigmoid } else { sigmoid }
}

/// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    x * tanh_gate(x)
}

/// Derivative of [`gelu_tanh`].
#[inline(always)]
pub(crate) fn gelu_tanh_derivative(x: f32) -> f32 {
    let gate = tanh_gate(x);
    let slope = 2.0
        * super::default::TANH_SLOPE as f32
        * (1.0 + 3.0 * super::default::TANH_CUBIC as f32 * x * x);
    gate + x * gate * (1.0 - gate) * slope
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Φ through the complementary error function, in f64, by its continued fraction or series.
    fn cdf_f64(x: f64) -> f64 {
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

    fn samples() -> impl Iterator<Item = f32> {
        (-60_000..=60_000).map(|i| i as f32 / 5000.0)
    }

    #[test]
    fn gelu_erf_agrees_with_float64() {
        for x in samples() {
            let expected = f64::from(x) * cdf_f64(f64::from(x));
            let error = (f64::from(gelu_erf(x)) - expected).abs();
            // Far in the tail the rounding of x²/2 shows: relative 2e-6 at x = −6.
            assert!(
                error <= 1e-5 * expected.abs() && error <= 4e-7 * (1.0 + expected.abs()),
                "{x}: {error}"
            );
            let pdf = (-0.5 * f64::from(x).powi(2)).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let slope = cdf_f64(f64::from(x)) + f64::from(x) * pdf;
            assert!((f64::from(gelu_erf_derivative(x)) - slope).abs() < 5e-7, "{x}");
        }
    }

    #[test]
    fn gelu_tanh_agrees_with_float64() {
        for x in samples() {
            let v = f64::from(x);
            let (k, c) = (super::super::default::TANH_SLOPE, super::super::default::TANH_CUBIC);
            let gate = 1.0 / (1.0 + (-2.0 * k * (v + c * v.powi(3))).exp());
            let error = (f64::from(gelu_tanh(x)) - v * gate).abs();
            assert!(error <= 4e-7 * (1.0 + v.abs()), "{x}: {error}");
            let slope = gate + v * gate * (1.0 - gate) * 2.0 * k * (1.0 + 3.0 * c * v * v);
            assert!((f64::from(gelu_tanh_derivative(x)) - slope).abs() < 2e-6, "{x}");
        }
    }

    #[test]
    fn special_values_pass_through() {
        for f in [gelu_erf, gelu_tanh] {
            assert!(f(f32::NAN).is_nan());
            assert_eq!(f(0.0), 0.0);
            assert_eq!(f(f32::INFINITY), f32::INFINITY);
            assert_eq!(f(50.0), 50.0);
            assert!(f(-50.0).abs() < 1e-30);
        }
    }
}
