//! The names of architectures: the paper's variants, and what a network is called in messages.

use std::fmt;

use super::config::{Gelu, MixerConfig, Pool, TokenLayer};
use crate::error::ModelError;

/// A named architecture: a row of the paper's Table 1, one that was published beside it, or a Vision
/// Transformer of the official code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// Name as in the paper, `B/16`; that of a Vision Transformer begins with `ViT-`.
    pub name: &'static str,
    /// Patch side, px.
    pub patch_size: usize,
    /// Channels.
    pub hidden_dim: usize,
    /// Blocks.
    pub num_blocks: usize,
    /// Heads of self-attention; `None` for a Mixer.
    pub num_heads: Option<usize>,
    /// Parameters in millions by the paper's Table 1: at 224 px, without the head.
    pub paper_millions: Option<u64>,
}

/// The variants that have a name: the paper's seven, and S/8, of which there is a published checkpoint.
#[rustfmt::skip]
pub const VARIANTS: [Variant; 8] = [
    Variant { name: "S/32", patch_size: 32, hidden_dim: 512, num_blocks: 8, num_heads: None, paper_millions: Some(19) },
    Variant { name: "S/16", patch_size: 16, hidden_dim: 512, num_blocks: 8, num_heads: None, paper_millions: Some(18) },
    Variant { name: "S/8", patch_size: 8, hidden_dim: 512, num_blocks: 8, num_heads: None, paper_millions: None },
    Variant { name: "B/32", patch_size: 32, hidden_dim: 768, num_blocks: 12, num_heads: None, paper_millions: Some(60) },
    Variant { name: "B/16", patch_size: 16, hidden_dim: 768, num_blocks: 12, num_heads: None, paper_millions: Some(59) },
    Variant { name: "L/32", patch_size: 32, hidden_dim: 1024, num_blocks: 24, num_heads: None, paper_millions: Some(206) },
    Variant { name: "L/16", patch_size: 16, hidden_dim: 1024, num_blocks: 24, num_heads: None, paper_millions: Some(207) },
    Variant { name: "H/14", patch_size: 14, hidden_dim: 1280, num_blocks: 32, num_heads: None, paper_millions: Some(431) },
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

const fn vit(
    name: &'static str,
    patch_size: usize,
    hidden_dim: usize,
    num_blocks: usize,
    heads: usize,
) -> Variant {
    let num_heads = Some(heads);
    Variant { name, patch_size, hidden_dim, num_blocks, num_heads, paper_millions: None }
}

/// All names, Mixers first.
fn variants() -> impl Iterator<Item = &'static Variant> {
    VARIANTS.iter().chain(&VIT_VARIANTS)
}

impl Variant {
    /// The variant of a name. Any patch side may follow the letter (`B/4`, `L/8`), as in
    /// big_vision: the letter fixes width and depth, the number the patch.
    ///
    /// # Errors
    /// [`ModelError::UnknownVariant`] when the letter is none of S, B, L, H (for `ViT-` also Ti) or the
    /// patch is no number.
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

    /// The architecture at a resolution. D_S = C/2 and D_C = 4C in every variant. A Vision Transformer has
    /// a class token.
    #[must_use]
    pub fn config(&self, image_size: usize, num_classes: usize, gelu: Gelu) -> MixerConfig {
        MixerConfig {
            image_size,
            patch_size: self.patch_size,
            hidden_dim: self.hidden_dim,
            tokens: match self.num_heads {
                None => TokenLayer::Mlp { tokens_mlp_dim: self.hidden_dim / 2 },
                Some(num_heads) => TokenLayer::Attention { num_heads, pool: Pool::ClassToken },
            },
            channels_mlp_dim: self.hidden_dim * 4,
            num_blocks: self.num_blocks,
            num_classes,
            gelu,
        }
    }
}

impl MixerConfig {
    /// The name of these dimensions (`B/16`, `ViT-B/16`), or `None` for a custom architecture.
    #[must_use]
    pub fn variant_name(&self) -> Option<&'static str> {
        variants()
            .find(|v| {
                let tokens = match self.tokens {
                    TokenLayer::Mlp { .. } => v.num_heads.is_none(),
                    TokenLayer::Attention { num_heads, .. } => v.num_heads == Some(num_heads),
                };
                tokens
                    && v.patch_size == self.patch_size
                    && v.hidden_dim == self.hidden_dim
                    && v.num_blocks == self.num_blocks
                    && self.channels_mlp_dim == 4 * v.hidden_dim
            })
            .map(|v| v.name)
    }
}

impl fmt::Display for MixerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.variant_name(), self.tokens) {
            (Some(name), TokenLayer::Mlp { .. }) => write!(f, "Mixer-{name}")?,
            (Some(name), TokenLayer::Attention { .. }) => f.write_str(name)?,
            (None, tokens) => {
                let (tokens_key, family) = match tokens {
                    TokenLayer::Mlp { .. } => ("D_S", "Mixer"),
                    TokenLayer::Attention { .. } => ("heads", "ViT"),
                };
                write!(
                    f,
                    "{family}(P={}, C={}, L={}, {tokens_key}={}, D_C={})",
                    self.patch_size,
                    self.hidden_dim,
                    self.num_blocks,
                    tokens.dimension().1,
                    self.channels_mlp_dim
                )?;
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
        for variant in VARIANTS.into_iter().chain(VIT_VARIANTS) {
            assert_eq!(Variant::parse(&variant.name.to_lowercase()).unwrap(), variant);
            let config = variant.config(224, 1000, Gelu::Tanh);
            assert_eq!(config.variant_name(), Some(variant.name));
            let prefix = if variant.num_heads.is_none() { "Mixer-" } else { "" };
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
        assert_eq!((vit.patch_size, vit.hidden_dim, vit.num_heads), (8, 192, Some(3)));
        for name in ["Ti/16", "ViT-X/16", "ViT-", "X/16", "B", "B/", "B/0", "B/x", ""] {
            let error = Variant::parse(name).unwrap_err().to_string();
            assert!(error.contains("S/32, S/16, S/8, B/32"), "{name}: {error}");
        }
    }
}
