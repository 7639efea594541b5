//! The network: patches in, logits out.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use mixer_kernels::{Precision, dense};

use super::block::MixerBlock;
use super::compute::Compute;
use super::config::{MixerConfig, TokenLayer};
use super::layer_norm::LayerNorm;
use super::parameter::unfilled_linear;
use super::positions::Positions;
use crate::error::ModelError;

/// A classifier of patches: an MLP-Mixer, or a Vision Transformer, as its dimensions say.
///
/// # Source
/// Tolstikhin et al. 2021, figure 1; `vit_jax/models_mixer.py@c6de1e5` (`MlpMixer`). Dosovitskiy et al.
/// 2021, section 3.1; `vit_jax/models_vit.py@c6de1e5` (`VisionTransformer`).
#[derive(Module, Debug)]
pub struct Mixer {
    /// Embedding of a patch: a P×P convolution with stride P, as a linear map over `(py, px, colour)`.
    pub stem: Linear,
    /// Positions of the tokens; `None` in a Mixer, whose token mixing knows them.
    pub positions: Option<Positions>,
    /// The L blocks.
    pub blocks: Vec<MixerBlock>,
    /// Normalisation of tokens before they are averaged, or the class token is taken.
    pub pre_head_layer_norm: LayerNorm,
    /// Classifier of the average token, or of the class token.
    pub head: Linear,
    #[module(skip)]
    config: MixerConfig,
    #[module(skip)]
    compute: Compute,
}

/// Every stage of a forward pass, for tests, probes and pictures.
#[derive(Debug, Clone)]
pub struct Intermediates {
    /// `stem`, then `block{i}.token_mixing` and `block{i}.channel_mixing` (the residual stream after
    /// each half), then `pre_head_layer_norm`; each `[B, S, C]`. In a Vision Transformer the second is
    /// `positions`, the halves are `block{i}.attention` and `block{i}.mlp`, and all but `stem` are
    /// `[B, T, C]`.
    pub tokens: Vec<(String, Tensor<3>)>,
    /// Input of the head, `[B, C]`.
    pub features: Tensor<2>,
    /// `[B, K]`.
    pub logits: Tensor<2>,
}

impl Mixer {
    /// The network of these dimensions, without values.
    pub(crate) fn unfilled(config: MixerConfig, device: &Device) -> Self {
        let positions = match config.tokens {
            TokenLayer::Mlp { .. } => None,
            TokenLayer::Attention { .. } => {
                Some(Positions::unfilled(config.has_class_token(), device))
            }
        };
        let block = |_| MixerBlock::unfilled(config.tokens, device);
        Self {
            stem: unfilled_linear(device),
            positions,
            blocks: (0..config.num_blocks).map(block).collect(),
            pre_head_layer_norm: LayerNorm::unfilled(device),
            head: unfilled_linear(device),
            config,
            compute: Compute::default(),
        }
    }

    /// The same network, computed this way.
    #[must_use]
    pub fn with_compute(self, compute: Compute) -> Self {
        Self { compute, ..self }
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &MixerConfig {
        &self.config
    }

    /// Pictures as patches, which is what a network takes.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, H, W]`, normalised, with H and W the network's image size
    /// - output: `[B, S, P·P·3]`, laid out as in [`Mixer::forward`]
    ///
    /// # Errors
    /// [`ModelError::ImageShape`] when the pictures are not of the network's size.
    pub fn patches(&self, images: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        let MixerConfig { image_size, patch_size: p, .. } = self.config;
        let found = images.dims();
        let [b, colours, height, width] = found;
        if [colours, height, width] != [3, image_size, image_size] {
            return Err(ModelError::ImageShape { found, image_size });
        }
        let grid = self.config.grid_size();
        Ok(images.reshape([b, 3, grid, p, grid, p]).permute([0, 2, 4, 3, 5, 1]).reshape([
            b,
            self.config.num_tokens(),
            self.config.patch_dim(),
        ]))
    }

    /// Logits without stochastic depth.
    ///
    /// # Shapes
    /// - `patches`: `[B, S, P·P·3]`, normalised, tokens in raster order, values in `(py, px, colour)`
    /// - output: `[B, K]`
    #[must_use]
    pub fn forward(&self, patches: Tensor<3>) -> Tensor<2> {
        self.classify(self.features(patches))
    }

    /// Logits in training.
    ///
    /// # Shapes
    /// - `patches`: as in [`Mixer::forward`]
    /// - `branch_scales`: `[2 L, B]`, what stochastic depth multiplies each example's branch by: rows
    ///   `2 i` and `2 i + 1` for token and channel mixing of block `i`. `None` for rate 0
    /// - output: `[B, K]`
    #[must_use]
    pub fn forward_training(
        &self,
        patches: Tensor<3>,
        branch_scales: Option<Tensor<2>>,
    ) -> Tensor<2> {
        self.classify(self.pool(self.trunk(patches, branch_scales, |_, _| ())))
    }

    /// The token that the head reads (`pre_logits`): the average one, or the class token.
    ///
    /// # Shapes
    /// - `patches`: as in [`Mixer::forward`]
    /// - output: `[B, C]`
    #[must_use]
    pub fn features(&self, patches: Tensor<3>) -> Tensor<2> {
        self.pool(self.trunk(patches, None, |_, _| ()))
    }

    /// A forward pass that keeps every stage.
    #[must_use]
    pub fn intermediates(&self, patches: Tensor<3>) -> Intermediates {
        let mut tokens = Vec::new();
        let last = self.trunk(patches, None, |name, x| tokens.push((name, x.clone())));
        let normal = self.pre_head_layer_norm.forward(last.clone());
        tokens.push(("pre_head_layer_norm".to_owned(), normal));
        let features = self.pool(last);
        let logits = self.classify(features.clone());
        Intermediates { tokens, features, logits }
    }

    /// The residual stream after the last block, `[B, S, C]`; `observe` is shown each stage.
    fn trunk(
        &self,
        patches: Tensor<3>,
        branch_scales: Option<Tensor<2>>,
        mut observe: impl FnMut(String, &Tensor<3>),
    ) -> Tensor<3> {
        let [b, s, p] = patches.dims();
        let ones = Tensor::<1>::ones([b], &patches.device());
        let row = |i: usize| match &branch_scales {
            Some(scales) => scales.clone().narrow(0, i, 1).squeeze_dim::<1>(0),
            None => ones.clone(),
        };
        let precision = self.compute.precision;
        let x_rc = linear(&self.stem, patches.reshape([b * s, p]), precision);
        let mut x_bsc = x_rc.reshape([b, s, self.config.hidden_dim]);
        observe("stem".to_owned(), &x_bsc);
        if let Some(positions) = &self.positions {
            x_bsc = positions.forward(x_bsc);
            observe("positions".to_owned(), &x_bsc);
        }
        let tokens = self.config.tokens;
        let halves = match tokens {
            TokenLayer::Mlp { .. } => ["token_mixing", "channel_mixing"],
            TokenLayer::Attention { .. } => ["attention", "mlp"],
        };
        for (i, block) in self.blocks.iter().enumerate() {
            let spec = self.compute.spec(self.config.gelu, i, branch_scales.is_some());
            x_bsc = block.mix_tokens(x_bsc, tokens, row(2 * i), spec);
            observe(format!("block{i}.{}", halves[0]), &x_bsc);
            x_bsc = block.mix_channels(x_bsc, row(2 * i + 1), spec);
            observe(format!("block{i}.{}", halves[1]), &x_bsc);
        }
        x_bsc
    }

    fn pool(&self, mut x_btc: Tensor<3>) -> Tensor<2> {
        if self.config.has_class_token() {
            x_btc = x_btc.narrow(1, 0, 1);
        }
        self.pre_head_layer_norm.forward_mean(x_btc)
    }

    /// The head is f32 in every precision: it is small, and logits are what a loss is sensitive to.
    fn classify(&self, features_bc: Tensor<2>) -> Tensor<2> {
        linear(&self.head, features_bc, Precision::F32)
    }
}

fn linear(layer: &Linear, x: Tensor<2>, precision: Precision) -> Tensor<2> {
    let weight = layer.weight.val();
    let bias = match &layer.bias {
        Some(bias) => bias.val(),
        None => Tensor::zeros([weight.dims()[1]], &x.device()),
    };
    dense(x, weight, bias, precision)
}
