//! One Mixer block: token mixing, then channel mixing, each normalised before and added after.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mixer_kernels::MixingSpec;

use super::layer_norm::LayerNorm;
use super::mlp::{ChannelMixing, TokenMixing};

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

impl MixerBlock {
    /// A block without values.
    pub(super) fn unfilled(device: &Device) -> Self {
        Self {
            norm_tokens: LayerNorm::unfilled(device),
            token_mixing: TokenMixing::unfilled(device),
            norm_channels: LayerNorm::unfilled(device),
            channel_mixing: ChannelMixing::unfilled(device),
        }
    }

    /// The first half: adds token mixing to the residual stream.
    ///
    /// # Shapes
    /// - input and output: `[B, S, C]`
    /// - `branch_scale`: `[B]`, what each example's branch is multiplied by (stochastic depth)
    pub(super) fn mix_tokens(
        &self,
        x_bsc: Tensor<3>,
        branch_scale: Tensor<1>,
        spec: MixingSpec,
    ) -> Tensor<3> {
        self.token_mixing.forward(x_bsc, &self.norm_tokens, branch_scale, spec)
    }

    /// The second half: adds channel mixing to the residual stream. Shapes as in
    /// [`MixerBlock::mix_tokens`].
    pub(super) fn mix_channels(
        &self,
        x_bsc: Tensor<3>,
        branch_scale: Tensor<1>,
        spec: MixingSpec,
    ) -> Tensor<3> {
        self.channel_mixing.forward(x_bsc, &self.norm_channels, branch_scale, spec)
    }
}
