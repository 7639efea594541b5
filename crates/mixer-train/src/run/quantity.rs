//! The quantities of an update that are watched.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A quantity of an update that has to be finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quantity {
    /// Mean loss of the batch.
    #[serde(rename = "loss")]
    Loss,
    /// Norm of the whole gradient, before clipping.
    #[serde(rename = "gradient norm")]
    GradientNorm,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::GradientNorm => "gradient norm",
        })
    }
}
