//! The bytes of a picture file to RGB. `part` is the one way for all: the region that a transform looks
//! at, by mixer-jpeg where it can, else out of the `whole` picture. `picture` is the region that is
//! everything, `read` opens files.

pub(crate) mod error;
pub(crate) mod format;
pub(crate) mod gif;
pub(crate) mod jpeg_structure;
pub(crate) mod options;
pub(crate) mod orientation;
pub(crate) mod other_format;
pub(crate) mod part;
pub(crate) mod picture;
pub(crate) mod png_chunks;
pub(crate) mod read;
pub(crate) mod rgb_image;
pub(crate) mod webp_chunks;
pub(crate) mod whole;
pub(crate) mod whole_jpeg;
