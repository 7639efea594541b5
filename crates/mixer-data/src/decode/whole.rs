//! Whole pictures by the decoder of their format, for what has no quicker way.

use image::ImageFormat;
use mixer_jpeg::Scale;

use crate::decode::error::DecodeError;
use crate::decode::format::PictureFormat;
use crate::decode::options::DecodeOptions;
use crate::decode::rgb_image::RgbImage;
use crate::decode::{gif, other_format, whole_jpeg};
use crate::foreign;

/// The picture in `bytes`, as it is stored; a JPEG at `scale`, all others whole. The format is taken from
/// the first bytes.
pub(crate) fn decode(
    bytes: &[u8],
    scale: Scale,
    options: &DecodeOptions,
) -> Result<RgbImage, DecodeError> {
    let Some(format) = PictureFormat::of(bytes) else {
        return Err(match bytes {
            [] => DecodeError::Empty,
            _ => DecodeError::NotAnImage {
                start: bytes[..bytes.len().min(4)].escape_ascii().to_string(),
            },
        });
    };
    let name = format.name();
    let outcome = foreign::guarded(|| match format {
        PictureFormat::Jpeg => whole_jpeg::decode(bytes, scale, options),
        PictureFormat::Gif => gif::decode(bytes, options),
        PictureFormat::Png => other_format::decode(bytes, ImageFormat::Png, name, options),
        PictureFormat::WebP => other_format::decode(bytes, ImageFormat::WebP, name, options),
        PictureFormat::Bmp => other_format::decode(bytes, ImageFormat::Bmp, name, options),
    });
    outcome.unwrap_or_else(|| {
        let message = "damage that its decoder did not expect".to_owned();
        Err(DecodeError::Broken { format: name, message })
    })
}
