//! Everything that can go wrong between a directory and a batch.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::decode::error::DecodeError;
use crate::shards::packing::Packing;
use crate::sources::passed_over::PassedOver;
use crate::sources::spelled::spelled;

/// An error of the data pipeline.
///
/// It can be cloned, because a failed [`Loader`](crate::Loader) keeps answering with the error that
/// stopped it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Reading from disk failed; the message of the source names the path.
    #[error("{source}")]
    Io {
        /// Error of the operating system, with the path.
        source: Arc<std::io::Error>,
    },

    /// No further thread could be started to read with.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// Error of the operating system.
        source: Arc<std::io::Error>,
    },

    /// The directory of a data set is not there.
    #[error("found no directory at {}", path.display())]
    NoSuchDirectory {
        /// The directory that was asked for.
        path: PathBuf,
    },

    /// A data-set directory without class folders.
    #[error(
        "found no class folder, expected one folder per class with its images inside: {}",
        path.display()
    )]
    NoClassFolders {
        /// The data-set directory.
        path: PathBuf,
    },

    /// One class is not a classification problem.
    #[error("found 1 class (`{class}`), expected at least 2: {}", path.display())]
    SingleClass {
        /// The one class that was found.
        class: String,
        /// The data set, or an example of it.
        path: PathBuf,
    },

    /// A class folder holds nothing that looks like an image.
    #[error(
        "found no image in class `{class}`{}, expected at least one of {}: {}",
        in_brackets(passed_over),
        extensions.join(", "),
        path.display()
    )]
    EmptyClass {
        /// The class.
        class: String,
        /// Files that are there.
        passed_over: PassedOver,
        /// The file name extensions that count as images.
        extensions: &'static [&'static str],
        /// The class folder.
        path: PathBuf,
    },

    /// A class folder that the given classes do not contain.
    #[error(
        "found class folder {}, expected only folders named after the {expected} known classes: {}",
        beside_twin(class, twin.as_deref()),
        path.display()
    )]
    UnknownClass {
        /// The folder's name.
        class: String,
        /// A known class of the same letters in another form of Unicode.
        twin: Option<String>,
        /// Number of classes that are known.
        expected: usize,
        /// The folder.
        path: PathBuf,
    },

    /// Two classes whose names look alike.
    #[error(
        "found classes `{}` and `{}`, the same letters in two forms of Unicode, expected one of them: {}",
        spelled(first), spelled(second), path.display()
    )]
    SameLetters {
        /// The name of one.
        first: String,
        /// The name of the other.
        second: String,
        /// The data set.
        path: PathBuf,
    },

    /// No examples at all.
    #[error("found no example{}, expected at least one: {description}", in_brackets(passed_over))]
    NoExamples {
        /// Files or members that are there.
        passed_over: PassedOver,
        /// Source that is empty.
        description: String,
    },

    /// A link to a folder that it lies in itself, whose pictures would come again and again.
    #[error(
        "found a link to a folder that it lies in, {}, expected none: {}",
        target.display(), path.display()
    )]
    LinkLoop {
        /// Folder that it leads to.
        target: PathBuf,
        /// The link.
        path: PathBuf,
    },

    /// A file name that is not Unicode.
    #[error("found a file name that is not valid Unicode: {}", path.display())]
    NonUnicodeName {
        /// The file or folder.
        path: PathBuf,
    },

    /// A split that cannot be parsed.
    #[error("found split `{found}`, expected {expected}")]
    BadSplit {
        /// The text as it was typed.
        found: String,
        /// Forms that would have been understood.
        expected: &'static str,
    },

    /// A split that reaches beyond the data.
    #[error("found split `{found}` of {len} examples, expected {expected}")]
    SplitOutOfRange {
        /// The split.
        found: String,
        /// Examples that there are.
        len: usize,
        /// Range that would fit.
        expected: &'static str,
    },

    /// A setting that has no meaning.
    #[error("found `{setting} = {found}`, expected {expected}")]
    BadSetting {
        /// The name of the setting.
        setting: &'static str,
        /// Its value.
        found: String,
        /// Values that are possible.
        expected: String,
    },

    /// One example that cannot be decoded.
    #[error("cannot decode image: {reason}: {example}")]
    BadExample {
        /// The example: a path, or a description of a built-in example.
        example: String,
        /// Why.
        #[source]
        reason: DecodeError,
    },

    /// More unreadable examples than `on_corrupt = { skip = { at_most } }` allows.
    #[error("found {skipped} unreadable examples, expected at most {at_most}; the last: {last}")]
    TooManyCorrupt {
        /// Distinct unreadable examples met so far.
        skipped: u64,
        /// Number that was allowed.
        at_most: u64,
        /// The one that was too many.
        #[source]
        last: Box<DataError>,
    },

    /// A file whose content is not what its kind promises.
    #[error("found {found}{place}, expected {expected}: {}", path.display())]
    Malformed {
        /// Content that is there.
        found: String,
        /// Place in the file.
        place: Place,
        /// Content that would have been understood.
        expected: String,
        /// The file.
        path: PathBuf,
    },

    /// A number for a label, where classes are known by their names and nothing says which has the number.
    #[error(
        "found label `{label}`{place} and nothing that says which class it means, expected one of the {known} known classes: {}",
        path.display()
    )]
    UnlistedNumber {
        /// The label.
        label: String,
        /// Place in the file.
        place: Place,
        /// Number of classes that are known.
        known: usize,
        /// The file.
        path: PathBuf,
        /// The list that could say it: a class name per line, from number 0 on.
        list: PathBuf,
    },

    /// An archive that is packed, so that nothing can be read at an offset.
    #[error("found an archive packed with {packing}, expected a plain tar: {}", path.display())]
    Packed {
        /// The program that packed it.
        packing: Packing,
        /// The archive.
        path: PathBuf,
    },

    /// An index that was made of other shards than those that are there.
    #[error("found an index that is older than `{shard}`, expected one that was made after it: {}", path.display())]
    StaleIndex {
        /// The first shard that changed.
        shard: String,
        /// The index.
        path: PathBuf,
    },

    /// A buffer that does not have the size its picture needs.
    #[error("found {what} of {found} bytes, expected {expected}")]
    BadBuffer {
        /// Name of the buffer.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that is needed.
        expected: usize,
    },

    /// A region that is empty or not inside its picture.
    #[error(
        "found a region of {region_width}x{region_height} px at ({left}, {top}), expected one inside of {width}x{height} px"
    )]
    BadRegion {
        /// Left edge, px.
        left: f64,
        /// Top edge, px.
        top: f64,
        /// Its width, px.
        region_width: f64,
        /// Its height, px.
        region_height: f64,
        /// Width of the picture, px.
        width: u32,
        /// Height of the picture, px.
        height: u32,
    },

    /// A bug: code that processes an example panicked.
    #[error("a loader worker panicked: {message}: {example}")]
    WorkerPanicked {
        /// The message of the panic.
        message: String,
        /// The example that was being processed.
        example: String,
    },
}

/// A name, beside another one that looks like it.
pub(crate) fn beside_twin(name: &str, twin: Option<&str>) -> String {
    match twin {
        None => format!("`{name}`"),
        Some(twin) => format!(
            "`{}`, the letters of the known class `{}` in another form of Unicode",
            spelled(name),
            spelled(twin)
        ),
    }
}

fn in_brackets(passed_over: &PassedOver) -> String {
    match passed_over.is_empty() {
        true => String::new(),
        false => format!(" (passed over {passed_over})"),
    }
}

/// Place in a file where something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// An offset, bytes from the start.
    Byte(u64),
    /// A line, counted from 1.
    Line(u64),
    /// A row, counted from 0.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Byte(offset) => write!(f, " at byte {offset}"),
            Self::Line(line) => write!(f, " in line {line}"),
            Self::Row(row) => write!(f, " in row {row}"),
        }
    }
}

impl DataError {
    /// A file that is not what it should be.
    pub(crate) fn malformed(
        path: &Path,
        place: Place,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        let path = path.to_path_buf();
        Self::Malformed { found: found.into(), place, expected: expected.into(), path }
    }

    /// A data set, or a part of one, without an example.
    pub(crate) fn no_examples(path: &Path, passed_over: &PassedOver) -> Self {
        let description = path.display().to_string();
        Self::NoExamples { description, passed_over: passed_over.clone() }
    }

    /// Wraps an error of [`fs_err`], whose message already names the path.
    pub(crate) fn io(source: std::io::Error) -> Self {
        Self::Io { source: Arc::new(source) }
    }
}
