//! The two MLPs of a block: one mixes tokens, the other mixes channels.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use crate::config::Gelu;
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
    #[module(skip)]
    gelu: Gelu,
}

impl TokenMixing {
    /// From `fc1.weight`, `fc1.bias`, `fc2.weight`, `fc2.bias` in PyTorch's layout, which is this one.
    pub(crate) fn from_host(tensors: [&HostTensor; 4], gelu: Gelu, device: &Device) -> TokenMixing {
        let [weight1, bias1, weight2, bias2] = tensors;
        TokenMixing {
            weight1: weight1.to_param(device),
            bias1: bias1.to_param(device),
            weight2: weight2.to_param(device),
            bias2: bias2.to_param(device),
            gelu,
        }
    }

    /// # Shapes
    /// - input and output: `[B, S, C]`
    pub fn forward(&self, x_bsc: Tensor<3>) -> Tensor<3> {
        let h_bdc = self.weight1.val().unsqueeze::<3>().matmul(x_bsc)
            + self.bias1.val().unsqueeze_dims::<3>(&[0, 2]);
        let g_bdc = self.gelu.forward(h_bdc);
        self.weight2.val().unsqueeze::<3>().matmul(g_bdc)
            + self.bias2.val().unsqueeze_dims::<3>(&[0, 2])
    }
}

/// Mixes information across channels, independently for each token: `gelu(X W₁ + b₁) W₂ + b₂`.
///
/// # Source
/// Tolstikhin et al. 2021, eq. 1.
#[derive(Module, Debug)]
pub struct ChannelMixing {
    /// `[C, D_C]`.
    pub fc1: Linear,
    /// `[D_C, C]`.
    pub fc2: Linear,
    #[module(skip)]
    gelu: Gelu,
}

impl ChannelMixing {
    /// From `fc1.weight`, `fc1.bias`, `fc2.weight`, `fc2.bias` in PyTorch's layout.
    pub(crate) fn from_host(
        tensors: [&HostTensor; 4],
        gelu: Gelu,
        device: &Device,
    ) -> ChannelMixing {
        let [weight1, bias1, weight2, bias2] = tensors;
        ChannelMixing {
            fc1: linear_from_host(&weight1.permuted(&[1, 0]), bias1, device),
            fc2: linear_from_host(&weight2.permuted(&[1, 0]), bias2, device),
            gelu,
        }
    }

    /// # Shapes
    /// - input and output: `[B, S, C]`
    pub fn forward(&self, x_bsc: Tensor<3>) -> Tensor<3> {
        // Tokens are rows here: one product over all of them, where Burn would make one per example.
        let [b, s, c] = x_bsc.dims();
        let h_rd = self.gelu.forward(self.fc1.forward(x_bsc.reshape([b * s, c])));
        self.fc2.forward(h_rd).reshape([b, s, c])
    }
}

/// A dense layer from a weight in Burn's layout, `[inputs, outputs]`.
pub(crate) fn linear_from_host(weight: &HostTensor, bias: &HostTensor, device: &Device) -> Linear {
    Linear { weight: weight.to_param(device), bias: Some(bias.to_param(device)) }
}

impl Gelu {
    fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        mixer_kernels::gelu(
            x,
            match self {
                Gelu::Tanh => mixer_kernels::Gelu::Tanh,
                Gelu::Erf => mixer_kernels::Gelu::Erf,
            },
        )
    }
}
