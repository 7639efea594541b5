//! The data and the weights as they were found, as far as a plan needs to know them.

use mixer_model::{Metadata, MixerConfig, Weights};
use serde::{Deserialize, Serialize};

/// The data, as far as a plan needs to know them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFacts {
    /// Examples to train on.
    pub train_examples: u64,
    /// Examples to evaluate on.
    pub val_examples: u64,
    /// Name of the split that is evaluated.
    pub val_split: String,
    /// Hash of the names and labels of the training examples, hexadecimal. A resumed run compares it.
    pub train_fingerprint: String,
    /// The same of the evaluation examples.
    pub val_fingerprint: String,
    /// Class names, in the order of the labels.
    pub classes: Vec<String>,
}

/// The weights that fine-tuning starts from, as far as a plan needs to know them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitFacts {
    /// Their architecture.
    pub config: MixerConfig,
    /// Class names and preprocessing, where the file has them.
    pub metadata: Metadata,
}

impl InitFacts {
    /// Architecture and metadata of weights.
    #[must_use]
    pub fn of(weights: &Weights) -> Self {
        Self { config: weights.config.clone(), metadata: weights.metadata.clone() }
    }
}
