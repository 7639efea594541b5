//! The preprocessing rule of a weights file, and the transform of the data crate that carries it out:
//! two types, because model and data do not know each other.

use mixer_data::{DecodeOptions, EvalResize, EvalTransform, Interpolation};
use mixer_model::weights::{self, Preprocessing, ResizeRule, Shuffle};

/// Decoding of pictures as a weights file asks for it.
#[must_use]
pub fn decode_options(preprocessing: &Preprocessing) -> DecodeOptions {
    let apply_orientation = preprocessing.apply_exif_orientation;
    DecodeOptions { apply_orientation, ..DecodeOptions::default() }
}

/// The evaluation transform that a weights file asks for.
#[must_use]
pub fn eval_transform(preprocessing: &Preprocessing, image_size: usize) -> EvalTransform {
    EvalTransform {
        image_size: image_size as u32,
        resize: match preprocessing.resize {
            ResizeRule::ResmallCrop { fraction } => {
                EvalResize::ResmallCrop { fraction: fraction as f32 }
            }
            ResizeRule::Squash => EvalResize::Squash,
        },
        interpolation: match preprocessing.interpolation {
            weights::Interpolation::Bilinear => Interpolation::Bilinear,
            weights::Interpolation::Bicubic => Interpolation::Bicubic,
            weights::Interpolation::Box => Interpolation::Area,
        },
        jpeg_scaling: preprocessing.jpeg_scaling,
    }
}

/// The rule that a weights file keeps of an evaluation transform; pictures are neither turned nor shuffled.
#[must_use]
pub fn preprocessing(transform: &EvalTransform, mean: [f32; 3], std: [f32; 3]) -> Preprocessing {
    Preprocessing {
        mean,
        std,
        resize: match transform.resize {
            // Through decimal text, so that 0.875f32 and 0.7f32 are written as typed.
            EvalResize::ResmallCrop { fraction } => ResizeRule::ResmallCrop {
                fraction: fraction.to_string().parse().unwrap_or(f64::from(fraction)),
            },
            EvalResize::Squash => ResizeRule::Squash,
        },
        interpolation: match transform.interpolation {
            Interpolation::Bilinear => weights::Interpolation::Bilinear,
            Interpolation::Bicubic => weights::Interpolation::Bicubic,
            Interpolation::Area => weights::Interpolation::Box,
        },
        apply_exif_orientation: false,
        jpeg_scaling: transform.jpeg_scaling,
        shuffle: Shuffle::None,
    }
}
