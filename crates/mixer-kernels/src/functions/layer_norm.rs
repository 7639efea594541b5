//! Layer normalisation as one differentiable operation.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::ops::MixerOps;
use crate::ops::norm::Norm;

/// Parameters of a normalisation.
#[derive(Debug, Clone)]
pub struct NormParameters {
    /// Scale, `[C]`.
    pub gamma: Tensor<1>,
    /// Shift, `[C]`.
    pub beta: Tensor<1>,
}

impl NormParameters {
    fn norm<const D: usize>(self, x: Tensor<D>) -> Norm<Dispatch> {
        let Self { gamma, beta } = self;
        Norm { x: x.into_dispatch(), gamma: gamma.into_dispatch(), beta: beta.into_dispatch() }
    }
}

/// The normalisation over the last dimension, scaled and shifted:
/// `y = (x − mean) / √(var + epsilon) · gamma + beta`, with the biased variance.
///
/// # Shapes
/// - `x`, output: `[…, C]`
#[must_use]
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    parameters: NormParameters,
    epsilon: f64,
) -> Tensor<D> {
    let norm = parameters.norm(x);
    Tensor::from_dispatch(<Dispatch as MixerOps>::fused_layer_norm(norm, epsilon))
}

/// The mean over tokens of [`layer_norm`], which is what a Mixer's head sees.
///
/// # Shapes
/// - `x`: `[B, S, C]`; output: `[B, C]`, f32
#[must_use]
pub fn mean_layer_norm(x: Tensor<3>, parameters: NormParameters, epsilon: f64) -> Tensor<2> {
    let norm = parameters.norm(x);
    Tensor::from_dispatch(<Dispatch as MixerOps>::mean_layer_norm(norm, epsilon))
}
