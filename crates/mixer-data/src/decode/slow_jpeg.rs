//! JPEGs that mixer-jpeg leaves to another decoder, by zune-jpeg, whole.

use mixer_jpeg::Region;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use crate::decode::error::DecodeError;
use crate::decode::jpeg_structure::JpegStructure;
use crate::decode::options::{DecodeOptions, check_size};
use crate::decode::orientation;
use crate::decode::rgb_image::RgbImage;

/// The picture of a JPEG, turned as `options` ask.
pub(crate) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, DecodeError> {
    let structure = JpegStructure::of(bytes);
    let image = if structure.reaches_end {
        decode_whole(bytes, options)?
    } else if structure.progressive {
        // Its scans refine one another, so that it could stop after any of them.
        return Err(DecodeError::Truncated);
    } else {
        decode_without_end(bytes, options)?
    };
    Ok(orientation::of_jpeg(bytes, options).turn(image))
}

/// Decodes a JPEG that has an end-of-image marker.
fn decode_whole(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, DecodeError> {
    let strict_error = match run_zune(bytes, true, options) {
        Ok(decoded) => return Ok(decoded),
        Err(error @ DecodeError::Broken { .. }) => error,
        Err(error) => return Err(error),
    };
    // Strict mode also refuses what does no harm, such as stray bytes between headers. Where the
    // lenient mode gives up it fills the rest with middle grey.
    let decoded = run_zune(bytes, false, options)?;
    let row = decoded.width as usize * 3;
    let last_row = &decoded.pixels[decoded.pixels.len() - row..];
    if last_row.iter().all(|&value| value == 128) {
        return Err(strict_error);
    }
    Ok(decoded)
}

/// Decodes a baseline JPEG that stops without an end-of-image marker.
///
/// Nothing but the marker is missing exactly when the pixels do not depend on what would follow, so
/// it is decoded with two different continuations.
fn decode_without_end(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, DecodeError> {
    let continued = |filler: u8| {
        let mut bytes = bytes.to_vec();
        bytes.extend([filler; 256]);
        bytes.extend([0xff, 0xd9]);
        match run_mixer_jpeg(&bytes, options) {
            Some(image) => Ok(image),
            None => run_zune(&bytes, false, options),
        }
    };
    let truncated_unless_too_large = |error| match error {
        DecodeError::Broken { .. } => DecodeError::Truncated,
        error => error,
    };
    let first = continued(0x00).map_err(truncated_unless_too_large)?;
    let second = continued(0xa5).map_err(truncated_unless_too_large)?;
    if first.pixels != second.pixels {
        return Err(DecodeError::Truncated);
    }
    Ok(first)
}

/// The picture by the decoder that whole files go through, so that a missing end changes no pixel.
fn run_mixer_jpeg(bytes: &[u8], options: &DecodeOptions) -> Option<RgbImage> {
    let header = mixer_jpeg::read_header(bytes).ok()?;
    let (width, height) = (header.width, header.height);
    check_size(u64::from(width), u64::from(height), options).ok()?;
    let (all, mut pixels) = (Region { left: 0, top: 0, width, height }, Vec::new());
    mixer_jpeg::Decoder::new().decode_region(bytes, all, &mut pixels).ok()?;
    Some(RgbImage { width, height, pixels })
}

fn run_zune(bytes: &[u8], strict: bool, options: &DecodeOptions) -> Result<RgbImage, DecodeError> {
    let zune_options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let broken = |error: DecodeErrors| DecodeError::Broken {
        format: "JPEG",
        message: first_line_lowercase(&error.to_string()),
    };

    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), zune_options);
    decoder.decode_headers().map_err(broken)?;
    let info = decoder.info().ok_or(DecodeError::NoPixels)?;
    check_size(u64::from(info.width), u64::from(info.height), options)?;
    let pixels = decoder.decode().map_err(broken)?;
    let expected = usize::from(info.width) * usize::from(info.height) * 3;
    if pixels.len() != expected {
        return Err(DecodeError::Broken {
            format: "JPEG",
            message: format!("its colours came out as {} bytes, not {expected}", pixels.len()),
        });
    }
    Ok(RgbImage { width: u32::from(info.width), height: u32::from(info.height), pixels })
}

fn first_line_lowercase(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or("unknown error").trim();
    let mut letters = line.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
