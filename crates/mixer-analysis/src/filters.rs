//! Hidden units of token mixing as pictures: which come first, and which belong together.
//!
//! The Mixer paper sorts units "according to a heuristic that tries to show low frequency filters first",
//! each followed by "the unit that is closest to its inverse" (appendix D), and gives no formula. Here is
//! one reading: see [`frequency`] and [`pairs`].

/// The mean frequency of a unit of `side × side` weights, cycles per token, weighted by energy:
/// `Σ √(a(k)² + a(l)²) |F[k, l]|² / Σ |F|²`, with `F` the discrete Fourier transform and
/// `a(k) = min(k, side − k) / side`; 0 for zeros.
///
/// Rounded to nine digits, so that rounding errors put no unit before another.
#[must_use]
pub fn frequency(unit: &[f32], side: usize) -> f64 {
    let turn = |i: usize| std::f64::consts::TAU * i as f64 / side as f64;
    let waves: Vec<(f64, f64)> = (0..side).map(|i| turn(i).sin_cos()).collect();
    // Rows first, then columns.
    let transform = |values: &[(f64, f64)]| -> Vec<(f64, f64)> {
        let mut out = Vec::with_capacity(side * side);
        for k in 0..side {
            for line in values.chunks_exact(side) {
                let mut sum = (0.0, 0.0);
                for (i, &(re, im)) in line.iter().enumerate() {
                    let (sin, cos) = waves[i * k % side];
                    sum.0 += re * cos + im * sin;
                    sum.1 += im * cos - re * sin;
                }
                out.push(sum);
            }
        }
        // `out` is transposed, so that the next call transforms the other way.
        out
    };
    let values: Vec<(f64, f64)> = unit.iter().map(|&w| (f64::from(w), 0.0)).collect();
    let spectrum = transform(&transform(&values));
    let along = |k: usize| k.min(side - k) as f64 / side as f64;
    let (mut weighted, mut energy) = (0.0, 0.0);
    for (i, (re, im)) in spectrum.into_iter().enumerate() {
        let power = re * re + im * im;
        weighted += along(i / side).hypot(along(i % side)) * power;
        energy += power;
    }
    if energy > 0.0 { (weighted / energy * 1e9).round() / 1e9 } else { 0.0 }
}

/// A unit, and the one that is closest to its inverse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The unit.
    pub unit: usize,
    /// The unit of the least cosine with it, and that cosine; absent for the last of an odd number.
    pub inverse: Option<(usize, f64)>,
}

/// The units in the order in which they are shown: the one of the lowest frequency that was not shown yet,
/// then of those that are left the one with the least cosine to it. Each is shown once; of equals the first.
#[must_use]
pub fn pairs(units: &[Vec<f32>], side: usize) -> Vec<Pair> {
    let frequencies: Vec<f64> = units.iter().map(|unit| frequency(unit, side)).collect();
    let norms: Vec<f64> = units.iter().map(|unit| product(unit, unit).sqrt()).collect();
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by(|&a, &b| frequencies[a].total_cmp(&frequencies[b]).then(a.cmp(&b)));
    let mut is_left = vec![true; units.len()];
    let mut shown = Vec::new();
    for unit in order {
        if !is_left[unit] {
            continue;
        }
        is_left[unit] = false;
        let mut inverse: Option<(usize, f64)> = None;
        for other in (0..units.len()).filter(|other| is_left[*other]) {
            let norm = norms[unit] * norms[other];
            let cosine = if norm > 0.0 { product(&units[unit], &units[other]) / norm } else { 0.0 };
            if inverse.is_none_or(|(_, least)| cosine < least) {
                inverse = Some((other, cosine));
            }
        }
        if let Some((other, _)) = inverse {
            is_left[other] = false;
        }
        shown.push(Pair { unit, inverse });
    }
    shown
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}
