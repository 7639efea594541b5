//! One block: tokens exchange information, then channels, each normalised before and added after.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mixer_kernels::MixingSpec;

use super::attention::Attention;
use super::config::TokenLayer;
use super::layer_norm::LayerNorm;
use super::mlp::{ChannelMixing, TokenMixing};

/// `U = X + tokens(LN(X))`, `Y = U + channel_mixing(LN(U))`, where `tokens` is the token-mixing MLP of a
/// Mixer or the self-attention of a Vision Transformer. The rest of the block is the same in both.
///
/// # Source
/// Tolstikhin et al. 2021, eq. 1; `vit_jax/models_mixer.py@c6de1e5` (`MixerBlock`),
/// `vit_jax/models_vit.py@c6de1e5` (`Encoder1DBlock`).
#[derive(Module, Debug)]
pub struct MixerBlock {
    /// Before the layer over tokens.
    pub norm_tokens: LayerNorm,
    /// Across tokens, in a Mixer.
    pub token_mixing: Option<TokenMixing>,
    /// Across tokens, in a Vision Transformer.
    pub attention: Option<Attention>,
    /// Before channel mixing.
    pub norm_channels: LayerNorm,
    /// Across channels.
    pub channel_mixing: ChannelMixing,
}

impl MixerBlock {
    /// A block without values.
    pub(super) fn unfilled(tokens: TokenLayer, device: &Device) -> Self {
        let is_mixer = matches!(tokens, TokenLayer::Mlp { .. });
        Self {
            norm_tokens: LayerNorm::unfilled(device),
            token_mixing: is_mixer.then(|| TokenMixing::unfilled(device)),
            attention: (!is_mixer).then(|| Attention::unfilled(device)),
            norm_channels: LayerNorm::unfilled(device),
            channel_mixing: ChannelMixing::unfilled(device),
        }
    }

    /// The first half: adds what tokens take from each other to the residual stream. A block without such
    /// a layer adds nothing.
    ///
    /// # Shapes
    /// - input and output: `[B, T, C]`
    /// - `branch_scale`: `[B]`, what each example's branch is multiplied by (stochastic depth)
    pub(super) fn mix_tokens(
        &self,
        x_bsc: Tensor<3>,
        tokens: TokenLayer,
        branch_scale: Tensor<1>,
        spec: MixingSpec,
    ) -> Tensor<3> {
        let norm = &self.norm_tokens;
        match (tokens, &self.token_mixing, &self.attention) {
            (TokenLayer::Mlp { .. }, Some(mlp), _) => mlp.forward(x_bsc, norm, branch_scale, spec),
            (TokenLayer::Attention { num_heads, .. }, _, Some(attention)) => {
                attention.forward(x_bsc, norm, num_heads, branch_scale, spec)
            }
            _ => x_bsc,
        }
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
