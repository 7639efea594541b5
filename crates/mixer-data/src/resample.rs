//! Antialiased resizing of a region.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{
    CropBoxError, Filter, FilterType, ResizeAlg, ResizeError, ResizeOptions, Resizer,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::rgb_image::RgbImage;

/// The filter of a resize. All widen when they shrink a picture, as Pillow's do (antialiasing).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The triangle filter, Pillow's `BILINEAR`. What the Mixer paper's code resizes with.
    #[default]
    Bilinear,
    /// The cubic filter with a = −½, Pillow's `BICUBIC`.
    Bicubic,
    /// The mean of the pixels whose centres lie in the area of a result's pixel, Pillow's `BOX`. The
    /// `area` of TensorFlow and OpenCV also counts parts of pixels; for a whole factor all are the
    /// same. Enlarging repeats pixels.
    Area,
}

impl Interpolation {
    /// How far the filter reaches, in pixels of the larger of two pictures.
    pub(crate) fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => CUBIC_SUPPORT,
            Self::Area => AREA_SUPPORT,
        }
    }
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
        Interpolation::Bicubic => Filter::new("bicubic", cubic, CUBIC_SUPPORT)
            .map_or(FilterType::CatmullRom, FilterType::Custom),
        Interpolation::Area => {
            Filter::new("area", area, AREA_SUPPORT).map_or(FilterType::Box, FilterType::Custom)
        }
    };
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false)
}

/// Radius of [`cubic`].
const CUBIC_SUPPORT: f64 = 2.0;

/// The cubic convolution kernel with a = −½ (Keys 1981), but never zero inside its support.
///
/// fast_image_resize 6.1.0 drops zero weights at the ends of a window and then takes the first
/// window for the leftmost. Its own `CatmullRom` is zero at ±1, so that enlarging a box whose first
/// pixel falls exactly on a source pixel made it read outside of its buffer. A weight of 2⁻¹⁰²²
/// rounds to nothing and keeps the windows in order.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    let weight = if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < CUBIC_SUPPORT {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        return 0.0;
    };
    if weight == 0.0 { f64::MIN_POSITIVE } else { weight }
}

/// Radius of [`area`].
const AREA_SUPPORT: f64 = 0.5;

/// 1 for `-½ < x ≤ ½`, and 0 elsewhere.
///
/// The borders are moved by more than rounding can move `x`. So a pixel whose centre lies exactly on
/// the border of two pixels of the result always counts for the first of them; with the borders at
/// ±½, as in Pillow and in fast_image_resize's `Box`, rounding decides whether it counts for one, both
/// or neither, and another box around the same pixels may decide otherwise.
fn area(x: f64) -> f64 {
    /// Exact, and so are its sums with ½: when a picture is enlarged, the borders are one pixel apart
    /// and every window has a pixel.
    const ROUNDING: f64 = 1.0 / (1u32 << 30) as f64;
    if x > ROUNDING - 0.5 && x <= ROUNDING + 0.5 { 1.0 } else { 0.0 }
}

fn view(image: &RgbImage) -> Result<TypedImageRef<'_, U8x3>, DataError> {
    let expected = image.width as usize * image.height as usize * 3;
    let bad_buffer =
        || DataError::BadBuffer { what: "an image", found: image.pixels.len(), expected };
    if image.pixels.len() != expected || expected == 0 {
        return Err(bad_buffer());
    }
    TypedImageRef::from_buffer(image.width, image.height, &image.pixels).map_err(|_| bad_buffer())
}

fn target(size: u32, out: &mut [u8]) -> Result<TypedImage<'_, U8x3>, DataError> {
    let found = out.len();
    let expected = size as usize * size as usize * 3;
    let bad_buffer = || DataError::BadBuffer { what: "an output buffer", found, expected };
    if found != expected {
        return Err(bad_buffer());
    }
    TypedImage::from_buffer(size, size, out).map_err(|_| bad_buffer())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enlarging_a_box_that_begins_on_a_pixel_centre_stays_inside_the_picture() {
        // The first output pixel is centred on source pixel 4, where a cubic kernel has zeros on
        // both sides. This read wild memory before `cubic` avoided exact zeros.
        let image = RgbImage {
            width: 12,
            height: 12,
            pixels: (0..12 * 12 * 3).map(|at| at as u8 / 12 * 12).collect(),
        };
        let mut resampler = Resampler::new();
        for scale in [0.5, 0.25, 0.4] {
            let start = 4.5 - scale / 2.0;
            let region = (start, start, 8.0 * scale, 8.0 * scale);
            let mut out = [0; 8 * 8 * 3];
            resampler.resize_box(&image, region, 8, Interpolation::Bicubic, &mut out).unwrap();
            // A kernel centred on a pixel is that pixel.
            let centre = (4 * 12 + 4) * 3;
            assert_eq!(out[..3], image.pixels[centre..centre + 3]);
        }
    }

    #[test]
    fn shrinking_by_a_whole_factor_with_area_is_the_mean_of_each_tile() {
        let image = RgbImage {
            width: 12,
            height: 12,
            pixels: (0..12 * 12 * 3).map(|at: usize| (at * 37 % 251) as u8).collect(),
        };
        let mut out = [0; 4 * 4 * 3];
        let mut resampler = Resampler::new();
        let whole = (0, 0, 12, 12);
        resampler.crop_and_resize(&image, whole, 4, Interpolation::Area, &mut out).unwrap();
        for (at, found) in out.iter().enumerate() {
            let (y, x, colour) = (at / 12, at / 3 % 4, at % 3);
            let tile = (0..9).map(|i| (y * 3 + i / 3, x * 3 + i % 3));
            let sum: u32 =
                tile.map(|(y, x)| u32::from(image.pixels[(y * 12 + x) * 3 + colour])).sum();
            // Rounded between the passes as well.
            assert!((f64::from(*found) - f64::from(sum) / 9.0).abs() <= 1.0, "{at}");
        }
    }

    #[test]
    fn with_area_a_pixel_on_the_border_of_two_counts_once() {
        // Five pixels become two: the middle one's centre is on the border of the two.
        let pixels: Vec<u8> = (0..5 * 5).flat_map(|at| [at % 5 * 40; 3]).collect();
        let image = RgbImage { width: 5, height: 5, pixels };
        let mut resampler = Resampler::new();
        let mut out = [0; 2 * 2 * 3];
        resampler.crop_and_resize(&image, (0, 0, 5, 5), 2, Interpolation::Area, &mut out).unwrap();
        assert_eq!(out, [40, 40, 40, 140, 140, 140, 40, 40, 40, 140, 140, 140]);
    }

    #[test]
    fn enlarging_any_box_with_area_repeats_pixels_of_the_box() {
        let image = RgbImage {
            width: 12,
            height: 12,
            pixels: (0..12 * 12).flat_map(|at| [at as u8 / 12, at as u8 % 12, 7]).collect(),
        };
        let mut resampler = Resampler::new();
        let mut out = [0; 8 * 8 * 3];
        for eighths in 0..=64 {
            for length in [0.5, 1.0, 2.5, 4.0] {
                let start = f64::from(eighths) / 8.0;
                let region = (start, start, length, length);
                resampler.resize_box(&image, region, 8, Interpolation::Area, &mut out).unwrap();
                for (at, pixel) in out.as_chunks::<3>().0.iter().enumerate() {
                    let centre = |at: usize| start + (at as f64 + 0.5) / 8.0 * length;
                    // A centre on the border of two pixels may go to either.
                    let is_at = |value: u8, centre: f64| {
                        let value = f64::from(value);
                        value <= centre && centre <= value + 1.0
                    };
                    assert!(is_at(pixel[0], centre(at / 8)) && is_at(pixel[1], centre(at % 8)));
                }
            }
        }
    }

    #[test]
    fn the_cubic_kernel_has_no_zero_inside_and_shifts_of_it_sum_to_one() {
        assert_eq!(cubic(0.0), 1.0);
        assert_eq!(cubic(2.0), 0.0);
        for step in 0..2000 {
            let x = f64::from(step) / 1000.0;
            assert_ne!(cubic(x), 0.0);
            // Shifted kernels sum to one.
            let sum: f64 = (-3..=3).map(|shift| cubic(x + f64::from(shift))).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        }
    }
}
