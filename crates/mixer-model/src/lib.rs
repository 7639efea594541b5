#![doc = include_str!("../README.md")]
//!
//! ## Where to find what
//!
//! - [`mixer`]: the network, and what it is made of. [`Mixer`], [`MixerConfig`] and [`Variant`] are there.
//! - [`weights`]: weights and their files. [`Weights`] is there, with all that a file may hold.
//! - [`parameters()`]: the table of parameters, which the rest follows from.
//! - [`init`]: initial weights. [`count`]: parameters, products and memory of an architecture.
//! - [`ModelError`]: everything that can go wrong.

#![forbid(unsafe_code)]

pub mod count;
mod error;
pub mod init;
#[doc(hidden)]
pub mod internals;
pub mod mixer;
mod parameters;
#[doc(hidden)]
pub mod protobuf;
mod split_mix;
mod tensor;
mod training_memory;
mod transfer;
pub mod weights;

pub use error::ModelError;
pub use mixer::{
    BIT_VARIANTS, Compute, Depths, Gelu, Intermediates, Mixer, MixerConfig, Pool, TokenLayer,
    VARIANTS, VIT_VARIANTS, Variant,
};
pub use mixer_kernels::Precision;
pub use parameters::{ParameterSpec, Role, parameters};
pub use tensor::HostTensor;
pub use training_memory::{Kernels, SecondPass, TrainingMemory, TrainingSetup};
pub use weights::{Metadata, Weights};
