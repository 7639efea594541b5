//! The filters of a resize.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Bilinear, Self::Bicubic, Self::Area];

    /// Reach of the filter, in pixels of the larger of two pictures.
    pub(crate) fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Area => 0.5,
        }
    }
}
