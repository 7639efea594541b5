//! One distortion of one picture, with nothing left to chance.

use crate::augment::affine::{self, Sampling};
use crate::augment::colour_ops::{self, Arithmetic};

/// A distortion with all its arguments.
///
/// [`RandAugment`](crate::RandAugment) draws them; tests build them with
/// [`BigVisionOp::at`](crate::BigVisionOp::at), [`TimmOp::at`](crate::TimmOp::at) and
/// [`AutoAugmentOp::at`](crate::AutoAugmentOp::at) to compare pixels with the programs that define them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PixelOp {
    /// Stretches each channel to the full range.
    AutoContrast(Arithmetic),
    /// Equalizes the histogram of each channel.
    Equalize,
    /// The negative.
    Invert,
    /// Keeps the highest bits of each value.
    Posterize {
        /// Number of these bits, 0 to 8.
        bits: u8,
    },
    /// Inverts bright values.
    Solarize {
        /// The least value that is inverted, 0 to 256.
        threshold: u16,
    },
    /// Adds to the values below 128, up to 255.
    SolarizeAdd {
        /// Number that is added.
        addition: u8,
    },
    /// Blends with the grey picture.
    Colour {
        /// 0 grey, 1 unchanged, above 1 more colourful.
        factor: f32,
        /// Whose roundings.
        arithmetic: Arithmetic,
    },
    /// Blends with a constant picture of the mean brightness.
    Contrast {
        /// 0 constant, 1 unchanged, above 1 more contrast.
        factor: f32,
        /// Whose roundings.
        arithmetic: Arithmetic,
    },
    /// Multiplies every value.
    Brightness {
        /// By what.
        factor: f32,
    },
    /// Blends with a smoothed picture.
    Sharpness {
        /// 0 smooth, 1 unchanged, above 1 sharper.
        factor: f32,
        /// Whose roundings.
        arithmetic: Arithmetic,
    },
    /// An affine map with nearest neighbours, as TensorFlow's.
    NearestMap {
        /// `[a, b, c, d, e, f]` of `x_in = a·x + b·y + c`, `y_in = d·x + e·y + f`, from pixel centres
        /// to pixel centres, px.
        map: [f32; 6],
        /// The colour of places outside of the picture.
        fill: [u8; 3],
    },
    /// An affine map as Pillow's.
    SmoothMap {
        /// As in [`NearestMap`](Self::NearestMap), but from the corner of the picture, so that the
        /// centre of the first pixel is at ½.
        map: [f64; 6],
        /// Interpolation of values between pixels.
        sampling: Sampling,
        /// The colour of places outside of the picture.
        fill: [u8; 3],
    },
    /// Covers a square, cut off at the edges of the picture.
    Cutout {
        /// The pixel (row, column) at the lower right of its middle.
        centre: (u32, u32),
        /// Half of its side, px.
        half_side: u32,
        /// Its colour.
        fill: [u8; 3],
    },
}

impl PixelOp {
    /// Distorts a picture in place.
    ///
    /// # Shapes
    /// - `image`: `[side, side, 3]`
    ///
    /// `scratch` is working memory to be kept between calls.
    ///
    /// # Panics
    /// May, when `image` does not hold `side · side · 3` values.
    pub fn apply(self, image: &mut [u8], side: usize, scratch: &mut Vec<u8>) {
        match self {
            Self::AutoContrast(arithmetic) => colour_ops::autocontrast(image, arithmetic),
            Self::Equalize => colour_ops::equalize(image),
            Self::Invert => colour_ops::invert(image),
            Self::Posterize { bits } => colour_ops::posterize(image, bits),
            Self::Solarize { threshold } => colour_ops::solarize(image, threshold),
            Self::SolarizeAdd { addition } => colour_ops::solarize_add(image, addition),
            Self::Colour { factor, arithmetic } => {
                colour_ops::colour(image, side, factor, arithmetic);
            }
            Self::Contrast { factor, arithmetic } => {
                colour_ops::contrast(image, factor, arithmetic);
            }
            Self::Brightness { factor } => colour_ops::brightness(image, factor),
            Self::Sharpness { factor, arithmetic } => {
                colour_ops::sharpness(image, side, factor, arithmetic, scratch);
            }
            Self::NearestMap { map, fill } => affine::nearest(image, side, map, fill, scratch),
            Self::SmoothMap { map, sampling, fill } => {
                affine::interpolated(image, side, map, sampling, fill, scratch);
            }
            Self::Cutout { centre: (row, column), half_side, fill } => {
                let extent = |centre: u32| {
                    let start = centre.saturating_sub(half_side) as usize;
                    let end = centre.saturating_add(half_side) as usize;
                    start.min(side)..end.min(side)
                };
                let columns = extent(column);
                for row in
                    image.chunks_exact_mut(side * 3).skip(extent(row).start).take(extent(row).len())
                {
                    let (pixels, _) = row.as_chunks_mut::<3>();
                    affine::paint(&mut pixels[columns.clone()], fill);
                }
            }
        }
    }
}
