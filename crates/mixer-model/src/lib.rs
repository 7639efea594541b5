//! The MLP-Mixer family (Tolstikhin et al. 2021, arXiv 2105.01601) on Burn, and its weights.
//!
//! Symbols used throughout: `B` batch · `P` patch side (px) · `S` tokens · `C` channels ·
//! `D_S` token-MLP width · `D_C` channel-MLP width · `K` classes · `L` blocks.

#[path = "mixer/block.rs"]
pub mod block;
#[path = "mixer/compute.rs"]
pub mod compute;
#[path = "mixer/config.rs"]
pub mod config;
pub mod count;
pub mod error;
pub mod init;
#[doc(hidden)]
pub mod internals;
#[path = "mixer/layer_norm.rs"]
pub mod layer_norm;
#[path = "mixer/mixer.rs"]
pub mod mixer;
#[path = "mixer/mlp.rs"]
pub mod mlp;
#[path = "transfer.rs"]
mod parameter;
#[path = "weights/resolution.rs"]
pub mod resolution;
#[path = "weights/weights.rs"]
pub mod weights;

pub use compute::Compute;
pub use config::{Gelu, MixerConfig, Variant};
pub use error::ModelError;
pub use mixer::{Intermediates, Mixer};
pub use mixer_kernels::Precision;
pub use weights::{HostTensor, Metadata, Weights};
