//! The precision of a run, and the devices that have it.

pub use mixer_model::Precision;

use crate::backend::DeviceEntry;
use crate::error::TrainError;

impl DeviceEntry {
    /// # Errors
    /// [`TrainError::Device`] where the device does not compute in this precision.
    pub fn check(&self, precision: Precision) -> Result<(), TrainError> {
        if self.multiplies(precision) {
            return Ok(());
        }
        let needs = match precision {
            Precision::F16 => "it needs a GPU that computes in f16",
            _ => {
                "it needs a GPU that computes in bf16 (NVIDIA: compute capability 8.0), or `flex` on a CPU \
                 with AVX512-BF16 (Intel Sapphire Rapids, AMD Zen 4 and later)"
            }
        };
        Err(TrainError::Device {
            message: format!("precision `{precision}` is not supported on device `{}`", self.name),
            hint: Some(format!("{needs}; elsewhere use precision `f32`")),
        })
    }
}
