//! The two passes of a resize, which exist for every kind of processor: portable, and in vector
//! instructions.

use crate::resample::weights::Weights;

/// Fraction bits of a value between the passes.
///
/// It is a sum of pixels below 256 with weights whose magnitudes add up to less than 1.3, and is kept
/// with its sign: 15 bits.
pub(super) const FRACTION_BITS: u32 = 6;

/// Rows that the horizontal pass takes at once: what is read of the weights counts for all.
pub(super) const ROWS: usize = 4;

/// Colours of a pixel.
pub(super) const COLOURS: usize = 3;

/// Values that the passes may touch behind a row, in a buffer of several.
pub(super) const MARGIN: usize = 32;

/// Offsets and weights that the horizontal pass needs.
pub(super) struct Columns<'a> {
    /// Start of the window of each result in a row, in values.
    pub(super) offsets: &'a [u32],
    /// The weights in them.
    pub(super) weights: &'a Weights,
}

/// One implementation of the passes. All give the same bits.
///
/// # Numerics
/// Sums of products have 32 bits and wrap, which the bounds on weights and values exclude. They are
/// rounded half up by a shift, and saturate.
pub(super) trait Passes: Copy {
    /// A row between the passes: the sum of rows of a picture with weights.
    ///
    /// # Shapes
    /// - `source`: rows of at least `out.len()` pixels' colours, `stride` apart, one for each weight
    /// - `weights`: fraction bits are `bits`
    ///
    /// # Panics
    /// When `source` does not hold these rows.
    fn vertical(self, source: &[u8], stride: usize, weights: &[i16], bits: u32, out: &mut [i16]);

    /// Rows of the result, from as many rows between the passes.
    ///
    /// # Shapes
    /// - `source`: `[ROWS, stride]`; windows, `taps` long, end at least [`MARGIN`] before the stride
    /// - `out`: `[ROWS, stride]`, whose stride is at least [`MARGIN`] more than the results have
    ///   colours; what lies behind them is overwritten
    ///
    /// # Panics
    /// When the lengths do not belong together.
    fn horizontal(self, source: &[i16], columns: &Columns<'_>, out: &mut [u8]);
}
