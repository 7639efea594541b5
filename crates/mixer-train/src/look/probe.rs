//! The paper's probe, and nearest neighbours, on frozen features.

use mixer_analysis::{LinearProbe, few_shot_support, nearest_neighbours};
use serde::Serialize;

use crate::error::TrainError;
use crate::look::features::Features;

/// Strength of the regularisation, as big_vision has it.
pub const L2: f64 = 1024.0;

/// Temperature of the neighbours' votes, as DINO has it.
pub const TEMPERATURE: f64 = 0.07;

/// The accuracy of a few-shot linear probe; its JSON form is part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ProbeResult {
    /// Examples of each class that it was fitted to.
    pub shots: usize,
    /// Seed of their selection.
    pub seed: u64,
    /// Strength of the regularisation.
    pub l2: f64,
    /// Fraction of the test examples that are right.
    pub accuracy: f64,
}

/// The accuracy of the nearest neighbours; its JSON form is part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NeighboursResult {
    /// Neighbours that vote.
    pub knn: usize,
    /// Temperature of their votes.
    pub temperature: f64,
    /// Fraction of the test examples that are right.
    pub accuracy: f64,
}

/// Fits a probe to `shots` examples of each class of `train`, chosen by `seed`, and tries it on `test`.
///
/// # Errors
/// [`TrainError::DataMismatch`] for features that are no finite numbers.
pub fn few_shot(
    train: &Features,
    test: &Features,
    num_classes: usize,
    seed: u64,
    shots: usize,
) -> Result<ProbeResult, TrainError> {
    let support = few_shot_support(&train.labels, num_classes, seed, shots);
    let (features, labels) = train.some(&support);
    let probe = LinearProbe::fit(&features, &labels, num_classes, L2)
        .map_err(|error| TrainError::data_mismatch(error.to_string()))?;
    let accuracy = probe.accuracy(&test.values, &test.labels);
    Ok(ProbeResult { shots, seed, l2: L2, accuracy })
}

/// The votes of the `k` nearest examples of `train`.
#[must_use]
pub fn neighbours(
    train: &Features,
    test: &Features,
    num_classes: usize,
    k: usize,
) -> NeighboursResult {
    let of = (train.values.as_slice(), train.labels.as_slice());
    let found = nearest_neighbours(of, &test.values, num_classes, k, Some(TEMPERATURE));
    let right = found.iter().zip(&test.labels).filter(|(found, label)| **found == **label as usize);
    let accuracy = right.count() as f64 / test.labels.len() as f64;
    NeighboursResult { knn: k, temperature: TEMPERATURE, accuracy }
}
