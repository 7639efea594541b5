//! The two halves of a Mixer block, each as one differentiable operation.

use burn::backend::Dispatch;
use burn::tensor::{Device, Tensor};

use crate::ops::MixerOps;
use crate::ops::branch::Branch;
use crate::spec::MixingSpec;

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

impl MixingParameters {
    fn branch(self, x: Tensor<3>, branch_scale: Tensor<1>) -> Branch<Dispatch> {
        let Self { gamma, beta, weight1, bias1, weight2, bias2 } = self;
        Branch {
            x: x.into_dispatch(),
            gamma: gamma.into_dispatch(),
            beta: beta.into_dispatch(),
            weight1: weight1.into_dispatch(),
            bias1: bias1.into_dispatch(),
            weight2: weight2.into_dispatch(),
            bias2: bias2.into_dispatch(),
            branch_scale: branch_scale.into_dispatch(),
        }
    }
}

/// `true` for a device that mixes as fast with a weight that is a view of its transpose: the CPU, where nothing
/// is to be differentiated. Others would copy it at every call.
#[must_use]
pub fn mixes_with_transposes(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return matches!(device.as_dispatch(), burn::backend::DispatchDevice::Flex(_));
    #[cfg(not(feature = "flex"))]
    return false;
}

/// `x + scale · (W₂ gelu(W₁ LN(x) + b₁) + b₂)`: mixes the tokens of each example.
///
/// # Shapes
/// - `x`, output: `[B, S, C]`
/// - `branch_scale`: `[B]`, the factor of each example's branch (stochastic depth). It gets no gradient.
///
/// # Source
/// Tolstikhin et al. 2021, eq. 1.
#[must_use]
pub fn mix_tokens(
    x: Tensor<3>,
    parameters: MixingParameters,
    branch_scale: Tensor<1>,
    spec: MixingSpec,
) -> Tensor<3> {
    let branch = parameters.branch(x, branch_scale);
    Tensor::from_dispatch(<Dispatch as MixerOps>::mix_tokens(branch, spec))
}

/// `x + scale · (gelu(LN(x) W₁ + b₁) W₂ + b₂)`: mixes the channels of each token. Shapes and source
/// as of [`mix_tokens`].
#[must_use]
pub fn mix_channels(
    x: Tensor<3>,
    parameters: MixingParameters,
    branch_scale: Tensor<1>,
    spec: MixingSpec,
) -> Tensor<3> {
    let branch = parameters.branch(x, branch_scale);
    Tensor::from_dispatch(<Dispatch as MixerOps>::mix_channels(branch, spec))
}
