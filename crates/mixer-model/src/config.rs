//! The architecture of a Mixer: its dimensions, the paper's named variants, and what is wrong with a
//! set of dimensions that cannot be built.

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

/// A named row of the paper's Table 1 (and S/8, which only exists as a published checkpoint).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// Name as in the paper, `B/16`.
    pub name: &'static str,
    /// Patch side, px.
    pub patch_size: usize,
    /// Channels.
    pub hidden_dim: usize,
    /// Blocks.
    pub num_blocks: usize,
}

/// The paper's seven variants, smallest first.
pub const VARIANTS: [Variant; 7] = [
    Variant { name: "S/32", patch_size: 32, hidden_dim: 512, num_blocks: 8 },
    Variant { name: "S/16", patch_size: 16, hidden_dim: 512, num_blocks: 8 },
    Variant { name: "B/32", patch_size: 32, hidden_dim: 768, num_blocks: 12 },
    Variant { name: "B/16", patch_size: 16, hidden_dim: 768, num_blocks: 12 },
    Variant { name: "L/32", patch_size: 32, hidden_dim: 1024, num_blocks: 24 },
    Variant { name: "L/16", patch_size: 16, hidden_dim: 1024, num_blocks: 24 },
    Variant { name: "H/14", patch_size: 14, hidden_dim: 1280, num_blocks: 32 },
];

impl Variant {
    /// Finds a variant by its name. Any patch side may follow the letter (`S/8`, `B/4`), as in
    /// big_vision: the letter fixes width and depth, the number the patch.
    ///
    /// # Errors
    /// [`ModelError::UnknownVariant`] when the letter is none of S, B, L, H or the patch is no number.
    pub fn parse(name: &str) -> Result<Variant, ModelError> {
        if let Some(variant) = VARIANTS.iter().find(|v| v.name.eq_ignore_ascii_case(name)) {
            return Ok(*variant);
        }
        let unknown = || ModelError::UnknownVariant { found: name.to_owned() };
        let (letter, patch) = name.split_once('/').ok_or_else(unknown)?;
        let patch_size: usize = patch.parse().map_err(|_| unknown())?;
        let base = VARIANTS
            .iter()
            .find(|v| v.name.split('/').next().is_some_and(|l| l.eq_ignore_ascii_case(letter)))
            .ok_or_else(unknown)?;
        if patch_size == 0 {
            return Err(unknown());
        }
        Ok(Variant { patch_size, name: "custom", ..*base })
    }

    /// The architecture at a resolution. D_S = C/2 and D_C = 4C in every variant of the paper.
    #[must_use]
    pub fn config(&self, image_size: usize, num_classes: usize, gelu: Gelu) -> MixerConfig {
        MixerConfig {
            image_size,
            patch_size: self.patch_size,
            hidden_dim: self.hidden_dim,
            tokens_mlp_dim: self.hidden_dim / 2,
            channels_mlp_dim: self.hidden_dim * 4,
            num_blocks: self.num_blocks,
            num_classes,
            gelu,
        }
    }
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

    /// The paper's name for these dimensions (`B/16`), or `None` for a custom architecture.
    #[must_use]
    pub fn variant_name(&self) -> Option<&'static str> {
        VARIANTS
            .iter()
            .find(|v| {
                v.patch_size == self.patch_size
                    && v.hidden_dim == self.hidden_dim
                    && v.num_blocks == self.num_blocks
                    && self.channels_mlp_dim == 4 * v.hidden_dim
            })
            .map(|v| v.name)
    }
}

impl std::fmt::Display for MixerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.variant_name() {
            Some(name) => write!(f, "Mixer-{name}")?,
            None => write!(
                f,
                "Mixer(P={}, C={}, L={}, D_S={}, D_C={})",
                self.patch_size,
                self.hidden_dim,
                self.num_blocks,
                self.tokens_mlp_dim,
                self.channels_mlp_dim
            )?,
        }
        write!(f, " at {} px, {} classes", self.image_size, self.num_classes)
    }
}
