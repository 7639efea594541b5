#![doc = include_str!("../README.md")]
//!
//! ## Where to find what
//!
//! ```text
//! functions                       the functions above: plain tensors in, plain tensors out
//!   └─ ops (MixerOps)             the operations of a backend, and their tensors by name
//!        ├─ ops/default           bodies over Burn's primitives, for any backend
//!        ├─ ops/autodiff          one node per operation, backward by hand
//!        ├─ cuda                  NVIDIA GPUs by hand
//!        └─ flex                  the CPU by hand
//!             ├─ simd             the one door to vector instructions
//!             └─ pool             memory that is used again
//! spec                            values that say how an operation is carried out
//! any_tensor, clip                tensors of whatever rank in one list; clipping of gradients
//! adapters, kernel_cache          GPUs that wgpu reaches; their kernels, kept between runs
//! ```
#![warn(clippy::undocumented_unsafe_blocks, clippy::use_self)]

#[cfg(not(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda")))]
compile_error!("enable at least one backend feature: flex, ndarray, wgpu or cuda");

#[cfg(feature = "wgpu")]
mod adapters;
mod any_tensor;
mod clip;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "flex")]
mod flex;
mod functions;
#[cfg(feature = "gpu")]
mod kernel_cache;
mod ops;
#[cfg(feature = "flex")]
mod pool;
#[cfg(feature = "flex")]
mod simd;
mod spec;

#[cfg(feature = "wgpu")]
pub use adapters::{Adapter, adapters};
pub use any_tensor::AnyTensor;
pub use clip::Clip;
#[cfg(feature = "cuda")]
pub use cuda::{
    CudaProduct, CudaTime, cuda_bus_id, cuda_device_name, cuda_fallback_reason, cuda_group_id,
    cuda_group_join, cuda_kernels_are_ours, cuda_memory_in_use, cuda_multiplies,
    cuda_product_seconds, cuda_profile, has_nccl, sum_over_gpus,
};
pub use functions::dense::dense;
pub use functions::gelu::gelu;
pub use functions::layer_norm::{NormParameters, layer_norm, mean_layer_norm};
pub use functions::mixing::{MixingParameters, mix_channels, mix_tokens, mixes_with_transposes};
pub use functions::pixels::{mix_rows, normalise_pixels};
pub use functions::update::{adamw_update, average_update, dot, sgd_update, squared_norm};
#[cfg(feature = "gpu")]
pub use kernel_cache::keep_gpu_kernels;
#[cfg(feature = "flex")]
pub use pool::PoolAllocator;
#[cfg(feature = "flex")]
pub use simd::peak::fma_peak;
#[cfg(feature = "flex")]
pub use simd::{
    InstructionSet, InstructionSetError, bf16_is_native, instruction_set, wanted_instruction_set,
};
pub use spec::{AdamwStep, Gelu, MixingSpec, Precision, SgdStep};
