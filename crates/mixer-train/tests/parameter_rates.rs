//! Freezing and layer-wise learning rates, on every device and for both optimizers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use mixer_model::{Metadata, Mixer, Weights};
use mixer_train::device::DeviceEntry;
use mixer_train::update::optimizer::{GradientSum, Optimizer, Rule};
use mixer_train::update::parameter_rates::ParameterRates;

/// Of a step's length, which is at most about 1e-1: what rounding leaves of a weight's difference.
const ROUNDING: f32 = 1e-6;

fn rules() -> [Rule; 2] {
    [
        Rule::Adamw { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1 },
        Rule::Sgd { momentum: 0.9, weight_decay: 0.1 },
    ]
}

/// Two blocks, all dimensions different.
fn weights() -> Weights {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mixer-model/tests/fixtures");
    Weights::read(&fixtures.join("timm_tiny.safetensors"), None).unwrap()
}

/// What it adds to all channels, every normalisation after it takes away again: its gradient is rounding
/// noise, which may be too small to move it.
fn is_without_gradient(name: &str) -> bool {
    name.ends_with("mlp_tokens.fc2.bias")
}

fn rates(freeze: &[&str], layer_decay: Option<f64>) -> ParameterRates {
    let freeze: Vec<String> = freeze.iter().map(|&prefix| prefix.to_owned()).collect();
    ParameterRates::new(&freeze, layer_decay, &weights().config).unwrap()
}

fn gradients(mixer: &Mixer, device: &DeviceEntry, step: usize) -> GradientSum {
    let (s, p) = (mixer.config().num_tokens(), mixer.config().patch_dim());
    let values = (0..3 * s * p).map(|i| ((i * 7919 + step * 104_729) % 1009) as f32 / 504.5 - 1.0);
    let data = TensorData::new(values.collect::<Vec<f32>>(), [3, s, p]);
    let patches = Tensor::<3>::from_data(data, &device.device.clone().autodiff());
    let logits = mixer.forward_training(patches, None);
    // Not the same for every class, so that every parameter has a gradient.
    let loss = (logits.clone().powi_scalar(3) + logits.clone() * logits).mean();
    GradientSum::of(mixer, &loss.backward())
}

fn trained(
    rule: &Rule,
    rates: &ParameterRates,
    device: &DeviceEntry,
    steps: usize,
    ema_decay: Option<f64>,
) -> (Mixer, Optimizer) {
    let mixer = Mixer::from_weights(weights(), &device.device.clone().autodiff()).unwrap();
    let mut mixer = rates.frozen(mixer);
    let mut optimizer = Optimizer::new(rule.clone(), ema_decay).with_rates(rates.clone());
    for step in 0..steps {
        let gradients = gradients(&mixer, device, step);
        mixer = optimizer.update(mixer, gradients, None, 0.01);
    }
    (mixer, optimizer)
}

#[test]
fn frozen_parameters_keep_their_bits_and_have_no_moments() {
    let rates = rates(&["stem", "blocks.0", "blocks.1.mlp_tokens.fc1", "norm.bias"], None);
    for device in mixer_train::device::available() {
        for rule in rules() {
            let (mixer, optimizer) = trained(&rule, &rates, &device, 5, Some(0.9));
            let before = weights().tensors;
            let average = optimizer.averaged(&mixer).unwrap().to_weights(Metadata::default());
            for found in [mixer.to_weights(Metadata::default()), average] {
                let mut frozen = 0;
                for (name, tensor) in found.unwrap().tensors {
                    let is_same = tensor == before[&name];
                    if rates.is_frozen(&name) {
                        assert!(is_same, "{name} on {} is not what it was", device.name);
                        frozen += 1;
                    } else if !is_without_gradient(&name) {
                        assert!(!is_same, "{name} on {} has not been trained", device.name);
                    }
                }
                // 2 of the stem, 12 of the block, 2 of the layer, 1 of the norm.
                assert_eq!(frozen, 17);
            }
            let (_, state) = optimizer.to_host();
            for path in state.keys() {
                let (path, _) = path.rsplit_once('.').unwrap();
                let name = weights().config.weights_name(path).unwrap();
                assert!(!rates.is_frozen(&name), "{name} has moments");
            }
            let kept = match rule {
                Rule::Adamw { .. } => 3,
                Rule::Sgd { .. } => 2,
            };
            assert_eq!(state.len(), 13 * kept, "moments and average of what is trained");
        }
    }
}

#[test]
fn the_gradient_norm_counts_what_is_trained_and_nothing_else() {
    for device in mixer_train::device::available() {
        let squared = |freeze: &[&str]| -> f64 {
            let mixer = Mixer::from_weights(weights(), &device.device.clone().autodiff()).unwrap();
            let mixer = rates(freeze, None).frozen(mixer);
            let norm = gradients(&mixer, &device, 0).squared_norm().unwrap();
            f64::from(norm.into_scalar::<f32>())
        };
        let lower = squared(&["blocks.1", "norm", "head"]);
        let upper = squared(&["stem", "blocks.0"]);
        let all = squared(&[]);
        assert!(lower > 0.0 && upper > 0.0);
        assert!((lower + upper - all).abs() < 1e-4 * all, "{}: {lower} {upper} {all}", device.name);
        // The gradients of what is trained are those of the whole network.
        assert!(upper < all);
    }
}

#[test]
fn the_first_step_of_a_layer_is_its_factor_times_that_without_decay() {
    const DECAY: f64 = 0.5;
    for device in mixer_train::device::available() {
        for rule in rules() {
            let step = |rates: &ParameterRates| {
                let (mixer, _) = trained(&rule, rates, &device, 1, None);
                mixer.to_weights(Metadata::default()).unwrap().tensors
            };
            let before = weights().tensors;
            let (plain, decayed) = (step(&rates(&[], None)), step(&rates(&[], Some(DECAY))));
            for (name, before) in &before {
                // Two blocks: the head is layer 3.
                let factor: f32 = match name.split('.').take(2).collect::<Vec<_>>().as_slice() {
                    ["stem", _] => 0.125,
                    ["blocks", "0"] => 0.25,
                    ["blocks", "1"] => 0.5,
                    _ => 1.0,
                };
                for (i, &before) in before.data.iter().enumerate() {
                    let expected = before + factor * (plain[name].data[i] - before);
                    let found = decayed[name].data[i];
                    let error = (found - expected).abs();
                    assert!(error < ROUNDING, "{name}[{i}]: {found}, not {expected}");
                }
                let moves = plain[name].data != before.data;
                assert!(moves || is_without_gradient(name), "{name} does not move");
            }
        }
    }
}
