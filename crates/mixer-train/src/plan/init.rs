//! The start of a fine-tuning.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mixer_model::weights::ResizeMethod;
use mixer_model::{Metadata, MixerConfig};
use serde::{Deserialize, Serialize};

use crate::config::init::HEAD;
use crate::config::{HeadInit, InitConfig};
use crate::error::TrainError;
use crate::plan::facts::InitFacts;

/// The start of a fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitPlan {
    /// The weights, as they were named.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights: Option<PathBuf>,
    /// Fate of the head: `reset` or `keep`.
    pub head: HeadInit,
    /// The weights as they were found.
    pub from: InitFacts,
}

impl InitPlan {
    /// Resolves the section for the network that the weights become.
    pub(super) fn resolve(
        config: &InitConfig,
        facts: &InitFacts,
        model: &MixerConfig,
        classes: &[String],
    ) -> Result<Self, TrainError> {
        let same_count = facts.config.num_classes == model.num_classes;
        let same_classes = match &facts.metadata.classes {
            Some(names) => names == classes,
            None => same_count,
        };
        let reset_head = match config.head.unwrap_or(HEAD) {
            HeadInit::Auto => !same_classes,
            HeadInit::Reset => true,
            HeadInit::Keep if same_count => false,
            HeadInit::Keep => {
                return Err(TrainError::config(format!(
                    "`init.head = \"keep\"`, but the weights have {} classes and the data {}",
                    facts.config.num_classes, model.num_classes
                )));
            }
        };
        // Of the weights as they were; other weights have another one.
        let metadata =
            Metadata { provenance: BTreeMap::new(), temperature: None, ..facts.metadata.clone() };
        Ok(Self {
            weights: config.weights.clone(),
            head: if reset_head { HeadInit::Reset } else { HeadInit::Keep },
            from: InitFacts { metadata, ..facts.clone() },
        })
    }

    /// `true` where the head starts from zeros.
    #[must_use]
    pub fn resets_head(&self) -> bool {
        self.head == HeadInit::Reset
    }

    /// Change of token mixing on the way to a network's resolution.
    #[must_use]
    pub fn resolution(&self, network: &MixerConfig) -> ResizeMethod {
        ResizeMethod::between(self.from.config.image_size, network.image_size)
    }
}
