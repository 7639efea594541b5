//! A dense layer as one differentiable operation.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::ops::MixerOps;
use crate::ops::dense::Dense;
use crate::spec::Precision;

/// `x W + b`.
///
/// A backend that keeps activations in the type of `precision` (GPUs do) gives the result in it, and what
/// follows is computed in it; others give f32.
///
/// # Shapes
/// - `x`: `[N, I]`, f32; output: `[N, O]`
/// - `weight`: `[I, O]`
/// - `bias`: `[O]`
#[must_use]
pub fn dense(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, precision: Precision) -> Tensor<2> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as MixerOps>::dense(Dense { x, weight, bias }, precision))
}
