//! From a picture of any size to the model's input.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::augment::erasing::RandomErasing;
use crate::augment::randaugment::RandAugment;
use crate::decode::part::{Part, Region, View};
use crate::decode::rgb_image::RgbImage;
use crate::error::DataError;
use crate::measure::stage::{Laps, Stage};
use crate::order::random::ExampleRng;
use crate::resample::interpolation::Interpolation;
use crate::resample::patches::{Destination, Layout};
use crate::resample::resampler::{Crop, FractionalBox, Output, Resampler};

/// Tries of a random crop before the largest centred one is taken, as in torchvision.
const CROP_ATTEMPTS: usize = 10;

/// Preprocessing with augmentation, for training.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TrainTransform {
    /// Side of the result, px.
    pub image_size: u32,
    /// Choice of the region.
    pub crop: TrainCrop,
    /// Mirror every other picture, at random.
    pub flip: bool,
    /// Filter of the resize.
    pub interpolation: Interpolation,
    /// Random distortions after mirroring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub randaugment: Option<RandAugment>,
    /// Random rectangles that are covered at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasing: Option<RandomErasing>,
    /// JPEGs may be decoded at a half, a quarter or an eighth of their size, where their region stays as
    /// large as the result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub jpeg_scaling: bool,
}

/// Choice of the region that training sees.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TrainCrop {
    /// A rectangle of random area and shape, resized to a square (Szegedy et al. 2015).
    ///
    /// The area is uniform and the aspect ratio log-uniform, the rule of torchvision's
    /// `RandomResizedCrop`. The paper's code uses an area of `[0.05, 1.0]` and an aspect of
    /// `[0.75, 1.3333]`.
    Inception {
        /// Smallest and largest part of the picture's area, in `(0, 1]`.
        area: (f32, f32),
        /// Smallest and largest width ÷ height.
        aspect: (f32, f32),
    },
    /// The habit for CIFAR: resize to the result's size if need be, surround with black pixels and
    /// cut a random window of the result's size.
    Pad {
        /// Black pixels on each side.
        pixels: u32,
    },
    /// The whole picture, squashed to a square.
    None,
}

/// Preprocessing without randomness, for evaluation and prediction.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct EvalTransform {
    /// Side of the result, px.
    pub image_size: u32,
    /// Part of the picture that is seen.
    pub resize: EvalResize,
    /// Filter of the resize.
    pub interpolation: Interpolation,
    /// JPEGs may be decoded at a half, a quarter or an eighth of their size, where what is seen of them stays
    /// as large as the result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub jpeg_scaling: bool,
}

/// Mapping of the picture to a square in evaluation.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EvalResize {
    /// Resize the shorter side to `image_size / fraction` and cut the centre.
    ///
    /// Rounds as torchvision's `Resize` and `CenterCrop` do.
    ResmallCrop {
        /// Part of the shorter side that is seen, in `(0, 1]`; 0.875 is usual.
        fraction: f32,
    },
    /// The whole picture, squashed to a square. A picture that already has the size is not touched.
    Squash,
}

impl TrainTransform {
    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// [`DataError::BadSetting`] that names the setting, what it is and what is possible.
    pub fn check(&self) -> Result<(), DataError> {
        check_image_size(self.image_size)?;
        self.randaugment.as_ref().map_or(Ok(()), RandAugment::check)?;
        self.erasing.as_ref().map_or(Ok(()), RandomErasing::check)?;
        match self.crop {
            TrainCrop::Inception { area, aspect } => {
                check_range("crop.inception.area", area, 1.0)?;
                check_range("crop.inception.aspect", aspect, f32::INFINITY)
            }
            TrainCrop::Pad { pixels } if pixels > self.image_size => Err(DataError::BadSetting {
                setting: "crop.pad.pixels",
                found: pixels.to_string(),
                expected: format!("at most the image size {}", self.image_size),
            }),
            TrainCrop::Pad { .. } | TrainCrop::None => Ok(()),
        }
    }

    /// `true` where the same picture may come out differently another time.
    pub fn is_random(&self) -> bool {
        let moves = match self.crop {
            TrainCrop::Inception { .. } => true,
            TrainCrop::Pad { pixels } => pixels > 0,
            TrainCrop::None => false,
        };
        moves || self.flip || self.randaugment.is_some() || self.erasing.is_some()
    }

    /// Writes the augmented picture to `out`: cropped, mirrored, distorted, erased, in this order.
    ///
    /// # Shapes
    /// - `out`: `[image_size, image_size, 3]`
    ///
    /// # Determinism
    /// The numbers are drawn from `rng` in a fixed order, so that the result is a function of the
    /// picture and of what `rng` was keyed with.
    ///
    /// # Errors
    /// [`DataError::BadBuffer`] when a buffer does not have the size that belongs to its picture.
    pub fn apply(
        &self,
        image: &RgbImage,
        rng: &mut ExampleRng,
        resampler: &mut Resampler,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let region = self.choose_region(image.width, image.height, rng);
        let rows = Destination { layout: Layout::Rows, out };
        self.apply_to(image, region.into(), rng, resampler, rows, &mut ())
    }

    /// Draws which region of a picture [`TrainTransform::apply`] would look at.
    pub fn choose_region(&self, width: u32, height: u32, rng: &mut ExampleRng) -> Region {
        let (left, top, width, height) = match self.crop {
            TrainCrop::Inception { area, aspect } => {
                inception_crop(width, height, area, aspect, rng)
            }
            TrainCrop::Pad { .. } | TrainCrop::None => (0, 0, width, height),
        };
        Region { left, top, width, height }
    }

    /// [`TrainTransform::choose_region`], and how much smaller a JPEG may be decoded.
    pub fn choose_view(&self, width: u32, height: u32, rng: &mut ExampleRng) -> View {
        let region = self.choose_region(width, height, rng);
        let times = region.width.min(region.height) / self.image_size;
        View { region, times: if self.jpeg_scaling { times } else { 1 } }
    }

    /// [`TrainTransform::apply`], given only the region that [`TrainTransform::choose_view`] drew
    /// from the same `rng`.
    ///
    /// # Errors
    /// [`DataError::BadBuffer`] when a buffer does not have the size that belongs to its picture.
    pub fn apply_to_part(
        &self,
        part: &Part,
        rng: &mut ExampleRng,
        resampler: &mut Resampler,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let rows = Destination { layout: Layout::Rows, out };
        self.apply_to(&part.image, part.crop(), rng, resampler, rows, &mut ())
    }

    /// `true` where nothing comes behind resizing that needs the picture row by row.
    fn ends_with_resizing(&self) -> bool {
        let is_cut = matches!(self.crop, TrainCrop::Pad { .. });
        !is_cut && self.randaugment.is_none() && self.erasing.is_none()
    }

    /// Augments a region of a picture, and tells when it is resized and when it is done.
    ///
    /// Where nothing comes behind it, resizing also mirrors and stores the patches.
    pub(crate) fn apply_to(
        &self,
        image: &RgbImage,
        crop: Crop,
        rng: &mut ExampleRng,
        resampler: &mut Resampler,
        to: Destination<'_>,
        laps: &mut impl Laps,
    ) -> Result<(), DataError> {
        if self.ends_with_resizing() {
            let is_mirrored = self.flip && rng.coin();
            let output =
                Output { is_mirrored, layout: to.layout, ..Output::square(self.image_size) };
            resampler.crop_and_resize(image, crop, self.interpolation, output, to.out)?;
            laps.lap(Stage::Resize);
            laps.lap(Stage::Augment);
            return Ok(());
        }
        if to.layout == Layout::Rows {
            return self.augment(image, crop, rng, resampler, to.out, laps);
        }
        let mut picture = std::mem::take(&mut resampler.picture);
        picture.resize(to.out.len(), 0);
        let augmented = self.augment(image, crop, rng, resampler, &mut picture, laps);
        if augmented.is_ok() {
            let rows = picture.chunks_exact(self.image_size as usize * 3);
            rows.enumerate().for_each(|(y, row)| to.layout.store_row(row, y, to.out));
        }
        resampler.picture = picture;
        augmented
    }

    /// Augments a region of a picture, one thing after the other.
    fn augment(
        &self,
        image: &RgbImage,
        crop: Crop,
        rng: &mut ExampleRng,
        resampler: &mut Resampler,
        out: &mut [u8],
        laps: &mut impl Laps,
    ) -> Result<(), DataError> {
        let (size, output) = (self.image_size, Output::square(self.image_size));
        match self.crop {
            TrainCrop::Inception { .. } | TrainCrop::None => {
                resampler.crop_and_resize(image, crop, self.interpolation, output, out)?;
            }
            TrainCrop::Pad { pixels } => {
                let mut square = std::mem::take(&mut resampler.scratch);
                square.resize(out.len(), 0);
                let resized =
                    resampler.crop_and_resize(image, crop, self.interpolation, output, &mut square);
                let left = rng.below(2 * pixels + 1) as i64 - i64::from(pixels);
                let top = rng.below(2 * pixels + 1) as i64 - i64::from(pixels);
                if resized.is_ok() {
                    copy_window(&square, size as usize, left, top, out);
                }
                resampler.scratch = square;
                resized?;
            }
        }
        laps.lap(Stage::Resize);
        if self.flip && rng.coin() {
            mirror(out, size as usize);
        }
        // Behind the older draws, so that these mean the same with and without.
        if let Some(randaugment) = &self.randaugment {
            randaugment.apply(out, size as usize, rng, &mut resampler.scratch);
        }
        if let Some(erasing) = &self.erasing {
            erasing.apply(out, size as usize, rng);
        }
        laps.lap(Stage::Augment);
        Ok(())
    }
}

impl EvalTransform {
    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// [`DataError::BadSetting`] that names the setting, what it is and what is possible.
    pub fn check(&self) -> Result<(), DataError> {
        check_image_size(self.image_size)?;
        match self.resize {
            EvalResize::ResmallCrop { fraction } if !(fraction > 0.0 && fraction <= 1.0) => {
                Err(DataError::BadSetting {
                    setting: "resize.resmall_crop.fraction",
                    found: fraction.to_string(),
                    expected: "above 0 and at most 1".to_owned(),
                })
            }
            EvalResize::ResmallCrop { .. } | EvalResize::Squash => Ok(()),
        }
    }

    /// Writes the resized picture to `out`.
    ///
    /// # Shapes
    /// - `out`: `[image_size, image_size, 3]`
    ///
    /// # Errors
    /// [`DataError::BadBuffer`] when a buffer does not have the size that belongs to its picture.
    pub fn apply(
        &self,
        image: &RgbImage,
        resampler: &mut Resampler,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        self.apply_to(image, resampler, Destination { layout: Layout::Rows, out })
    }

    /// [`EvalTransform::apply`], stored in any layout.
    pub(crate) fn apply_to(
        &self,
        image: &RgbImage,
        resampler: &mut Resampler,
        Destination { layout, out }: Destination<'_>,
    ) -> Result<(), DataError> {
        let size = self.image_size;
        let output = Output { layout, ..Output::square(size) };
        match self.resize {
            EvalResize::ResmallCrop { fraction } => {
                let region = resmall_crop(image.width, image.height, size, fraction);
                resampler.resize_box(image, region, self.interpolation, output, out)
            }
            EvalResize::Squash => {
                let whole = image.whole();
                resampler.crop_and_resize(image, whole, self.interpolation, output, out)
            }
        }
    }

    /// Region of a picture that [`EvalTransform::apply`] looks at: the box, and around it what its
    /// filter reaches.
    pub fn choose_region(&self, width: u32, height: u32) -> Region {
        let EvalResize::ResmallCrop { fraction } = self.resize else {
            return Region { left: 0, top: 0, width, height };
        };
        let seen = resmall_crop(width, height, self.image_size, fraction);
        let reach = |start: f64, length: f64, most: u32| {
            // A filter widens when it shrinks a picture. One pixel more for what rounds.
            let scale = (length / f64::from(self.image_size)).max(1.0);
            let margin = self.interpolation.support() * scale + 1.0;
            // Both are inside the picture.
            let first = (start - margin).floor().max(0.0) as u32;
            let end = ((start + length + margin).ceil() as u32).min(most);
            (first, end - first)
        };
        let (left, width) = reach(seen.left, seen.width, width);
        let (top, height) = reach(seen.top, seen.height, height);
        Region { left, top, width, height }
    }

    /// [`EvalTransform::choose_region`], and how much smaller a JPEG may be decoded.
    pub fn choose_view(&self, width: u32, height: u32) -> View {
        let region = self.choose_region(width, height);
        let shorter = match self.resize {
            EvalResize::ResmallCrop { fraction } => {
                let seen = resmall_crop(width, height, self.image_size, fraction);
                seen.width.min(seen.height)
            }
            EvalResize::Squash => f64::from(width.min(height)),
        };
        let times = (shorter / f64::from(self.image_size)) as u32;
        View { region, times: if self.jpeg_scaling { times } else { 1 } }
    }

    /// [`EvalTransform::apply`], given only the region that [`EvalTransform::choose_view`] names.
    ///
    /// NUMERICS: the box has other coordinates in the part, so that a weight of the filter can round
    /// the other way: up to one grey level.
    ///
    /// # Errors
    /// [`DataError::BadBuffer`] when a buffer does not have the size that belongs to its picture.
    pub fn apply_to_part(
        &self,
        part: &Part,
        resampler: &mut Resampler,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        self.apply_to_part_in(part, resampler, Destination { layout: Layout::Rows, out })
    }

    /// [`EvalTransform::apply_to_part`], stored in any layout.
    pub(crate) fn apply_to_part_in(
        &self,
        part: &Part,
        resampler: &mut Resampler,
        to: Destination<'_>,
    ) -> Result<(), DataError> {
        let output = Output { layout: to.layout, ..Output::square(self.image_size) };
        let crop = match self.resize {
            EvalResize::ResmallCrop { fraction } => {
                let seen = resmall_crop(part.width, part.height, self.image_size, fraction);
                Crop { pixels: part.image.whole(), seen: part.locate(seen) }
            }
            EvalResize::Squash => part.crop(),
        };
        resampler.crop_and_resize(&part.image, crop, self.interpolation, output, to.out)
    }
}

fn check_image_size(image_size: u32) -> Result<(), DataError> {
    if (1..=4096).contains(&image_size) {
        return Ok(());
    }
    Err(DataError::BadSetting {
        setting: "image_size",
        found: image_size.to_string(),
        expected: "1 to 4096 px".to_owned(),
    })
}

fn check_range(setting: &'static str, (low, high): (f32, f32), most: f32) -> Result<(), DataError> {
    if low > 0.0 && low <= high && high <= most && high.is_finite() {
        return Ok(());
    }
    let limit = match most.is_finite() {
        true => format!(" and at most {most}"),
        false => String::new(),
    };
    Err(DataError::BadSetting {
        setting,
        found: format!("[{low}, {high}]"),
        expected: format!("[low, high] with low above 0, high not below low{limit}"),
    })
}

/// A random rectangle (left, top, width, height) inside a picture.
///
/// PARITY: torchvision's `RandomResizedCrop.get_params`, fall-back included.
fn inception_crop(
    width: u32,
    height: u32,
    area: (f32, f32),
    aspect: (f32, f32),
    rng: &mut ExampleRng,
) -> (u32, u32, u32, u32) {
    let full_area = f64::from(width) * f64::from(height);
    let (aspect_low, aspect_high) = (f64::from(aspect.0), f64::from(aspect.1));
    for _ in 0..CROP_ATTEMPTS {
        let target_area = full_area * rng.uniform_in(f64::from(area.0), f64::from(area.1));
        let ratio = rng.uniform_in(aspect_low.ln(), aspect_high.ln()).exp();
        let crop_width = (target_area * ratio).sqrt().round_ties_even() as u32;
        let crop_height = (target_area / ratio).sqrt().round_ties_even() as u32;
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            let left = rng.below(width - crop_width + 1);
            let top = rng.below(height - crop_height + 1);
            return (left, top, crop_width, crop_height);
        }
    }
    let ratio = (f64::from(width) / f64::from(height)).clamp(aspect_low, aspect_high);
    let side = |length: f64, most: u32| (length.round_ties_even() as u32).clamp(1, most);
    let crop_width = side(f64::from(height) * ratio, width);
    let crop_height = side(f64::from(width) / ratio, height);
    let (left, top) = ((width - crop_width) / 2, (height - crop_height) / 2);
    (left, top, crop_width, crop_height)
}

/// The box of the source picture that resizing the shorter side and cutting the centre would show.
///
/// PARITY: torchvision truncates the longer side and rounds the centre offset half to even.
fn resmall_crop(width: u32, height: u32, size: u32, fraction: f32) -> FractionalBox {
    // In f32 as the fraction is: 224 / 0.875 is 256 either way, but 0.9f32 is above 0.9.
    let short = ((size as f32 / fraction) as u64).clamp(u64::from(size), u64::from(u32::MAX));
    let scaled = |long: u32, by: u32| short * u64::from(long) / u64::from(by);
    let (resized_width, resized_height) = match width <= height {
        true => (short, scaled(height, width)),
        false => (scaled(width, height), short),
    };
    let extent = |source: u32, resized: u64| {
        let offset = ((resized - u64::from(size)) as f64 / 2.0).round_ties_even();
        let scale = f64::from(source) / resized as f64;
        let (start, mut length) = (offset * scale, f64::from(size) * scale);
        // Rounding must not carry the box beyond the picture.
        while start + length > f64::from(source) {
            length = length.next_down();
        }
        (start, length)
    };
    let (left, width) = extent(width, resized_width);
    let (top, height) = extent(height, resized_height);
    FractionalBox { left, top, width, height }
}

/// Copies the window of a square picture that starts at (left, top), which may lie outside;
/// what is outside is black.
fn copy_window(square: &[u8], side: usize, left: i64, top: i64, out: &mut [u8]) {
    out.fill(0);
    let (shift_x, shift_y) = (left.unsigned_abs() as usize, top.unsigned_abs() as usize);
    if shift_x >= side || shift_y >= side {
        return;
    }
    let (source_x, target_x) = if left > 0 { (shift_x, 0) } else { (0, shift_x) };
    let (source_y, target_y) = if top > 0 { (shift_y, 0) } else { (0, shift_y) };
    let bytes = (side - shift_x) * 3;
    for row in 0..side - shift_y {
        let source = ((source_y + row) * side + source_x) * 3;
        let target = ((target_y + row) * side + target_x) * 3;
        out[target..target + bytes].copy_from_slice(&square[source..source + bytes]);
    }
}

/// Mirrors a square picture left to right.
fn mirror(pixels: &mut [u8], side: usize) {
    for row in pixels.chunks_exact_mut(side * 3) {
        let (row, _) = row.as_chunks_mut::<3>();
        row.reverse();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::part::Scale;

    fn picture(width: u32, height: u32) -> RgbImage {
        let mut rng = ExampleRng::new(0, 0, 0, 0);
        let len = (width * height * 3) as usize;
        RgbImage { width, height, pixels: (0..len).map(|_| rng.next_u64() as u8).collect() }
    }

    fn train(crop: TrainCrop, flip: bool, image_size: u32) -> TrainTransform {
        TrainTransform {
            image_size,
            crop,
            flip,
            interpolation: Interpolation::Bilinear,
            randaugment: None,
            erasing: None,
            jpeg_scaling: false,
        }
    }

    fn apply(transform: &TrainTransform, image: &RgbImage, index: u64) -> Vec<u8> {
        let mut out = vec![0; (transform.image_size * transform.image_size * 3) as usize];
        let mut rng = ExampleRng::new(1, 2, index, 0);
        transform.apply(image, &mut rng, &mut Resampler::new(), &mut out).unwrap();
        out
    }

    const INCEPTION: TrainCrop = TrainCrop::Inception { area: (0.05, 1.0), aspect: (0.75, 1.3333) };

    proptest! {
        #[test]
        fn inception_crops_lie_inside(
            width in 1u32..3000, height in 1u32..3000, index: u64,
            area_low in 0.01f32..1.0, aspect_low in 0.1f32..1.0, aspect_high in 1.0f32..10.0,
        ) {
            let mut rng = ExampleRng::new(0, 0, index, 0);
            let (area, aspect) = ((area_low, 1.0), (aspect_low, aspect_high));
            let (left, top, w, h) = inception_crop(width, height, area, aspect, &mut rng);
            prop_assert!(w >= 1 && h >= 1 && left + w <= width && top + h <= height);
        }

        #[test]
        fn resmall_boxes_lie_inside(
            width in 1u32..=16384, height in 1u32..=16384, size in 1u32..=4096, fraction in 1e-6f32..=1.0,
        ) {
            let seen = resmall_crop(width, height, size, fraction);
            prop_assert!(seen.left >= 0.0 && seen.top >= 0.0 && seen.width > 0.0 && seen.height > 0.0);
            prop_assert!(seen.left + seen.width <= f64::from(width));
            prop_assert!(seen.top + seen.height <= f64::from(height));
        }

        #[test]
        fn any_picture_passes_every_transform(
            width in 1u32..60, height in 1u32..60, size in 1u32..40, index: u64,
        ) {
            let image = picture(width, height);
            for crop in [INCEPTION, TrainCrop::Pad { pixels: size / 8 }, TrainCrop::None] {
                apply(&train(crop, true, size), &image, index);
            }
            for resize in [EvalResize::ResmallCrop { fraction: 0.875 }, EvalResize::Squash] {
                let interpolation = Interpolation::Bicubic;
                let transform = EvalTransform { image_size: size, resize, interpolation, jpeg_scaling: false };
                let mut out = vec![0; (size * size * 3) as usize];
                transform.apply(&image, &mut Resampler::new(), &mut out).unwrap();
            }
        }
    }

    #[test]
    fn a_part_gives_what_the_whole_picture_gives() {
        let part_of = |image: &RgbImage, region: Region| {
            let pixels = image.cut(region);
            Part {
                image: pixels,
                region,
                scale: Scale::Full,
                width: image.width,
                height: image.height,
            }
        };
        for (index, (width, height)) in
            [(50, 40), (31, 90), (200, 170), (7, 9)].into_iter().enumerate()
        {
            let image = picture(width, height);
            for crop in [INCEPTION, TrainCrop::Pad { pixels: 3 }, TrainCrop::None] {
                let transform = train(crop, true, 24);
                let mut rng = ExampleRng::new(1, 2, index as u64, 0);
                let part = part_of(&image, transform.choose_region(width, height, &mut rng));
                let mut out = vec![0; 24 * 24 * 3];
                transform.apply_to_part(&part, &mut rng, &mut Resampler::new(), &mut out).unwrap();
                assert_eq!(out, apply(&transform, &image, index as u64));
            }
            for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
                let resize = EvalResize::ResmallCrop { fraction: 0.5 };
                let transform =
                    EvalTransform { image_size: 24, resize, interpolation, jpeg_scaling: false };
                let region = transform.choose_region(width, height);
                let (mut whole, mut out) = (vec![0; 24 * 24 * 3], vec![0; 24 * 24 * 3]);
                transform.apply(&image, &mut Resampler::new(), &mut whole).unwrap();
                let part = part_of(&image, region);
                transform.apply_to_part(&part, &mut Resampler::new(), &mut out).unwrap();
                let max = out.iter().zip(&whole).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(max <= 1, "{width}x{height}, {region:?}: {max} grey levels");
            }
        }
    }

    #[test]
    fn inception_crops_follow_the_area_and_aspect_they_are_given() {
        let (mut areas, mut ratios) = (0.0, 0.0);
        let count = 4000;
        for index in 0..count {
            let mut rng = ExampleRng::new(3, 0, index, 0);
            let (_, _, w, h) =
                inception_crop(1000, 1000, (0.05, 0.5), (0.75, 1.0 / 0.75), &mut rng);
            areas += f64::from(w * h) / 1e6;
            ratios += (f64::from(w) / f64::from(h)).ln();
        }
        let (area, ratio) = (areas / count as f64, ratios / count as f64);
        assert!((area - 0.275).abs() < 0.01, "mean area {area}");
        assert!(ratio.abs() < 0.02, "mean log aspect {ratio}");
    }

    #[test]
    fn a_crop_equals_cropping_first() {
        let image = picture(40, 30);
        let (left, top, width, height) = (7u32, 5u32, 21u32, 18u32);
        let mut cropped = Vec::new();
        for row in top..top + height {
            let start = ((row * image.width + left) * 3) as usize;
            cropped.extend_from_slice(&image.pixels[start..start + (width * 3) as usize]);
        }
        let cropped = RgbImage { width, height, pixels: cropped };
        let mut resampler = Resampler::new();
        let (mut found, mut expected) = ([0; 12 * 12 * 3], [0; 12 * 12 * 3]);
        let (region, filter) = (Region { left, top, width, height }, Interpolation::Bilinear);
        let output = Output::square(12);
        resampler.crop_and_resize(&image, region, filter, output, &mut found).unwrap();
        let whole = cropped.whole();
        resampler.crop_and_resize(&cropped, whole, filter, output, &mut expected).unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn squash_leaves_a_picture_of_the_right_size_untouched() {
        let image = picture(16, 16);
        let mut out = vec![0; 16 * 16 * 3];
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            for resize in [EvalResize::Squash, EvalResize::ResmallCrop { fraction: 1.0 }] {
                let transform =
                    EvalTransform { image_size: 16, resize, interpolation, jpeg_scaling: false };
                transform.apply(&image, &mut Resampler::new(), &mut out).unwrap();
                assert_eq!(out, image.pixels);
            }
        }
        assert_eq!(apply(&train(TrainCrop::None, false, 16), &image, 0), image.pixels);
    }

    #[test]
    fn flipping_mirrors_about_half_of_the_pictures() {
        let image = picture(8, 8);
        let mut mirrored = image.pixels.clone();
        mirror(&mut mirrored, 8);
        assert_eq!(mirrored[..3], image.pixels[7 * 3..8 * 3]);
        let flipped = (0..1000).filter(|&index| {
            let out = apply(&train(TrainCrop::None, true, 8), &image, index);
            assert!(out == image.pixels || out == mirrored);
            out == mirrored
        });
        assert!((400..600).contains(&flipped.count()));
    }

    #[test]
    fn padded_crops_are_windows_of_the_padded_picture() {
        let (side, pad) = (8i64, 2i64);
        let image = picture(8, 8);
        let transform = train(TrainCrop::Pad { pixels: 2 }, false, 8);
        let window = |left: i64, top: i64| {
            let mut out = Vec::new();
            for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y + top, x + left))) {
                let inside = (0..side).contains(&y) && (0..side).contains(&x);
                let at = (y * side + x) as usize * 3;
                out.extend(if inside { image.pixels[at..at + 3].to_vec() } else { vec![0; 3] });
            }
            out
        };
        let windows: Vec<Vec<u8>> = (-pad..=pad)
            .flat_map(|top| (-pad..=pad).map(move |left| (left, top)))
            .map(|(left, top)| window(left, top))
            .collect();
        let mut seen = vec![false; windows.len()];
        for index in 0..500 {
            let out = apply(&transform, &image, index);
            let which = windows.iter().position(|window| *window == out).unwrap();
            seen[which] = true;
        }
        assert!(seen.iter().all(|&seen| seen), "every window appears");
    }

    #[test]
    fn an_augmented_picture_is_pinned() {
        // Changing this breaks resume of existing runs.
        let out = apply(&train(INCEPTION, true, 24), &picture(50, 40), 17);
        let hash = out.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        assert_eq!(hash, 1_110_561_196_182_151_821);
    }

    #[test]
    fn distortion_comes_behind_crop_and_mirror_and_before_erasing() {
        let image = picture(50, 40);
        let plain = train(INCEPTION, true, 24);
        let randaugment = RandAugment::BigVision { layers: 2, magnitude: 15.0 };
        let erasing: RandomErasing = serde_json::from_str(r#"{"probability": 1}"#).unwrap();
        let augmented = TrainTransform {
            randaugment: Some(randaugment.clone()),
            erasing: Some(erasing.clone()),
            ..plain.clone()
        };
        for index in 0..50 {
            let mut expected = vec![0; 24 * 24 * 3];
            let mut rng = ExampleRng::new(1, 2, index, 0);
            let mut resampler = Resampler::new();
            plain.apply(&image, &mut rng, &mut resampler, &mut expected).unwrap();
            randaugment.apply(&mut expected, 24, &mut rng, &mut Vec::new());
            erasing.apply(&mut expected, 24, &mut rng);
            assert_eq!(apply(&augmented, &image, index), expected);
        }
    }

    #[test]
    fn plans_from_before_augmentation_still_parse_and_are_written_as_before() {
        let text = r#"{"image_size":24,"crop":"none","flip":true,"interpolation":"bilinear"}"#;
        let parsed: TrainTransform = serde_json::from_str(text).unwrap();
        assert_eq!(parsed, train(TrainCrop::None, true, 24));
        assert_eq!(serde_json::to_string(&parsed).unwrap(), text);
    }

    #[test]
    fn settings_without_a_meaning_are_refused() {
        let inception =
            |area, aspect| train(TrainCrop::Inception { area, aspect }, false, 32).check();
        assert!(inception((0.05, 1.0), (0.75, 1.33)).is_ok());
        assert_eq!(
            inception((0.5, 0.2), (0.75, 1.33)).unwrap_err().to_string(),
            "found `crop.inception.area = [0.5, 0.2]`, expected [low, high] with low above 0, high \
             not below low and at most 1"
        );
        assert!(inception((0.0, 1.0), (0.75, 1.33)).is_err());
        assert!(inception((0.1, f32::NAN), (0.75, 1.33)).is_err());
        assert!(inception((0.1, 1.0), (0.75, f32::INFINITY)).is_err());
        assert!(train(TrainCrop::Pad { pixels: 33 }, false, 32).check().is_err());
        assert!(train(TrainCrop::None, false, 0).check().is_err());
        let layers = RandAugment::BigVision { layers: 99, magnitude: 15.0 };
        let augmented =
            TrainTransform { randaugment: Some(layers), ..train(TrainCrop::None, false, 32) };
        assert!(augmented.check().is_err());
        for fraction in [0.0, 1.01, f32::NAN] {
            let resize = EvalResize::ResmallCrop { fraction };
            let interpolation = Interpolation::Bilinear;
            assert!(
                EvalTransform { image_size: 8, resize, interpolation, jpeg_scaling: false }
                    .check()
                    .is_err()
            );
        }
    }

    #[test]
    fn a_picture_with_the_wrong_number_of_pixels_is_an_error() {
        let mut image = picture(4, 4);
        image.pixels.pop();
        let mut out = vec![0; 12];
        let mut rng = ExampleRng::new(0, 0, 0, 0);
        let outcome = train(TrainCrop::None, false, 2).apply(
            &image,
            &mut rng,
            &mut Resampler::new(),
            &mut out,
        );
        assert_eq!(outcome.unwrap_err().to_string(), "found an image of 47 bytes, expected 48");
    }
}
