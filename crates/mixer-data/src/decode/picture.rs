//! A whole picture of any format.

use mixer_jpeg::Region;

use crate::decode::error::DecodeError;
use crate::decode::options::DecodeOptions;
use crate::decode::part::PartDecoder;
use crate::decode::rgb_image::RgbImage;

/// Decodes an image file, to the pixels that training, evaluation and prediction see of it: this is
/// [`PartDecoder::decode`] with all of the picture as its region.
///
/// The format is taken from the first bytes, never from a file name: JPEG, PNG, GIF (first frame),
/// BMP or WebP. Grey, palette, CMYK and YCCK pictures become RGB. Alpha is dropped, not blended.
/// What the first frame of a GIF leaves free has the palette's first or transparent colour, as in Pillow.
/// 16-bit channels keep their high byte; Pillow clips 16-bit grey instead.
///
/// # Truncated JPEGs
/// Libraries fill the missing rest of a truncated JPEG with grey. Here a file is whole whose markers
/// reach the end-of-image marker. A baseline file that only lacks
/// that marker is accepted when no pixel depends on what follows the last byte; Pillow would refuse
/// it. Damage in the middle of a whole file is accepted, as in Pillow, unless the data end before the
/// last row of the picture.
///
/// # Errors
/// When the bytes are not a supported image, are damaged or truncated, or exceed a limit: 64 MiB of
/// file, 16384 px a side, or [`DecodeOptions::max_pixels`]. Limits are checked from the header.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, DecodeError> {
    let whole = |width, height| Region { left: 0, top: 0, width, height };
    Ok(PartDecoder::new().decode(bytes, options, whole)?.image)
}
