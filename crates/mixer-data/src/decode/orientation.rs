//! The orientation that EXIF metadata gives a picture, and the picture turned by it.

use image::DynamicImage;
use image::metadata::Orientation;

use crate::decode::format::PictureFormat;
use crate::decode::jpeg_structure::next_marker;
use crate::decode::options::DecodeOptions;
use crate::decode::rgb_image::RgbImage;
use crate::decode::{png_chunks, webp_chunks};

/// The beginning of EXIF metadata in a JPEG. Some programs write it in front of that of other formats.
const PREFIX: &[u8] = b"Exif\0\0";

/// A turn by multiples of 90°, mirrored or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn(Orientation);

impl Turn {
    /// The turn that a file's EXIF metadata asks for; none where it asks for none or cannot be read.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let exif = match PictureFormat::of(bytes) {
            Some(PictureFormat::Jpeg) => exif_of_jpeg(bytes),
            Some(PictureFormat::Png) => png_chunks::exif(bytes),
            Some(PictureFormat::WebP) => webp_chunks::exif(bytes),
            Some(PictureFormat::Gif | PictureFormat::Bmp) | None => None,
        };
        let exif = exif.unwrap_or_default();
        let tiff = exif.strip_prefix(PREFIX).unwrap_or(exif);
        Self(Orientation::from_exif_chunk(tiff).unwrap_or(Orientation::NoTransforms))
    }

    /// The turn that `options` ask for.
    pub(crate) fn asked_for(bytes: &[u8], options: &DecodeOptions) -> Self {
        match options.apply_orientation {
            true => Self::of(bytes),
            false => Self(Orientation::NoTransforms),
        }
    }

    /// `true` where it leaves pictures as they are.
    pub(crate) fn is_none(self) -> bool {
        self.0 == Orientation::NoTransforms
    }

    /// The picture turned.
    pub(crate) fn turn(self, image: RgbImage) -> RgbImage {
        if self.is_none() {
            return image;
        }
        let (width, height) = (image.width, image.height);
        let Some(buffer) = image::RgbImage::from_raw(width, height, image.pixels) else {
            unreachable!("a decoded picture has width x height pixels");
        };
        let mut dynamic = DynamicImage::ImageRgb8(buffer);
        dynamic.apply_orientation(self.0);
        RgbImage {
            width: dynamic.width(),
            height: dynamic.height(),
            pixels: dynamic.into_rgb8().into_raw(),
        }
    }
}

/// The EXIF metadata of a JPEG, from the segments before its first scan.
fn exif_of_jpeg(bytes: &[u8]) -> Option<&[u8]> {
    const APPLICATION_1: u8 = 0xe1;
    const START_OF_SCAN: u8 = 0xda;
    let mut at = 2;
    while let Some((code, after)) = next_marker(bytes, at, false) {
        if code == START_OF_SCAN {
            return None;
        }
        // TEM, restarts and start of image have no segment.
        if matches!(code, 0x01 | 0xd0..=0xd8) {
            at = after;
            continue;
        }
        let length = bytes.get(after..after + 2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let segment = bytes.get(after + 2..after + length.max(2))?;
        if code == APPLICATION_1 && segment.starts_with(PREFIX) {
            return Some(segment);
        }
        at = after + length;
    }
    None
}
