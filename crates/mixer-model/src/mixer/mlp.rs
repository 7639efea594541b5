//! The two MLPs of a block: one mixes tokens, the other mixes channels.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use mixer_kernels::{MixingParameters, MixingSpec, mix_channels, mix_tokens};

use crate::layer_norm::LayerNorm;
use crate::weights::HostTensor;

/// Mixes information across tokens, independently for each channel: `W₂ gelu(W₁ X + b₁) + b₂`.
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
    /// From `fc1.weight`, `fc1.bias`, `fc2.weight`, `fc2.bias` in PyTorch's layout, which is this one.
    pub(crate) fn from_host(tensors: [HostTensor; 4], device: &Device) -> TokenMixing {
        let [weight1, bias1, weight2, bias2] = tensors;
        TokenMixing {
            weight1: weight1.into_param(device),
            bias1: bias1.into_param(device),
            weight2: weight2.into_param(device),
            bias2: bias2.into_param(device),
        }
    }

    /// `x + branch_scale · mixing(norm(x))`.
    ///
    /// # Shapes
    /// - input and output: `[B, S, C]`
    /// - `branch_scale`: `[B]`
    pub fn forward(
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

/// Mixes information across channels, independently for each token: `gelu(X W₁ + b₁) W₂ + b₂`.
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
    /// From `fc1.weight`, `fc1.bias`, `fc2.weight`, `fc2.bias` in PyTorch's layout.
    pub(crate) fn from_host(tensors: [HostTensor; 4], device: &Device) -> ChannelMixing {
        let [weight1, bias1, weight2, bias2] = tensors;
        ChannelMixing {
            weight1: weight1.permuted(&[1, 0]).into_param(device),
            bias1: bias1.into_param(device),
            weight2: weight2.permuted(&[1, 0]).into_param(device),
            bias2: bias2.into_param(device),
        }
    }

    /// `x + branch_scale · mixing(norm(x))`. Shapes as of [`TokenMixing::forward`].
    pub fn forward(
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

/// A dense layer from a weight in Burn's layout, `[inputs, outputs]`.
pub(crate) fn linear_from_host(weight: HostTensor, bias: HostTensor, device: &Device) -> Linear {
    Linear { weight: weight.into_param(device), bias: Some(bias.into_param(device)) }
}
