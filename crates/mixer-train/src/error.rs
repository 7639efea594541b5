//! Everything that ends a command early, and the exit code that says which kind it was.

use std::path::{Path, PathBuf};

use mixer_data::DataError;
use mixer_model::ModelError;

/// Exit codes of the `mixer` binary; part of its interface.
pub mod exit_code {
    /// Done.
    pub const OK: u8 = 0;
    /// A bug, or an operating-system failure that none of the others names.
    pub const UNEXPECTED: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// The configuration is wrong, or the run directory belongs to another one.
    pub const CONFIG: u8 = 3;
    /// The data cannot be read.
    pub const DATA: u8 = 4;
    /// Weights or a checkpoint cannot be read or written.
    pub const WEIGHTS: u8 = 5;
    /// The loss or a gradient is no longer finite.
    pub const DIVERGED: u8 = 6;
    /// The device is missing or not compiled in.
    pub const DEVICE: u8 = 7;
    /// Interrupted, with a checkpoint written.
    pub const INTERRUPTED: u8 = 130;
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The command line asks for something that makes no sense.
    #[error("{message}")]
    Usage {
        /// What was found and what was expected.
        message: String,
    },
    /// The configuration is wrong.
    #[error("{message}{}", at(path.as_deref()))]
    Config {
        /// What was found, what was expected, and the key.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// The configuration file, where one was read.
        path: Option<PathBuf>,
    },
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The data is readable but not what the run needs.
    #[error("{message}")]
    DataMismatch {
        /// What was found and what was expected.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Weights cannot be read, written or fitted.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A checkpoint cannot be read or written.
    #[error("{action}: {reason}: {}", path.display())]
    Checkpoint {
        /// What was being done.
        action: &'static str,
        /// What went wrong.
        reason: String,
        /// The file or directory.
        path: PathBuf,
    },
    /// The run directory cannot be used.
    #[error("{message}: {}", path.display())]
    RunDir {
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// The directory.
        path: PathBuf,
    },
    /// Training left the finite numbers.
    #[error("{quantity} is {value} at step {step}: training diverged, the update was not applied")]
    Diverged {
        /// `loss` or `gradient norm`.
        quantity: &'static str,
        /// Its value.
        value: f64,
        /// The update that it belongs to.
        step: u64,
    },
    /// The device cannot be used.
    #[error("{message}")]
    Device {
        /// What was asked for and what is there.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The user stopped the run.
    #[error("interrupted at step {step}; checkpoint written: {}", path.display())]
    Interrupted {
        /// Updates done.
        step: u64,
        /// The checkpoint.
        path: PathBuf,
    },
    /// Reading or writing a file failed; the source names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn at(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!(": {}", path.display()))
}

impl TrainError {
    /// A configuration error that belongs to no file yet.
    pub fn config(message: impl Into<String>) -> TrainError {
        TrainError::Config { message: message.into(), hint: None, path: None }
    }

    /// The same error with advice; only kinds that carry a hint change.
    #[must_use]
    pub fn with_hint(mut self, advice: impl Into<String>) -> TrainError {
        if let TrainError::Config { hint, .. }
        | TrainError::DataMismatch { hint, .. }
        | TrainError::RunDir { hint, .. }
        | TrainError::Device { hint, .. } = &mut self
        {
            *hint = Some(advice.into());
        }
        self
    }

    /// The same error with the file that it was found in.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> TrainError {
        if let TrainError::Config { path: path @ None, .. } = &mut self {
            *path = Some(file.to_owned());
        }
        self
    }

    /// The process exit code of this kind of error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            TrainError::Usage { .. } => exit_code::USAGE,
            TrainError::Config { .. } | TrainError::RunDir { .. } => exit_code::CONFIG,
            TrainError::Data(_) | TrainError::DataMismatch { .. } => exit_code::DATA,
            TrainError::Model(
                ModelError::UnknownVariant { .. }
                | ModelError::ZeroDimension { .. }
                | ModelError::IndivisibleImage { .. },
            ) => exit_code::CONFIG,
            TrainError::Model(_) | TrainError::Checkpoint { .. } => exit_code::WEIGHTS,
            TrainError::Diverged { .. } => exit_code::DIVERGED,
            TrainError::Device { .. } => exit_code::DEVICE,
            TrainError::Interrupted { .. } => exit_code::INTERRUPTED,
            TrainError::Io(_) => exit_code::UNEXPECTED,
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            TrainError::Config { hint, .. }
            | TrainError::DataMismatch { hint, .. }
            | TrainError::RunDir { hint, .. }
            | TrainError::Device { hint, .. } => hint.clone(),
            TrainError::Data(DataError::NoSuchDirectory { .. }) => {
                Some("`data.path` is the folder above `train/` and `val/` (or `test/`)".to_owned())
            }
            TrainError::Data(DataError::BadExample { .. }) => Some(
                "remove or repair the file, or pass over a few with `--set data.on_corrupt.skip.at_most=10`"
                    .to_owned(),
            ),
            TrainError::Model(ModelError::IndivisibleImage { patch_size, image_size }) => {
                let below = (image_size / patch_size).max(1) * patch_size;
                Some(format!("`model.image_size = {below}` or {} would do", below + patch_size))
            }
            TrainError::Diverged { .. } => Some(
                "a lower `optimizer.learning_rate`, a longer `schedule.warmup_steps` or a smaller \
                 `train.clip_norm` usually helps; resume continues from the last checkpoint"
                    .to_owned(),
            ),
            TrainError::Interrupted { .. } => {
                Some("run the same command again to continue".to_owned())
            }
            _ => None,
        }
    }
}
