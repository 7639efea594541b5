//! Holds the BiT-ResNet against timm: features, logits, loss, the gradient of every parameter, names and
//! layouts of files.
//!
//! `scripts/export_bit_golden.py` made the fixtures. `cargo test --test bit -- --nocapture` prints the
//! differences that were measured.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use common::{
    Difference, cross_entropy, devices, fixture, gradients, read_values, to_device, tolerance,
};
use mixer_model::weights::{OnnxInput, Preprocessing, Shuffle};
use mixer_model::{
    Compute, Depths, Gelu, HostTensor, Metadata, Mixer, MixerConfig, ModelError, Precision,
    TokenLayer, Variant, Weights, init, parameters,
};

const BATCH: usize = 3;

/// Of logits, to their largest: operands with 8 bits.
const OF_BF16: f64 = 0.05;

struct Reference {
    weights: Weights,
    gradients: Weights,
    values: BTreeMap<String, HostTensor>,
    labels: Vec<usize>,
}

fn reference() -> Reference {
    let read = |file: &str| Weights::read(&fixture(file), None).unwrap();
    let (values, labels) = read_values("bit_io.safetensors");
    let gradients = read("bit_grads.safetensors");
    Reference { weights: read("bit.safetensors"), gradients, values, labels }
}

impl Reference {
    fn mixer(&self, device: &Device) -> Mixer {
        Mixer::from_weights(self.weights.clone(), device).unwrap()
    }

    fn patches(&self, mixer: &Mixer, device: &Device) -> Tensor<3> {
        mixer.patches(to_device(&self.values["images"], device)).unwrap()
    }
}

/// The largest of many relative differences, so that a failure tells of all of them.
#[derive(Default)]
struct Worst {
    relative: f64,
    lines: Vec<String>,
}

impl Worst {
    fn add(&mut self, device: &str, name: &str, found: &HostTensor, expected: &HostTensor) {
        let difference = Difference::between(name, found, expected);
        println!("{device}, {name}: {:.2e}", difference.relative);
        if difference.relative > self.relative {
            self.relative = difference.relative;
            self.lines.push(format!("{device}: {difference}"));
        }
    }

    fn assert_within(&self, tolerance: f64) {
        let lines = self.lines.join("\n");
        println!("largest relative difference: {:.2e}", self.relative);
        assert!(
            self.relative <= tolerance,
            "{:.2e}, expected {tolerance}:\n{lines}",
            self.relative
        );
    }
}

fn with_sizes(config: &MixerConfig, image_size: usize, patch_size: usize) -> MixerConfig {
    MixerConfig { image_size, patch_size, ..config.clone() }
}

#[test]
fn files_of_timm_say_which_network_they_hold() {
    let expected = MixerConfig {
        image_size: 36,
        patch_size: 6,
        hidden_dim: 128,
        tokens: TokenLayer::Convolution { depths: Depths::new(&[2, 1, 1]).unwrap(), num_groups: 4 },
        channels_mlp_dim: 32,
        num_blocks: 4,
        num_classes: 7,
        gelu: Gelu::Tanh,
    };
    let Reference { weights, .. } = reference();
    assert_eq!(weights.config, expected);
    // ReLU has no two forms.
    let path = fixture("bit.safetensors");
    assert_eq!(Weights::read(&path, Some(Gelu::Erf)).unwrap().config, expected);
}

#[test]
fn features_and_logits_agree_with_timm() {
    let reference = reference();
    for (device_name, device) in devices() {
        let mixer = reference.mixer(&device);
        let patches = reference.patches(&mixer, &device);
        let stages = mixer.intermediates(patches.clone());
        let names: Vec<&str> = stages.tokens.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["stem", "block0", "block1", "block2", "block3", "norm"]);
        let places: Vec<[usize; 3]> = stages.tokens.iter().map(|(_, x)| x.dims()).collect();
        let sides = [(9, 8), (9, 32), (9, 32), (5, 64), (3, 128), (3, 128)];
        assert_eq!(places, sides.map(|(side, channels)| [BATCH, side * side, channels]));
        let (features, logits) = (stages.features, stages.logits);
        let mut worst = Worst::default();
        for (name, found) in [("features", features), ("logits", logits.clone())] {
            let found = HostTensor::from_device(found);
            worst.add(device_name, name, &found, &reference.values[name]);
        }
        let logits = HostTensor::from_device(logits);
        let training = HostTensor::from_device(mixer.forward_training(patches.clone(), None));
        assert_eq!(training.data, logits.data);
        // Stochastic depth that keeps every branch whole changes nothing.
        let kept = Tensor::ones([8, BATCH], &device);
        let kept = HostTensor::from_device(mixer.forward_training(patches, Some(kept)));
        worst.add(device_name, "kept branches", &kept, &logits);
        worst.assert_within(tolerance(device_name));
        let back = mixer.to_weights(reference.weights.metadata.clone()).unwrap();
        assert_eq!(back, reference.weights);
    }
}

#[test]
fn every_gradient_agrees_with_timm() {
    let reference = reference();
    for (device_name, device) in devices() {
        let device = device.autodiff();
        let mixer = reference.mixer(&device);
        let patches = reference.patches(&mixer, &device);
        let loss = cross_entropy(mixer.forward_training(patches, None), &reference.labels);
        let mut worst = Worst::default();
        let found = HostTensor::from_device(loss.clone());
        worst.add(device_name, "loss", &found, &reference.values["loss"]);
        let found = gradients(mixer, &loss);
        assert!(found.keys().eq(reference.gradients.tensors.keys()));
        for (name, found) in &found {
            worst.add(device_name, name, found, &reference.gradients.tensors[name]);
        }
        worst.assert_within(tolerance(device_name));
    }
}

#[test]
fn names_and_layouts_of_timm_come_and_go() {
    let reference = reference();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bit.safetensors");
    reference.weights.write_safetensors(&path).unwrap();
    assert_eq!(Weights::read(&path, None).unwrap(), reference.weights);
    // Without our header: as published, with 32 groups at 224 px, and in whatever it is wrapped.
    let tokens = TokenLayer::Convolution { depths: Depths::new(&[1, 2]).unwrap(), num_groups: 32 };
    let (hidden_dim, channels_mlp_dim, num_blocks) = (256, 64, 3);
    let config = MixerConfig {
        hidden_dim,
        channels_mlp_dim,
        num_blocks,
        tokens,
        ..with_sizes(&reference.weights.config, 224, 16)
    };
    let weights = init::weights(&config, 5, 0.5).unwrap();
    for prefix in ["", "module.", "state_dict.model."] {
        let tensors = weights.tensors.iter();
        let tensors = tensors.map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone()));
        let mut file = std::fs::File::create(&path).unwrap();
        let tensors: BTreeMap<String, HostTensor> = tensors.collect();
        mixer_model::weights::write_tensors(&mut file, &tensors, &BTreeMap::new(), |_| false)
            .unwrap();
        assert_eq!(Weights::read(&path, None).unwrap(), weights, "{prefix}");
    }
}

#[test]
fn another_size_and_other_patches_need_no_other_weights() {
    let reference = reference();
    let device = &devices()[0].1;
    let mixer = reference.mixer(device);
    let logits = HostTensor::from_device(mixer.forward(reference.patches(&mixer, device)));
    let config = with_sizes(&reference.weights.config, 36, 4);
    let other = Weights::new(config, reference.weights.tensors.clone(), Metadata::default());
    let other = Mixer::from_weights(other.unwrap(), device).unwrap();
    let patches = reference.patches(&other, device);
    assert_eq!(patches.dims(), [BATCH, 81, 48]);
    assert_eq!(HostTensor::from_device(other.forward(patches)), logits);

    let resized = reference.weights.resized(60).unwrap();
    assert_eq!(resized.tensors, reference.weights.tensors);
    assert_eq!(resized.config, with_sizes(&reference.weights.config, 60, 6));
    assert_eq!(resized.metadata.provenance["resolution"], "unchanged from 36 px");
    let mixer = Mixer::from_weights(resized, device).unwrap();
    assert_eq!(mixer.forward(Tensor::zeros([1, 100, 108], device)).dims(), [1, 7]);
}

#[test]
fn a_dropped_branch_leaves_its_shortcut() {
    let reference = reference();
    let device = &devices()[0].1;
    let mixer = reference.mixer(device);
    let patches = reference.patches(&mixer, device);
    let whole = HostTensor::from_device(mixer.forward(patches.clone()));
    let mut without = reference.mixer(device);
    without.resnet.as_mut().unwrap().blocks.remove(1);
    // The second block is the only one whose shortcut is its input.
    let mut scales = HostTensor::filled(&[8, BATCH], 1.0);
    scales.data[2 * BATCH + 1] = 0.0;
    let dropped = mixer.forward_training(patches.clone(), Some(to_device(&scales, device)));
    let dropped = HostTensor::from_device(dropped);
    let mut zeroed = reference.weights.clone();
    let scale = zeroed.tensors.get_mut("stages.0.blocks.1.norm3.weight").unwrap();
    scale.data.fill(0.0);
    let shift = zeroed.tensors.get_mut("stages.0.blocks.1.norm3.bias").unwrap();
    shift.data.fill(0.0);
    let zeroed = Mixer::from_weights(zeroed, device).unwrap();
    let zeroed = HostTensor::from_device(zeroed.forward(patches));
    let row = |tensor: &HostTensor, row: usize| HostTensor {
        shape: vec![7],
        data: tensor.data[7 * row..7 * (row + 1)].to_vec(),
    };
    let mut worst = Worst::default();
    for (at, expected) in [(0, &whole), (1, &zeroed), (2, &whole)] {
        worst.add("flex", "row", &row(&dropped, at), &row(expected, at));
    }
    worst.assert_within(tolerance("flex"));
    assert_ne!(row(&whole, 1), row(&zeroed, 1));
}

#[test]
fn operands_in_bf16_give_nearly_the_same() {
    let reference = reference();
    let device = devices()[0].1.clone().autodiff();
    let compute = Compute { precision: Precision::Bf16, ..Compute::default() };
    let mixer = reference.mixer(&device).with_compute(compute);
    let logits = mixer.forward_training(reference.patches(&mixer, &device), None);
    let mut worst = Worst::default();
    let found = HostTensor::from_device(logits.clone());
    worst.add("flex", "logits", &found, &reference.values["logits"]);
    worst.assert_within(OF_BF16);
    assert_ne!(found, reference.values["logits"]);
    let loss = cross_entropy(logits, &reference.labels);
    assert!(gradients(mixer, &loss).values().all(|g| g.data.iter().all(|v| v.is_finite())));
}

#[test]
fn initial_weights_are_those_of_every_network_here() {
    let config = Variant::parse("BiT-R50x1").unwrap().config(224, 10, Gelu::Tanh);
    let weights = init::weights(&config, 3, -2.0).unwrap();
    let data = |name: &str| &weights.tensors[name].data;
    assert!(data("head.fc.weight").iter().all(|&v| v == 0.0));
    assert!(data("head.fc.bias").iter().all(|&v| v == -2.0));
    assert!(data("stages.2.blocks.5.norm3.weight").iter().all(|&v| v == 1.0));
    let kernel = data("stages.1.blocks.0.conv2.weight");
    let square: f64 = kernel.iter().map(|&v| f64::from(v).powi(2)).sum();
    let deviation = (square / kernel.len() as f64).sqrt() * f64::from(128 * 9).sqrt();
    assert!((deviation - 1.0).abs() < 0.02, "{deviation}");
    let decays: Vec<String> = parameters(&config)
        .into_iter()
        .filter(|spec| spec.role.is_kernel())
        .map(|spec| spec.name)
        .collect();
    assert_eq!(decays.len(), 1 + 3 * 16 + 4 + 1);
    assert!(!decays.iter().any(|name| name.contains("norm") || name.ends_with("bias")));
}

#[test]
fn dimensions_that_cannot_be_are_refused() {
    let good = reference().weights.config;
    let line = |config: MixerConfig| {
        let error = config.validate().unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    let small = line(with_sizes(&good, 30, 6));
    assert_eq!(small, "image size 30 is too small for a BiT-ResNet, expected at least 32");
    assert!(line(MixerConfig { num_blocks: 5, ..good.clone() }).contains("expected 5 blocks"));
    let odd = line(MixerConfig { hidden_dim: 120, ..good.clone() });
    assert!(odd.contains("`hidden_dim` is 120, expected a multiple of 64"), "{odd}");
    let odd = line(MixerConfig { channels_mlp_dim: 40, ..good.clone() });
    assert!(odd.contains("`channels_mlp_dim` is 40, expected a multiple of 16"), "{odd}");
    let depths = Depths::new(&[2, 1, 1]).unwrap();
    let tokens = TokenLayer::Convolution { depths, num_groups: 0 };
    assert!(line(MixerConfig { tokens, ..good }).contains("`num_groups` is 0"));
}

#[test]
fn what_there_is_not_for_a_resnet_is_refused() {
    let Reference { mut weights, .. } = reference();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let refused = |result: Result<(), ModelError>, subject: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(subject) && error.contains("BiT("), "{error}");
        assert!(!path.exists() && !error.contains('\n'), "{error}");
    };
    refused(weights.write_npz(&path), "an `.npz` file");
    refused(weights.write_onnx(&path, OnnxInput::Normalised), "an ONNX model");
    refused(weights.write_timm_folder(&path, |_| Ok(String::new())), "a folder of timm");
    let shuffle = Shuffle::Patches { seed: 1 };
    weights.metadata.preprocessing = Some(Preprocessing { shuffle, ..Preprocessing::default() });
    refused(weights.in_order("so").map(drop), "a file for pictures that nothing shuffles");
}
