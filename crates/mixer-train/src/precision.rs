//! The precision of a run, as people name it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backend::DeviceEntry;
use crate::error::TrainError;

/// What the operands of the blocks' matrix products are rounded to. Parameters, optimizer state, sums
/// and everything between the products are f32 either way.
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
}

impl Precision {
    /// # Errors
    /// [`TrainError::Device`] where the device cannot.
    pub fn check(self, device: &DeviceEntry) -> Result<(), TrainError> {
        if self == Precision::F32 || device.multiplies_bf16() {
            return Ok(());
        }
        Err(TrainError::Device {
            message: format!("precision `bf16` is not supported on device `{}`", device.name),
            hint: Some(
                "it needs `cuda` on an NVIDIA GPU of compute capability 8.0 and cuBLASLt, or `flex` on a \
                 CPU with AVX512-BF16 (Intel Sapphire Rapids, AMD Zen 4 and later); elsewhere use \
                 precision `f32`"
                    .to_owned(),
            ),
        })
    }

    /// Its name in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

impl From<Precision> for mixer_model::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => mixer_model::Precision::F32,
            Precision::Bf16 => mixer_model::Precision::Bf16,
        }
    }
}
