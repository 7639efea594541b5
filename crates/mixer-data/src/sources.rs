//! Indexed collections of labelled pictures. A `Source` is one; each other file is a
//! kind of it, or what several share: classes and labels, names of several files, ranges, reading at an
//! offset. `open` decides which kind a name means.

pub(crate) mod builtin;
pub(crate) mod cifar;
pub(crate) mod fingerprint;
pub(crate) mod folder;
pub(crate) mod idx;
pub(crate) mod labels;
pub(crate) mod letters;
pub(crate) mod list;
pub(crate) mod open;
#[cfg(feature = "parquet")]
pub(crate) mod parquet;
pub(crate) mod passed_over;
pub(crate) mod pattern;
pub(crate) mod picture_files;
pub(crate) mod read_at;
pub(crate) mod source;
pub(crate) mod spelled;
pub(crate) mod split;
pub(crate) mod subset;
pub(crate) mod synthesise;
