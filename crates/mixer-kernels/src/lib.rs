//! The operations of MLP-Mixer that Burn does not have, or does not have exactly, as one backend
//! extension: every operation has a default body over Burn's primitives, which runs on any
//! backend, a hand-written backward pass, and a hand-written forward where that pays.
//!
//! ```text
//! mixing, update, gelu, layer_norm  what others call: plain tensors in, plain tensors out
//!   └─ ops (MixerOps)               the trait
//!        ├─ default                 bodies over Burn's primitives, for any backend
//!        ├─ autodiff                one node per operation, backward by hand
//!        ├─ cuda                    NVIDIA GPUs by hand: cuBLASLt and kernels of ours
//!        └─ flex                    the CPU by hand
//!             ├─ activation         GELU on vectors
//!             ├─ simd               the one door to vector instructions
//!             └─ pool               memory that is used again
//! ```

#[cfg(not(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda")))]
compile_error!("enable at least one backend feature: flex, ndarray, wgpu or cuda");

#[cfg(feature = "flex")]
mod activation;
#[cfg(feature = "wgpu")]
mod adapters;
mod any_tensor;
mod autodiff;
#[cfg(feature = "cuda")]
mod cuda;
mod default;
mod dense;
#[cfg(feature = "flex")]
mod flex;
mod gelu;
#[cfg(feature = "gpu")]
mod kernel_cache;
mod layer_norm;
mod mixing;
mod ops;
#[cfg(feature = "flex")]
mod peak;
#[cfg(feature = "flex")]
mod pool;
mod precision;
#[cfg(feature = "flex")]
mod simd;
mod update;

#[cfg(feature = "wgpu")]
pub use adapters::{Adapter, adapters};
pub use any_tensor::AnyTensor;
#[cfg(feature = "cuda")]
pub use cuda::{
    CudaProduct, CudaTime, cuda_device_name, cuda_fallback_reason, cuda_memory_in_use,
    cuda_multiplies, cuda_product_seconds, cuda_profile,
};
pub use dense::dense;
pub use gelu::{Gelu, gelu};
#[cfg(feature = "gpu")]
pub use kernel_cache::keep_gpu_kernels;
pub use layer_norm::{layer_norm, mean_layer_norm};
pub use mixing::{MixingParameters, MixingSpec, mix_channels, mix_tokens};
pub use ops::MixerOps;
#[cfg(feature = "flex")]
pub use peak::fma_peak;
#[cfg(feature = "flex")]
pub use pool::PoolAllocator;
pub use precision::Precision;
#[cfg(feature = "flex")]
pub use simd::{InstructionSet, bf16_is_native, instruction_set};
pub use update::{
    AdamwStep, Clip, SgdStep, adamw_update, average_update, sgd_update, squared_norm,
};
