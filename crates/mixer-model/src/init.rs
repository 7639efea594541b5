//! Official initialisation, made on the host so that a seed means the same network on every device.

use std::collections::BTreeMap;

use burn::tensor::Device;

use crate::error::ModelError;
use crate::mixer::config::MixerConfig;
use crate::mixer::mixer::Mixer;
use crate::parameters::{Axis, ParameterSpec, Role, parameters};
use crate::split_mix::SplitMix;
use crate::tensor::HostTensor;
use crate::weights::metadata::Metadata;
use crate::weights::weights::Weights;

/// A normal distribution cut at two standard deviations has this deviation; draws are divided by it.
const TRUNCATED_DEVIATION: f64 = 0.879_625_661_034_239_8;

/// Deviation of learned positions, as in BERT.
const POSITION_DEVIATION: f64 = 0.02;

/// Deviation of the biases of a transformer's MLP.
const SMALL_BIAS_DEVIATION: f64 = 1e-6;

/// LeCun truncated normal kernels (variance 1 / inputs), zero biases, unit LayerNorm scales, a zero
/// head kernel and a head bias of `head_bias`.
///
/// In the blocks of a Vision Transformer kernels are Xavier uniform, queries, keys and values each by
/// itself, and biases of the MLP normal with deviation 1e-6; positions are normal with deviation 0.02, the
/// class token is zero. Convolutions of a BiT-ResNet begin as other kernels do, since they are standardised.
///
/// # Errors
/// [`ModelError`] when the dimensions do not make a network.
///
/// # Source
/// Flax's defaults, as used by `vit_jax/models_mixer.py@c6de1e5`; `vit_jax/models_vit.py@c6de1e5`.
pub fn weights(config: &MixerConfig, seed: u64, head_bias: f32) -> Result<Weights, ModelError> {
    config.validate()?;
    let tensors: BTreeMap<String, HostTensor> = parameters(config)
        .into_iter()
        .enumerate()
        .map(|(index, spec)| {
            let filled = |value| HostTensor::filled(&spec.shape, value);
            // A parameter's place in the table is the stream that it is drawn from.
            let mut random = SplitMix::new(seed, index as u64);
            let tensor = match spec.role {
                Role::Kernel => lecun_normal(&spec.shape, &mut random),
                Role::UniformKernel => xavier_uniform(&spec, &mut random),
                Role::Position => normal(&spec.shape, POSITION_DEVIATION, &mut random),
                Role::SmallBias => normal(&spec.shape, SMALL_BIAS_DEVIATION, &mut random),
                Role::ClassToken => filled(0.0),
                Role::Scale => filled(1.0),
                Role::Bias | Role::Shift | Role::HeadKernel => filled(0.0),
                Role::HeadBias => filled(head_bias),
            };
            (spec.name, tensor)
        })
        .collect();
    Weights::new(config.clone(), tensors, Metadata::default())
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
    ) -> Result<Self, ModelError> {
        Self::from_weights(weights(config, seed, head_bias)?, device)
    }
}

impl MixerConfig {
    /// A freshly initialised network, by seed 0 and with a head of zeros; [`Mixer::init`] takes others.
    ///
    /// # Errors
    /// [`ModelError`] when the dimensions do not make a network.
    pub fn init(&self, device: &Device) -> Result<Mixer, ModelError> {
        Mixer::init(self, 0, 0.0, device)
    }
}

/// A kernel in ±√(6 / (inputs + outputs)). The three products in one of queries, keys and values have the
/// limit that each would have by itself.
fn xavier_uniform(spec: &ParameterSpec, random: &mut SplitMix) -> HostTensor {
    let products = if spec.axes.first() == Some(&Axis::Qkv) { 3 } else { 1 };
    let [outputs, inputs] = [spec.shape[0] / products, spec.shape[1]];
    let limit = (6.0 / (inputs + outputs) as f64).sqrt();
    let mut tensor = HostTensor::filled(&spec.shape, 0.0);
    for value in &mut tensor.data {
        *value = ((2.0 * random.uniform() - 1.0) * limit) as f32;
    }
    tensor
}

/// Normal values.
fn normal(shape: &[usize], deviation: f64, random: &mut SplitMix) -> HostTensor {
    let mut tensor = HostTensor::filled(shape, 0.0);
    for value in &mut tensor.data {
        *value = (random.normal() * deviation) as f32;
    }
    tensor
}

/// A kernel with drawn values; its outputs are the first axis, its inputs all others.
fn lecun_normal(shape: &[usize], random: &mut SplitMix) -> HostTensor {
    let inputs: usize = shape.iter().skip(1).product();
    let deviation = (1.0 / inputs as f64).sqrt() / TRUNCATED_DEVIATION;
    let mut tensor = HostTensor::filled(shape, 0.0);
    for value in &mut tensor.data {
        *value = (random.truncated_normal() * deviation) as f32;
    }
    tensor
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixer::config::Gelu;
    use crate::mixer::variants::Variant;

    fn deviation(values: &[f32]) -> f64 {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt()
    }

    #[test]
    fn kernels_have_lecun_deviation_and_end_at_two_of_them() {
        let config = Variant::parse("S/32").unwrap().config(224, 10, Gelu::Tanh);
        let weights = weights(&config, 7, -6.9).unwrap();
        for (name, inputs) in [
            ("stem.proj.weight", 3 * 32 * 32),
            ("blocks.0.mlp_tokens.fc1.weight", 49),
            ("blocks.3.mlp_channels.fc2.weight", 2048),
        ] {
            let data = &weights.tensors[name].data;
            let expected = (1.0 / f64::from(inputs)).sqrt();
            assert!((deviation(data) / expected - 1.0).abs() < 0.02, "{name}");
            let limit = 2.0 * expected / TRUNCATED_DEVIATION;
            assert!(data.iter().all(|v| f64::from(v.abs()) <= limit * 1.000_001), "{name}");
        }
        assert!(weights.tensors["head.weight"].data.iter().all(|&v| v == 0.0));
        assert!(weights.tensors["head.bias"].data.iter().all(|&v| v == -6.9));
        assert!(weights.tensors["blocks.0.norm1.weight"].data.iter().all(|&v| v == 1.0));
        assert!(weights.tensors["blocks.0.mlp_tokens.fc1.bias"].data.iter().all(|&v| v == 0.0));
    }

    #[test]
    fn a_vision_transformer_begins_as_the_official_one() {
        let config = Variant::parse("ViT-Ti/16").unwrap().config(224, 10, Gelu::Tanh);
        let weights = weights(&config, 7, 0.5).unwrap();
        let data = |name: &str| &weights.tensors[name].data;
        for (name, inputs, outputs) in [
            ("blocks.0.attn.qkv.weight", 192, 192),
            ("blocks.3.attn.proj.weight", 192, 192),
            ("blocks.11.mlp.fc1.weight", 192, 768),
            ("blocks.11.mlp.fc2.weight", 768, 192),
        ] {
            let limit = (6.0 / f64::from(inputs + outputs)).sqrt();
            let found = deviation(data(name)) / (limit / 3.0_f64.sqrt());
            assert!((found - 1.0).abs() < 0.02, "{name}: {found}");
            assert!(data(name).iter().all(|v| f64::from(v.abs()) <= limit * 1.000_001), "{name}");
        }
        assert!((deviation(data("pos_embed")) / 0.02 - 1.0).abs() < 0.02);
        assert!((deviation(data("blocks.4.mlp.fc1.bias")) / 1e-6 - 1.0).abs() < 0.1);
        for name in ["cls_token", "head.weight", "blocks.2.attn.qkv.bias", "patch_embed.proj.bias"]
        {
            assert!(data(name).iter().all(|&v| v == 0.0), "{name}");
        }
        assert!(data("head.bias").iter().all(|&v| v == 0.5));
    }

    #[test]
    fn seeds_and_tensors_draw_different_numbers() {
        let config = Variant::parse("S/32").unwrap().config(64, 10, Gelu::Tanh);
        let (a, b) = (weights(&config, 0, 0.0).unwrap(), weights(&config, 1, 0.0).unwrap());
        let fc1 =
            |w: &Weights, i| w.tensors[&format!("blocks.{i}.mlp_channels.fc1.weight")].clone();
        assert_eq!(fc1(&a, 0), fc1(&weights(&config, 0, 0.0).unwrap(), 0));
        assert_ne!(fc1(&a, 0), fc1(&b, 0));
        assert_ne!(fc1(&a, 0), fc1(&a, 1));
    }
}
