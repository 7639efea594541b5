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
use super::resnet::ResNet;
use crate::error::ModelError;

/// A classifier of patches: an MLP-Mixer, a Vision Transformer, or a BiT-ResNet, as its dimensions say.
///
/// # Source
/// Tolstikhin et al. 2021, figure 1; `vit_jax/models_mixer.py@c6de1e5` (`MlpMixer`). Dosovitskiy et al.
/// 2021, section 3.1; `vit_jax/models_vit.py@c6de1e5` (`VisionTransformer`).
#[derive(Module, Debug)]
pub struct Mixer {
    /// Embedding of a patch: a P×P convolution with stride P, as a linear map over `(py, px, colour)`; `None`
    /// in a BiT-ResNet.
    pub stem: Option<Linear>,
    /// Positions of the tokens; `None` in a Mixer, whose token mixing knows them.
    pub positions: Option<Positions>,
    /// The L blocks; none in a BiT-ResNet.
    pub blocks: Vec<MixerBlock>,
    /// Normalisation of tokens before they are averaged, or the class token is taken; `None` in a BiT-ResNet.
    pub pre_head_layer_norm: Option<LayerNorm>,
    /// All layers of a BiT-ResNet but the head, in place of those above.
    pub resnet: Option<ResNet>,
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
    /// `[B, T, C]`. In a BiT-ResNet they are `stem`, `block{i}` and `norm`, and tokens are the places of its
    /// grids.
    pub tokens: Vec<(String, Tensor<3>)>,
    /// Input of the head, `[B, C]`.
    pub features: Tensor<2>,
    /// `[B, K]`.
    pub logits: Tensor<2>,
}

impl Mixer {
    /// The network of these dimensions, without values.
    pub(crate) fn unfilled(config: MixerConfig, device: &Device) -> Self {
        let head = unfilled_linear(device);
        let compute = Compute::default();
        if let TokenLayer::Convolution { depths, .. } = config.tokens {
            return Self {
                stem: None,
                positions: None,
                blocks: Vec::new(),
                pre_head_layer_norm: None,
                resnet: Some(ResNet::unfilled(depths, device)),
                head,
                config,
                compute,
            };
        }
        let has_positions = matches!(config.tokens, TokenLayer::Attention { .. });
        let positions = || Positions::unfilled(config.has_class_token(), device);
        let block = |_| MixerBlock::unfilled(config.tokens, device);
        Self {
            stem: Some(unfilled_linear(device)),
            positions: has_positions.then(positions),
            blocks: (0..config.num_blocks).map(block).collect(),
            pre_head_layer_norm: Some(LayerNorm::unfilled(device)),
            resnet: None,
            head,
            config,
            compute,
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

    /// The pictures that patches were cut from: the inverse of [`Mixer::patches`].
    fn images(&self, patches: Tensor<3>) -> Tensor<4> {
        let MixerConfig { image_size, patch_size: p, .. } = self.config;
        let (b, grid) = (patches.dims()[0], self.config.grid_size());
        let pixels = patches.reshape([b, grid, grid, p, p, 3]).permute([0, 5, 1, 3, 2, 4]);
        pixels.reshape([b, 3, image_size, image_size])
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
    ///   `2 i` and `2 i + 1` for token and channel mixing of block `i`; in a BiT-ResNet row `2 i` for its one
    ///   branch. `None` for rate 0
    /// - output: `[B, K]`
    #[must_use]
    pub fn forward_training(
        &self,
        patches: Tensor<3>,
        branch_scales: Option<Tensor<2>>,
    ) -> Tensor<2> {
        self.classify(self.body(patches, branch_scales, |_, _| ()))
    }

    /// The token that the head reads (`pre_logits`): the average one, or the class token.
    ///
    /// # Shapes
    /// - `patches`: as in [`Mixer::forward`]
    /// - output: `[B, C]`
    #[must_use]
    pub fn features(&self, patches: Tensor<3>) -> Tensor<2> {
        self.body(patches, None, |_, _| ())
    }

    /// A forward pass that keeps every stage.
    #[must_use]
    pub fn intermediates(&self, patches: Tensor<3>) -> Intermediates {
        let mut tokens = Vec::new();
        let features = self.body(patches, None, |name, stage| tokens.push((name, stage())));
        let logits = self.classify(features.clone());
        Intermediates { tokens, features, logits }
    }

    /// The input of the head, `[B, C]`; `observe` is shown each stage.
    fn body(
        &self,
        patches: Tensor<3>,
        branch_scales: Option<Tensor<2>>,
        mut observe: impl FnMut(String, &dyn Fn() -> Tensor<3>),
    ) -> Tensor<2> {
        let row = |i: usize| {
            let scales = branch_scales.clone()?;
            Some(scales.narrow(0, i, 1).squeeze_dim::<1>(0))
        };
        let Some(resnet) = &self.resnet else {
            let last = self.trunk(patches, row, &mut observe);
            if let Some(norm) = &self.pre_head_layer_norm {
                observe("pre_head_layer_norm".to_owned(), &|| norm.forward(last.clone()));
            }
            return self.pool(last);
        };
        let images = self.images(patches);
        let branch_scale = |block| row(2 * block);
        resnet.forward(images, &self.config, self.compute.precision, branch_scale, observe)
    }

    /// The residual stream after the last block, `[B, S, C]`.
    fn trunk(
        &self,
        patches: Tensor<3>,
        branch_scale: impl Fn(usize) -> Option<Tensor<1>>,
        observe: &mut impl FnMut(String, &dyn Fn() -> Tensor<3>),
    ) -> Tensor<3> {
        let [b, s, p] = patches.dims();
        let ones = Tensor::<1>::ones([b], &patches.device());
        let row = |i: usize| branch_scale(i).unwrap_or_else(|| ones.clone());
        let is_scaled = branch_scale(0).is_some();
        let mut x_bsc = match &self.stem {
            Some(stem) => {
                let x_rc = linear(stem, patches.reshape([b * s, p]), self.compute.precision);
                x_rc.reshape([b, s, self.config.hidden_dim])
            }
            None => patches,
        };
        observe("stem".to_owned(), &|| x_bsc.clone());
        if let Some(positions) = &self.positions {
            x_bsc = positions.forward(x_bsc);
            observe("positions".to_owned(), &|| x_bsc.clone());
        }
        let tokens = self.config.tokens;
        let halves = match self.positions {
            None => ["token_mixing", "channel_mixing"],
            Some(_) => ["attention", "mlp"],
        };
        for (i, block) in self.blocks.iter().enumerate() {
            let spec = self.compute.spec(self.config.gelu, i, is_scaled);
            x_bsc = block.mix_tokens(x_bsc, tokens, row(2 * i), spec);
            observe(format!("block{i}.{}", halves[0]), &|| x_bsc.clone());
            x_bsc = block.mix_channels(x_bsc, row(2 * i + 1), spec);
            observe(format!("block{i}.{}", halves[1]), &|| x_bsc.clone());
        }
        x_bsc
    }

    fn pool(&self, mut x_btc: Tensor<3>) -> Tensor<2> {
        if self.config.has_class_token() {
            x_btc = x_btc.narrow(1, 0, 1);
        }
        match &self.pre_head_layer_norm {
            Some(norm) => norm.forward_mean(x_btc),
            None => x_btc.mean_dim(1).squeeze_dim::<2>(1),
        }
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
