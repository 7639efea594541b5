//! A complete set of weights in host memory.

use std::collections::BTreeMap;

use super::differences::{Shapes, differences, shown};
use super::metadata::Metadata;
use crate::error::ModelError;
use crate::mixer::config::MixerConfig;
use crate::parameters::{Role, parameters};
use crate::tensor::HostTensor;

/// A complete set of weights: timm's names and layouts, every shape as `config` says.
///
/// Of a Mixer, `stem.proj.weight` is `[C, 3, P, P]`, `blocks.{i}.mlp_tokens.fc1.weight` `[D_S, S]`, `head.weight`
/// `[K, C]`; [`parameters`] lists them all.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// The architecture.
    pub config: MixerConfig,
    /// Every tensor by its timm name.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Class names, preprocessing, provenance.
    pub metadata: Metadata,
}

impl Weights {
    /// Tensors put together, and checked.
    ///
    /// # Errors
    /// [`ModelError::Mismatch`] when they are not those of `config`, [`ModelError::ClassCount`] when
    /// there are class names and not one for each output of the head.
    pub fn new(
        config: MixerConfig,
        tensors: BTreeMap<String, HostTensor>,
        metadata: Metadata,
    ) -> Result<Self, ModelError> {
        let weights = Self { config, tensors, metadata };
        weights.validate()?;
        Ok(weights)
    }

    /// Checks that the weights fit a model: same tensors, same shapes. The activation may differ.
    ///
    /// # Errors
    /// [`ModelError::Mismatch`] with every difference.
    pub fn check_fits(&self, config: &MixerConfig) -> Result<(), ModelError> {
        config.validate()?;
        let shapes: Shapes = self
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
            .collect();
        let mut differences = differences(config, &shapes);
        for (name, tensor) in &self.tensors {
            let needed = tensor.shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size));
            if needed != Some(tensor.data.len()) {
                let (found, shape) = (tensor.data.len(), &tensor.shape);
                differences.push(format!("{name} has {found} values for the shape {shape:?}"));
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(ModelError::Mismatch { network: config.to_string(), differences: shown(&differences) })
    }

    /// The weights with a fresh head, for fine-tuning on other classes: kernel zero, as the paper
    /// has it, and `bias` everywhere. Class names are dropped, since they named the old outputs.
    #[must_use]
    pub fn with_fresh_head(mut self, num_classes: usize, bias: f32) -> Self {
        self.config.num_classes = num_classes;
        for spec in parameters(&self.config) {
            let value = match spec.role {
                Role::HeadKernel => 0.0,
                Role::HeadBias => bias,
                _ => continue,
            };
            self.tensors.insert(spec.name, HostTensor::filled(&spec.shape, value));
        }
        self.metadata.classes = None;
        self
    }

    /// The number of values that are NaN or infinite, by tensor; tensors without any are left out.
    #[must_use]
    pub fn non_finite(&self) -> BTreeMap<&str, usize> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), count_non_finite(&tensor.data)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Checks that every value is a number: what is written must be of use to who reads it.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] with the first parameter that has such values.
    pub fn check_finite(&self) -> Result<(), ModelError> {
        let non_finite = self.non_finite();
        match non_finite.iter().next() {
            None => Ok(()),
            Some((name, count)) => Err(ModelError::NotFinite {
                name: (*name).to_owned(),
                count: *count,
                others: non_finite.len() - 1,
            }),
        }
    }

    pub(super) fn validate(&self) -> Result<(), ModelError> {
        self.check_fits(&self.config)?;
        if let Some(classes) = &self.metadata.classes
            && classes.len() != self.config.num_classes
        {
            return Err(ModelError::ClassCount {
                found: classes.len(),
                expected: self.config.num_classes,
            });
        }
        Ok(())
    }
}

/// Values that are NaN or infinite.
pub(super) fn count_non_finite(values: &[f32]) -> usize {
    values.iter().filter(|value| !value.is_finite()).count()
}
