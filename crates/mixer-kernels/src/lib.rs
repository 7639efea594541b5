//! The operations of MLP-Mixer that Burn does not have, or does not have exactly, as one backend
//! extension: every operation has a default body over Burn's primitives, which runs on any
//! backend, a hand-written backward pass, and a hand-written forward where that pays.

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
    CudaProduct, CudaTime, cuda_device_name, cuda_fallback_reason, cuda_memory_in_use,
    cuda_multiplies, cuda_product_seconds, cuda_profile,
};
pub use functions::dense::dense;
pub use functions::gelu::gelu;
pub use functions::layer_norm::{layer_norm, mean_layer_norm};
pub use functions::mixing::{MixingParameters, mix_channels, mix_tokens};
pub use functions::update::{adamw_update, average_update, sgd_update, squared_norm};
#[cfg(feature = "gpu")]
pub use kernel_cache::keep_gpu_kernels;
pub use ops::MixerOps;
#[cfg(feature = "flex")]
pub use pool::PoolAllocator;
#[cfg(feature = "flex")]
pub use simd::peak::fma_peak;
#[cfg(feature = "flex")]
pub use simd::{InstructionSet, bf16_is_native, instruction_set};
pub use spec::{AdamwStep, Gelu, MixingSpec, Precision, SgdStep};
