//! The two halves of a Mixer block, each as one differentiable operation.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::functions::gelu::Gelu;
use crate::ops::MixerOps;
use crate::spec::Precision;

/// What a mixing operation is besides its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixingSpec {
    /// The form of GELU.
    pub gelu: Gelu,
    /// Added to the variance by the normalisation.
    pub epsilon: f64,
    /// Whether channel mixing's backward pass computes the hidden units again instead of finding
    /// them kept: a sixth more products, `B S D_C` floats less per block.
    pub recompute: bool,
    /// What the operands of its products are rounded to.
    pub precision: Precision,
    /// Whether any example's branch is multiplied by something other than 1. Where it is not, the
    /// multiplication may be left out.
    pub scaled: bool,
}

/// Parameters of a branch: its normalisation and its MLP.
#[derive(Debug, Clone)]
pub struct MixingParameters {
    /// Scale of the normalisation, `[C]`.
    pub gamma: Tensor<1>,
    /// Shift of the normalisation, `[C]`.
    pub beta: Tensor<1>,
    /// `[D_S, S]` to mix tokens, `[C, D_C]` to mix channels.
    pub weight1: Tensor<2>,
    /// `[D_S]` or `[D_C]`.
    pub bias1: Tensor<1>,
    /// `[S, D_S]` or `[D_C, C]`.
    pub weight2: Tensor<2>,
    /// `[S]` or `[C]`.
    pub bias2: Tensor<1>,
}

/// `x + scale · (W₂ gelu(W₁ LN(x) + b₁) + b₂)`: mixes the tokens of each example.
///
/// # Shapes
/// - `x`, output: `[B, S, C]`
/// - `branch_scale`: `[B]`, what each example's branch is multiplied by (stochastic depth). It gets
///   no gradient.
///
/// # Source
/// Tolstikhin et al. 2021, eq. 1.
pub fn mix_tokens(
    x: Tensor<3>,
    parameters: MixingParameters,
    branch_scale: Tensor<1>,
    spec: MixingSpec,
) -> Tensor<3> {
    let MixingParameters { gamma, beta, weight1, bias1, weight2, bias2 } = parameters;
    Tensor::from_dispatch(<Dispatch as MixerOps>::mix_tokens(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        weight1.into_dispatch(),
        bias1.into_dispatch(),
        weight2.into_dispatch(),
        bias2.into_dispatch(),
        branch_scale.into_dispatch(),
        spec,
    ))
}

/// `x + scale · (gelu(LN(x) W₁ + b₁) W₂ + b₂)`: mixes the channels of each token. Shapes and source
/// as of [`mix_tokens`].
pub fn mix_channels(
    x: Tensor<3>,
    parameters: MixingParameters,
    branch_scale: Tensor<1>,
    spec: MixingSpec,
) -> Tensor<3> {
    let MixingParameters { gamma, beta, weight1, bias1, weight2, bias2 } = parameters;
    Tensor::from_dispatch(<Dispatch as MixerOps>::mix_channels(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        weight1.into_dispatch(),
        bias1.into_dispatch(),
        weight2.into_dispatch(),
        bias2.into_dispatch(),
        branch_scale.into_dispatch(),
        spec,
    ))
}
