//! Bytes of an image file to RGB.
//!
//! JPEG goes through zune-jpeg, everything else through the `image` crate. What is accepted is what
//! Pillow accepts, and what comes out is what `Image.open(…).convert("RGB")` gives, except where
//! noted on [`decode`].

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use crate::decode::rgb_image::RgbImage;

/// The longest side that is decoded, px.
pub(crate) const MAX_SIDE: u32 = 16_384;

/// The largest file that is decoded, bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;

/// How to decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Turn the picture as its EXIF orientation says. Off by default, as in torchvision, timm and
    /// `tf.image`, so that numbers compare.
    pub apply_orientation: bool,
    /// Pictures with more pixels are refused before anything is allocated. 64 million by default.
    pub max_pixels: u64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { apply_orientation: false, max_pixels: 64_000_000 }
    }
}

/// Why bytes could not be decoded. The path is added by [`DataError`](crate::DataError).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Zero bytes.
    #[error("the file is empty")]
    Empty,

    /// The first bytes belong to no supported format.
    #[error("not an image: starts with `{start}`")]
    NotAnImage {
        /// The first bytes, escaped.
        start: String,
    },

    /// The file is larger than this crate reads.
    #[error("the file has {found} bytes, expected at most {expected}")]
    FileTooLarge {
        /// Its size.
        found: u64,
        /// The limit.
        expected: u64,
    },

    /// The header announces a picture that is larger than this crate decodes.
    #[error(
        "the picture is {width}x{height} px, expected at most {max_pixels} pixels and {max_side} px a side"
    )]
    PictureTooLarge {
        /// Width in the header.
        width: u64,
        /// Height in the header.
        height: u64,
        /// The limit of their product.
        max_pixels: u64,
        /// The limit of each.
        max_side: u32,
    },

    /// A picture without pixels.
    #[error("the picture has no pixels")]
    NoPixels,

    /// The file ends before the picture does.
    #[error("the file is truncated")]
    Truncated,

    /// The format was recognised, but its content was not understood.
    #[error("broken {format} file: {message}")]
    Broken {
        /// The format.
        format: &'static str,
        /// What its decoder said.
        message: String,
    },
}

/// Decodes an image file.
///
/// The format is taken from the first bytes, never from a file name: JPEG, PNG, GIF (first frame),
/// BMP or WebP. Grey, palette, CMYK and YCCK pictures become RGB. Alpha is dropped, not blended.
/// 16-bit channels keep their high byte; Pillow clips 16-bit grey instead.
///
/// # Truncated JPEGs
/// Decoders fill the missing rest of a truncated JPEG with grey, so this looks for itself: a file
/// whose marker structure reaches the end-of-image marker is whole. A baseline file that only lacks
/// that marker is accepted when no pixel depends on what follows the last byte; Pillow would refuse
/// it. Damage in the middle of a whole file is accepted, as in Pillow, unless the decoder gave up
/// and left the rest of the picture empty.
///
/// # Errors
/// When the bytes are not a supported image, are damaged or truncated, or exceed a limit: 64 MiB of
/// file, 16384 px a side, or [`DecodeOptions::max_pixels`]. Limits are checked from the header.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, DecodeError> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(DecodeError::FileTooLarge {
            found: bytes.len() as u64,
            expected: MAX_FILE_BYTES,
        });
    }
    match bytes {
        [] => Err(DecodeError::Empty),
        [0xff, 0xd8, 0xff, ..] => decode_jpeg(bytes, options),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
            decode_other(bytes, ImageFormat::Png, "PNG", options)
        }
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => {
            decode_other(bytes, ImageFormat::Gif, "GIF", options)
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            decode_other(bytes, ImageFormat::WebP, "WebP", options)
        }
        [b'B', b'M', ..] => decode_other(bytes, ImageFormat::Bmp, "BMP", options),
        _ => Err(DecodeError::NotAnImage {
            start: bytes[..bytes.len().min(4)].escape_ascii().to_string(),
        }),
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

fn decode_other(
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
    let orientation = match options.apply_orientation {
        true => decoder.orientation().map_err(broken)?,
        false => Orientation::NoTransforms,
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    Ok(RgbImage { width, height, pixels: rgb8_pixels(image) })
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

/// A finished zune-jpeg decoding.
struct JpegPixels {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    exif: Option<Vec<u8>>,
}

fn decode_jpeg(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, DecodeError> {
    let structure = JpegStructure::of(bytes);
    let decoded = if structure.reaches_end {
        decode_whole_jpeg(bytes, options)?
    } else if structure.progressive {
        // Its scans refine one another, so that it could stop after any of them.
        return Err(DecodeError::Truncated);
    } else {
        decode_jpeg_without_end(bytes, options)?
    };
    let image = RgbImage { width: decoded.width, height: decoded.height, pixels: decoded.pixels };
    if !options.apply_orientation {
        return Ok(image);
    }
    let orientation = decoded.exif.and_then(|chunk| Orientation::from_exif_chunk(&chunk));
    Ok(match orientation {
        Some(orientation) => turned(image, orientation),
        None => image,
    })
}

/// Decodes a JPEG that has an end-of-image marker.
fn decode_whole_jpeg(bytes: &[u8], options: &DecodeOptions) -> Result<JpegPixels, DecodeError> {
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
fn decode_jpeg_without_end(
    bytes: &[u8],
    options: &DecodeOptions,
) -> Result<JpegPixels, DecodeError> {
    let continued = |filler: u8| {
        let mut bytes = bytes.to_vec();
        bytes.extend([filler; 256]);
        bytes.extend([0xff, 0xd9]);
        run_zune(&bytes, false, options)
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

fn run_zune(
    bytes: &[u8],
    strict: bool,
    options: &DecodeOptions,
) -> Result<JpegPixels, DecodeError> {
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
    Ok(JpegPixels {
        width: u32::from(info.width),
        height: u32::from(info.height),
        pixels,
        exif: decoder.exif().cloned(),
    })
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

fn turned(image: RgbImage, orientation: Orientation) -> RgbImage {
    let (width, height) = (image.width, image.height);
    let Some(buffer) = image::RgbImage::from_raw(width, height, image.pixels) else {
        unreachable!("a decoded picture has width x height pixels");
    };
    let mut dynamic = DynamicImage::ImageRgb8(buffer);
    dynamic.apply_orientation(orientation);
    RgbImage {
        width: dynamic.width(),
        height: dynamic.height(),
        pixels: dynamic.into_rgb8().into_raw(),
    }
}

/// What the markers of a JPEG say about its wholeness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JpegStructure {
    /// The markers lead to an end-of-image marker.
    pub(crate) reaches_end: bool,
    /// The frame is progressive.
    progressive: bool,
}

impl JpegStructure {
    /// Walks over the markers.
    ///
    /// Entropy-coded data cannot contain an end-of-image marker (a data byte `ff` is followed by
    /// `00`), and the segments of the header, where a thumbnail has its own, are stepped over by
    /// their lengths.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        const PROGRESSIVE_FRAME: u8 = 0xc2;
        const END_OF_IMAGE: u8 = 0xd9;
        const START_OF_SCAN: u8 = 0xda;

        let mut structure = Self::default();
        // Just behind the start-of-image marker.
        let mut at = 2;
        let mut in_scan = false;
        while let Some((code, after)) = next_marker(bytes, at, in_scan) {
            at = after;
            match code {
                END_OF_IMAGE => {
                    structure.reaches_end = true;
                    break;
                }
                // Markers without a segment: TEM, restarts and start of image.
                0x01 | 0xd0..=0xd8 => continue,
                PROGRESSIVE_FRAME => structure.progressive = true,
                START_OF_SCAN => {
                    in_scan = true;
                    // The usual case, answered without a walk through the scan: nothing but a
                    // marker can look like one from here on.
                    if !structure.progressive && bytes.ends_with(&[0xff, END_OF_IMAGE]) {
                        structure.reaches_end = true;
                        break;
                    }
                }
                _ => {}
            }
            let Some(length) = bytes.get(at..at + 2) else {
                break;
            };
            at += usize::from(u16::from_be_bytes([length[0], length[1]]));
        }
        structure
    }
}

/// The code of the next marker from `at` on, and where its segment starts.
///
/// A marker is `ff`, any number of fill bytes `ff`, and a code. Stray bytes before it are stepped
/// over, as libjpeg does; in a scan these are the data, with stuffed bytes and restart markers.
fn next_marker(bytes: &[u8], at: usize, in_scan: bool) -> Option<(u8, usize)> {
    let pairs = bytes.get(at..)?.windows(2);
    let is_marker = |pair: &[u8]| {
        pair[0] == 0xff
            && pair[1] != 0xff
            && pair[1] != 0x00
            && !(in_scan && (0xd0..=0xd7).contains(&pair[1]))
    };
    let offset = pairs.into_iter().position(is_marker)?;
    Some((bytes[at + offset + 1], at + offset + 2))
}
