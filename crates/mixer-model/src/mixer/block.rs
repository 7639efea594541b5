//! One Mixer block: token mixing, then channel mixing, each normalised before and added after.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mixer_kernels::MixingSpec;

use crate::layer_norm::LayerNorm;
use crate::mlp::{ChannelMixing, TokenMixing};
use crate::weights::HostTensor;

/// `U = X + token_mixing(LN(X))`, `Y = U + channel_mixing(LN(U))`.
///
/// # Source
/// Tolstikhin et al. 2021, eq. 1; `vit_jax/models_mixer.py@c6de1e5` (`MixerBlock`).
#[derive(Module, Debug)]
pub struct MixerBlock {
    /// Before token mixing.
    pub norm_tokens: LayerNorm,
    /// Across tokens.
    pub token_mixing: TokenMixing,
    /// Before channel mixing.
    pub norm_channels: LayerNorm,
    /// Across channels.
    pub channel_mixing: ChannelMixing,
}

/// timm's names of a block's tensors, in the order of [`MixerBlock::from_host`].
pub(crate) const TENSOR_NAMES: [&str; 12] = [
    "norm1.weight",
    "norm1.bias",
    "mlp_tokens.fc1.weight",
    "mlp_tokens.fc1.bias",
    "mlp_tokens.fc2.weight",
    "mlp_tokens.fc2.bias",
    "norm2.weight",
    "norm2.bias",
    "mlp_channels.fc1.weight",
    "mlp_channels.fc1.bias",
    "mlp_channels.fc2.weight",
    "mlp_channels.fc2.bias",
];

/// Paths of the same tensors within a [`MixerBlock`], as a visitor of the module sees them.
pub(crate) const MODULE_PATHS: [&str; 12] = [
    "norm_tokens.gamma",
    "norm_tokens.beta",
    "token_mixing.weight1",
    "token_mixing.bias1",
    "token_mixing.weight2",
    "token_mixing.bias2",
    "norm_channels.gamma",
    "norm_channels.beta",
    "channel_mixing.weight1",
    "channel_mixing.bias1",
    "channel_mixing.weight2",
    "channel_mixing.bias2",
];

impl MixerBlock {
    pub(crate) fn from_host(tensors: [HostTensor; 12], device: &Device) -> MixerBlock {
        let [g1, b1, tw1, tb1, tw2, tb2, g2, b2, cw1, cb1, cw2, cb2] = tensors;
        MixerBlock {
            norm_tokens: LayerNorm::from_host(g1, b1, device),
            token_mixing: TokenMixing::from_host([tw1, tb1, tw2, tb2], device),
            norm_channels: LayerNorm::from_host(g2, b2, device),
            channel_mixing: ChannelMixing::from_host([cw1, cb1, cw2, cb2], device),
        }
    }

    /// The first half: adds token mixing to the residual stream.
    ///
    /// # Shapes
    /// - input and output: `[B, S, C]`
    /// - `branch_scale`: `[B]`, what each example's branch is multiplied by (stochastic depth)
    pub fn mix_tokens(
        &self,
        x_bsc: Tensor<3>,
        branch_scale: Tensor<1>,
        spec: MixingSpec,
    ) -> Tensor<3> {
        self.token_mixing.forward(x_bsc, &self.norm_tokens, branch_scale, spec)
    }

    /// The second half: adds channel mixing to the residual stream. Shapes as in
    /// [`MixerBlock::mix_tokens`].
    pub fn mix_channels(
        &self,
        x_bsc: Tensor<3>,
        branch_scale: Tensor<1>,
        spec: MixingSpec,
    ) -> Tensor<3> {
        self.channel_mixing.forward(x_bsc, &self.norm_channels, branch_scale, spec)
    }
}
