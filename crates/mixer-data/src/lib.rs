//! Image files on disk to ordered batches of `u8` patches, deterministically and fast.
//!
//! ```text
//! Source ─► Example ─► RgbImage ─► TrainTransform / EvalTransform ─► patchify ─► Loader ─► Batch
//! ```
//!
//! - A [`Source`] is an indexed collection of labelled images: a [`FolderSource`] of class folders,
//!   a [`ListSource`], tar shards ([`ShardSource`]), Parquet files, CIFAR or IDX files, the procedural
//!   [`BuiltinSource`], or a [`Subset`] of any. [`open_split`] opens what a name means.
//! - A transform turns an image of any size into `image_size × image_size × 3` bytes.
//! - [`inspect()`] looks at a source, and [`write_shards`] makes shards of it. [`write_builtin`] makes
//!   files of the procedural pictures.
//! - The [`Loader`] decodes on its own threads and hands out ordered [`Batch`]es.
//! - [`time_loader`] and [`time_stages`] say how fast that is, and what the time goes into.
//!
//! # Determinism
//! An element is a pure function of (seed, epoch, index): shuffling is a [`Permutation`] of the
//! indices, and the randomness of an example comes from [`ExampleRng`], keyed by a hash. So a batch
//! holds the same bytes for any number of workers and from wherever the stream was started.
//!
//! # Symbols
//! `B` batch · `P` patch side (px) · `S = (image side / P)²` tokens · `n` examples in a source.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed test may panic"))]

mod affine;
mod batch;
mod builtin;
mod cifar;
mod colour_ops;
mod decode;
mod erasing;
mod error;
mod fingerprint;
mod folder;
mod format;
mod idx;
mod in_order;
mod inspect;
#[doc(hidden)]
pub mod internals;
mod labels;
mod list;
mod loader;
mod mix;
mod normal;
mod open;
mod order;
#[cfg(feature = "parquet")]
mod parquet;
mod part;
mod patches;
mod pattern;
mod permutation;
mod pixel_op;
mod randaugment;
mod random;
mod read;
mod read_at;
mod resample;
mod rgb_image;
mod shard_index;
mod shard_writer;
mod shards;
mod source;
mod speed;
mod split;
mod stage;
mod subset;
mod synthesise;
mod tar;
mod transform;

#[cfg(feature = "parquet")]
pub use self::parquet::ParquetSource;
pub use affine::Sampling;
pub use batch::{Batch, SkippedExample};
pub use builtin::{BuiltinKind, BuiltinSource, BuiltinSplit};
pub use cifar::CifarSource;
pub use colour_ops::Arithmetic;
pub use decode::{DecodeError, DecodeOptions, decode};
pub use erasing::{ErasingFill, RandomErasing};
pub use error::{DataError, Place};
pub use folder::FolderSource;
pub use format::PictureFormat;
pub use idx::IdxSource;
pub use inspect::{BrokenExample, Inspection, Quantiles, contact_sheet, inspect};
pub use labels::read_class_names;
pub use list::ListSource;
pub use loader::{Loader, LoaderConfig, OnCorrupt};
pub use mix::{BatchMix, MixFlavour, MixKind, MixSpec};
pub use open::{SourceKind, open_split};
pub use order::{Location, Order};
pub use part::{Part, PartDecoder, Region};
pub use patches::patchify;
pub use permutation::Permutation;
pub use pixel_op::PixelOp;
pub use randaugment::{BigVisionOp, RandAugment, TimmOp};
pub use random::ExampleRng;
pub use read::{read_file, read_image};
pub use resample::{Interpolation, Resampler};
pub use rgb_image::RgbImage;
pub use shard_writer::{
    ShardManifest, ShardRecord, ShardWriterConfig, SkippedRecord, png_bytes, verify_shards,
    write_shards,
};
pub use shards::{IndexState, ShardSource};
pub use source::{Example, Source};
pub use speed::{Measured, time_loader, time_stages};
pub use split::{SplitBound, SplitRange, SplitSpec};
pub use stage::{Stage, StageTime, StageTimes};
pub use subset::Subset;
pub use synthesise::{Synthesis, write_builtin};
pub use transform::{EvalResize, EvalTransform, TrainCrop, TrainTransform};
