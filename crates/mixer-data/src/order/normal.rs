//! Normally distributed numbers, one per random number.

use std::sync::LazyLock;

use crate::order::random::ExampleRng;

/// Entries of [`quantiles`]; a power of two.
pub(crate) const NUM_QUANTILES: usize = 4096;

/// The number below which a standard normal variable lies with probability `p` in `(0, 1)`.
///
/// Acklam's rational approximation; its relative error is below 1.2e-9.
fn inverse_cumulative(p: f64) -> f64 {
    const CENTRE_TOP: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const CENTRE_BOTTOM: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const TAIL_TOP: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const TAIL_BOTTOM: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    /// Start of the tails.
    const TAIL: f64 = 0.024_25;

    let polynomial = |coefficients: &[f64], x: f64| {
        coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
    };
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        polynomial(&TAIL_TOP, q) / polynomial(&TAIL_BOTTOM, q)
    };
    if p < TAIL {
        tail(p)
    } else if p > 1.0 - TAIL {
        -tail(1.0 - p)
    } else {
        let q = p - 0.5;
        q * polynomial(&CENTRE_TOP, q * q) / polynomial(&CENTRE_BOTTOM, q * q)
    }
}

/// A standard normal number, from one random number.
pub(crate) fn standard_normal(rng: &mut ExampleRng) -> f64 {
    // Between the numbers that `uniform` gives, so that 0 cannot come.
    inverse_cumulative(rng.uniform() + 0.5 / (1u64 << 53) as f64)
}

/// The standard normal distribution as 4096 equally likely numbers, ascending.
///
/// Enough where the result is one of 256 values, and far faster than a number at a time.
pub(crate) fn quantiles() -> &'static [f32] {
    static QUANTILES: LazyLock<Vec<f32>> = LazyLock::new(|| {
        (0..NUM_QUANTILES)
            .map(|at| inverse_cumulative((at as f64 + 0.5) / NUM_QUANTILES as f64) as f32)
            .collect()
    });
    &QUANTILES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_quantiles_are_found() {
        for (p, expected) in [
            (0.5, 0.0),
            (0.841_344_746_068_543, 1.0),
            (0.975, 1.959_963_984_540_054),
            (0.01, -2.326_347_874_040_841),
            (0.998_650_101_968_37, 3.0),
        ] {
            let found = inverse_cumulative(p);
            assert!((found - expected).abs() < 1e-8, "{p}: {found}");
        }
    }

    #[test]
    fn moments_are_those_of_the_normal_distribution() {
        let mut rng = ExampleRng::new(0, 0, 0, 0);
        let drawn: Vec<f64> = (0..100_000).map(|_| standard_normal(&mut rng)).collect();
        let table: Vec<f64> = quantiles().iter().map(|&value| f64::from(value)).collect();
        for (values, tolerance) in [(drawn, 0.02), (table, 0.002)] {
            let moment = |power: i32| {
                values.iter().map(|value| value.powi(power)).sum::<f64>() / values.len() as f64
            };
            assert!(moment(1).abs() < tolerance, "{}", moment(1));
            assert!((moment(2) - 1.0).abs() < tolerance, "{}", moment(2));
            assert!((moment(4) - 3.0).abs() < 10.0 * tolerance, "{}", moment(4));
        }
    }
}
