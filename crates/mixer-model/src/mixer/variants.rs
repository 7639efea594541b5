//! The names of architectures: the paper's variants, and what a network is called in messages.

use std::fmt;

use super::config::{Gelu, MixerConfig};
use crate::error::ModelError;

/// A named architecture: a row of the paper's Table 1, or one that was published beside it.
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
    /// Parameters in millions by the paper's Table 1: at 224 px, without the head.
    pub paper_millions: Option<u64>,
}

/// The variants that have a name: the paper's seven, and S/8, of which there is a published checkpoint.
#[rustfmt::skip]
pub const VARIANTS: [Variant; 8] = [
    Variant { name: "S/32", patch_size: 32, hidden_dim: 512, num_blocks: 8, paper_millions: Some(19) },
    Variant { name: "S/16", patch_size: 16, hidden_dim: 512, num_blocks: 8, paper_millions: Some(18) },
    Variant { name: "S/8", patch_size: 8, hidden_dim: 512, num_blocks: 8, paper_millions: None },
    Variant { name: "B/32", patch_size: 32, hidden_dim: 768, num_blocks: 12, paper_millions: Some(60) },
    Variant { name: "B/16", patch_size: 16, hidden_dim: 768, num_blocks: 12, paper_millions: Some(59) },
    Variant { name: "L/32", patch_size: 32, hidden_dim: 1024, num_blocks: 24, paper_millions: Some(206) },
    Variant { name: "L/16", patch_size: 16, hidden_dim: 1024, num_blocks: 24, paper_millions: Some(207) },
    Variant { name: "H/14", patch_size: 14, hidden_dim: 1280, num_blocks: 32, paper_millions: Some(431) },
];

impl Variant {
    /// The variant of a name. Any patch side may follow the letter (`B/4`, `L/8`), as in
    /// big_vision: the letter fixes width and depth, the number the patch.
    ///
    /// # Errors
    /// [`ModelError::UnknownVariant`] when the letter is none of S, B, L, H or the patch is no number.
    pub fn parse(name: &str) -> Result<Self, ModelError> {
        if let Some(variant) = VARIANTS.iter().find(|v| v.name.eq_ignore_ascii_case(name)) {
            return Ok(*variant);
        }
        let unknown = || ModelError::UnknownVariant {
            found: name.to_owned(),
            expected: VARIANTS.map(|variant| variant.name).join(", "),
        };
        let (letter, patch) = name.split_once('/').ok_or_else(unknown)?;
        let patch_size: usize = patch.parse().map_err(|_| unknown())?;
        let base = VARIANTS
            .iter()
            .find(|v| v.name.split('/').next().is_some_and(|l| l.eq_ignore_ascii_case(letter)))
            .ok_or_else(unknown)?;
        if patch_size == 0 {
            return Err(unknown());
        }
        Ok(Self { patch_size, name: "custom", paper_millions: None, ..*base })
    }

    /// The architecture at a resolution. D_S = C/2 and D_C = 4C in every variant.
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
    /// The name of these dimensions (`B/16`), or `None` for a custom architecture.
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

impl fmt::Display for MixerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_found_by_its_name_and_named_by_its_dimensions() {
        for variant in VARIANTS {
            assert_eq!(Variant::parse(&variant.name.to_lowercase()).unwrap(), variant);
            let config = variant.config(224, 1000, Gelu::Tanh);
            assert_eq!(config.variant_name(), Some(variant.name));
            let name = format!("Mixer-{} at 224 px, 1000 classes", variant.name);
            assert_eq!(config.to_string(), name);
        }
    }

    #[test]
    fn another_patch_side_after_a_known_letter_is_a_custom_network() {
        let custom = Variant::parse("B/4").unwrap();
        assert_eq!((custom.patch_size, custom.hidden_dim, custom.num_blocks), (4, 768, 12));
        assert_eq!(custom.config(224, 10, Gelu::Tanh).variant_name(), None);
        for name in ["X/16", "B", "B/", "B/0", "B/x", ""] {
            let error = Variant::parse(name).unwrap_err().to_string();
            assert!(error.contains("S/32, S/16, S/8, B/32"), "{name}: {error}");
        }
    }
}
