//! Everything that ends a command early, and the exit code that says which kind it was.

use std::path::{Path, PathBuf};

use mixer_data::DataError;
use mixer_model::ModelError;

use crate::run::quantity::Quantity;

/// Exit codes of the `mixer` binary; part of its interface.
pub mod exit_code {
    /// Done.
    pub const OK: u8 = 0;
    /// A bug, or an operating-system failure that none of the others names.
    pub const UNEXPECTED: u8 = 1;
    /// The command line is wrong, or `MIXER_SIMD` or `MIXER_CUDA` has a value that is not known.
    pub const USAGE: u8 = 2;
    /// The configuration is wrong, or the run directory belongs to another one.
    pub const CONFIG: u8 = 3;
    /// The data cannot be read.
    pub const DATA: u8 = 4;
    /// Weights, a checkpoint or another file that is no data cannot be read or written.
    pub const WEIGHTS: u8 = 5;
    /// The loss, a gradient, an evaluation or the weights are no longer finite.
    pub const DIVERGED: u8 = 6;
    /// The device is missing or not compiled in, or the processor lacks the vector instructions of `MIXER_SIMD`.
    pub const DEVICE: u8 = 7;
    /// The processes of a run are not alike, or one of them has not come.
    pub const RANK: u8 = 8;
    /// Interrupted, with a checkpoint written; a second signal ends the process without one.
    pub const INTERRUPTED: u8 = 130;
}

/// A reason for which a command ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The command line asks for something that makes no sense.
    #[error("{message}")]
    Usage {
        /// Found and expected.
        message: String,
        /// Advice.
        hint: Option<String>,
    },
    /// The configuration is wrong.
    #[error("{}", located(message, path.as_deref()))]
    Config {
        /// Found, expected, and the key; further lines show the place.
        message: String,
        /// Advice.
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
        /// Found and expected.
        message: String,
        /// Advice.
        hint: Option<String>,
    },
    /// Weights cannot be read, written or fitted.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A checkpoint, or what belongs to it, cannot be read or written.
    #[error("{fault}: {reason}: {}", path.display())]
    Checkpoint {
        /// The kind of failure.
        fault: CheckpointFault,
        /// The failure.
        reason: String,
        /// The file or directory.
        path: PathBuf,
    },
    /// The run directory cannot be used.
    #[error("{message}: {}", path.display())]
    RunDir {
        /// The fault that was found.
        message: String,
        /// Advice.
        hint: Option<String>,
        /// The directory.
        path: PathBuf,
    },
    /// Training left the finite numbers.
    #[error("{quantity} is {value} at step {step}: training diverged, the update was not applied")]
    Diverged {
        /// The quantity that is not finite.
        quantity: Quantity,
        /// Its value.
        value: f64,
        /// The update that it belongs to.
        step: u64,
    },
    /// The weights, or what they make of data, are no longer finite.
    #[error("{}", diverged_after(found, *step))]
    DivergedAfter {
        /// Quantity that is not finite, in words.
        found: String,
        /// Updates done.
        step: u64,
    },
    /// The device cannot be used.
    #[error("{message}")]
    Device {
        /// Asked for, and available.
        message: String,
        /// Advice.
        hint: Option<String>,
    },
    /// The user stopped the run.
    #[error("{}", interrupted(*step, path.as_deref()))]
    Interrupted {
        /// Updates done.
        step: u64,
        /// The checkpoint; absent before the first update.
        path: Option<PathBuf>,
    },
    /// Another process of the run has ended it, and says why itself.
    #[error("rank {rank} on {host} has ended the run")]
    Elsewhere {
        /// Its number.
        rank: usize,
        /// Its machine.
        host: String,
        /// Its exit code.
        code: u8,
    },
    /// The processes of a run are not alike.
    #[error("{message}")]
    Ranks {
        /// Found and expected, and the rank.
        message: String,
        /// Advice.
        hint: Option<String>,
    },
    /// A member of a sweep has failed.
    #[error("{member}: {error}")]
    Member {
        /// Its name.
        member: String,
        /// Error that it failed with.
        error: Box<TrainError>,
    },
    /// No further thread could be started.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// The words of the system.
        source: std::io::Error,
    },
    /// Reading or writing a file failed; the source names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl CheckpointFault {
    /// Advice for the user.
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::CannotWrite | Self::CannotWriteMetrics => {
                Some("older checkpoints are untouched: make room and run the same command again")
            }
            Self::CannotMakeRunDir | Self::CannotWriteRunDir => {
                Some("make room in it or make it writable, or choose another one with `--run-dir`")
            }
            Self::CannotContinue => {
                Some("restore one, or remove the directory to have the run start again")
            }
            _ => None,
        }
    }
}

fn diverged_after(found: &str, step: u64) -> String {
    match step {
        0 => format!("{found} before the first update"),
        step => format!("{found} at step {step}: training diverged, nothing of it is kept"),
    }
}

fn interrupted(step: u64, path: Option<&Path>) -> String {
    match path {
        Some(path) => format!("interrupted at step {step}; checkpoint written: {}", path.display()),
        None => "interrupted before the first update: there is nothing to save".to_owned(),
    }
}

/// A message with its file at the end of the first line; what follows is an excerpt of the file.
fn located(message: &str, path: Option<&Path>) -> String {
    let Some(path) = path else { return message.to_owned() };
    match message.split_once('\n') {
        Some((first, excerpt)) => format!("{first}: {}\n{excerpt}", path.display()),
        None => format!("{message}: {}", path.display()),
    }
}

/// The kinds of failure about checkpoints and what belongs to them. Each begins a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFault {
    /// A checkpoint could not be written.
    #[error("cannot write the checkpoint")]
    CannotWrite,
    /// A line of metrics, on which the next checkpoint counts, could not be written.
    #[error("cannot write the metrics")]
    CannotWriteMetrics,
    /// The directory of a run could not be made.
    #[error("cannot make the run directory")]
    CannotMakeRunDir,
    /// The directory of a run could not be written to.
    #[error("cannot write to the run directory")]
    CannotWriteRunDir,
    /// A line of metrics could not be read.
    #[error("cannot read the metrics")]
    CannotReadMetrics,
    /// The evaluation that is kept for reports is damaged.
    #[error("cannot read the evaluation")]
    CannotReadEvaluation,
    /// No checkpoint of a run could be read.
    #[error("cannot continue")]
    CannotContinue,
    /// A checkpoint is not what its manifest says.
    #[error("damaged checkpoint")]
    Damaged,
    /// Some of the files that were to be verified are damaged.
    #[error("verified")]
    Verified,
    /// Weights have values that are not finite.
    #[error("not finite")]
    NotFinite,
    /// The file of an update that was not finite could not be read.
    #[error("cannot read the divergence")]
    CannotReadDivergence,
    /// There is no checkpoint to replay an update from.
    #[error("cannot replay")]
    CannotReplay,
}

/// The layout of data folders.
const DATA_LAYOUT: &str = "a data folder holds one folder per split, as `train/` and `val/`, and each \
                           of these one folder per class with its pictures inside; a split called `.` is \
                           the folder itself";

/// The way out of a divergence.
const CALMER: &str = "start another run, with `--run-dir` and a lower `optimizer.learning_rate`, a longer \
                      `schedule.warmup_steps` or a smaller `train.clip_norm`";

/// The forms of weights.
const WEIGHTS: &str =
    "weights are a run directory, that of a sweep, or a .safetensors, .npz or .pth file";

impl TrainError {
    /// A configuration error that belongs to no file yet.
    pub fn config(message: impl Into<String>) -> Self {
        Self::Config { message: message.into(), hint: None, path: None }
    }

    /// A key that changes nothing.
    pub(crate) fn no_effect(key: &str, because: &str) -> Self {
        Self::config(format!("`{key}` has no effect {because}"))
    }

    /// A command line that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// A run directory that cannot be used.
    pub fn run_dir(message: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self::RunDir { message: message.into(), hint: None, path: path.into() }
    }

    /// Data that is not what the run needs.
    pub fn data_mismatch(message: impl Into<String>) -> Self {
        Self::DataMismatch { message: message.into(), hint: None }
    }

    /// Processes of a run that are not alike.
    pub fn ranks(message: impl Into<String>) -> Self {
        Self::Ranks { message: message.into(), hint: None }
    }

    /// A device that cannot be used.
    pub fn device(message: impl Into<String>) -> Self {
        Self::Device { message: message.into(), hint: None }
    }

    /// A failure about the checkpoint, or what belongs to it, at `path`.
    pub fn checkpoint(
        fault: CheckpointFault,
        reason: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> Self {
        Self::Checkpoint { fault, reason: reason.into(), path: path.into() }
    }

    /// The same error with advice; only kinds that carry a hint change.
    #[must_use]
    pub fn with_hint(mut self, advice: impl Into<String>) -> Self {
        if let Self::Usage { hint, .. }
        | Self::Config { hint, .. }
        | Self::DataMismatch { hint, .. }
        | Self::RunDir { hint, .. }
        | Self::Ranks { hint, .. }
        | Self::Device { hint, .. } = &mut self
        {
            *hint = Some(advice.into());
        }
        self
    }

    /// The same error with the file that it was found in.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        if let Self::Config { path: path @ None, .. } = &mut self {
            *path = Some(file.to_owned());
        }
        self
    }

    /// The same error of a member of a sweep.
    #[must_use]
    pub(crate) fn of_member(self, member: &str) -> Self {
        Self::Member { member: member.to_owned(), error: Box::new(self) }
    }

    /// The process exit code of this kind of error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => exit_code::USAGE,
            Self::Config { .. } | Self::RunDir { .. } => exit_code::CONFIG,
            Self::Data(
                DataError::BadSetting { .. }
                | DataError::BadSplit { .. }
                | DataError::SplitOutOfRange { .. },
            ) => exit_code::CONFIG,
            Self::Data(DataError::Thread { .. }) => exit_code::UNEXPECTED,
            Self::Data(_) | Self::DataMismatch { .. } => exit_code::DATA,
            Self::Model(
                ModelError::UnknownVariant { .. }
                | ModelError::ZeroDimension { .. }
                | ModelError::IndivisibleImage { .. }
                | ModelError::IndivisibleHeads { .. }
                | ModelError::SmallImage { .. }
                | ModelError::Stages { .. }
                | ModelError::BlocksByStage { .. }
                | ModelError::IndivisibleChannels { .. }
                | ModelError::NotForNetwork { .. }
                | ModelError::ResizeTooLarge { .. }
                | ModelError::Shuffled { .. }
                | ModelError::ShuffledResolution { .. },
            ) => exit_code::CONFIG,
            Self::Model(_) | Self::Checkpoint { .. } | Self::Io(_) => exit_code::WEIGHTS,
            Self::Diverged { .. } | Self::DivergedAfter { .. } => exit_code::DIVERGED,
            Self::Device { .. } => exit_code::DEVICE,
            Self::Interrupted { .. } => exit_code::INTERRUPTED,
            Self::Thread { .. } => exit_code::UNEXPECTED,
            Self::Ranks { .. } => exit_code::RANK,
            Self::Elsewhere { code, .. } => *code,
            Self::Member { error, .. } => error.exit_code(),
        }
    }

    /// Advice for the user.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. }
            | Self::Config { hint, .. }
            | Self::DataMismatch { hint, .. }
            | Self::RunDir { hint, .. }
            | Self::Ranks { hint, .. }
            | Self::Device { hint, .. } => hint.clone(),
            Self::Member { error, .. } => error.hint(),
            Self::Data(DataError::NoSuchDirectory { path }) => {
                Some(if path.parent().is_some_and(Path::is_dir) {
                    DATA_LAYOUT.to_owned()
                } else {
                    "a relative path starts at the current directory".to_owned()
                })
            }
            Self::Data(
                DataError::NoClassFolders { .. } | DataError::SingleClass { .. },
            ) => Some(DATA_LAYOUT.to_owned()),
            Self::Data(DataError::EmptyClass { .. }) => {
                Some("put pictures into the folder, or remove it".to_owned())
            }
            Self::Data(DataError::UnknownClass { twin: Some(_), .. } | DataError::SameLetters { .. }) => {
                Some(
                    "copies by way of macOS change the form of letters: rename the folder as the other one is"
                        .to_owned(),
                )
            }
            Self::Data(DataError::UnknownClass { .. }) => Some(
                "the known classes are those of the training folder, or those that the weights name"
                    .to_owned(),
            ),
            Self::Data(DataError::Packed { packing, path }) => Some(format!(
                "pictures become no smaller by it, and are read at any place of a plain one: `{} {}`",
                packing.command(),
                path.display()
            )),
            Self::Data(DataError::LinkLoop { .. }) => {
                Some("remove the link: every picture would be there many times".to_owned())
            }
            Self::Data(DataError::UnlistedNumber { list, .. }) => Some(format!(
                "write the names of the classes, one per line and that of number 0 first, into {}",
                list.display()
            )),
            Self::Data(DataError::TooManyCorrupt { .. }) => Some(
                "remove or repair the files, or raise `data.on_corrupt.skip.at_most`".to_owned(),
            ),
            Self::Data(DataError::BadExample { .. }) => Some(
                "remove or repair the file; in training, `--set data.on_corrupt.skip.at_most=10` passes over a few"
                    .to_owned(),
            ),
            Self::Model(ModelError::IndivisibleImage { patch_size, image_size }) => {
                let below = (image_size / patch_size).max(1) * patch_size;
                Some(format!("an image size of {below} or {} would do", below + patch_size))
            }
            Self::Model(ModelError::Shuffled { .. }) => Some(
                "`mixer weights export WEIGHTS model.onnx --to onnx` writes a model that shuffles by itself"
                    .to_owned(),
            ),
            Self::Model(ModelError::Io { source })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Some(WEIGHTS.to_owned())
            }
            // Without advice of its own it is of no known format, rather than damaged.
            Self::Model(ModelError::Unreadable { hint, .. }) => {
                Some(hint.unwrap_or(WEIGHTS).to_owned())
            }
            Self::Diverged { .. } => Some(format!(
                "{CALMER}; here, `--set train.on_divergence.skip.at_most=N` goes on from the last checkpoint \
                 and leaves N such updates out"
            )),
            Self::DivergedAfter { step: 0, .. } => {
                Some("`mixer weights verify` says whether the weights are sound".to_owned())
            }
            Self::DivergedAfter { .. } => Some(CALMER.to_owned()),
            Self::Thread { .. } | Self::Data(DataError::Thread { .. }) => Some(
                "raise the limit on threads (`ulimit -u`, or that of the container), or ask for fewer: \
                 `--threads 1`, `--set data.workers=0`"
                    .to_owned(),
            ),
            Self::Checkpoint { fault, .. } => fault.hint().map(str::to_owned),
            Self::Interrupted { .. } => {
                Some("run the same command again to continue".to_owned())
            }
            _ => None,
        }
    }
}

/// A setting of `mixer-data` under the name that the configuration has for it.
pub(crate) fn named_by_key(error: DataError) -> TrainError {
    match error {
        DataError::BadSetting { setting, found, expected } => {
            let key = match setting.strip_prefix("resize.") {
                Some(rest) => format!("data.eval_resize.{rest}"),
                None => format!("data.{setting}"),
            };
            TrainError::config(format!("`{key}` is {found}, expected {expected}"))
        }
        error => error.into(),
    }
}
