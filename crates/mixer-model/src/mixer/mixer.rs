//! The network: patches in, logits out.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use mixer_kernels::{Precision, dense};

use crate::block::{self, MixerBlock};
use crate::compute::Compute;
use crate::config::MixerConfig;
use crate::layer_norm::LayerNorm;
use crate::mlp::linear_from_host;
use crate::weights::{HostTensor, Metadata, Weights};
use crate::{ModelError, init};

/// An MLP-Mixer classifier.
///
/// # Source
/// Tolstikhin et al. 2021, figure 1; `vit_jax/models_mixer.py@c6de1e5` (`MlpMixer`).
#[derive(Module, Debug)]
pub struct Mixer {
    /// Embeds a patch: a P×P convolution with stride P, as a linear map over `(py, px, colour)`.
    pub stem: Linear,
    /// The L blocks.
    pub blocks: Vec<MixerBlock>,
    /// Normalises tokens before they are averaged.
    pub pre_head_layer_norm: LayerNorm,
    /// Classifies the average token.
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
    /// each half), then `pre_head_layer_norm`; each `[B, S, C]`.
    pub tokens: Vec<(String, Tensor<3>)>,
    /// What the head sees, `[B, C]`.
    pub features: Tensor<2>,
    /// `[B, K]`.
    pub logits: Tensor<2>,
}

impl Mixer {
    /// A freshly initialised network: LeCun truncated normal kernels, zero biases, a zero head with
    /// every bias at `head_bias`.
    ///
    /// # Errors
    /// [`ModelError`] when the dimensions do not make a network.
    ///
    /// # Determinism
    /// The same seed gives the same parameters on every device.
    pub fn init(
        config: &MixerConfig,
        seed: u64,
        head_bias: f32,
        device: &Device,
    ) -> Result<Mixer, ModelError> {
        Mixer::from_weights(init::weights(config, seed, head_bias)?, device)
    }

    /// The network with these weights, on `device`.
    ///
    /// # Errors
    /// [`ModelError::Mismatch`] when the tensors are not those of the weights' own architecture.
    pub fn from_weights(weights: Weights, device: &Device) -> Result<Mixer, ModelError> {
        weights.check_fits(&weights.config)?;
        let Weights { config, mut tensors, .. } = weights;
        // Taken one by one, so that host and device never hold everything twice.
        let mut take = |name: &str| match tensors.remove(name) {
            Some(tensor) => tensor,
            None => unreachable!("`{name}` was found by the check"),
        };
        let blocks = (0..config.num_blocks)
            .map(|i| {
                let tensors = block::TENSOR_NAMES.map(|name| take(&format!("blocks.{i}.{name}")));
                MixerBlock::from_host(tensors, device)
            })
            .collect();
        // [C, 3, P, P] to [P, P, 3, C]: rows in the order of a patch's bytes.
        let mut stem = take("stem.proj.weight").permuted(&[2, 3, 1, 0]);
        stem.shape = vec![config.patch_dim(), config.hidden_dim];
        Ok(Mixer {
            stem: linear_from_host(stem, take("stem.proj.bias"), device),
            blocks,
            pre_head_layer_norm: LayerNorm::from_host(
                take("norm.weight"),
                take("norm.bias"),
                device,
            ),
            head: linear_from_host(
                take("head.weight").permuted(&[1, 0]),
                take("head.bias"),
                device,
            ),
            config,
            compute: Compute::default(),
        })
    }

    /// The same network, computed this way.
    #[must_use]
    pub fn with_compute(self, compute: Compute) -> Mixer {
        Mixer { compute, ..self }
    }

    /// The name that a parameter has in weights files (timm's), from its path in the module as a visitor
    /// sees it: `blocks.3.token_mixing.weight1` is `blocks.3.mlp_tokens.fc1.weight`. `None` for a path
    /// that no parameter has.
    #[must_use]
    pub fn weights_name(path: &str) -> Option<String> {
        if let Some((number, rest)) =
            path.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'))
        {
            let index = block::MODULE_PATHS.iter().position(|own| *own == rest)?;
            return Some(format!("blocks.{number}.{}", block::TENSOR_NAMES[index]));
        }
        let name = match path {
            "stem.weight" => "stem.proj.weight",
            "stem.bias" => "stem.proj.bias",
            "pre_head_layer_norm.gamma" => "norm.weight",
            "pre_head_layer_norm.beta" => "norm.bias",
            "head.weight" | "head.bias" => path,
            _ => return None,
        };
        Some(name.to_owned())
    }

    /// Copies the parameters to the host, in timm's names and layouts.
    ///
    /// # Errors
    /// [`ModelError::ClassCount`] when the class names of `metadata` are not one per output.
    pub fn to_weights(&self, metadata: Metadata) -> Result<Weights, ModelError> {
        // SYNC: reads every parameter back.
        let mut tensors = BTreeMap::new();
        let mut put = |name: String, tensor: HostTensor| {
            tensors.insert(name, tensor);
        };
        let p = self.config.patch_size;
        let mut stem = HostTensor::from_device(self.stem.weight.val());
        stem.shape = vec![p, p, 3, self.config.hidden_dim];
        put("stem.proj.weight".into(), stem.permuted(&[3, 2, 0, 1]));
        put("stem.proj.bias".into(), bias(&self.stem));
        for (i, block) in self.blocks.iter().enumerate() {
            let channel = &block.channel_mixing;
            let token = &block.token_mixing;
            let values = [
                HostTensor::from_device(block.norm_tokens.gamma.val()),
                HostTensor::from_device(block.norm_tokens.beta.val()),
                HostTensor::from_device(token.weight1.val()),
                HostTensor::from_device(token.bias1.val()),
                HostTensor::from_device(token.weight2.val()),
                HostTensor::from_device(token.bias2.val()),
                HostTensor::from_device(block.norm_channels.gamma.val()),
                HostTensor::from_device(block.norm_channels.beta.val()),
                HostTensor::from_device(channel.weight1.val()).permuted(&[1, 0]),
                HostTensor::from_device(channel.bias1.val()),
                HostTensor::from_device(channel.weight2.val()).permuted(&[1, 0]),
                HostTensor::from_device(channel.bias2.val()),
            ];
            for (name, value) in block::TENSOR_NAMES.iter().zip(values) {
                put(format!("blocks.{i}.{name}"), value);
            }
        }
        put("norm.weight".into(), HostTensor::from_device(self.pre_head_layer_norm.gamma.val()));
        put("norm.bias".into(), HostTensor::from_device(self.pre_head_layer_norm.beta.val()));
        put(
            "head.weight".into(),
            HostTensor::from_device(self.head.weight.val()).permuted(&[1, 0]),
        );
        put("head.bias".into(), bias(&self.head));
        Weights::new(self.config.clone(), tensors, metadata)
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &MixerConfig {
        &self.config
    }

    /// Logits without stochastic depth.
    ///
    /// # Shapes
    /// - `patches`: `[B, S, P·P·3]`, normalised, tokens in raster order, values in `(py, px, colour)`
    /// - output: `[B, K]`
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
    pub fn forward_training(
        &self,
        patches: Tensor<3>,
        branch_scales: Option<Tensor<2>>,
    ) -> Tensor<2> {
        self.classify(self.pool(self.trunk(patches, branch_scales, |_, _| ())))
    }

    /// The average token before the head (`pre_logits`).
    ///
    /// # Shapes
    /// - `patches`: as in [`Mixer::forward`]
    /// - output: `[B, C]`
    pub fn features(&self, patches: Tensor<3>) -> Tensor<2> {
        self.pool(self.trunk(patches, None, |_, _| ()))
    }

    /// A forward pass that keeps every stage.
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
        for (i, block) in self.blocks.iter().enumerate() {
            let spec = self.compute.spec(self.config.gelu, i, branch_scales.is_some());
            x_bsc = block.mix_tokens(x_bsc, row(2 * i), spec);
            observe(format!("block{i}.token_mixing"), &x_bsc);
            x_bsc = block.mix_channels(x_bsc, row(2 * i + 1), spec);
            observe(format!("block{i}.channel_mixing"), &x_bsc);
        }
        x_bsc
    }

    fn pool(&self, x_bsc: Tensor<3>) -> Tensor<2> {
        self.pre_head_layer_norm.forward_mean(x_bsc)
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

fn bias(linear: &Linear) -> HostTensor {
    linear.bias.as_ref().map_or_else(
        || HostTensor::filled(&[linear.weight.dims()[1]], 0.0),
        |bias| HostTensor::from_device(bias.val()),
    )
}
