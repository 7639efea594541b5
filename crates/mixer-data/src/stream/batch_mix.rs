//! The mixing of one batch, as it was drawn: a kind, a share and the pairs.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The pairs of examples that are mixed with each other.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum MixFlavour {
    /// With the example before, the first with the last. Mixup's share is the larger part, at least
    /// one half.
    #[default]
    BigVision,
    /// With the example as far from the end as this one is from the start. The share is as drawn.
    Timm,
}

/// The examples among which partners are sought.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum MixPartners {
    /// Those of a microbatch.
    #[default]
    Microbatch,
    /// Those of the whole batch of an update, whatever it is cut into: a microbatch holds as one more row, behind
    /// its own, the example before its first one.
    Batch,
}

/// The mixing of one batch, as drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchMix {
    /// The kind of mixing.
    pub kind: MixKind,
    /// The share λ of an example's own picture and label, in `[0, 1]`; its partner's is 1 − λ.
    pub lambda: f32,
    /// The pairs.
    pub flavour: MixFlavour,
    /// The examples among which they are.
    pub partners: MixPartners,
}

/// A kind of mixing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MixKind {
    /// Nothing; λ is 1.
    None,
    /// Values and labels are averaged: `λ · own + (1 - λ) · partner`.
    Mixup,
    /// A box of the partner's picture covers the own one, and labels are averaged.
    CutMix {
        /// Rows of the box, px.
        rows: Range<u32>,
        /// Columns of the box, px.
        columns: Range<u32>,
    },
}

impl BatchMix {
    /// The partner of an example among the `num_examples` of a batch, or the row behind them; itself where
    /// nothing is mixed.
    pub fn partner(&self, example: usize, num_examples: usize) -> usize {
        match (&self.kind, self.flavour) {
            (MixKind::None, _) => example,
            (_, MixFlavour::BigVision) => match example {
                0 if self.partners == MixPartners::Batch => num_examples,
                0 => num_examples.saturating_sub(1),
                _ => example - 1,
            },
            (_, MixFlavour::Timm) => num_examples.saturating_sub(1).saturating_sub(example),
        }
    }

    /// The partners of all examples of a batch.
    pub fn partners(&self, num_examples: usize) -> Vec<usize> {
        (0..num_examples).map(|example| self.partner(example, num_examples)).collect()
    }
}
