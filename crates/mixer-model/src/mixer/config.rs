//! The architecture of a network: its dimensions, and what is wrong with some that cannot be built.

pub use mixer_kernels::Gelu;
use serde::{Deserialize, Serialize};

use super::depths::Depths;
use crate::error::ModelError;

/// Every dimension of a network: a Mixer, a Vision Transformer, or a BiT-ResNet. Derived quantities are
/// methods and never stored.
///
/// They differ in how the places of a picture exchange information, and in what that needs: positions and
/// heads, or stages and groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct MixerConfig {
    /// Side of the square input image, in pixels.
    pub image_size: usize,
    /// Side P of a patch, in pixels; divides `image_size`. A BiT-ResNet puts the patches that it is given
    /// together, and is the same whatever their side.
    pub patch_size: usize,
    /// Channels C of a token: those that the head reads. Each stage of a BiT-ResNet has half of the next.
    pub hidden_dim: usize,
    /// The layer of a block in which tokens exchange information.
    pub tokens: TokenLayer,
    /// Hidden width D_C of the MLP over channels; of a BiT-ResNet, the bottleneck of the last stage.
    pub channels_mlp_dim: usize,
    /// Number of blocks L.
    pub num_blocks: usize,
    /// Classes K of the head.
    pub num_classes: usize,
    /// Form of the activation. A BiT-ResNet, which has ReLU, keeps `tanh` here.
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
    /// Convolutions over the grid: a BiT-ResNet.
    Convolution {
        /// Blocks by stage, `num_blocks` together.
        depths: Depths,
        /// Groups of each normalisation; they divide the channels of every layer.
        num_groups: usize,
    },
}

/// The value of [`MixerConfig::gelu`] in a network that has ReLU.
pub(crate) const NO_GELU: Gelu = Gelu::Tanh;

/// Least side of the pictures of a BiT-ResNet, px: four stages and the stem halve it five times.
const MIN_RESNET_SIZE: usize = 32;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    depths: Option<Depths>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    num_groups: Option<usize>,
    channels_mlp_dim: usize,
    num_blocks: usize,
    num_classes: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gelu: Option<Gelu>,
}

impl From<MixerConfig> for Stored {
    fn from(config: MixerConfig) -> Self {
        let MixerConfig { image_size, patch_size, hidden_dim, channels_mlp_dim, .. } = config;
        let MixerConfig { num_blocks, num_classes, gelu, .. } = config;
        let mut stored = Self {
            image_size,
            patch_size,
            hidden_dim,
            tokens_mlp_dim: None,
            num_heads: None,
            pool: None,
            depths: None,
            num_groups: None,
            channels_mlp_dim,
            num_blocks,
            num_classes,
            gelu: config.has_tokens().then_some(gelu),
        };
        match config.tokens {
            TokenLayer::Mlp { tokens_mlp_dim } => stored.tokens_mlp_dim = Some(tokens_mlp_dim),
            TokenLayer::Attention { num_heads, pool } => {
                (stored.num_heads, stored.pool) = (Some(num_heads), Some(pool));
            }
            TokenLayer::Convolution { depths, num_groups } => {
                (stored.depths, stored.num_groups) = (Some(depths), Some(num_groups));
            }
        }
        stored
    }
}

impl TryFrom<Stored> for MixerConfig {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let Stored { image_size, patch_size, hidden_dim, channels_mlp_dim, .. } = stored;
        let Stored { num_blocks, num_classes, .. } = stored;
        let Stored { tokens_mlp_dim, num_heads, pool, depths, num_groups, .. } = stored;
        let tokens = match (tokens_mlp_dim, num_heads, pool, depths, num_groups) {
            (Some(tokens_mlp_dim), None, None, None, None) => TokenLayer::Mlp { tokens_mlp_dim },
            (None, Some(num_heads), Some(pool), None, None) => {
                TokenLayer::Attention { num_heads, pool }
            }
            (None, None, None, Some(depths), Some(num_groups)) => {
                TokenLayer::Convolution { depths, num_groups }
            }
            (None, None, _, None, None) => return Err("missing field `tokens_mlp_dim`"),
            (None, Some(_), None, None, None) => return Err("missing field `pool`"),
            (None, None, None, Some(_), None) => return Err("missing field `num_groups`"),
            (None, None, None, None, Some(_)) => return Err("missing field `depths`"),
            (Some(_), _, _, None, None) => {
                return Err("`tokens_mlp_dim` beside `num_heads` or `pool`");
            }
            _ => return Err("`depths` or `num_groups` beside keys of other networks"),
        };
        let gelu = match (stored.gelu, tokens) {
            (None, TokenLayer::Convolution { .. }) => NO_GELU,
            (Some(_), TokenLayer::Convolution { .. }) => {
                return Err("`gelu` in a network with ReLU");
            }
            (Some(gelu), _) => gelu,
            (None, _) => return Err("missing field `gelu`"),
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

    /// True for a network of tokens, with GELU and a residual stream of one width; false for a BiT-ResNet.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        !matches!(self.tokens, TokenLayer::Convolution { .. })
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
    /// [`ModelError::ZeroDimension`] and [`ModelError::IndivisibleImage`]; [`ModelError::IndivisibleHeads`] of a
    /// Vision Transformer; [`ModelError::SmallImage`], [`ModelError::BlocksByStage`] and
    /// [`ModelError::IndivisibleChannels`] of a BiT-ResNet.
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
            TokenLayer::Convolution { depths, num_groups } => self.check_stages(depths, num_groups),
            _ => Ok(()),
        }
    }

    fn check_stages(&self, depths: Depths, num_groups: usize) -> Result<(), ModelError> {
        if self.image_size < MIN_RESNET_SIZE {
            let (image_size, least) = (self.image_size, MIN_RESNET_SIZE);
            return Err(ModelError::SmallImage { image_size, least });
        }
        if depths.num_blocks() != self.num_blocks {
            let num_blocks = self.num_blocks;
            return Err(ModelError::BlocksByStage { depths: depths.into(), num_blocks });
        }
        // Halved from stage to stage; the stem has a quarter of the first.
        let halved = 1 << (depths.num_stages() - 1);
        for (name, value, parts) in [
            ("hidden_dim", self.hidden_dim, 4 * halved),
            ("channels_mlp_dim", self.channels_mlp_dim, halved),
        ] {
            let parts = num_groups.saturating_mul(parts);
            if !value.is_multiple_of(parts) {
                return Err(ModelError::IndivisibleChannels { name, value, parts, num_groups });
            }
        }
        Ok(())
    }
}

impl TokenLayer {
    /// The kind of network that has such a layer, as messages call it.
    #[must_use]
    pub fn family(self) -> &'static str {
        match self {
            Self::Mlp { .. } => "Mixer",
            Self::Attention { .. } => "ViT",
            Self::Convolution { .. } => "BiT",
        }
    }

    /// The ratio of every published network: the hidden width of channel mixing, or the bottleneck, of a
    /// network of so many channels.
    #[must_use]
    pub const fn usual_mlp_dim(self, hidden_dim: usize) -> usize {
        match self {
            Self::Mlp { .. } | Self::Attention { .. } => hidden_dim.saturating_mul(4),
            Self::Convolution { .. } => hidden_dim / 4,
        }
    }

    /// The key of its dimension, and the dimension.
    #[must_use]
    pub fn dimension(self) -> (&'static str, usize) {
        match self {
            Self::Mlp { tokens_mlp_dim } => ("tokens_mlp_dim", tokens_mlp_dim),
            Self::Attention { num_heads, .. } => ("num_heads", num_heads),
            Self::Convolution { num_groups, .. } => ("num_groups", num_groups),
        }
    }

    /// Hidden width of the MLP over tokens; `None` where there is none.
    #[must_use]
    pub fn mlp_dim(self) -> Option<usize> {
        match self {
            Self::Mlp { tokens_mlp_dim } => Some(tokens_mlp_dim),
            Self::Attention { .. } | Self::Convolution { .. } => None,
        }
    }

    /// Heads of self-attention; `None` where there is none.
    #[must_use]
    pub fn num_heads(self) -> Option<usize> {
        match self {
            Self::Attention { num_heads, .. } => Some(num_heads),
            Self::Mlp { .. } | Self::Convolution { .. } => None,
        }
    }
}
