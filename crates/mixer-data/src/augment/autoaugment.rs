//! AutoAugment (Cubuk et al. 2018): pairs of distortions, of probabilities and magnitudes that a search
//! found, of which one pair is drawn for a picture.
//!
//! PARITY: `AutoAugment` of `torchvision/transforms/autoaugment.py` (0.29) on Pillow's pictures, with its
//! default of nearest neighbours.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::augment::affine::{Sampling, pillow_rotation};
use crate::augment::colour_ops::Arithmetic;
use crate::augment::pixel_op::PixelOp;
use crate::order::random::ExampleRng;

use AutoAugmentOp::*;

/// Data set on which the sub-policies were found.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AutoAugmentPolicy {
    /// Mostly colours, with shears and shifts.
    Cifar10,
    /// Mostly colours, with rotations.
    Imagenet,
    /// Mostly shears and negatives.
    Svhn,
}

/// Two distortions, one after the other: which, its probability, its magnitude from 0 to 9 (0 where it
/// has none).
pub type SubPolicy = [(AutoAugmentOp, f64, u8); 2];

impl AutoAugmentPolicy {
    /// The sub-policies, in the order of the reference. They are equally likely.
    pub fn sub_policies(self) -> &'static [SubPolicy; 25] {
        match self {
            Self::Cifar10 => &CIFAR10,
            Self::Imagenet => &IMAGENET,
            Self::Svhn => &SVHN,
        }
    }

    /// Distortions of one picture of `side` pixels; `None` for nothing.
    ///
    /// # Determinism
    /// Which sub-policy; a number for each probability; a coin for each sign, all of them always. Changing
    /// the order breaks resume of existing runs.
    pub(crate) fn draw(
        self,
        side: usize,
        fill: [u8; 3],
        rng: &mut ExampleRng,
    ) -> [Option<PixelOp>; 2] {
        let pairs = self.sub_policies();
        let pair = pairs[rng.below(pairs.len() as u32) as usize];
        let chances = [rng.uniform(), rng.uniform()];
        let signs = [rng.coin(), rng.coin()];
        std::array::from_fn(|at| {
            let (op, probability, magnitude) = pair[at];
            (chances[at] < probability).then(|| op.at(magnitude, signs[at], side, fill))
        })
    }
}

/// The distortions of AutoAugment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the definition; `at` says what they do")]
pub enum AutoAugmentOp {
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
    Invert,
}

impl AutoAugmentOp {
    /// All of them, in the order of the reference.
    pub const ALL: [Self; 14] = [
        ShearX,
        ShearY,
        TranslateX,
        TranslateY,
        Rotate,
        Brightness,
        Color,
        Contrast,
        Sharpness,
        Posterize,
        Solarize,
        AutoContrast,
        Equalize,
        Invert,
    ];

    /// The distortion at a magnitude from 0 to 9, for a picture of `side` pixels.
    ///
    /// With the level `l = magnitude / 9`: shears by `0.3 l`, moves by `⌊150 / 331 l side⌋` px, turns by
    /// `30 l` degrees, blends by `1 ± 0.9 l`, keeps `8 - 4 l` bits (rounded), solarizes from `255 (1 - l)`.
    /// `negative` turns the direction round, and that of blends.
    pub fn at(self, magnitude: u8, negative: bool, side: usize, fill: [u8; 3]) -> PixelOp {
        let signed = |most: f64| {
            let value = level(0.0, most, magnitude);
            if negative { -value } else { value }
        };
        let factor = (1.0 + signed(0.9)) as f32;
        let distance = signed(150.0 / 331.0 * side as f64).trunc();
        let arithmetic = Arithmetic::Pillow;
        let map = |map| PixelOp::SmoothMap { map, sampling: Sampling::Nearest, fill };
        match self {
            ShearX => map([1.0, signed(0.3), 0.0, 0.0, 1.0, 0.0]),
            ShearY => map([1.0, 0.0, 0.0, signed(0.3), 1.0, 0.0]),
            TranslateX => map([1.0, 0.0, -distance, 0.0, 1.0, 0.0]),
            TranslateY => map([1.0, 0.0, 0.0, 0.0, 1.0, -distance]),
            Rotate => map(pillow_rotation(signed(30.0), side)),
            Brightness => PixelOp::Brightness { factor },
            Color => PixelOp::Colour { factor, arithmetic },
            Contrast => PixelOp::Contrast { factor, arithmetic },
            Sharpness => PixelOp::Sharpness { factor, arithmetic },
            Posterize => {
                let fewer = (f64::from(magnitude) / 2.25).round_ties_even();
                PixelOp::Posterize { bits: 8u8.saturating_sub(fewer as u8) }
            }
            Solarize => PixelOp::Solarize { threshold: level(255.0, 0.0, magnitude).ceil() as u16 },
            AutoContrast => PixelOp::AutoContrast(arithmetic),
            Equalize => PixelOp::Equalize,
            Invert => PixelOp::Invert,
        }
    }
}

/// Entry `at` of the ten of PyTorch's `linspace`: in float32, counted from the nearer end.
fn level(first: f64, last: f64, at: u8) -> f64 {
    let (first, last) = (first as f32, last as f32);
    let step = (last - first) / 9.0;
    let value = match at {
        0..5 => first + step * f32::from(at),
        _ => last - step * (9.0 - f32::from(at)),
    };
    f64::from(value)
}

/// Sub-policies found on CIFAR-10.
#[rustfmt::skip]
const CIFAR10: [SubPolicy; 25] = [
    [(Invert, 0.1, 0), (Contrast, 0.2, 6)],
    [(Rotate, 0.7, 2), (TranslateX, 0.3, 9)],
    [(Sharpness, 0.8, 1), (Sharpness, 0.9, 3)],
    [(ShearY, 0.5, 8), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.5, 0), (Equalize, 0.9, 0)],
    [(ShearY, 0.2, 7), (Posterize, 0.3, 7)],
    [(Color, 0.4, 3), (Brightness, 0.6, 7)],
    [(Sharpness, 0.3, 9), (Brightness, 0.7, 9)],
    [(Equalize, 0.6, 0), (Equalize, 0.5, 0)],
    [(Contrast, 0.6, 7), (Sharpness, 0.6, 5)],
    [(Color, 0.7, 7), (TranslateX, 0.5, 8)],
    [(Equalize, 0.3, 0), (AutoContrast, 0.4, 0)],
    [(TranslateY, 0.4, 3), (Sharpness, 0.2, 6)],
    [(Brightness, 0.9, 6), (Color, 0.2, 8)],
    [(Solarize, 0.5, 2), (Invert, 0.0, 0)],
    [(Equalize, 0.2, 0), (AutoContrast, 0.6, 0)],
    [(Equalize, 0.2, 0), (Equalize, 0.6, 0)],
    [(Color, 0.9, 9), (Equalize, 0.6, 0)],
    [(AutoContrast, 0.8, 0), (Solarize, 0.2, 8)],
    [(Brightness, 0.1, 3), (Color, 0.7, 0)],
    [(Solarize, 0.4, 5), (AutoContrast, 0.9, 0)],
    [(TranslateY, 0.9, 9), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.9, 0), (Solarize, 0.8, 3)],
    [(Equalize, 0.8, 0), (Invert, 0.1, 0)],
    [(TranslateY, 0.7, 9), (AutoContrast, 0.9, 0)],
];

/// Sub-policies found on ImageNet.
#[rustfmt::skip]
const IMAGENET: [SubPolicy; 25] = [
    [(Posterize, 0.4, 8), (Rotate, 0.6, 9)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 0)],
    [(Equalize, 0.8, 0), (Equalize, 0.6, 0)],
    [(Posterize, 0.6, 7), (Posterize, 0.6, 6)],
    [(Equalize, 0.4, 0), (Solarize, 0.2, 4)],
    [(Equalize, 0.4, 0), (Rotate, 0.8, 8)],
    [(Solarize, 0.6, 3), (Equalize, 0.6, 0)],
    [(Posterize, 0.8, 5), (Equalize, 1.0, 0)],
    [(Rotate, 0.2, 3), (Solarize, 0.6, 8)],
    [(Equalize, 0.6, 0), (Posterize, 0.4, 6)],
    [(Rotate, 0.8, 8), (Color, 0.4, 0)],
    [(Rotate, 0.4, 9), (Equalize, 0.6, 0)],
    [(Equalize, 0.0, 0), (Equalize, 0.8, 0)],
    [(Invert, 0.6, 0), (Equalize, 1.0, 0)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Rotate, 0.8, 8), (Color, 1.0, 2)],
    [(Color, 0.8, 8), (Solarize, 0.8, 7)],
    [(Sharpness, 0.4, 7), (Invert, 0.6, 0)],
    [(ShearX, 0.6, 5), (Equalize, 1.0, 0)],
    [(Color, 0.4, 0), (Equalize, 0.6, 0)],
    [(Equalize, 0.4, 0), (Solarize, 0.2, 4)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 0)],
    [(Invert, 0.6, 0), (Equalize, 1.0, 0)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Equalize, 0.8, 0), (Equalize, 0.6, 0)],
];

/// Sub-policies found on SVHN.
#[rustfmt::skip]
const SVHN: [SubPolicy; 25] = [
    [(ShearX, 0.9, 4), (Invert, 0.2, 0)],
    [(ShearY, 0.9, 8), (Invert, 0.7, 0)],
    [(Equalize, 0.6, 0), (Solarize, 0.6, 6)],
    [(Invert, 0.9, 0), (Equalize, 0.6, 0)],
    [(Equalize, 0.6, 0), (Rotate, 0.9, 3)],
    [(ShearX, 0.9, 4), (AutoContrast, 0.8, 0)],
    [(ShearY, 0.9, 8), (Invert, 0.4, 0)],
    [(ShearY, 0.9, 5), (Solarize, 0.2, 6)],
    [(Invert, 0.9, 0), (AutoContrast, 0.8, 0)],
    [(Equalize, 0.6, 0), (Rotate, 0.9, 3)],
    [(ShearX, 0.9, 4), (Solarize, 0.3, 3)],
    [(ShearY, 0.8, 8), (Invert, 0.7, 0)],
    [(Equalize, 0.9, 0), (TranslateY, 0.6, 6)],
    [(Invert, 0.9, 0), (Equalize, 0.6, 0)],
    [(Contrast, 0.3, 3), (Rotate, 0.8, 4)],
    [(Invert, 0.8, 0), (TranslateY, 0.0, 2)],
    [(ShearY, 0.7, 6), (Solarize, 0.4, 8)],
    [(Invert, 0.6, 0), (Rotate, 0.8, 4)],
    [(ShearY, 0.3, 7), (TranslateX, 0.9, 3)],
    [(ShearX, 0.1, 6), (Invert, 0.6, 0)],
    [(Solarize, 0.7, 2), (TranslateY, 0.6, 7)],
    [(ShearY, 0.8, 4), (Invert, 0.8, 0)],
    [(ShearX, 0.7, 9), (TranslateY, 0.8, 3)],
    [(ShearY, 0.8, 5), (AutoContrast, 0.7, 0)],
    [(ShearX, 0.7, 2), (Invert, 0.1, 0)],
];
