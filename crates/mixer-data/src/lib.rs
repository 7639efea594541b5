//! Image files on disk to ordered batches of `u8` patches, deterministically and fast.
//!
//! ```text
//! Source ─► RgbImage ─► TrainTransform / EvalTransform ─► patchify ─► Loader ─► Batch
//! ```
//!
//! - A [`Source`] is an indexed collection of labelled images: a [`FolderSource`] of class folders,
//!   the procedural [`BuiltinSource`], or a [`Subset`] of either.
//! - A transform turns an image of any size into `image_size × image_size × 3` bytes.
//! - The [`Loader`] decodes on its own threads and hands out ordered [`Batch`]es.
//!
//! # Determinism
//! An element is a pure function of (seed, epoch, index): shuffling is a [`Permutation`] of the
//! indices, and the randomness of an example comes from [`ExampleRng`], keyed by a hash. So a batch
//! holds the same bytes for any number of workers and from wherever the stream was started.
//!
//! # Symbols
//! `B` batch · `P` patch side (px) · `S = (image side / P)²` tokens · `n` examples in a source.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed test may panic"))]

mod batch;
mod builtin;
mod decode;
mod error;
mod fingerprint;
mod folder;
mod loader;
mod order;
mod part;
mod patches;
mod permutation;
mod random;
mod read;
mod resample;
mod rgb_image;
mod source;
mod split;
mod subset;
mod transform;

pub use batch::{Batch, SkippedExample};
pub use builtin::{BuiltinKind, BuiltinSource, BuiltinSplit};
pub use decode::{DecodeError, DecodeOptions, decode};
pub use error::DataError;
pub use folder::FolderSource;
pub use loader::{Loader, LoaderConfig, OnCorrupt};
pub use order::Order;
pub use part::{Part, PartDecoder, Region};
pub use patches::patchify;
pub use permutation::Permutation;
pub use random::ExampleRng;
pub use read::read_image;
pub use resample::{Interpolation, Resampler};
pub use rgb_image::RgbImage;
pub use source::Source;
pub use split::{SplitBound, SplitRange, SplitSpec};
pub use subset::Subset;
pub use transform::{EvalResize, EvalTransform, TrainCrop, TrainTransform};
