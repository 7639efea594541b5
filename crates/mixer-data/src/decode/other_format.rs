//! PNG, GIF, BMP and WebP, by the `image` crate, whole.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use crate::decode::error::DecodeError;
use crate::decode::options::{DecodeOptions, check_size};
use crate::decode::orientation::Turn;
use crate::decode::rgb_image::RgbImage;

/// The picture of a file of `format`, called `name` in messages, turned as `options` ask.
pub(crate) fn decode(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    options: &DecodeOptions,
) -> Result<RgbImage, DecodeError> {
    let broken = |error: image::ImageError| match error {
        image::ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            DecodeError::Truncated
        }
        error => DecodeError::Broken { format: name, message: error.to_string() },
    };

    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The size is checked below, before pixels are allocated: the crate's own limit would only
    // hide it behind a vaguer message.
    reader.no_limits();
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height), options)?;
    let exif = if options.apply_orientation {
        decoder.exif_metadata().map_err(broken)?.unwrap_or_default()
    } else {
        Vec::new()
    };
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    let (width, height) = (image.width(), image.height());
    let image = RgbImage { width, height, pixels: rgb8_pixels(image) };
    Ok(Turn::of_exif(&exif).turn(image))
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
