//! JPEGs of which mixer-jpeg decodes no region: progressive ones, inks, unusual sampling, scans for each
//! component, and those that are damaged or lack their end. It decodes them whole.

use mixer_jpeg::{Decoder, Picture, Refusal, Scale};

use crate::decode::error::DecodeError;
use crate::decode::format::PictureFormat;
use crate::decode::options::{DecodeOptions, check_size};
use crate::decode::rgb_image::RgbImage;

/// Width and height of a JPEG, as its header has them.
pub(crate) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let is_jpeg = PictureFormat::of(bytes) == Some(PictureFormat::Jpeg);
    let header = if is_jpeg { Picture::read(bytes).ok() } else { None }?.header();
    Some((header.width, header.height))
}

/// The picture of a JPEG.
pub(crate) fn decode(
    bytes: &[u8],
    scale: Scale,
    options: &DecodeOptions,
) -> Result<RgbImage, DecodeError> {
    let picture = Picture::read(bytes).map_err(refused)?;
    let header = picture.header();
    let (width, height) = (header.width, header.height);
    check_size(u64::from(width), u64::from(height), options)?;
    let mut pixels = Vec::new();
    Decoder::new().decode_whole(&picture, scale, &mut pixels).map_err(refused)?;
    Ok(RgbImage { width: scale.of(width), height: scale.of(height), pixels })
}

fn refused(reason: Refusal) -> DecodeError {
    match reason {
        Refusal::Truncated => DecodeError::Truncated,
        Refusal::Process(_) | Refusal::Bits(_) | Refusal::Components(_) | Refusal::Unfinished => {
            DecodeError::NotSupported { format: "JPEG", feature: reason.to_string() }
        }
        reason => DecodeError::Broken { format: "JPEG", message: reason.to_string() },
    }
}
