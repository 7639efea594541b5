//! The company of weights in a file: class names, preprocessing, provenance. With it
//! a weights file classifies a picture and needs nothing else.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shuffle::Shuffle;
use crate::mixer::config::MixerConfig;

/// Everything about a set of weights that is not a number in a tensor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Class names in the order of the head's outputs; as many as the head has outputs.
    pub classes: Option<Vec<String>>,
    /// The preparation of the pictures that the network was trained on.
    pub preprocessing: Option<Preprocessing>,
    /// Number that logits are divided by before they become probabilities; 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Origin of the weights, free text by key (`resolution`, `run`, `dataset`, ...).
    pub provenance: BTreeMap<String, String>,
}

/// From a decoded picture to the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Mean per colour (red, green, blue) of pixels in `[0, 1]`, subtracted first.
    pub mean: [f32; 3],
    /// Standard deviation per colour of pixels in `[0, 1]`, divided by second.
    pub std: [f32; 3],
    /// The way of the picture to the network's size.
    pub resize: ResizeRule,
    /// Kernel of the resampling.
    pub interpolation: Interpolation,
    /// True where pictures are first turned as their EXIF data says.
    #[serde(default)]
    pub apply_exif_orientation: bool,
    /// True where JPEGs are decoded at a part of their size that is still large enough.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub jpeg_scaling: bool,
    /// Shuffling, which comes last.
    #[serde(default, skip_serializing_if = "Shuffle::is_none")]
    pub shuffle: Shuffle,
}

impl Default for Preprocessing {
    /// timm's configuration of Google's weights (`mixer_b16_224`): pixels to `[-1, 1]`, shorter side
    /// ÷ 0.875, bicubic, centre crop.
    fn default() -> Self {
        Self {
            mean: [0.5; 3],
            std: [0.5; 3],
            resize: ResizeRule::ResmallCrop { fraction: 0.875 },
            interpolation: Interpolation::Bicubic,
            apply_exif_orientation: false,
            jpeg_scaling: false,
            shuffle: Shuffle::None,
        }
    }
}

/// The way of a picture of any size to a square of the network's size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ResizeRule {
    /// Shorter side to `image_size / fraction`, then a centre crop: the paper's "resmall-crop".
    ResmallCrop {
        /// Side of the crop as a fraction of the shorter side, in (0, 1].
        fraction: f64,
    },
    /// Both sides straight to the network's size; the aspect ratio is lost.
    Squash,
}

/// Kernel of an antialiased resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Triangle.
    Bilinear,
    /// Cubic, `a = -0.5` as in Pillow.
    Bicubic,
    /// Mean over the pixel's area; `box` as timm and torchvision call it.
    Box,
}

/// Key of the safetensors header under which [`MixerHeader`] lies as JSON.
pub(super) const HEADER_KEY: &str = "mixer";

/// Version of [`MixerHeader`] that this crate writes, and the newest that it reads.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Our entry in a safetensors header.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MixerHeader {
    pub(super) format_version: u32,
    pub(super) config: MixerConfig,
    #[serde(default)]
    pub(super) classes: Option<Vec<String>>,
    #[serde(default)]
    pub(super) preprocessing: Option<Preprocessing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f64>,
    #[serde(default)]
    pub(super) provenance: BTreeMap<String, String>,
}

impl MixerHeader {
    /// Parses the JSON. The version is looked at first: a newer file must say so, rather than fail
    /// on a field that this version does not know.
    pub(super) fn parse(json: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let say = |error: serde_json::Error| format!("bad `{HEADER_KEY}` metadata: {error}");
        let Version { format_version } = serde_json::from_str(json).map_err(say)?;
        if format_version == 0 || format_version > FORMAT_VERSION {
            return Err(format!(
                "metadata format version {format_version}, expected at most {FORMAT_VERSION} (written by a newer mixer?)"
            ));
        }
        serde_json::from_str(json).map_err(say)
    }
}
