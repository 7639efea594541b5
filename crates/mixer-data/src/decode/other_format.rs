//! PNG, BMP and WebP, by the `image` crate, whole.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::decode::error::DecodeError;
use crate::decode::options::{DecodeOptions, check_size};
use crate::decode::rgb_image::RgbImage;
use crate::decode::{png_chunks, webp_chunks};

/// Memory that the decoder may take beside the pixels and twice the file: rows, and what chunks unpack to.
const SCRATCH_BYTES: u64 = 4 << 20;

/// The picture of a file of `format`, called `name` in messages.
///
/// Sizes are compared with the limits before the decoder sees the file, which takes memory by what is
/// claimed: a hidden frame may claim more than the picture, a row of a picture that is refused can be
/// gigabytes.
pub(crate) fn decode(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    options: &DecodeOptions,
) -> Result<RgbImage, DecodeError> {
    let broken = |error: ImageError| match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            DecodeError::Truncated
        }
        error => DecodeError::Broken { format: name, message: error.to_string() },
    };

    match format {
        ImageFormat::WebP => webp_chunks::check_sizes(bytes, options)?,
        ImageFormat::Png => png_chunks::check_size_of(bytes, options)?,
        _ => {}
    }
    let mended = if format == ImageFormat::Bmp { with_pixels_behind_palette(bytes) } else { None };
    let bytes = mended.as_deref().unwrap_or(bytes);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(2 * bytes.len() as u64 + SCRATCH_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height), options)?;
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    let (width, height) = (image.width(), image.height());
    Ok(RgbImage { width, height, pixels: rgb8_pixels(image) })
}

/// A BMP that says that its pixels begin where its palette does, with the place where they begin.
///
/// PARITY: Pillow steps over the palette, whatever the header says.
fn with_pixels_behind_palette(bytes: &[u8]) -> Option<Vec<u8>> {
    const FILE_HEADER: u32 = 14;
    const CORE_HEADER: u32 = 12;
    let number = |at: usize| {
        let bytes = bytes.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let header = number(14)?;
    let is_core = header == CORE_HEADER;
    // Bits of a pixel are in the upper half, behind the number of planes.
    let bits = number(if is_core { 22 } else { 26 })? >> 16;
    let start = FILE_HEADER.checked_add(header)?;
    if number(10)? != start || bits > 8 {
        return None;
    }
    let used = if is_core { 0 } else { number(46)? };
    let colours = if used == 0 { 1 << bits } else { used };
    let pixels = start.checked_add(colours.checked_mul(if is_core { 3 } else { 4 })?)?;
    let mut bytes = bytes.to_vec();
    bytes[10..14].copy_from_slice(&pixels.to_le_bytes());
    Some(bytes)
}

/// The pixels of a picture of any colour type as RGB8: alpha dropped, high bytes of 16 bits.
fn rgb8_pixels(image: DynamicImage) -> Vec<u8> {
    fn high_byte(value: u16) -> u8 {
        (value >> 8) as u8
    }
    match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => {
            image.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect()
        }
        DynamicImage::ImageLuma8(image) => image.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageRgb16(image) => {
            image.pixels().flat_map(|p| [p[0], p[1], p[2]].map(high_byte)).collect()
        }
        DynamicImage::ImageRgba16(image) => {
            image.pixels().flat_map(|p| [p[0], p[1], p[2]].map(high_byte)).collect()
        }
        DynamicImage::ImageLuma16(image) => {
            image.pixels().flat_map(|p| [high_byte(p[0]); 3]).collect()
        }
        DynamicImage::ImageLumaA16(image) => {
            image.pixels().flat_map(|p| [high_byte(p[0]); 3]).collect()
        }
        other => other.into_rgb8().into_raw(),
    }
}
