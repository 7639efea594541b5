//! The MLP-Mixer family (Tolstikhin et al. 2021, arXiv 2105.01601) on Burn, and its weights.
//!
//! Symbols used throughout: `B` batch · `P` patch side (px) · `S` tokens · `C` channels ·
//! `D_S` token-MLP width · `D_C` channel-MLP width · `K` classes · `L` blocks.

pub mod block;
pub mod compute;
pub mod config;
pub mod count;
pub mod error;
pub mod init;
#[doc(hidden)]
pub mod internals;
pub mod layer_norm;
pub mod mixer;
pub mod mlp;
mod parameter;
pub mod resolution;
pub mod weights;

pub use compute::Compute;
pub use config::{Gelu, MixerConfig, Variant};
pub use error::ModelError;
pub use mixer::{Intermediates, Mixer};
pub use mixer_kernels::Precision;
pub use weights::{HostTensor, Metadata, Weights};
