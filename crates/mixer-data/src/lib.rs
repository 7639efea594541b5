#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed test may panic"))]

mod augment;
mod decode;
mod error;
mod foreign;
#[doc(hidden)]
pub mod internals;
mod measure;
mod order;
mod resample;
mod shards;
mod sources;
mod stream;

pub use augment::affine::Sampling;
pub use augment::autoaugment::{AutoAugmentOp, AutoAugmentPolicy, SubPolicy};
pub use augment::colour_ops::Arithmetic;
pub use augment::erasing::{ErasingFill, RandomErasing};
pub use augment::pixel_op::PixelOp;
pub use augment::randaugment::{BigVisionOp, RandAugment, TimmOp};
pub use augment::transform::{EvalResize, EvalTransform, TrainCrop, TrainTransform};
pub use decode::error::DecodeError;
pub use decode::format::PictureFormat;
pub use decode::options::DecodeOptions;
pub use decode::part::{Part, PartDecoder, Region, Scale, View};
pub use decode::picture::decode;
pub use decode::read::{read_file, read_image, read_stream};
pub use decode::rgb_image::RgbImage;
pub use error::{DataError, Place};
pub use foreign::panics_are_caught;
pub use measure::inspect::{BrokenExample, Inspection, Quantiles, contact_sheet, inspect};
pub use measure::measured::Measured;
pub use measure::remarks::remarks;
pub use measure::speed::{time_loader, time_stages};
pub use measure::stage::{Stage, StageTime, StageTimes};
pub use order::example_order::{Location, Order};
pub use order::permutation::Permutation;
pub use order::random::ExampleRng;
pub use resample::interpolation::Interpolation;
pub use resample::patches::patchify;
pub use resample::resampler::Resampler;
pub use shards::packing::Packing;
pub use shards::shard_source::{IndexState, ShardSource};
pub use shards::shard_writer::{
    ShardManifest, ShardRecord, ShardWriterConfig, SkippedRecord, png_bytes, verify_shards,
    write_shards,
};
pub use sources::builtin::{BuiltinKind, BuiltinSource, BuiltinSplit};
pub use sources::cifar::CifarSource;
pub use sources::folder::FolderSource;
pub use sources::idx::IdxSource;
pub use sources::labels::read_class_names;
pub use sources::list::ListSource;
pub use sources::open::{SourceKind, open_split};
#[cfg(feature = "parquet")]
pub use sources::parquet::ParquetSource;
pub use sources::passed_over::{PassedOver, PassedOverKind};
pub use sources::picture_files::picture_files;
pub use sources::source::{Example, Source};
pub use sources::split::{SplitBound, SplitRange, SplitSpec};
pub use sources::subset::Subset;
pub use sources::synthesise::{Synthesis, write_builtin};
pub use stream::batch::{Batch, SkippedExample};
pub use stream::batch_mix::{BatchMix, MixFlavour, MixKind, MixPartners};
pub use stream::loader::{Loader, LoaderConfig, OnCorrupt, Positions, Share};
pub use stream::mix::MixSpec;
