//! The architecture of a Mixer: its dimensions, and what is wrong with some that cannot be built.

pub use mixer_kernels::Gelu;
use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// Every dimension of a Mixer. Derived quantities are methods and never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixerConfig {
    /// Side of the square input image, in pixels.
    pub image_size: usize,
    /// Side P of a patch, in pixels; divides `image_size`.
    pub patch_size: usize,
    /// Channels C of a token.
    pub hidden_dim: usize,
    /// Hidden width D_S of the token-mixing MLP.
    pub tokens_mlp_dim: usize,
    /// Hidden width D_C of the channel-mixing MLP.
    pub channels_mlp_dim: usize,
    /// Number of blocks L.
    pub num_blocks: usize,
    /// Classes K of the head.
    pub num_classes: usize,
    /// Form of the activation.
    pub gelu: Gelu,
}

impl MixerConfig {
    /// Tokens per side of the grid, `image_size / patch_size`.
    #[must_use]
    pub fn grid_size(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Tokens S.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.grid_size() * self.grid_size()
    }

    /// Values in one patch, `P · P · 3`.
    #[must_use]
    pub fn patch_dim(&self) -> usize {
        self.patch_size * self.patch_size * 3
    }

    /// Checks that the dimensions make a network.
    ///
    /// # Errors
    /// [`ModelError::ZeroDimension`] and [`ModelError::IndivisibleImage`].
    pub fn validate(&self) -> Result<(), ModelError> {
        let dims = [
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
            ("hidden_dim", self.hidden_dim),
            ("tokens_mlp_dim", self.tokens_mlp_dim),
            ("channels_mlp_dim", self.channels_mlp_dim),
            ("num_blocks", self.num_blocks),
            ("num_classes", self.num_classes),
        ];
        if let Some((name, _)) = dims.iter().find(|(_, value)| *value == 0) {
            return Err(ModelError::ZeroDimension { name });
        }
        if !self.image_size.is_multiple_of(self.patch_size) {
            return Err(ModelError::IndivisibleImage {
                image_size: self.image_size,
                patch_size: self.patch_size,
            });
        }
        Ok(())
    }
}
