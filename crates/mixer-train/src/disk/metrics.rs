//! `metrics.jsonl`: one JSON object per line, and nothing else.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::error::{CheckpointFault, TrainError};
use crate::run::evaluation::null_is_nan;
use crate::run::quantity::Quantity;
use crate::show::progress::say;
use crate::update::loss::Loss;

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
        /// Fraction of that time that the process was with the others: waiting for the slowest, and adding up
        /// gradients. Absent where there are no others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exchange: Option<f64>,
        /// Training time of the run, over all its lives, seconds; absent in lines of older versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        elapsed_secs: Option<f64>,
        /// Clock on the wall (RFC 3339, UTC); absent in lines of older versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        time: Option<String>,
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
        #[serde(deserialize_with = "null_is_nan")]
        loss: f64,
        /// The loss that it is of; absent in lines of older versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loss_kind: Option<Loss>,
        /// Accuracy.
        top1: f64,
        /// Accuracy among the five most probable.
        top5: f64,
        /// Examples counted.
        n: u64,
        /// Training time of the run, as of a line of training.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        elapsed_secs: Option<f64>,
        /// Clock on the wall, as of a line of training.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        time: Option<String>,
    },
    /// A loss or a gradient norm that stands out from the updates before.
    Outlier {
        /// Updates done, this one included.
        step: u64,
        /// Quantity that it is of.
        quantity: Quantity,
        /// Its value.
        value: f64,
        /// Mean of the updates before.
        mean: f64,
        /// Their standard deviation.
        std: f64,
        /// `(value − mean) / std`.
        z_score: f64,
    },
    /// An update that was left out because it was not finite.
    Diverged {
        /// Updates done, this one included.
        step: u64,
        /// Quantity that it is of.
        quantity: Quantity,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// The factor of the loss was changed; halved where gradients overflowed, and the update left out.
    LossScale {
        /// Updates done, this one included.
        step: u64,
        /// The factor from now on.
        factor: f64,
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
    /// A line of a newer version.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// An append-only file of metrics.
#[derive(Debug)]
pub struct MetricsFile {
    // Not of `fs_err`, whose errors name the path: these do it once, and have the words of the system.
    file: std::fs::File,
    path: PathBuf,
    bytes: u64,
}

impl MetricsFile {
    /// Opens the file and cuts it to `length` bytes: what a resumed run has already written beyond its
    /// checkpoint, it writes again. A file that is shorter has lost lines, which is said and no reason
    /// not to go on.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when it cannot be opened or written to.
    pub fn open(path: &Path, length: u64) -> Result<Self, TrainError> {
        let mut options = std::fs::OpenOptions::new();
        let options = options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(path).map_err(|error| cannot_write(path, &error))?;
        let found = file.metadata().map_err(|error| cannot_write(path, &error))?.len();
        if found < length {
            say(format_args!(
                "warning: lines of metrics are lost: {found} bytes, the checkpoint was written after {length}: {}",
                path.display()
            ));
        }
        let bytes = match found < length {
            true => whole_lines(path)?,
            false => length,
        };
        file.set_len(bytes)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(|error| cannot_write(path, &error))?;
        Ok(Self { file, path: path.to_owned(), bytes })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] with the path: a run without room for a line has none for a checkpoint.
    pub fn write(&mut self, metric: &Metric) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(metric).map_err(std::io::Error::other)?;
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|error| cannot_write(&self.path, &error))?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file once more, for a thread that syncs it.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the process has too many files open.
    pub fn handle(&self) -> Result<std::fs::File, TrainError> {
        self.file.try_clone().map_err(|error| cannot_write(&self.path, &error))
    }
}

/// Every line of a file of metrics, in its order, but for those of kinds that are not known. A line that is
/// cut off at the end of the file counts for nothing, as it does where a run goes on.
///
/// # Errors
/// [`TrainError::Io`] when the file cannot be read, [`TrainError::Checkpoint`] with the number of a line that
/// is none of metrics.
pub fn read(path: &Path) -> Result<Vec<Metric>, TrainError> {
    let bytes = fs::read(path)?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let parse = |(index, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|error| {
            let reason = format!("line {}: {error}", index + 1);
            TrainError::checkpoint(CheckpointFault::CannotReadMetrics, reason, path)
        })
    };
    let is_known = |line: &Result<Metric, TrainError>| !matches!(line, Ok(Metric::Unknown));
    let lines = bytes[..whole].split_inclusive(|&byte| byte == b'\n');
    lines.enumerate().map(parse).filter(is_known).collect()
}

/// `true` where the last line of a file of metrics is cut off.
///
/// # Errors
/// [`TrainError::Io`] when the file cannot be read.
pub fn is_cut(path: &Path) -> Result<bool, TrainError> {
    Ok(fs::metadata(path)?.len() > whole_lines(path)?)
}

/// Bytes up to the end of the last whole line.
fn whole_lines(path: &Path) -> Result<u64, TrainError> {
    let text = fs::read(path)?;
    Ok(text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at as u64 + 1))
}

fn cannot_write(path: &Path, source: &std::io::Error) -> TrainError {
    TrainError::checkpoint(CheckpointFault::CannotWriteMetrics, source.to_string(), path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64) -> Metric {
        Metric::Diverged { step, quantity: Quantity::Loss, value: "NaN".to_owned() }
    }

    #[test]
    fn lines_are_read_back_those_of_older_versions_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).unwrap();
        let eval = |elapsed_secs, time| Metric::Eval {
            step: 2,
            split: "val".to_owned(),
            weights: None,
            loss: f64::INFINITY,
            loss_kind: Some(Loss::Sigmoid),
            top1: 0.5,
            top5: 1.0,
            n: 4,
            elapsed_secs,
            time,
        };
        file.write(&line(1)).unwrap();
        file.write(&eval(Some(1.5), Some("2026-01-02T03:04:05Z".to_owned()))).unwrap();
        let old =
            r#"{"kind":"eval","step":2,"split":"val","loss":0.5,"top1":0.5,"top5":1.0,"n":4}"#;
        let newer = r#"{"kind":"telemetry","watts":300}"#;
        let text = std::fs::read_to_string(&path).unwrap();
        let text = format!("{text}{newer}\n{old}\n{{\"kind\":\"ev");
        std::fs::write(&path, &text).unwrap();
        let found = read(&path).unwrap();
        assert_eq!(found[0], line(1));
        assert!(
            matches!(&found[1], Metric::Eval { loss, elapsed_secs: Some(1.5), .. } if loss.is_nan())
        );
        assert!(matches!(
            found[2],
            Metric::Eval { elapsed_secs: None, time: None, loss_kind: None, .. }
        ));
        assert_eq!(found.len(), 3);
        std::fs::write(&path, "{}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn what_a_checkpoint_does_not_count_on_is_cut_off_and_what_is_lost_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).unwrap();
        file.write(&line(1)).unwrap();
        let after_one = file.bytes();
        file.write(&line(2)).unwrap();
        let mut file = MetricsFile::open(&path, after_one).unwrap();
        file.write(&line(3)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() == 2 && !text.contains("\"step\":2"), "{text}");
        // It is shorter than the checkpoint knows, in the middle of a line.
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        let file = MetricsFile::open(&path, 1000).unwrap();
        assert_eq!(file.bytes(), after_one);
        // Somebody has removed it.
        std::fs::remove_file(&path).unwrap();
        let mut file = MetricsFile::open(&path, after_one).unwrap();
        file.write(&line(4)).unwrap();
        assert_eq!(file.bytes(), std::fs::metadata(&path).unwrap().len());
    }
}
