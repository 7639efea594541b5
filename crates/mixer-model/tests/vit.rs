//! Holds the Vision Transformer against timm: features, logits, loss, the gradient of every parameter, names
//! of the official code, positions on another grid.
//!
//! `scripts/export_vit_golden.py` made the fixtures. `cargo test --test vit -- --nocapture` prints the
//! differences that were measured.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use common::{
    Difference, cross_entropy, devices, fixture, gradients, read_values, to_device, tolerance,
};
use mixer_model::weights::ResizeMethod;
use mixer_model::{Gelu, HostTensor, Mixer, MixerConfig, Pool, TokenLayer, Weights};

const BATCH: usize = 5;

struct Reference {
    name: &'static str,
    weights: Weights,
    gradients: Weights,
    values: BTreeMap<String, HostTensor>,
    labels: Vec<usize>,
}

fn references() -> [Reference; 2] {
    ["vit_token", "vit_average"].map(|name| {
        let read =
            |end: &str| Weights::read(&fixture(&format!("{name}{end}.safetensors")), None).unwrap();
        let (values, labels) = read_values(&format!("{name}_io.safetensors"));
        Reference { name, weights: read(""), gradients: read("_grads"), values, labels }
    })
}

impl Reference {
    fn patches(&self, mixer: &Mixer, device: &Device) -> Tensor<3> {
        mixer.patches(to_device(&self.values["images"], device)).unwrap()
    }

    fn assert_close(&self, device: &str, name: &str, found: &HostTensor, expected: &HostTensor) {
        let difference = Difference::between(name, found, expected);
        println!("{} on {device}, {name}: {:.2e}", self.name, difference.relative);
        assert!(
            difference.relative <= tolerance(device),
            "{} on {device}: {difference}",
            self.name
        );
    }
}

#[test]
fn files_of_timm_say_which_network_they_hold() {
    let [token, average] = references();
    let expected = MixerConfig {
        image_size: 16,
        patch_size: 4,
        hidden_dim: 12,
        tokens: TokenLayer::Attention { num_heads: 3, pool: Pool::ClassToken },
        channels_mlp_dim: 26,
        num_blocks: 2,
        num_classes: 7,
        gelu: Gelu::Erf,
    };
    assert_eq!(token.weights.config, expected);
    let tokens = TokenLayer::Attention { num_heads: 3, pool: Pool::Average };
    assert_eq!(average.weights.config, MixerConfig { tokens, gelu: Gelu::Tanh, ..expected });
}

#[test]
fn features_and_logits_agree_with_timm() {
    for reference in references() {
        for (device_name, device) in devices() {
            let mixer = Mixer::from_weights(reference.weights.clone(), &device).unwrap();
            let patches = reference.patches(&mixer, &device);
            let stages = mixer.intermediates(patches.clone());
            assert_eq!(stages.tokens.len(), 2 + 2 * 2 + 1);
            let features = HostTensor::from_device(stages.features);
            let logits = HostTensor::from_device(stages.logits);
            reference.assert_close(
                device_name,
                "features",
                &features,
                &reference.values["features"],
            );
            reference.assert_close(device_name, "logits", &logits, &reference.values["logits"]);
            let training = HostTensor::from_device(mixer.forward_training(patches.clone(), None));
            assert_eq!(training.data, logits.data);
            // Stochastic depth that keeps every branch whole changes nothing.
            let kept = Tensor::ones([4, BATCH], &device);
            let kept = HostTensor::from_device(mixer.forward_training(patches, Some(kept)));
            reference.assert_close(device_name, "kept branches", &kept, &logits);
            assert_eq!(
                mixer.to_weights(reference.weights.metadata.clone()).unwrap(),
                reference.weights
            );
        }
    }
}

#[test]
fn dropped_branches_leave_the_residual_stream_alone() {
    let [reference, _] = references();
    for (device_name, device) in devices() {
        let mixer = Mixer::from_weights(reference.weights.clone(), &device).unwrap();
        let patches = reference.patches(&mixer, &device);
        let dropped =
            mixer.forward_training(patches.clone(), Some(Tensor::zeros([4, BATCH], &device)));
        let mut without = Mixer::from_weights(reference.weights.clone(), &device).unwrap();
        without.blocks.clear();
        let without = HostTensor::from_device(without.forward(patches));
        reference.assert_close(device_name, "dropped", &HostTensor::from_device(dropped), &without);
    }
}

#[test]
fn every_gradient_agrees_with_timm() {
    for reference in references() {
        for (device_name, device) in devices() {
            let device = device.autodiff();
            let mixer = Mixer::from_weights(reference.weights.clone(), &device).unwrap();
            let patches = reference.patches(&mixer, &device);
            let loss = cross_entropy(mixer.forward_training(patches, None), &reference.labels);
            let found = HostTensor::from_device(loss.clone());
            reference.assert_close(device_name, "loss", &found, &reference.values["loss"]);
            let found = gradients(mixer, &loss);
            assert!(found.keys().eq(reference.gradients.tensors.keys()));
            for (name, found) in &found {
                reference.assert_close(
                    device_name,
                    name,
                    found,
                    &reference.gradients.tensors[name],
                );
            }
        }
    }
}

#[test]
fn official_names_and_layouts_are_read_and_written() {
    let [reference, average] = references();
    let official = fixture("vit_token_official.npz");
    let read = Weights::read(&official, Some(Gelu::Erf)).unwrap();
    assert_eq!(read.config, reference.weights.config, "heads are those of the layout");
    assert_eq!(read.tensors, reference.weights.tensors);
    assert_eq!(Weights::read(&official, None).unwrap().config.gelu, Gelu::Tanh);
    let folder = tempfile::tempdir().unwrap();
    for reference in [reference, average] {
        let path = folder.path().join("vit.npz");
        reference.weights.write_npz(&path).unwrap();
        let back = Weights::read(&path, Some(reference.weights.config.gelu)).unwrap();
        assert_eq!(back.config, reference.weights.config);
        assert_eq!(back.tensors, reference.weights.tensors);
    }
}

#[test]
fn positions_on_another_grid_are_those_of_the_official_code() {
    let [reference, average] = references();
    let resized = reference.weights.resized(24).unwrap();
    reference.assert_close(
        "flex",
        "zoomed",
        &resized.tensors["pos_embed"],
        &reference.values["zoomed"],
    );
    assert_eq!(ResizeMethod::between(&reference.weights.config, 32), ResizeMethod::Interpolated);
    for (name, tensor) in &resized.tensors {
        assert!(name == "pos_embed" || *tensor == reference.weights.tensors[name], "{name}");
    }
    let average = average.weights.resized(32).unwrap();
    assert_eq!(average.tensors["pos_embed"].shape, [1, 64, 12]);
    let device = &devices()[0].1;
    let mixer = Mixer::from_weights(average, device).unwrap();
    assert_eq!(mixer.forward(Tensor::zeros([2, 64, 48], device)).dims(), [2, 7]);
}

#[test]
fn what_is_no_vision_transformer_of_this_kind_is_named() {
    let [reference, _] = references();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let refused = |extra: &str, expected: &str| {
        let mut tensors = reference.weights.tensors.clone();
        tensors.insert(extra.to_owned(), HostTensor::filled(&[12], 0.0));
        let mut file = std::fs::File::create(&path).unwrap();
        mixer_model::weights::write_tensors(&mut file, &tensors, &BTreeMap::new(), |_| false)
            .unwrap();
        let error = Weights::read(&path, None).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    };
    refused("fc_norm.weight", "`fc_norm`");
    refused("dist_token", "DeiT");
    refused("reg_token", "register");
    // 12 channels are no multiple of 64, and without the header nothing tells the heads.
    refused("unknown", "number of heads");
    let tokens = TokenLayer::Attention { num_heads: 5, pool: Pool::ClassToken };
    let config = MixerConfig { tokens, ..reference.weights.config.clone() };
    let error = config.validate().unwrap_err().to_string();
    assert_eq!(error, "12 channels are not divisible by 5 heads of attention");
}
