//! The precision of a run, as people name it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operands of the blocks' matrix products are rounded to, and on GPUs the activations between
/// them. Parameters, their gradients, optimizer state and sums are f32 either way.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// bf16: on CPUs that multiply it (AVX512-BF16) in up to half the time, on NVIDIA GPUs in a tenth.
    Bf16,
    /// f16, with loss scaling: for GPUs that have no bf16.
    F16,
}

impl Precision {
    /// Its name in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl From<Precision> for mixer_model::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::F16 => Self::F16,
        }
    }
}
