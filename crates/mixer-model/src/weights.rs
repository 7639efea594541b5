//! Weights in host memory, and the files that they come from and go to.
//!
//! Whatever file the weights come from, in memory they have timm's names and layouts, so that one form
//! is checked, resized, fitted into a model and written. The way in: `weights_file` opens any of the
//! `formats`, `names` gives every tensor its place, `recognise` says which network it is, `read` loads
//! it. The way out is `save`, or `export` to other programs. Foreign names are known in `names`, foreign numbers in `formats`, and
//! nowhere else.

mod container;
mod differences;
mod export;
mod folder;
mod format;
mod formats;
mod inspect;
pub(crate) mod metadata;
mod names;
mod one_line;
mod published;
mod read;
mod recognise;
mod resolution;
mod save;
mod shuffle;
mod tensor_info;
#[expect(clippy::module_inception, reason = "a file is named after what it defines")]
pub(crate) mod weights;
mod weights_file;
mod write_atomically;

pub use export::onnx::OnnxInput;
pub use folder::weights_in_folder;
pub use format::WeightsFormat;
pub use formats::npz::write_npy;
pub use inspect::FileInfo;
pub use metadata::{Interpolation, Metadata, Preprocessing, ResizeRule};
pub use read::read_tensors;
pub use resolution::{MAX_PARAMS, ResizeMethod};
pub use save::write_tensors;
pub use shuffle::Shuffle;
pub use tensor_info::TensorInfo;
pub use weights::Weights;
