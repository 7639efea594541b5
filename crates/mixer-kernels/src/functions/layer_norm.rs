//! Layer normalisation as one differentiable operation.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::ops::MixerOps;
use crate::ops::norm::Norm;

/// The normalisation over the last dimension, scaled and shifted:
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
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(<Dispatch as MixerOps>::fused_layer_norm(
        Norm { x, gamma, beta },
        epsilon,
    ))
}

/// The mean over tokens of [`layer_norm`], which is what a Mixer's head sees.
///
/// # Shapes
/// - `x`: `[B, S, C]`; output: `[B, C]`, f32
/// - `gamma`, `beta`: `[C]`
pub fn mean_layer_norm(x: Tensor<3>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(<Dispatch as MixerOps>::mean_layer_norm(Norm { x, gamma, beta }, epsilon))
}
