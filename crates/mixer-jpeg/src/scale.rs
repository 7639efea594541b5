//! The size at which a picture is decoded.

use crate::frame::BLOCK_SIDE;

/// Part of its size at which a picture is decoded.
///
/// Smaller inverse transforms make the means of neighbouring pixels out of the coefficients, without the
/// pixels themselves: libjpeg's `scale_denom`, and what Pillow's `Image.draft` chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scale {
    /// All pixels.
    #[default]
    Full,
    /// A pixel for 2 × 2.
    Half,
    /// A pixel for 4 × 4.
    Quarter,
    /// A pixel for 8 × 8.
    Eighth,
}

impl Scale {
    /// All of them, the largest picture first.
    pub const ALL: [Self; 4] = [Self::Full, Self::Half, Self::Quarter, Self::Eighth];

    /// The one that makes a picture smallest, but no more than `times` smaller.
    pub fn within(times: u32) -> Self {
        match times {
            0 | 1 => Self::Full,
            2 | 3 => Self::Half,
            4..=7 => Self::Quarter,
            _ => Self::Eighth,
        }
    }

    /// Pixels of the picture to one that is decoded, in a row and in a column.
    pub fn denominator(self) -> u32 {
        1 << self as u32
    }

    /// The length in pixels that one of the picture becomes: the last pixel may stand for less than others.
    pub fn of(self, length: u32) -> u32 {
        length.div_ceil(self.denominator())
    }

    /// Samples on a side of the blocks of the finest components.
    pub(crate) fn side(self) -> usize {
        BLOCK_SIDE >> self as u32
    }

    /// Samples on a side of the blocks of a component that is `steps` times coarser than the finest, and
    /// how many times coarser its samples are then.
    ///
    /// PARITY: libjpeg enlarges a component by a larger transform where that is possible in both
    /// directions alike.
    pub(crate) fn component(self, steps: (usize, usize)) -> (usize, (usize, usize)) {
        let finest = self.side();
        let mut side = finest;
        let fits = |step: usize, side: usize| (step * finest).is_multiple_of(2 * side);
        while side < BLOCK_SIDE && fits(steps.0, side) && fits(steps.1, side) {
            side *= 2;
        }
        (side, (steps.0 * finest / side, steps.1 * finest / side))
    }

    /// `true` where components that are still coarser go through the triangle filter.
    ///
    /// PARITY: libjpeg repeats samples where a block is one.
    pub(crate) fn is_filtered(self) -> bool {
        self != Self::Eighth
    }
}
