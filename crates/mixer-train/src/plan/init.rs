//! The start of a fine-tuning.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mixer_model::MixerConfig;
use mixer_model::weights::ResizeMethod;
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
        let shuffle = facts.metadata.preprocessing.unwrap_or_default().shuffle;
        shuffle.check_resolution(facts.config.image_size, model.image_size)?;
        let same_count = facts.config.num_classes == model.num_classes;
        let same_classes = match &facts.metadata.classes {
            Some(names) => names == classes,
            None => same_count,
        };
        let reset_head = match config.head.unwrap_or(HEAD) {
            HeadInit::Auto => !same_classes,
            HeadInit::Reset => true,
            HeadInit::Keep if same_count => {
                refuse_moved_classes(facts.metadata.classes.as_deref(), classes)?;
                false
            }
            HeadInit::Keep => {
                return Err(TrainError::config(format!(
                    "`init.head = \"keep\"`, but the weights have {} classes and the data {}",
                    facts.config.num_classes, model.num_classes
                )));
            }
        };
        Ok(Self {
            weights: config.weights.clone(),
            head: if reset_head { HeadInit::Reset } else { HeadInit::Keep },
            from: facts.without_origin(),
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
        ResizeMethod::between(&self.from.config, network.image_size)
    }
}

/// A head that is kept goes on answering in the order of the weights, so a class that both know has to
/// stand at the same place in both.
fn refuse_moved_classes(weights: Option<&[String]>, data: &[String]) -> Result<(), TrainError> {
    let place: BTreeMap<&String, usize> = weights.unwrap_or_default().iter().zip(0..).collect();
    let moved = data.iter().zip(0..).find_map(|(name, at)| {
        place.get(name).filter(|&&from| from != at).map(|&from| (name, from, at))
    });
    match moved {
        None => Ok(()),
        Some((name, from, at)) => Err(TrainError::config(format!(
            "`init.head = \"keep\"`, but class `{name}` is number {from} of the weights and number {at} of the data"
        ))
        .with_hint("`init.head = \"reset\"` starts the head from zeros")),
    }
}
