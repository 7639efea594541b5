//! The features of a split: what the network makes of each picture before its head.

use std::sync::Arc;

use mixer_data::{OnCorrupt, Source};

use crate::classifier::Classifier;
use crate::error::TrainError;

/// The features of a split, with what is known of each example.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// `[N, C]`, row after row.
    pub values: Vec<f32>,
    /// Features of an example, `C`.
    pub dim: usize,
    /// The class of each example.
    pub labels: Vec<u32>,
    /// Place of each example.
    pub paths: Vec<String>,
}

impl Features {
    /// The mean token after the last normalisation (`pre_logits` of the official code) of every example of
    /// `source`, in batches of `batch_size`; `progress` is called with the number of examples done.
    ///
    /// # Errors
    /// [`TrainError::Data`] when an example cannot be read.
    pub fn of(
        classifier: &Classifier,
        source: &Arc<dyn Source>,
        batch_size: usize,
        mut progress: impl FnMut(u64),
    ) -> Result<Self, TrainError> {
        let mut features =
            Self { values: Vec::new(), dim: 0, labels: Vec::new(), paths: Vec::new() };
        classifier.for_each(
            source,
            (batch_size, OnCorrupt::Stop),
            |_| (),
            |mixer, patches| mixer.features(patches),
            |index, row| {
                features.dim = row.len();
                features.values.extend_from_slice(row);
                features.labels.push(source.label(index));
                features.paths.push(source.describe(index));
                progress(features.labels.len() as u64);
            },
        )?;
        Ok(features)
    }

    /// The features of some examples and their classes.
    #[must_use]
    pub fn some(&self, examples: &[usize]) -> (Vec<f32>, Vec<u32>) {
        let rows = examples.iter().flat_map(|i| &self.values[i * self.dim..][..self.dim]);
        (rows.copied().collect(), examples.iter().map(|i| self.labels[*i]).collect())
    }
}
