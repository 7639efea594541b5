//! Antialiased resizing of a region.
//!
//! A resize goes down the columns first and then along the rows. Both passes are sums of products of
//! integers, in vector instructions where the processor has them, so that every processor makes the
//! same bytes. Mirroring and cutting into patches come with it: the first is an order of the columns,
//! the second a place for each row that is made.

use crate::decode::part::Region;
use crate::decode::rgb_image::RgbImage;
use crate::error::DataError;
use crate::resample::interpolation::Interpolation;
use crate::resample::passes::{COLOURS, Columns, MARGIN, Passes, ROWS};
use crate::resample::patches::Layout;
use crate::resample::portable::Portable;
#[cfg(target_arch = "x86_64")]
use crate::resample::vector::{Avx2, Avx512, Groups};
use crate::resample::weights::{Axis, Weights};

/// A rectangle of a picture whose edges may lie between pixels, px.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FractionalBox {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

/// A crop of a picture, and the box of it that is resized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Crop {
    /// The pixels that contribute.
    pub(crate) pixels: Region,
    /// The box, whose place is that in the crop.
    pub(crate) seen: FractionalBox,
}

impl From<Region> for Crop {
    fn from(pixels: Region) -> Self {
        let (width, height) = (f64::from(pixels.width), f64::from(pixels.height));
        Self { pixels, seen: FractionalBox { left: 0.0, top: 0.0, width, height } }
    }
}

/// The form of a resize's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// Width, px.
    pub(crate) width: u32,
    /// Height, px.
    pub(crate) height: u32,
    /// `true` where left and right change places.
    pub(crate) is_mirrored: bool,
    /// Layout of the pixels.
    pub(crate) layout: Layout,
}

impl Output {
    /// A square picture, row by row.
    pub(crate) fn square(side: u32) -> Self {
        Self { width: side, height: side, is_mirrored: false, layout: Layout::Rows }
    }
}

/// Implementation of the passes that is used. The bytes are the same.
enum Processor {
    Any,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512, Groups),
}

impl Processor {
    /// All that this processor has; the last is the fastest.
    fn all() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let in_vectors = [
            Avx2::detect().map(Self::Avx2),
            Avx512::detect().map(|avx512| Self::Avx512(avx512, Groups::default())),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let in_vectors = [];
        [Some(Self::Any)].into_iter().chain(in_vectors).flatten().collect()
    }
}

/// Resizes regions of pictures; keeps its working memory between calls.
///
/// # Determinism
/// The bytes depend on the picture, the region, the size and the filter, and not on the processor.
pub struct Resampler {
    processor: Processor,
    down: Weights,
    across: Weights,
    offsets: Vec<u32>,
    /// Rows between the passes.
    between: Vec<i16>,
    /// Rows that are not stored yet.
    rows: Vec<u8>,
    /// Working memory of callers that need a second picture.
    pub(crate) scratch: Vec<u8>,
    /// Working memory of callers that need a picture row by row before they store it in patches.
    pub(crate) picture: Vec<u8>,
}

impl Default for Resampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Resampler {
    /// A resampler for this processor, without working memory yet.
    pub fn new() -> Self {
        Self::on(Processor::all().pop().unwrap_or(Processor::Any))
    }

    fn on(processor: Processor) -> Self {
        Self {
            processor,
            down: Weights::default(),
            across: Weights::default(),
            offsets: Vec::new(),
            between: Vec::new(),
            rows: Vec::new(),
            scratch: Vec::new(),
            picture: Vec::new(),
        }
    }

    /// Crops whole pixels and resizes them, or a box of them.
    ///
    /// Pixels outside the crop do not contribute, so that it equals cropping first.
    ///
    /// # Errors
    /// [`DataError::BadBuffer`] when a buffer does not have the size that belongs to its picture, and
    /// [`DataError::BadRegion`] when the crop is empty or leaves the picture.
    pub(crate) fn crop_and_resize(
        &mut self,
        image: &RgbImage,
        crop: impl Into<Crop>,
        interpolation: Interpolation,
        output: Output,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let Crop { pixels, seen } = crop.into();
        self.resize(image, pixels, seen, interpolation, output, out)
    }

    /// Resizes a box.
    ///
    /// Pixels around the box contribute at its edges, so that it equals resizing everything and
    /// cropping afterwards.
    ///
    /// # Errors
    /// As [`Resampler::crop_and_resize`].
    pub(crate) fn resize_box(
        &mut self,
        image: &RgbImage,
        region: FractionalBox,
        interpolation: Interpolation,
        output: Output,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        self.resize(image, image.whole(), region, interpolation, output, out)
    }

    /// Resizes a box of a crop; pixels outside the crop do not contribute.
    fn resize(
        &mut self,
        image: &RgbImage,
        crop: Region,
        region: FractionalBox,
        interpolation: Interpolation,
        output: Output,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        check_buffer("an image", image.pixels.len(), image.width, image.height)?;
        check_buffer("an output buffer", out.len(), output.width, output.height)?;
        check_region(image, crop, region)?;
        let Output { width, height, is_mirrored, layout } = output;
        let is_kept =
            |start: f64, length: f64, results: u32| start == 0.0 && length == f64::from(results);
        if is_kept(region.left, region.width, width) && is_kept(region.top, region.height, height) {
            self.copy(image, crop, output, out);
            return Ok(());
        }

        self.down.prepare(
            Axis {
                start: region.top,
                length: region.height,
                num_pixels: crop.height,
                num_results: height,
                is_mirrored: false,
            },
            interpolation,
        );
        self.across.prepare(
            Axis {
                start: region.left,
                length: region.width,
                num_pixels: crop.width,
                num_results: width,
                is_mirrored,
            },
            interpolation,
        );
        let span = self.across.span();
        self.offsets.clear();
        let offset = |first: usize| ((first - span.start) * COLOURS) as u32;
        self.offsets.extend(self.across.windows().iter().map(|window| offset(window.first)));

        let stride = image.width as usize * COLOURS;
        let left = (crop.left as usize + span.start) * COLOURS;
        let job = Job {
            source: &image.pixels[crop.top as usize * stride + left..],
            stride,
            length: span.len() * COLOURS,
            width: width as usize,
            height: height as usize,
            down: &self.down,
            across: Columns { offsets: &self.offsets, weights: &self.across },
            layout,
        };
        let (between, rows) = (&mut self.between, &mut self.rows);
        match &mut self.processor {
            Processor::Any => job.run(Portable, between, rows, out),
            #[cfg(target_arch = "x86_64")]
            Processor::Avx2(avx2) => job.run(*avx2, between, rows, out),
            #[cfg(target_arch = "x86_64")]
            Processor::Avx512(avx512, groups) => {
                groups.prepare(&job.across);
                job.run(avx512.passes(groups), between, rows, out);
            }
        }
        Ok(())
    }
}

impl Resampler {
    /// Resizing to the same size: the window of each result is one pixel.
    fn copy(&mut self, image: &RgbImage, crop: Region, output: Output, out: &mut [u8]) {
        let Output { width, height, is_mirrored, layout } = output;
        let (stride, length) = (image.width as usize * COLOURS, width as usize * COLOURS);
        let first = crop.top as usize * stride + crop.left as usize * COLOURS;
        for y in 0..height as usize {
            let row = &image.pixels[first + y * stride..][..length];
            if is_mirrored {
                self.rows.clear();
                self.rows.extend(row.as_chunks::<COLOURS>().0.iter().rev().flatten());
                layout.store_row(&self.rows, y, out);
            } else {
                layout.store_row(row, y, out);
            }
        }
    }
}

/// A resize whose weights are known.
struct Job<'a> {
    /// From the first value that contributes on.
    source: &'a [u8],
    /// From a row of the picture to the next, in values.
    stride: usize,
    /// Values of a row that contribute.
    length: usize,
    /// Size of the result, px.
    width: usize,
    height: usize,
    down: &'a Weights,
    across: Columns<'a>,
    layout: Layout,
}

impl Job<'_> {
    fn run<P: Passes>(self, passes: P, between: &mut Vec<i16>, rows: &mut Vec<u8>, out: &mut [u8]) {
        // Windows are padded with zero weights to an equal number of taps.
        let between_stride = self.length + self.across.weights.taps() * COLOURS + MARGIN;
        let row = self.width * COLOURS;
        let rows_stride = row + MARGIN;
        between.clear();
        between.resize(ROWS * between_stride, 0);
        rows.resize(ROWS * rows_stride, 0);
        let (windows, bits) = (self.down.windows(), self.down.bits());
        for top in (0..self.height).step_by(ROWS) {
            // Behind the last row of an odd number remains what was there, and is not stored.
            let count = ROWS.min(self.height - top);
            for (y, between) in (top..top + count).zip(between.chunks_exact_mut(between_stride)) {
                let source = &self.source[windows[y].first * self.stride..];
                let weights = self.down.of(y);
                passes.vertical(source, self.stride, weights, bits, &mut between[..self.length]);
            }
            passes.horizontal(between, &self.across, rows);
            for (y, made) in (top..top + count).zip(rows.chunks_exact(rows_stride)) {
                self.layout.store_row(&made[..row], y, out);
            }
        }
    }
}

fn check_buffer(
    what: &'static str,
    found: usize,
    width: u32,
    height: u32,
) -> Result<(), DataError> {
    let expected = width as usize * height as usize * COLOURS;
    match found == expected && expected > 0 {
        true => Ok(()),
        false => Err(DataError::BadBuffer { what, found, expected }),
    }
}

/// Refuses regions that are empty or leave their picture by more than rounding does.
fn check_region(image: &RgbImage, crop: Region, region: FractionalBox) -> Result<(), DataError> {
    const ROUNDING_PX: f64 = 1e-6;
    let is_inside = |start: f64, length: f64, limit: u32| {
        start >= -ROUNDING_PX && length > 0.0 && start + length <= f64::from(limit) + ROUNDING_PX
    };
    let is_part =
        |start: u32, length: u32, limit: u32| is_inside(f64::from(start), f64::from(length), limit);
    if is_part(crop.left, crop.width, image.width)
        && is_part(crop.top, crop.height, image.height)
        && is_inside(region.left, region.width, crop.width)
        && is_inside(region.top, region.height, crop.height)
    {
        return Ok(());
    }
    Err(DataError::BadRegion {
        left: f64::from(crop.left) + region.left,
        top: f64::from(crop.top) + region.top,
        region_width: region.width,
        region_height: region.height,
        width: image.width,
        height: image.height,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resample::patches::patchify;

    fn noise(width: u32, height: u32, seed: u32) -> RgbImage {
        let mut state = seed;
        let pixels = (0..width * height * 3).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Black and white are frequent, so that cubic weights overshoot.
            match state >> 24 {
                0..64 => 0,
                192.. => 255,
                other => other as u8,
            }
        });
        RgbImage { width, height, pixels: pixels.collect() }
    }

    /// `resize_box` of a square, row by row.
    fn resized(
        image: &RgbImage,
        (left, top, width, height): (f64, f64, f64, f64),
        side: u32,
        interpolation: Interpolation,
    ) -> Vec<u8> {
        let mut out = vec![0; (side * side * 3) as usize];
        let region = FractionalBox { left, top, width, height };
        let output = Output::square(side);
        Resampler::new().resize_box(image, region, interpolation, output, &mut out).unwrap();
        out
    }

    fn length() -> impl Strategy<Value = u32> {
        prop_oneof![1u32..9, 1u32..150]
    }

    /// A start and a length inside of `whole`, which may touch its edges.
    fn extent((start, length): (f64, f64), whole: u32) -> (f64, f64) {
        let length = length * f64::from(whole);
        (start * (f64::from(whole) - length), length)
    }

    fn fraction() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), Just(1.0), 0.0f64..1.0]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]

        #[test]
        fn every_processor_makes_the_same_bytes(
            (width, height, seed) in (length(), length(), any::<u32>()),
            (out_width, out_height) in (length(), length()),
            (across, down) in ((fraction(), 0.01f64..=1.0), (fraction(), 0.01f64..=1.0)),
            (interpolation, is_mirrored) in (prop::sample::select(&Interpolation::ALL[..]), any::<bool>()),
        ) {
            let image = noise(width, height, seed);
            let ((left, width), (top, height)) = (extent(across, width), extent(down, height));
            let region = FractionalBox { left, top, width, height };
            let output =
                Output { width: out_width, height: out_height, is_mirrored, layout: Layout::Rows };
            let mut portable = vec![0; (out_width * out_height * 3) as usize];
            Resampler::on(Processor::Any)
                .resize_box(&image, region, interpolation, output, &mut portable)
                .unwrap();
            for mut resampler in Processor::all().into_iter().map(Resampler::on) {
                // The second time with memory of another resize.
                for _ in 0..2 {
                    let mut out = vec![7; portable.len()];
                    resampler
                        .resize_box(&image, region, interpolation, output, &mut out)
                        .unwrap();
                    prop_assert_eq!(&out, &portable);
                    let other = noise(9, 8, seed);
                    resampler
                        .crop_and_resize(&other, other.whole(), interpolation, Output::square(5), &mut [0; 75])
                        .unwrap();
                }
            }
        }

        #[test]
        fn results_are_within_a_level_of_the_exact_sums(
            (width, height, seed) in (length(), length(), any::<u32>()),
            side in 1u32..60,
            interpolation in prop::sample::select(&Interpolation::ALL[..]),
        ) {
            // Half a level from rounding to bytes, the rest from weights and between the passes.
            const TOLERANCE: f64 = 0.55;
            let image = noise(width, height, seed);
            let whole = (0.0, 0.0, f64::from(width), f64::from(height));
            let found = resized(&image, whole, side, interpolation);
            let (down, across) = (exact(height, side, interpolation), exact(width, side, interpolation));
            for (at, found) in found.into_iter().enumerate() {
                let (y, x, colour) = (at / 3 / side as usize, at / 3 % side as usize, at % 3);
                let mut sum = 0.0;
                for (row, down) in down[y].iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                    let row = &image.pixels[row * width as usize * 3..][..width as usize * 3];
                    let values = row.iter().skip(colour).step_by(3);
                    let along = values.zip(&across[x]).map(|(&value, weight)| f64::from(value) * weight);
                    sum += down * along.sum::<f64>();
                }
                let difference = (sum.clamp(0.0, 255.0) - f64::from(found)).abs();
                prop_assert!(difference <= TOLERANCE, "{} levels", difference);
            }
        }

        #[test]
        fn mirroring_and_patches_are_what_they_are_one_after_the_other(
            (width, height, seed) in (length(), length(), any::<u32>()),
            (patch_size, grid) in (1u32..20, 1u32..5),
            interpolation in prop::sample::select(&Interpolation::ALL[..]),
        ) {
            let image = noise(width, height, seed);
            let side = patch_size * grid;
            let mut plain = vec![0; (side * side * 3) as usize];
            let mut resampler = Resampler::new();
            let mut resize = |output: Output, out: &mut [u8]| {
                resampler.crop_and_resize(&image, image.whole(), interpolation, output, out).unwrap();
            };
            resize(Output::square(side), &mut plain);
            for row in plain.chunks_exact_mut(side as usize * 3) {
                row.as_chunks_mut::<3>().0.reverse();
            }
            let (mut expected, mut found) = (plain.clone(), vec![0; plain.len()]);
            patchify(&plain, side, patch_size, &mut expected).unwrap();
            let layout = Layout::Patches { patch_size: patch_size as usize };
            resize(Output { is_mirrored: true, layout, ..Output::square(side) }, &mut found);
            prop_assert_eq!(found, expected);
        }
    }

    /// Weights of all pixels for each result, by the definition of the filters.
    fn exact(num_pixels: u32, num_results: u32, interpolation: Interpolation) -> Vec<Vec<f64>> {
        let scale = f64::from(num_pixels) / f64::from(num_results);
        let filter = |x: f64| match (interpolation, x.abs()) {
            (Interpolation::Bilinear, x) => (1.0 - x).max(0.0),
            (Interpolation::Area, _) => f64::from(u8::from(x > -0.5 + 1e-9 && x <= 0.5 + 1e-9)),
            (_, x) if x < 1.0 => 1.5 * x * x * x - 2.5 * x * x + 1.0,
            (_, x) if x < 2.0 => -0.5 * x * x * x + 2.5 * x * x - 4.0 * x + 2.0,
            _ => 0.0,
        };
        let row = |result: u32| {
            let centre = (f64::from(result) + 0.5) * scale;
            let weight = |pixel: u32| filter((f64::from(pixel) + 0.5 - centre) / scale.max(1.0));
            let weights: Vec<f64> = (0..num_pixels).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            weights.into_iter().map(|weight| weight / sum).collect()
        };
        (0..num_results).map(row).collect()
    }

    #[test]
    fn the_longest_and_the_smallest_pictures_are_resized() {
        for (width, height) in [(16_384, 1), (1, 16_384), (16_384, 3), (1, 1), (5, 4_097)] {
            let image = noise(width, height, width);
            for interpolation in Interpolation::ALL {
                for (width, height) in [(1, 1), (1, 300), (300, 1), (4_096, 2), (33, 31)] {
                    let output = Output { width, height, is_mirrored: true, layout: Layout::Rows };
                    let mut portable = vec![0; (width * height * 3) as usize];
                    Resampler::on(Processor::Any)
                        .crop_and_resize(
                            &image,
                            image.whole(),
                            interpolation,
                            output,
                            &mut portable,
                        )
                        .unwrap();
                    for mut resampler in Processor::all().into_iter().map(Resampler::on) {
                        let mut out = vec![0; portable.len()];
                        resampler
                            .crop_and_resize(&image, image.whole(), interpolation, output, &mut out)
                            .unwrap();
                        assert!(out == portable, "{interpolation:?} to {width}x{height}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_single_colour_stays_that_colour() {
        for value in 0..=255 {
            let image = RgbImage { width: 31, height: 17, pixels: vec![value; 31 * 17 * 3] };
            for interpolation in Interpolation::ALL {
                for side in [5, 64] {
                    let out = resized(&image, (0.3, 0.7, 29.9, 15.2), side, interpolation);
                    assert!(out.iter().all(|&found| found == value), "{interpolation:?}");
                }
            }
        }
    }

    #[test]
    fn a_picture_of_the_right_size_is_only_mirrored_and_cut() {
        let image = noise(36, 37, 1);
        let crop = Region { left: 0, top: 1, width: 36, height: 36 };
        let cropped = &image.pixels[36 * 3..];
        let mut mirrored = cropped.to_vec();
        mirrored.chunks_exact_mut(36 * 3).for_each(|row| row.as_chunks_mut::<3>().0.reverse());
        for (is_mirrored, picture) in [(false, cropped), (true, &mirrored)] {
            let mut expected = vec![0; picture.len()];
            patchify(picture, 36, 9, &mut expected).unwrap();
            for interpolation in Interpolation::ALL {
                let mut out = vec![0; picture.len()];
                let mut resize = |layout| {
                    let output = Output { is_mirrored, layout, ..Output::square(36) };
                    let mut resampler = Resampler::new();
                    resampler
                        .crop_and_resize(&image, crop, interpolation, output, &mut out)
                        .unwrap();
                    out.clone()
                };
                assert_eq!(resize(Layout::Rows), picture);
                assert_eq!(resize(Layout::Patches { patch_size: 9 }), expected);
            }
        }
    }

    #[test]
    fn a_region_that_rounding_carried_out_of_the_picture_is_resized_and_any_other_refused() {
        let image = noise(8, 6, 1);
        let resize = |left, top, width, height| {
            let region = FractionalBox { left, top, width, height };
            let (output, out) = (Output::square(4), &mut [0; 48]);
            Resampler::new().resize_box(&image, region, Interpolation::Bicubic, output, out)
        };
        assert!(resize(-1e-12, 0.0, 8.0 + 2e-12, 6.0).is_ok());
        assert_eq!(
            resize(1.5, 2.0, 7.0, 4.0).unwrap_err().to_string(),
            "found a region of 7x4 px at (1.5, 2), expected one inside of 8x6 px"
        );
        assert!(resize(-0.1, 0.0, 4.0, 4.0).is_err());
        assert!(resize(0.0, 0.0, 0.0, 4.0).is_err());
        assert!(resize(0.0, f64::NAN, 4.0, 4.0).is_err());
        assert!(resize(0.0, 0.0, 4.0, f64::INFINITY).is_err());
        let crop = Region { left: 5, top: 0, width: u32::MAX, height: 6 };
        let output = Output::square(4);
        let outcome = Resampler::new().crop_and_resize(
            &image,
            crop,
            Interpolation::Area,
            output,
            &mut [0; 48],
        );
        assert!(matches!(outcome, Err(DataError::BadRegion { .. })), "{outcome:?}");
    }

    #[test]
    fn enlarging_a_box_that_begins_on_a_pixel_centre_begins_with_that_pixel() {
        let image = noise(12, 12, 1);
        for scale in [0.5, 0.25, 0.4] {
            let start = 4.5 - scale / 2.0;
            let region = (start, start, 8.0 * scale, 8.0 * scale);
            let out = resized(&image, region, 8, Interpolation::Bicubic);
            let centre = (4 * 12 + 4) * 3;
            assert_eq!(out[..3], image.pixels[centre..centre + 3]);
        }
    }

    #[test]
    fn windows_that_do_not_ascend_are_found() {
        // Every third result is centred on a pixel, which is all that its window keeps: it begins
        // behind that of the next result.
        let image = noise(12, 12, 1);
        for is_mirrored in [false, true] {
            let output = Output { is_mirrored, ..Output::square(36) };
            let made = Processor::all().into_iter().map(|processor| {
                let mut out = vec![0; 36 * 36 * 3];
                let (whole, filter) = (image.whole(), Interpolation::Bicubic);
                let mut resampler = Resampler::on(processor);
                resampler.crop_and_resize(&image, whole, filter, output, &mut out).unwrap();
                out
            });
            let made: Vec<_> = made.collect();
            assert!(made.windows(2).all(|pair| pair[0] == pair[1]));
        }
    }

    #[test]
    fn shrinking_by_a_whole_factor_with_area_is_the_mean_of_each_tile() {
        let image = noise(12, 12, 1);
        let out = resized(&image, (0.0, 0.0, 12.0, 12.0), 4, Interpolation::Area);
        for (at, found) in out.iter().enumerate() {
            let (y, x, colour) = (at / 12, at / 3 % 4, at % 3);
            let tile = (0..9).map(|i| (y * 3 + i / 3, x * 3 + i % 3));
            let sum: u32 =
                tile.map(|(y, x)| u32::from(image.pixels[(y * 12 + x) * 3 + colour])).sum();
            assert!((f64::from(*found) - f64::from(sum) / 9.0).abs() <= 0.55, "{at}");
        }
    }

    #[test]
    fn with_area_a_pixel_on_the_border_of_two_counts_once() {
        // Five pixels become two: the middle one's centre is on the border of the two.
        let pixels: Vec<u8> = (0..5 * 5).flat_map(|at| [at % 5 * 40; 3]).collect();
        let image = RgbImage { width: 5, height: 5, pixels };
        let out = resized(&image, (0.0, 0.0, 5.0, 5.0), 2, Interpolation::Area);
        assert_eq!(out, [40, 40, 40, 140, 140, 140, 40, 40, 40, 140, 140, 140]);
    }

    #[test]
    fn enlarging_any_box_with_area_repeats_pixels_of_the_box() {
        let image = RgbImage {
            width: 12,
            height: 12,
            pixels: (0..12 * 12).flat_map(|at| [at as u8 / 12, at as u8 % 12, 7]).collect(),
        };
        for eighths in 0..=64 {
            for length in [0.5, 1.0, 2.5, 4.0] {
                let start = f64::from(eighths) / 8.0;
                let out = resized(&image, (start, start, length, length), 8, Interpolation::Area);
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
}
