//! The two MLPs of a block: one mixes tokens, the other mixes channels.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use mixer_kernels::{MixingParameters, MixingSpec, mix_channels, mix_tokens};

use super::layer_norm::LayerNorm;
use super::parameter::unfilled;

/// The MLP that mixes information across tokens, independently for each channel: `W₂ gelu(W₁ X + b₁) + b₂`.
///
/// The weights multiply from the left, so that no transpose of the activations is ever made: timm
/// and Flax transpose `[B, S, C]` to `[B, C, S]` and back.
///
/// # Source
/// Tolstikhin et al. 2021, eq. 1.
#[derive(Module, Debug)]
pub struct TokenMixing {
    /// `[D_S, S]`.
    pub weight1: Param<Tensor<2>>,
    /// `[D_S]`.
    pub bias1: Param<Tensor<1>>,
    /// `[S, D_S]`.
    pub weight2: Param<Tensor<2>>,
    /// `[S]`.
    pub bias2: Param<Tensor<1>>,
}

impl TokenMixing {
    /// An MLP without values.
    pub(super) fn unfilled(device: &Device) -> Self {
        Self {
            weight1: unfilled(device),
            bias1: unfilled(device),
            weight2: unfilled(device),
            bias2: unfilled(device),
        }
    }

    /// `x + branch_scale · mixing(norm(x))`.
    ///
    /// # Shapes
    /// - input and output: `[B, S, C]`
    /// - `branch_scale`: `[B]`
    pub(super) fn forward(
        &self,
        x_bsc: Tensor<3>,
        norm: &LayerNorm,
        branch_scale: Tensor<1>,
        spec: MixingSpec,
    ) -> Tensor<3> {
        let parameters = MixingParameters {
            gamma: norm.gamma.val(),
            beta: norm.beta.val(),
            weight1: self.weight1.val(),
            bias1: self.bias1.val(),
            weight2: self.weight2.val(),
            bias2: self.bias2.val(),
        };
        mix_tokens(x_bsc, parameters, branch_scale, spec)
    }
}

/// The MLP that mixes information across channels, independently for each token: `gelu(X W₁ + b₁) W₂ + b₂`.
///
/// # Source
/// Tolstikhin et al. 2021, eq. 1.
#[derive(Module, Debug)]
pub struct ChannelMixing {
    /// `[C, D_C]`.
    pub weight1: Param<Tensor<2>>,
    /// `[D_C]`.
    pub bias1: Param<Tensor<1>>,
    /// `[D_C, C]`.
    pub weight2: Param<Tensor<2>>,
    /// `[C]`.
    pub bias2: Param<Tensor<1>>,
}

impl ChannelMixing {
    /// An MLP without values.
    pub(super) fn unfilled(device: &Device) -> Self {
        Self {
            weight1: unfilled(device),
            bias1: unfilled(device),
            weight2: unfilled(device),
            bias2: unfilled(device),
        }
    }

    /// `x + branch_scale · mixing(norm(x))`. Shapes as of [`TokenMixing::forward`].
    pub(super) fn forward(
        &self,
        x_bsc: Tensor<3>,
        norm: &LayerNorm,
        branch_scale: Tensor<1>,
        spec: MixingSpec,
    ) -> Tensor<3> {
        let parameters = MixingParameters {
            gamma: norm.gamma.val(),
            beta: norm.beta.val(),
            weight1: self.weight1.val(),
            bias1: self.bias1.val(),
            weight2: self.weight2.val(),
            bias2: self.bias2.val(),
        };
        mix_channels(x_bsc, parameters, branch_scale, spec)
    }
}
