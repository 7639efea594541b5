//! The formats that weights are read from.

use std::fmt;

use crate::mixer::config::Gelu;

/// A file format that weights are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsFormat {
    /// NumPy archive, the official JAX checkpoints.
    Npz,
    /// Safetensors, ours and timm's.
    Safetensors,
    /// PyTorch checkpoint.
    Pytorch,
}

impl WeightsFormat {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Npz => "npz",
            Self::Safetensors => "safetensors",
            Self::Pytorch => "pth",
        }
    }

    /// The GELU that published weights of this format were trained with (npz) or are used with by
    /// the library that ships them (timm).
    #[must_use]
    pub fn default_gelu(self) -> Gelu {
        match self {
            Self::Npz => Gelu::Tanh,
            Self::Safetensors | Self::Pytorch => Gelu::Erf,
        }
    }
}

impl fmt::Display for WeightsFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
