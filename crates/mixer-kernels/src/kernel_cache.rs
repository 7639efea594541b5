//! The kernels and measurements of Burn's GPU backends, kept between runs: without it every process would spend
//! minutes on finding out again which kernels are the fastest.

use cubecl_runtime::config::cache::CacheConfig;
use cubecl_runtime::config::{CubeClRuntimeConfig, RuntimeConfig};

/// Keeps compiled kernels and what autotuning found in the user's cache directory, as `cubecl` below it
/// (on Linux `~/.cache`). A `cubecl.toml` or `burn.toml` and the variables of CubeCL come first. To be
/// called before anything is asked of a GPU; afterwards it does nothing.
pub fn keep_gpu_kernels() {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    CubeClRuntimeConfig::try_set(config);
}
