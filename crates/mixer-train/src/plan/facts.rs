//! The data and the weights as they were found, as far as a plan needs to know them.

use std::collections::BTreeMap;

use mixer_model::{Metadata, MixerConfig, Weights};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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

/// The weights that fine-tuning starts from, or a teacher's, as far as a plan needs to know them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitFacts {
    /// Their architecture.
    pub config: MixerConfig,
    /// Class names and preprocessing, where the file has them.
    pub metadata: Metadata,
    /// SHA-256 of their tensors, hexadecimal. A resumed run compares it. Absent where no weights were read,
    /// and in plans of older versions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
}

impl InitFacts {
    /// Architecture, metadata and hash of weights.
    #[must_use]
    pub fn of(weights: &Weights) -> Self {
        Self {
            config: weights.config.clone(),
            metadata: weights.metadata.clone(),
            sha256: Some(sha256(weights)),
        }
    }

    /// The same without what others weights of the same kind would not have: where they come from, and how sure they
    /// are of what they say.
    #[must_use]
    pub fn without_origin(&self) -> Self {
        let metadata =
            Metadata { provenance: BTreeMap::new(), temperature: None, ..self.metadata.clone() };
        Self { metadata, ..self.clone() }
    }

    /// Facts of weights that nobody has read.
    #[must_use]
    pub fn assumed(config: MixerConfig, metadata: Metadata) -> Self {
        Self { config, metadata, sha256: None }
    }
}

/// Values that are hashed at a time.
const CHUNK: usize = 1 << 14;

/// SHA-256 over name, shape and values of each tensor, in the order of the names: the same for every form of
/// file that the same weights lie in.
fn sha256(weights: &Weights) -> String {
    let mut hash = Sha256::new();
    let mut bytes = Vec::with_capacity(4 * CHUNK);
    for (name, tensor) in &weights.tensors {
        hash.update(name);
        hash.update([0]);
        for side in &tensor.shape {
            hash.update((*side as u64).to_le_bytes());
        }
        for values in tensor.data.chunks(CHUNK) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            hash.update(&bytes);
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
