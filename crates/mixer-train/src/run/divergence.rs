//! The file of an update that is not finite, which lets it be looked at again.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::disk::atomic;
use crate::disk::checkpoint::{self, Checkpoint};
use crate::disk::run_dir::RunDir;
use crate::error::{CheckpointFault, TrainError};
use crate::run::quantity::Quantity;

/// Loss and gradient norm of an update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// The update, from 0.
    pub step: u64,
    /// Mean loss of its batch.
    pub loss: f64,
    /// Norm of its whole gradient, before clipping.
    pub grad_norm: f64,
}

/// An update that was not finite; `mixer pretrain … --replay FILE` looks at it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Divergence {
    /// Version of `mixer`.
    pub mixer_version: String,
    /// The update, from 0: so many were applied before it.
    pub step: u64,
    /// The quantity that was not finite.
    pub quantity: Quantity,
    /// Its value: `NaN`, `inf` or `-inf`.
    pub value: String,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// The last update of this process that was finite.
    pub last_finite: Option<Values>,
    /// Index of each example of the batch in the training split.
    pub examples: Vec<u64>,
    /// The checkpoint of the update before, beside this file. A GPU has gone on by the time that it is
    /// found out, and has none: replaying starts at the newest one of the run then.
    pub state: Option<PathBuf>,
}

impl Divergence {
    /// Writes the file, and the state of the run before the update where there is one, below the run
    /// directory; takes the place of older ones. Returns the file.
    ///
    /// # Errors
    /// [`TrainError::Io`] or [`TrainError::Checkpoint`] with the file.
    pub fn write(
        mut self,
        run_dir: &RunDir,
        state: Option<&Checkpoint>,
    ) -> Result<PathBuf, TrainError> {
        let directory = run_dir.divergence();
        if directory.is_dir() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        let file = directory.join(format!("{}.json", checkpoint::directory_name(self.step)));
        let write = |divergence: &Self| -> Result<(), TrainError> {
            let json = serde_json::to_vec_pretty(divergence).map_err(std::io::Error::other)?;
            Ok(atomic::write(&file, &json)?)
        };
        // The small file first: there may be no room for the large ones.
        write(&self)?;
        if let Some(state) = state {
            self.state = state.write(&directory)?.file_name().map(PathBuf::from);
            write(&self)?;
        }
        Ok(file)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when it cannot be read or is another file.
    pub fn read(file: &Path) -> Result<Self, TrainError> {
        let failed = |reason: String| {
            TrainError::checkpoint(CheckpointFault::CannotReadDivergence, reason, file)
        };
        let bytes = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))
    }
}
