//! Antialiased resizing of a region.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{CropBoxError, FilterType, ResizeAlg, ResizeError, ResizeOptions, Resizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::rgb_image::RgbImage;

/// The filter of a resize. Both widen when they shrink a picture, as Pillow's do (antialiasing).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The triangle filter, Pillow's `BILINEAR`. What the Mixer paper's code resizes with.
    #[default]
    Bilinear,
    /// The cubic filter with a = −½, Pillow's `BICUBIC`.
    Bicubic,
}

/// Resizes regions of pictures; keeps its working memory between calls.
#[derive(Default)]
pub struct Resampler {
    resizer: Resizer,
    /// Working memory of callers that need a second picture.
    pub(crate) scratch: Vec<u8>,
}

impl Resampler {
    /// A resampler without working memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Crops whole pixels and resizes them to `size × size`.
    ///
    /// Pixels outside the crop do not contribute, so that it equals cropping first.
    pub(crate) fn crop_and_resize(
        &mut self,
        image: &RgbImage,
        (left, top, width, height): (u32, u32, u32, u32),
        size: u32,
        interpolation: Interpolation,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let source = view(image)?;
        let source =
            TypedCroppedImage::from_ref(&source, left, top, width, height).map_err(crop_error)?;
        let mut target = target(size, out)?;
        let options = options(interpolation);
        self.resizer.resize_typed(&source, &mut target, &options)?;
        Ok(())
    }

    /// Resizes a box with fractional edges to `size × size`.
    ///
    /// Pixels around the box contribute at its edges, so that it equals resizing everything and
    /// cropping afterwards.
    pub(crate) fn resize_box(
        &mut self,
        image: &RgbImage,
        (left, top, width, height): (f64, f64, f64, f64),
        size: u32,
        interpolation: Interpolation,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let source = view(image)?;
        let mut target = target(size, out)?;
        let options = options(interpolation).crop(left, top, width, height);
        self.resizer.resize_typed(&source, &mut target, &options)?;
        Ok(())
    }
}

fn crop_error(error: CropBoxError) -> DataError {
    ResizeError::SrcCroppingError(error).into()
}

fn options(interpolation: Interpolation) -> ResizeOptions {
    let filter = match interpolation {
        Interpolation::Bilinear => FilterType::Bilinear,
        Interpolation::Bicubic => FilterType::CatmullRom,
    };
    ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(filter))
        .use_alpha(false)
}

fn view(image: &RgbImage) -> Result<TypedImageRef<'_, U8x3>, DataError> {
    let expected = image.width as usize * image.height as usize * 3;
    let bad_buffer = || DataError::BadBuffer {
        what: "an image",
        found: image.pixels.len(),
        expected,
    };
    if image.pixels.len() != expected || expected == 0 {
        return Err(bad_buffer());
    }
    TypedImageRef::from_buffer(image.width, image.height, &image.pixels).map_err(|_| bad_buffer())
}

fn target(size: u32, out: &mut [u8]) -> Result<TypedImage<'_, U8x3>, DataError> {
    let found = out.len();
    let expected = size as usize * size as usize * 3;
    let bad_buffer = || DataError::BadBuffer {
        what: "an output buffer",
        found,
        expected,
    };
    if found != expected {
        return Err(bad_buffer());
    }
    TypedImage::from_buffer(size, size, out).map_err(|_| bad_buffer())
}
