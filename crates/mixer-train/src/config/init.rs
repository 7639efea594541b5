//! `[init]`: the start of a fine-tuning.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Fate of the head.
pub const HEAD: HeadInit = HeadInit::Auto;

/// The start of a fine-tuning.
///
/// Only for `mixer finetune`; an error in `mixer pretrain`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InitConfig {
    /// A run directory, or a `.safetensors`, `.npz` or `.pth` file; `--init` overrides it.
    ///
    /// One of the two is needed. A run that is continued needs them no longer once it has a checkpoint; where
    /// they are named and there, they have to be the same.
    #[schemars(extend("x-unit" = "path", "x-resume" = "free"))]
    pub weights: Option<PathBuf>,
    /// Fate of the head: reset to zeros, kept, or what the classes say.
    ///
    /// `auto`: reset when the class names differ, or their number where the weights have no names. `reset`:
    /// start from zeros. `keep`: keep; an error when the number of classes differs, or when a class that both
    /// name has another place.
    #[schemars(extend("default" = HEAD, "x-from" = "weights and data"))]
    pub head: Option<HeadInit>,
}

/// Fate of the head in fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadInit {
    /// Reset when the class names differ, or their number where the weights have no names.
    Auto,
    /// Reset to zeros.
    Reset,
    /// Keep; an error when the number of classes differs.
    Keep,
}
