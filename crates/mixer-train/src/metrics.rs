//! `metrics.jsonl`: one JSON object per line, and nothing else.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use fs_err::{File, OpenOptions};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Metric {
    /// Training since the line before.
    Train {
        /// Updates done.
        step: u64,
        /// Passes over the training data done.
        epoch: f64,
        /// Mean loss.
        loss: f64,
        /// Learning rate of the last update.
        lr: f64,
        /// Mean norm of the whole gradient before clipping.
        grad_norm: f64,
        /// Training throughput.
        images_per_sec: f64,
        /// Fraction of the time spent waiting for data.
        data_wait: f64,
    },
    /// An evaluation.
    Eval {
        /// Updates done.
        step: u64,
        /// Name of the split.
        split: String,
        /// `average` for the moving average of the weights; absent for the weights themselves.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        weights: Option<String>,
        /// Mean loss.
        loss: f64,
        /// Accuracy.
        top1: f64,
        /// Accuracy among the five most probable.
        top5: f64,
        /// Examples counted.
        n: u64,
    },
    /// An example that was passed over.
    Skipped {
        /// Updates done.
        step: u64,
        /// `train`, or the name of the split that was evaluated.
        split: String,
        /// Its index.
        index: u64,
        /// Why, with the path.
        reason: String,
    },
}

/// An append-only file of metrics.
#[derive(Debug)]
pub struct MetricsFile {
    file: File,
}

impl MetricsFile {
    /// Opens the file and cuts it to `length` bytes: what a resumed run has already written beyond its
    /// checkpoint, it writes again.
    ///
    /// # Errors
    /// [`TrainError::Io`], or [`TrainError::Checkpoint`] when the file is shorter than that.
    pub fn open(path: &Path, length: u64) -> Result<MetricsFile, TrainError> {
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        let found = file.metadata()?.len();
        if found < length {
            return Err(TrainError::Checkpoint {
                action: "cannot continue the metrics",
                reason: format!(
                    "the file has {found} bytes, the checkpoint was written after {length}"
                ),
                path: path.to_owned(),
            });
        }
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        Ok(MetricsFile { file })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// [`TrainError::Io`] with the path.
    pub fn write(&mut self, metric: &Metric) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(metric).map_err(std::io::Error::other)?;
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        Ok(())
    }

    /// Bytes written so far, all of them on disk.
    ///
    /// # Errors
    /// [`TrainError::Io`] with the path.
    pub fn sync(&mut self) -> Result<u64, TrainError> {
        self.file.sync_data()?;
        Ok(self.file.stream_position()?)
    }
}
