//! The operations of MLP-Mixer that Burn does not have, or does not have exactly, as one backend
//! extension: every operation has a default body over Burn's primitives, which runs on any
//! backend, a hand-written backward pass, and a hand-written forward where that pays.
//!
//! ```text
//! gelu, layer_norm                  what the model calls: plain tensors in, plain tensors out
//!   └─ ops (MixerOps)               the trait
//!        ├─ default                 bodies over Burn's primitives, for any backend
//!        ├─ autodiff                one node per operation, backward by hand
//!        └─ flex                    loops for the CPU, over `scalar` maths
//! ```

#[cfg(not(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda")))]
compile_error!("enable at least one backend feature: flex, ndarray, wgpu or cuda");

mod autodiff;
mod default;
#[cfg(feature = "flex")]
mod flex;
mod gelu;
mod layer_norm;
mod ops;
#[cfg(feature = "flex")]
mod scalar;

pub use gelu::{Gelu, gelu};
pub use layer_norm::layer_norm;
pub use ops::MixerOps;
