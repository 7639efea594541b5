//! The choices and limits of decoding.

use crate::decode::error::DecodeError;

/// The longest side that is decoded, px.
pub(crate) const MAX_SIDE: u32 = 16_384;

/// The largest file that is decoded, bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;

/// Choices of decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Turn the picture as its EXIF orientation says. Off by default, as in torchvision, timm and
    /// `tf.image`, so that numbers compare; OpenCV, and with it mmcv, turns pictures.
    pub apply_orientation: bool,
    /// Pictures with more pixels are refused before anything is allocated. 64 million by default.
    pub max_pixels: u64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { apply_orientation: false, max_pixels: 64_000_000 }
    }
}

/// Refuses pictures that are empty or too large.
pub(crate) fn check_size(
    width: u64,
    height: u64,
    options: &DecodeOptions,
) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        return Err(DecodeError::NoPixels);
    }
    let longest = width.max(height);
    if longest > u64::from(MAX_SIDE) || width * height > options.max_pixels {
        return Err(DecodeError::PictureTooLarge {
            width,
            height,
            max_pixels: options.max_pixels,
            max_side: MAX_SIDE,
        });
    }
    Ok(())
}
