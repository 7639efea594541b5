//! The weights of a resize along one axis, as integers.
//!
//! A result is a weighted sum of neighbouring pixels, and the weights are the same in every row (or
//! column), so they are found once per picture. They are integers, so that every implementation of
//! the sums gives the same bits.

use std::ops::Range;

use crate::resample::interpolation::Interpolation;

/// The most fraction bits of a weight. With more, sums of 32 bits could overflow: a value between the
/// passes has at most 15 bits, and magnitudes of weights add up to less than 1.3.
const MAX_WEIGHT_BITS: u32 = 16;

/// Part of a line of pixels, and the number of results that it becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    /// Start of the part, px; pixel `i` covers `i` to `i + 1`.
    pub(super) start: f64,
    /// Its length, px; positive.
    pub(super) length: f64,
    /// Pixels that may contribute; at least 1.
    pub(super) num_pixels: u32,
    /// Results; at least 1.
    pub(super) num_results: u32,
    /// `true` where the results are in reverse order.
    pub(super) is_mirrored: bool,
}

/// The pixels that contribute to one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// The first.
    pub(super) first: usize,
    /// Number of them; at least 1.
    pub(super) length: usize,
}

/// Windows and weights of all results along an axis.
#[derive(Default)]
pub(super) struct Weights {
    /// Axis and filter that the rest belongs to.
    made_for: Option<(Axis, Interpolation)>,
    windows: Vec<Window>,
    taps: usize,
    bits: u32,
    values: Vec<i16>,
    /// Weights before they are integers, in rows of the longest possible window.
    exact: Vec<f64>,
}

impl Weights {
    /// Finds the weights, unless they are those that are there.
    ///
    /// PARITY: windows and weights of Pillow's `precompute_coeffs`, with the borders of
    /// [`Interpolation::Area`] moved by less than a weight can tell.
    pub(super) fn prepare(&mut self, axis: Axis, interpolation: Interpolation) {
        if self.made_for == Some((axis, interpolation)) {
            return;
        }
        self.made_for = Some((axis, interpolation));
        match interpolation {
            Interpolation::Bilinear => self.find(axis, interpolation.support(), triangle),
            Interpolation::Bicubic => self.find(axis, interpolation.support(), cubic),
            Interpolation::Area => self.find(axis, interpolation.support(), area),
        }
    }

    fn find(&mut self, axis: Axis, support: f64, filter: impl Fn(f64) -> f64) {
        /// Far more than rounding makes of a place in a picture, px.
        const BORDER: f64 = 1e-6;
        let Axis { start, length, num_pixels, num_results, is_mirrored } = axis;
        let scale = length / f64::from(num_results);
        // A filter widens when it shrinks a picture.
        let widening = scale.max(1.0);
        let reach = support * widening;
        let shrinking = 1.0 / widening;
        let num_pixels = num_pixels as usize;
        // Two more than `2 * reach` has pixels: one for the part at each end.
        let row = (2.0 * reach) as usize + 3;
        self.windows.clear();
        self.exact.clear();
        self.exact.resize(row * num_results as usize, 0.0);

        let mut largest = 0.0f64;
        let rows = self.exact.chunks_exact_mut(row);
        for (result, row) in (0..num_results).zip(rows) {
            let result = if is_mirrored { num_results - 1 - result } else { result };
            let centre = start + (f64::from(result) + 0.5) * scale;
            // Casts saturate at 0. At least one pixel stays, whatever rounding made of the centre; and
            // one at the border stays, whose weight is not zero for `area`.
            let mut first = ((centre - reach + 0.5) as u32 as usize).min(num_pixels - 1);
            let end =
                ((centre + reach + (0.5 + BORDER)) as u32 as usize).clamp(first + 1, num_pixels);
            let weight = |pixel: usize| filter((pixel as f64 + 0.5 - centre) * shrinking);
            while first + 1 < end && weight(first) == 0.0 {
                first += 1;
            }
            let (mut count, mut sum) = (1, 0.0);
            for (at, (exact, pixel)) in row.iter_mut().zip(first..end).enumerate() {
                *exact = weight(pixel);
                sum += *exact;
                if *exact != 0.0 {
                    count = at + 1;
                }
            }
            if sum > 0.0 {
                let factor = 1.0 / sum;
                for exact in &mut row[..count] {
                    *exact *= factor;
                    largest = largest.max(exact.abs());
                }
            } else {
                // Only a box outside of the picture comes here: the nearest pixel.
                (count, row[0], largest) = (1, 1.0, largest.max(1.0));
            }
            self.windows.push(Window { first, length: count });
        }
        self.round(row, largest);
    }

    /// Turns the weights into integers that add up to exactly one.
    ///
    /// Sums from the first weight to each are rounded, and weights are their differences: so none is
    /// off by as much as a unit, and neither is the sum of any neighbours.
    fn round(&mut self, row: usize, largest: f64) {
        let longest = self.windows.iter().map(|window| window.length).max().unwrap_or(0);
        self.taps = longest.next_multiple_of(2);
        self.bits = MAX_WEIGHT_BITS;
        while largest * f64::from(1u32 << self.bits) > f64::from(i16::MAX - 1) {
            self.bits -= 1;
        }
        let one = f64::from(1u32 << self.bits);
        self.values.clear();
        self.values.resize(self.taps * self.windows.len(), 0);
        let values = self.values.chunks_exact_mut(self.taps);
        for ((window, values), exact) in
            self.windows.iter().zip(values).zip(self.exact.chunks_exact(row))
        {
            let (mut sum, mut rounded) = (0.0, 0);
            for (value, exact) in values.iter_mut().zip(&exact[..window.length]) {
                sum += exact * one;
                let next = nearest(sum);
                *value = (next - rounded) as i16;
                rounded = next;
            }
        }
    }

    /// One window per result.
    pub(super) fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Length of the longest window, made even.
    pub(super) fn taps(&self) -> usize {
        self.taps
    }

    /// Fraction bits: the weights of a result add up to `1 << bits`.
    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    /// Weights: `[results, taps]`, zeros behind each window.
    pub(super) fn values(&self) -> &[i16] {
        &self.values
    }

    /// The weights in a result's window.
    pub(super) fn of(&self, result: usize) -> &[i16] {
        &self.values[result * self.taps..][..self.windows[result].length]
    }

    /// Every pixel that contributes to a result.
    pub(super) fn span(&self) -> Range<usize> {
        let first = self.windows.iter().map(|window| window.first).min();
        let end = self.windows.iter().map(|window| window.first + window.length).max();
        first.unwrap_or(0)..end.unwrap_or(0)
    }
}

/// The nearest integer of a number whose magnitude is below 2²⁰.
///
/// `f64::round` is a call of a function where a processor is only known to have SSE2.
fn nearest(x: f64) -> i32 {
    const OFFSET: i32 = 1 << 20;
    (x + (f64::from(OFFSET) + 0.5)) as i32 - OFFSET
}

/// The triangle filter.
fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// The cubic convolution kernel with a = −½ (Keys 1981).
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// 1 for `-½ < x ≤ ½`, and 0 elsewhere.
///
/// The borders are moved by more than rounding can move `x`. So a pixel whose centre lies exactly on
/// the border of two pixels of the result always counts for the first of them; with the borders at
/// ±½, as in Pillow, rounding decides whether it counts for one, both or neither, and another box
/// around the same pixels may decide otherwise.
fn area(x: f64) -> f64 {
    /// Exact, and so are its sums with ½: when a picture is enlarged, the borders are one pixel apart
    /// and every window has a pixel.
    const ROUNDING: f64 = 1.0 / (1u32 << 30) as f64;
    if x > ROUNDING - 0.5 && x <= ROUNDING + 0.5 { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shifts_of_a_filter_add_up_to_one() {
        for step in 0..2000 {
            let x = f64::from(step) / 1000.0;
            for filter in [triangle, cubic, area] {
                let sum: f64 = (-3..=3).map(|shift| filter(x + f64::from(shift))).sum();
                assert!((sum - 1.0).abs() < 1e-12, "{sum}");
            }
        }
    }

    #[test]
    fn as_many_results_as_pixels_are_the_pixels() {
        for interpolation in Interpolation::ALL {
            for num_results in [1, 2, 7, 224, 4096] {
                let length = f64::from(num_results);
                let axis = Axis {
                    start: 0.0,
                    length,
                    num_pixels: num_results,
                    num_results,
                    is_mirrored: false,
                };
                let mut weights = Weights::default();
                weights.prepare(axis, interpolation);
                for (at, window) in weights.windows().iter().enumerate() {
                    assert_eq!(*window, Window { first: at, length: 1 }, "{interpolation:?}");
                    assert_eq!(weights.of(at), [1 << weights.bits()]);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn weights_are_within_a_unit_of_the_filter_and_add_up_to_one(
            num_pixels in prop_oneof![1u32..40, 1u32..16_384],
            num_results in prop_oneof![1u32..40, 1u32..4096],
            (start, length) in (0.0f64..1.0, 0.001f64..=1.0),
            is_mirrored: bool,
            interpolation in prop::sample::select(&Interpolation::ALL[..]),
        ) {
            let length = length * f64::from(num_pixels);
            let start = start * (f64::from(num_pixels) - length);
            let mut weights = Weights::default();
            let axis = Axis { start, length, num_pixels, num_results, is_mirrored };
            weights.prepare(axis, interpolation);
            prop_assert_eq!(weights.windows().len(), num_results as usize);
            prop_assert!(weights.bits() >= 14);
            let one = 1i64 << weights.bits();
            let scale = (length / f64::from(num_results)).max(1.0);
            let span = weights.span();
            prop_assert!(span.end <= num_pixels as usize);
            for (at, window) in weights.windows().iter().enumerate() {
                prop_assert!(window.first + window.length <= span.end);
                let values = weights.of(at);
                prop_assert!(values.len() == window.length && values.len() <= weights.taps());
                let sum: i64 = values.iter().map(|&value| i64::from(value)).sum();
                prop_assert_eq!(sum, one);
                let magnitude: i64 = values.iter().map(|&value| i64::from(value).abs()).sum();
                // A rounding of each, at most.
                prop_assert!(magnitude <= one * 13 / 10 + values.len() as i64);
                prop_assert!(values.len() as f64 <= 2.0 * interpolation.support() * scale + 2.0);
                let result = if is_mirrored { num_results as usize - 1 - at } else { at };
                let centre = start + (result as f64 + 0.5) * length / f64::from(num_results);
                let middle = window.first as f64 + window.length as f64 / 2.0;
                prop_assert!((middle - centre).abs() <= interpolation.support() * scale + 1.0);
            }
        }
    }
}
