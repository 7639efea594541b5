//! The names of architectures: the paper's variants, and what a network is called in messages.

use std::fmt;

use super::config::{Gelu, MixerConfig, NO_GELU, Pool, TokenLayer};
use super::depths::Depths;
use crate::error::ModelError;

/// A named architecture: a row of the paper's Table 1, one that was published beside it, a Vision
/// Transformer of the official code, or a BiT-ResNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// Name as in the paper, `B/16`; that of a Vision Transformer begins with `ViT-`, that of a BiT-ResNet
    /// with `BiT-`.
    pub name: &'static str,
    /// Patch side, px.
    pub patch_size: usize,
    /// Channels that the head reads.
    pub hidden_dim: usize,
    /// Blocks.
    pub num_blocks: usize,
    /// The layer over tokens; of a Vision Transformer, one with a class token.
    pub tokens: TokenLayer,
    /// Parameters in millions by the paper's Table 1: at 224 px, without the head.
    pub paper_millions: Option<u64>,
}

/// The variants that have a name: the paper's seven, and S/8, of which there is a published checkpoint.
#[rustfmt::skip]
pub const VARIANTS: [Variant; 8] = [
    mixer("S/32", 32, 512, 8, Some(19)),
    mixer("S/16", 16, 512, 8, Some(18)),
    mixer("S/8", 8, 512, 8, None),
    mixer("B/32", 32, 768, 12, Some(60)),
    mixer("B/16", 16, 768, 12, Some(59)),
    mixer("L/32", 32, 1024, 24, Some(206)),
    mixer("L/16", 16, 1024, 24, Some(207)),
    mixer("H/14", 14, 1280, 32, Some(431)),
];

/// The Vision Transformers that have a name.
///
/// # Source
/// `vit_jax/configs/models.py@c6de1e5`; `big_vision/models/vit.py@0127fb6` (`decode_variant`).
#[rustfmt::skip]
pub const VIT_VARIANTS: [Variant; 8] = [
    vit("ViT-Ti/16", 16, 192, 12, 3),
    vit("ViT-S/32", 32, 384, 12, 6),
    vit("ViT-S/16", 16, 384, 12, 6),
    vit("ViT-B/32", 32, 768, 12, 12),
    vit("ViT-B/16", 16, 768, 12, 12),
    vit("ViT-L/32", 32, 1024, 24, 16),
    vit("ViT-L/16", 16, 1024, 24, 16),
    vit("ViT-H/14", 14, 1280, 32, 16),
];

/// The BiT-ResNets that have a name: the paper's, and the others that are published with them. `R50x1` has the
/// depths of ResNet-50 and its widths once. Their patches are those in which the paper shuffles pictures.
///
/// # Source
/// Kolesnikov et al. 2020, section 3.2; `timm/models/resnetv2.py` (`resnetv2_50x1_bit` and so on).
#[rustfmt::skip]
pub const BIT_VARIANTS: [Variant; 6] = [
    bit("BiT-R50x1", [3, 4, 6, 3], 1),
    bit("BiT-R50x3", [3, 4, 6, 3], 3),
    bit("BiT-R101x1", [3, 4, 23, 3], 1),
    bit("BiT-R101x3", [3, 4, 23, 3], 3),
    bit("BiT-R152x2", [3, 8, 36, 3], 2),
    bit("BiT-R152x4", [3, 8, 36, 3], 4),
];

/// Groups of every normalisation of a published BiT-ResNet.
pub(crate) const BIT_GROUPS: usize = 32;

const fn mixer(
    name: &'static str,
    patch_size: usize,
    hidden_dim: usize,
    num_blocks: usize,
    paper_millions: Option<u64>,
) -> Variant {
    let tokens = TokenLayer::Mlp { tokens_mlp_dim: hidden_dim / 2 };
    Variant { name, patch_size, hidden_dim, num_blocks, tokens, paper_millions }
}

const fn vit(
    name: &'static str,
    patch_size: usize,
    hidden_dim: usize,
    num_blocks: usize,
    num_heads: usize,
) -> Variant {
    let tokens = TokenLayer::Attention { num_heads, pool: Pool::ClassToken };
    Variant { name, patch_size, hidden_dim, num_blocks, tokens, paper_millions: None }
}

const fn bit(name: &'static str, depths: [usize; 4], width: usize) -> Variant {
    let num_blocks = depths[0] + depths[1] + depths[2] + depths[3];
    let tokens = TokenLayer::Convolution { depths: Depths::of(depths), num_groups: BIT_GROUPS };
    let hidden_dim = 2048 * width;
    Variant { name, patch_size: 16, hidden_dim, num_blocks, tokens, paper_millions: None }
}

/// All names, Mixers first.
fn variants() -> impl Iterator<Item = &'static Variant> {
    VARIANTS.iter().chain(&VIT_VARIANTS).chain(&BIT_VARIANTS)
}

impl Variant {
    /// The variant of a name. Any patch side may follow the letter (`B/4`, `L/8`), as in
    /// big_vision: the letter fixes width and depth, the number the patch. That of a BiT-ResNet stands after
    /// its widths (`BiT-R50x1/8`).
    ///
    /// # Errors
    /// [`ModelError::UnknownVariant`] when the letter is none of S, B, L, H (for `ViT-` also Ti), no depths and
    /// widths of a BiT-ResNet, or the patch is no number.
    pub fn parse(name: &str) -> Result<Self, ModelError> {
        if let Some(variant) = variants().find(|v| v.name.eq_ignore_ascii_case(name)) {
            return Ok(*variant);
        }
        let unknown = || ModelError::UnknownVariant {
            found: name.to_owned(),
            expected: variants().map(|variant| variant.name).collect::<Vec<_>>().join(", "),
        };
        let (letter, patch) = name.split_once('/').ok_or_else(unknown)?;
        let patch_size: usize = patch.parse().map_err(|_| unknown())?;
        let base = variants()
            .find(|v| v.name.split('/').next().is_some_and(|l| l.eq_ignore_ascii_case(letter)))
            .ok_or_else(unknown)?;
        if patch_size == 0 {
            return Err(unknown());
        }
        Ok(Self { patch_size, name: "custom", paper_millions: None, ..*base })
    }

    /// The architecture at a resolution. D_S = C/2 and D_C = 4C in every Mixer and Vision Transformer; the
    /// second has a class token. The bottlenecks of a BiT-ResNet are C/4, and `gelu` means nothing there.
    #[must_use]
    pub fn config(&self, image_size: usize, num_classes: usize, gelu: Gelu) -> MixerConfig {
        MixerConfig {
            image_size,
            patch_size: self.patch_size,
            hidden_dim: self.hidden_dim,
            tokens: self.tokens,
            channels_mlp_dim: self.tokens.usual_mlp_dim(self.hidden_dim),
            num_blocks: self.num_blocks,
            num_classes,
            gelu: if self.is_bit() { NO_GELU } else { gelu },
        }
    }

    fn is_bit(&self) -> bool {
        matches!(self.tokens, TokenLayer::Convolution { .. })
    }

    /// True for a network with these dimensions, whatever its resolution, its head and the token that this
    /// reads.
    #[must_use]
    pub fn is_of(&self, config: &MixerConfig) -> bool {
        let tokens = match (self.tokens, config.tokens) {
            (TokenLayer::Mlp { .. }, TokenLayer::Mlp { .. }) => true,
            (
                TokenLayer::Attention { num_heads: own, .. },
                TokenLayer::Attention { num_heads, .. },
            ) => own == num_heads,
            // The sides of its patches are no dimension of a BiT-ResNet.
            (own, of_config) => own == of_config,
        };
        tokens
            && (self.is_bit() || self.patch_size == config.patch_size)
            && self.hidden_dim == config.hidden_dim
            && self.num_blocks == config.num_blocks
            && self.tokens.usual_mlp_dim(self.hidden_dim) == config.channels_mlp_dim
    }
}

impl MixerConfig {
    /// The name of these dimensions (`B/16`, `ViT-B/16`), or `None` for a custom architecture.
    #[must_use]
    pub fn variant_name(&self) -> Option<&'static str> {
        variants().find(|variant| variant.is_of(self)).map(|variant| variant.name)
    }
}

impl fmt::Display for MixerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.variant_name(), self.tokens) {
            (Some(name), TokenLayer::Mlp { .. }) => write!(f, "Mixer-{name}")?,
            (Some(name), _) => f.write_str(name)?,
            (None, tokens) => {
                write!(f, "{}(P={}, C={}", self.family(), self.patch_size, self.hidden_dim)?;
                let key = match tokens {
                    TokenLayer::Mlp { .. } => "D_S",
                    TokenLayer::Attention { .. } => "heads",
                    TokenLayer::Convolution { .. } => "groups",
                };
                match tokens {
                    TokenLayer::Convolution { depths, .. } => {
                        write!(f, ", depths={:?}", Vec::from(depths))?;
                    }
                    _ => write!(f, ", L={}", self.num_blocks)?,
                }
                write!(f, ", {key}={}, D_C={})", tokens.dimension().1, self.channels_mlp_dim)?;
            }
        }
        if let TokenLayer::Attention { pool: Pool::Average, .. } = self.tokens {
            f.write_str(", average token,")?;
        }
        write!(f, " at {} px, {} classes", self.image_size, self.num_classes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_found_by_its_name_and_named_by_its_dimensions() {
        for &variant in variants() {
            assert_eq!(Variant::parse(&variant.name.to_lowercase()).unwrap(), variant);
            let config = variant.config(224, 1000, Gelu::Tanh);
            assert_eq!(config.variant_name(), Some(variant.name));
            let is_mixer = variant.tokens.mlp_dim().is_some();
            let prefix = if is_mixer { "Mixer-" } else { "" };
            let name = format!("{prefix}{} at 224 px, 1000 classes", variant.name);
            assert_eq!(config.to_string(), name);
        }
    }

    #[test]
    fn another_patch_side_after_a_known_letter_is_a_custom_network() {
        let custom = Variant::parse("B/4").unwrap();
        assert_eq!((custom.patch_size, custom.hidden_dim, custom.num_blocks), (4, 768, 12));
        assert_eq!(custom.config(224, 10, Gelu::Tanh).variant_name(), None);
        let vit = Variant::parse("ViT-Ti/8").unwrap();
        assert_eq!((vit.patch_size, vit.hidden_dim, vit.tokens.dimension().1), (8, 192, 3));
        // A BiT-ResNet is the same whatever the patches that its pictures arrive in.
        let bit = Variant::parse("BiT-R50x1/8").unwrap().config(224, 10, Gelu::Erf);
        assert_eq!((bit.patch_size, bit.variant_name()), (8, Some("BiT-R50x1")));
        let narrow = MixerConfig { hidden_dim: 1024, channels_mlp_dim: 256, ..bit };
        narrow.validate().unwrap();
        let name =
            "BiT(P=8, C=1024, depths=[3, 4, 6, 3], groups=32, D_C=256) at 224 px, 10 classes";
        assert_eq!(narrow.to_string(), name);
        for name in ["Ti/16", "ViT-X/16", "ViT-", "BiT-R50x2", "X/16", "B", "B/", "B/0", "B/x", ""]
        {
            let error = Variant::parse(name).unwrap_err().to_string();
            assert!(error.contains("S/32, S/16, S/8, B/32"), "{name}: {error}");
        }
    }
}
