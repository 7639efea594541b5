//! `evaluation.json` of a run directory: the last evaluation in depth, for reports.

use std::path::PathBuf;

use fs_err as fs;
use mixer_analysis::Measures;
use serde::{Deserialize, Serialize};

use crate::disk::atomic;
use crate::disk::run_dir::RunDir;
use crate::error::{CheckpointFault, TrainError};

/// The name of the file.
const FILE: &str = "evaluation.json";

/// An evaluation in depth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedEvaluation {
    /// Split that was evaluated on.
    pub split: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The result.
    pub measures: Measures,
    /// The most confident mistakes, the worst first.
    pub mistakes: Vec<Mistake>,
}

/// A picture that was taken for another class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// Its place.
    pub path: String,
    /// Name of its class.
    pub label: String,
    /// Name of the predicted class.
    pub prediction: String,
    /// Probability of the prediction.
    pub confidence: f64,
    /// The picture, small, as a PNG file.
    pub thumbnail: Vec<u8>,
}

impl SavedEvaluation {
    /// Writes it into a run directory, and tells where.
    ///
    /// # Errors
    /// [`TrainError::Io`] when it cannot be written.
    pub fn write(&self, run_dir: &RunDir) -> Result<PathBuf, TrainError> {
        let path = run_dir.path().join(FILE);
        let text = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        atomic::write(&path, &text)?;
        Ok(path)
    }

    /// Reads that of a run directory, where there is one.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] for a damaged one.
    pub fn read(run_dir: &RunDir) -> Result<Option<Self>, TrainError> {
        let path = run_dir.path().join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        serde_json::from_slice(&fs::read(&path)?).map(Some).map_err(|error| {
            TrainError::checkpoint(CheckpointFault::CannotReadEvaluation, error.to_string(), path)
        })
    }
}
