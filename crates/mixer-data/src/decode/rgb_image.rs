//! The one picture type that flows from decoding to the transforms.

use crate::decode::part::Region;

/// An RGB picture, 8 bits per colour.
///
/// # Shapes
/// - `pixels`: `[height, width, 3]`, row-major, so `pixels.len() == width · height · 3`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Width, px.
    pub width: u32,
    /// Height, px.
    pub height: u32,
    /// Row-major pixels, three bytes each.
    pub pixels: Vec<u8>,
}

impl RgbImage {
    /// The region that is all of it.
    pub(crate) fn whole(&self) -> Region {
        Region { left: 0, top: 0, width: self.width, height: self.height }
    }
}
