//! Antialiased resizing. The `resampler` mirrors and cuts into `patches` on the way: `weights` along
//! an axis, then two `passes`, in plain Rust and in vector instructions.

pub(crate) mod interpolation;
pub(crate) mod passes;
pub(crate) mod patches;
pub(crate) mod portable;
pub(crate) mod resampler;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vector;
pub(crate) mod weights;
