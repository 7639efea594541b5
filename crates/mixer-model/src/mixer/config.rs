//! The architecture of a network: its dimensions, and what is wrong with some that cannot be built.

pub use mixer_kernels::Gelu;
use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// Every dimension of a network: a Mixer, or a Vision Transformer. Derived quantities are methods and
/// never stored.
///
/// The two differ in how tokens exchange information, and in what that needs: positions and heads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct MixerConfig {
    /// Side of the square input image, in pixels.
    pub image_size: usize,
    /// Side P of a patch, in pixels; divides `image_size`.
    pub patch_size: usize,
    /// Channels C of a token.
    pub hidden_dim: usize,
    /// The layer of a block in which tokens exchange information.
    pub tokens: TokenLayer,
    /// Hidden width D_C of the MLP over channels.
    pub channels_mlp_dim: usize,
    /// Number of blocks L.
    pub num_blocks: usize,
    /// Classes K of the head.
    pub num_classes: usize,
    /// Form of the activation.
    pub gelu: Gelu,
}

/// The layer of a block in which tokens exchange information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenLayer {
    /// An MLP over tokens: a Mixer.
    Mlp {
        /// Hidden width D_S.
        tokens_mlp_dim: usize,
    },
    /// Self-attention: a Vision Transformer.
    Attention {
        /// Heads; they divide the channels.
        num_heads: usize,
        /// The token that the head reads.
        pool: Pool,
    },
}

/// The token that the head of a Vision Transformer reads, after the last normalisation.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// A learned token before those of the patches.
    #[default]
    ClassToken,
    /// The average of the tokens of the patches.
    Average,
}

/// [`MixerConfig`] as it stands in files: flat, with the keys of its token layer and of no other.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    image_size: usize,
    patch_size: usize,
    hidden_dim: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens_mlp_dim: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    num_heads: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pool: Option<Pool>,
    channels_mlp_dim: usize,
    num_blocks: usize,
    num_classes: usize,
    gelu: Gelu,
}

impl From<MixerConfig> for Stored {
    fn from(config: MixerConfig) -> Self {
        let MixerConfig { image_size, patch_size, hidden_dim, channels_mlp_dim, .. } = config;
        let MixerConfig { num_blocks, num_classes, gelu, .. } = config;
        let (tokens_mlp_dim, num_heads, pool) = match config.tokens {
            TokenLayer::Mlp { tokens_mlp_dim } => (Some(tokens_mlp_dim), None, None),
            TokenLayer::Attention { num_heads, pool } => (None, Some(num_heads), Some(pool)),
        };
        Self {
            image_size,
            patch_size,
            hidden_dim,
            tokens_mlp_dim,
            num_heads,
            pool,
            channels_mlp_dim,
            num_blocks,
            num_classes,
            gelu,
        }
    }
}

impl TryFrom<Stored> for MixerConfig {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let Stored { image_size, patch_size, hidden_dim, channels_mlp_dim, .. } = stored;
        let Stored { num_blocks, num_classes, gelu, .. } = stored;
        let tokens = match (stored.tokens_mlp_dim, stored.num_heads, stored.pool) {
            (Some(tokens_mlp_dim), None, None) => TokenLayer::Mlp { tokens_mlp_dim },
            (None, Some(num_heads), Some(pool)) => TokenLayer::Attention { num_heads, pool },
            (None, None, _) => return Err("missing field `tokens_mlp_dim`"),
            (None, Some(_), None) => return Err("missing field `pool`"),
            (Some(_), ..) => return Err("`tokens_mlp_dim` beside `num_heads` or `pool`"),
        };
        Ok(Self {
            image_size,
            patch_size,
            hidden_dim,
            tokens,
            channels_mlp_dim,
            num_blocks,
            num_classes,
            gelu,
        })
    }
}

impl MixerConfig {
    /// Tokens per side of the grid, `image_size / patch_size`.
    #[must_use]
    pub fn grid_size(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Tokens S of a picture: its patches.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.grid_size() * self.grid_size()
    }

    /// Positions in the residual stream: the tokens, and before them the class token where there is one.
    #[must_use]
    pub fn num_positions(&self) -> usize {
        self.num_tokens() + usize::from(self.has_class_token())
    }

    /// True where a learned token stands before those of the patches.
    #[must_use]
    pub fn has_class_token(&self) -> bool {
        matches!(self.tokens, TokenLayer::Attention { pool: Pool::ClassToken, .. })
    }

    /// The kind of network, as messages call it.
    #[must_use]
    pub fn family(&self) -> &'static str {
        self.tokens.family()
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
            self.tokens.dimension(),
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
        match self.tokens {
            TokenLayer::Attention { num_heads, .. }
                if !self.hidden_dim.is_multiple_of(num_heads) =>
            {
                Err(ModelError::IndivisibleHeads { hidden_dim: self.hidden_dim, num_heads })
            }
            _ => Ok(()),
        }
    }
}

impl TokenLayer {
    /// The kind of network that has such a layer, as messages call it.
    #[must_use]
    pub fn family(self) -> &'static str {
        match self {
            Self::Mlp { .. } => "Mixer",
            Self::Attention { .. } => "ViT",
        }
    }

    /// The key of its dimension, and the dimension.
    #[must_use]
    pub fn dimension(self) -> (&'static str, usize) {
        match self {
            Self::Mlp { tokens_mlp_dim } => ("tokens_mlp_dim", tokens_mlp_dim),
            Self::Attention { num_heads, .. } => ("num_heads", num_heads),
        }
    }

    /// Hidden width of the MLP over tokens; `None` for attention.
    #[must_use]
    pub fn mlp_dim(self) -> Option<usize> {
        match self {
            Self::Mlp { tokens_mlp_dim } => Some(tokens_mlp_dim),
            Self::Attention { .. } => None,
        }
    }
}
