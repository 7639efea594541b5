//! Whole pictures by the decoder of their format, for what has no quicker way.

use image::ImageFormat;

use crate::decode::error::DecodeError;
use crate::decode::options::DecodeOptions;
use crate::decode::rgb_image::RgbImage;
use crate::decode::{other_format, slow_jpeg};

/// The picture in `bytes`, turned as `options` ask. The format is taken from the first bytes.
pub(crate) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, DecodeError> {
    match bytes {
        [] => Err(DecodeError::Empty),
        [0xff, 0xd8, 0xff, ..] => slow_jpeg::decode(bytes, options),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
            other_format::decode(bytes, ImageFormat::Png, "PNG", options)
        }
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => {
            other_format::decode(bytes, ImageFormat::Gif, "GIF", options)
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            other_format::decode(bytes, ImageFormat::WebP, "WebP", options)
        }
        [b'B', b'M', ..] => other_format::decode(bytes, ImageFormat::Bmp, "BMP", options),
        _ => Err(DecodeError::NotAnImage {
            start: bytes[..bytes.len().min(4)].escape_ascii().to_string(),
        }),
    }
}
