//! The MLP-Mixer family (Tolstikhin et al. 2021, arXiv 2105.01601) on Burn, and its weights.
//!
//! Symbols used throughout: `B` batch · `P` patch side (px) · `S` tokens · `C` channels ·
//! `D_S` token-MLP width · `D_C` channel-MLP width · `K` classes · `L` blocks.

#![forbid(unsafe_code)]

pub mod count;
mod error;
pub mod init;
#[doc(hidden)]
pub mod internals;
pub mod mixer;
mod parameters;
mod tensor;
mod transfer;
pub mod weights;

pub use error::ModelError;
pub use mixer::{Compute, Gelu, Intermediates, Mixer, MixerConfig, VARIANTS, Variant};
pub use mixer_kernels::Precision;
pub use parameters::{ParameterSpec, Role, parameters};
pub use tensor::HostTensor;
pub use weights::{Metadata, Weights};
