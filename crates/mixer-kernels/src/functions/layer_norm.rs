//! Layer normalisation as one differentiable operation.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::ops::MixerOps;

/// Normalises over the last dimension, then scales and shifts.
///
/// `y = (x − mean) / √(var + epsilon) · gamma + beta`, with the biased variance.
///
/// # Shapes
/// - `x`, output: `[…, C]`
/// - `gamma`, `beta`: `[C]`
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as MixerOps>::fused_layer_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    ))
}

/// The mean over tokens of [`layer_norm`], which is what a Mixer's head sees.
///
/// # Shapes
/// - `x`: `[B, S, C]`; output: `[B, C]`, f32
/// - `gamma`, `beta`: `[C]`
pub fn mean_layer_norm(x: Tensor<3>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as MixerOps>::mean_layer_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    ))
}
