//! The one picture type that flows from decoding to the transforms.

use mixer_jpeg::Region;

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

    /// The pixels of a region.
    ///
    /// # Panics
    /// When it is empty or leaves the picture.
    pub(crate) fn cut(&self, region: Region) -> Self {
        let Region { left, top, width, height } = region;
        let fits = |start: u32, length: u32, limit: u32| {
            length > 0 && u64::from(start) + u64::from(length) <= u64::from(limit)
        };
        assert!(
            fits(left, width, self.width) && fits(top, height, self.height),
            "a region lies inside its picture"
        );
        let row = |y: u32| {
            let start = (y as usize * self.width as usize + left as usize) * 3;
            &self.pixels[start..start + width as usize * 3]
        };
        let pixels = (top..top + height).flat_map(row).copied().collect();
        Self { width, height, pixels }
    }
}
