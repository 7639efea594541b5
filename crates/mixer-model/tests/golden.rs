//! Holds the network against two references, Flax (tanh GELU) and timm (erf GELU): every stage of the
//! forward pass, the loss, and the gradient of every parameter.
//!
//! `docs/parity.md` says what is compared and how closely, `scripts/export_golden.py` made the
//! fixtures. `cargo test --test golden -- --nocapture` prints the differences that were measured.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use common::{
    Difference, cross_entropy, devices, fixture, gradients, read_values, to_device, tolerance,
};
use mixer_model::{Gelu, HostTensor, Mixer, Weights};

/// Largest |difference| where the true value is zero and the references hold rounding.
const ZERO_TOLERANCE: f64 = 1e-6;

struct Reference {
    name: &'static str,
    weights: Weights,
    gradients: Weights,
    /// Inputs, every stage, loss.
    values: BTreeMap<String, HostTensor>,
    labels: Vec<usize>,
}

fn references() -> [Reference; 2] {
    [("flax", "npz", Gelu::Tanh), ("timm", "safetensors", Gelu::Erf)].map(
        |(name, extension, gelu)| {
            let read = |file: String| Weights::read(&fixture(&file), None).unwrap();
            let weights = read(format!("{name}_tiny.{extension}"));
            assert_eq!(weights.config.gelu, gelu, "{name}");
            let (values, labels) = read_values(&format!("{name}_tiny_io.safetensors"));
            let gradients = read(format!("{name}_tiny_grads.{extension}"));
            Reference { name, weights, gradients, values, labels }
        },
    )
}

impl Reference {
    fn patches(&self, device: &Device) -> Tensor<3> {
        to_device(&self.values["patches"], device)
    }
}

/// Every stage under the reference's name for it.
fn stages(mixer: &Mixer, patches: Tensor<3>) -> Vec<(String, HostTensor)> {
    let stages = mixer.intermediates(patches);
    let mut values: Vec<(String, HostTensor)> = stages
        .tokens
        .into_iter()
        .map(|(name, tokens)| (name, HostTensor::from_device(tokens)))
        .collect();
    values.push(("features".to_owned(), HostTensor::from_device(stages.features)));
    values.push(("logits".to_owned(), HostTensor::from_device(stages.logits)));
    values
}

/// Shifts all channels of a token alike, which the next normalisation undoes: its gradient is zero.
fn has_no_effect(parameter: &str) -> bool {
    parameter.ends_with("mlp_tokens.fc2.bias")
}

fn worst(differences: &[Difference]) -> &Difference {
    differences.iter().max_by(|a, b| a.relative.total_cmp(&b.relative)).expect("not empty")
}

/// Panics with every difference beyond the tolerance.
fn assert_close(context: &str, tolerance: f64, differences: &[Difference]) {
    let far = differences.iter().filter(|difference| difference.relative > tolerance);
    let far: Vec<String> = far.map(ToString::to_string).collect();
    assert!(
        far.is_empty(),
        "{context}: {} of {}\n{}",
        far.len(),
        differences.len(),
        far.join("\n")
    );
}

#[test]
fn every_stage_agrees_with_the_reference() {
    for reference in references() {
        for (device_name, device) in devices() {
            let context = format!("{} on {device_name}", reference.name);
            let mixer = Mixer::from_weights(reference.weights.clone(), &device).unwrap();
            let stages = stages(&mixer, reference.patches(&device));
            let blocks = reference.weights.config.num_blocks;
            assert_eq!(stages.len(), 1 + 2 * blocks + 3, "{context}");
            let differences: Vec<Difference> = stages
                .iter()
                .map(|(name, found)| Difference::between(name, found, &reference.values[name]))
                .collect();
            let logits = differences.last().unwrap();
            println!("{context}, logits: {:.2e}", logits.relative);
            println!("{context}, worst stage: {}", worst(&differences));
            assert_close(&context, tolerance(device_name), &differences);
        }
    }
}

#[test]
fn every_way_forward_gives_the_same_logits() {
    for reference in references() {
        for (device_name, device) in devices() {
            let context = format!("{} on {device_name}", reference.name);
            let mixer = Mixer::from_weights(reference.weights.clone(), &device).unwrap();
            let patches = reference.patches(&device);
            let stages = mixer.intermediates(patches.clone());
            let logits = HostTensor::from_device(stages.logits);
            let features = HostTensor::from_device(mixer.features(patches.clone()));
            assert_eq!(features.data, HostTensor::from_device(stages.features).data, "{context}");
            let forward = HostTensor::from_device(mixer.forward(patches.clone()));
            assert_eq!(forward.data, logits.data, "{context}");
            let training = HostTensor::from_device(mixer.forward_training(patches, None));
            assert_eq!(training.data, logits.data, "{context}");
        }
    }
}

#[test]
fn every_gradient_agrees_with_the_reference() {
    for reference in references() {
        for (device_name, device) in devices() {
            let context = format!("{} on {device_name}", reference.name);
            let device = device.autodiff();
            let mixer = Mixer::from_weights(reference.weights.clone(), &device).unwrap();
            let loss = cross_entropy(
                mixer.forward_training(reference.patches(&device), None),
                &reference.labels,
            );

            let found = HostTensor::from_device(loss.clone());
            let difference = Difference::between("loss", &found, &reference.values["loss"]);
            println!("{context}, loss: {:.2e}", difference.relative);
            assert_close(&context, tolerance(device_name), &[difference]);

            let found = gradients(mixer, &loss);
            assert!(found.keys().eq(reference.gradients.tensors.keys()), "{context}");
            let (zero, differences): (Vec<_>, Vec<_>) = found
                .iter()
                .map(|(name, found)| {
                    Difference::between(name, found, &reference.gradients.tensors[name])
                })
                .partition(|difference| has_no_effect(&difference.name));
            println!("{context}, worst gradient: {}", worst(&differences));
            assert_close(&context, tolerance(device_name), &differences);
            assert_eq!(zero.len(), reference.weights.config.num_blocks, "{context}");
            for difference in zero {
                assert!(difference.absolute <= ZERO_TOLERANCE, "{context}: {difference}");
                let largest = found[&difference.name].data.iter().map(|v| v.abs());
                assert!(largest.fold(0.0, f32::max) <= ZERO_TOLERANCE as f32, "{context}");
            }
        }
    }
}

/// The parameters of the two references are the same, so reading them must give the same bits.
#[test]
fn both_references_have_the_same_parameters() {
    let [flax, timm] = references();
    assert!(flax.weights.tensors.keys().eq(timm.weights.tensors.keys()));
    for (name, tensor) in &flax.weights.tensors {
        let bits =
            |tensor: &HostTensor| tensor.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(tensor.shape, timm.weights.tensors[name].shape, "{name}");
        assert_eq!(bits(tensor), bits(&timm.weights.tensors[name]), "{name}");
    }
    for name in ["patches", "images"] {
        assert_eq!(flax.values[name].data, timm.values[name].data, "{name}");
    }
    assert_eq!(flax.labels, timm.labels);
}

/// From the host to the device and back, nothing is lost or moved.
#[test]
fn parameters_survive_the_device() {
    for reference in references() {
        for (device_name, device) in devices() {
            let mixer = Mixer::from_weights(reference.weights.clone(), &device).unwrap();
            let back = mixer.to_weights(reference.weights.metadata.clone()).unwrap();
            assert_eq!(back, reference.weights, "{} on {device_name}", reference.name);
        }
    }
}

/// A tolerance is only worth something where a mistake breaks it.
#[test]
fn the_other_form_of_gelu_is_noticed() {
    for mut reference in references() {
        reference.weights.config.gelu = match reference.weights.config.gelu {
            Gelu::Tanh => Gelu::Erf,
            Gelu::Erf => Gelu::Tanh,
        };
        for (device_name, device) in devices() {
            let context = format!("{} on {device_name}", reference.name);
            let mixer = Mixer::from_weights(reference.weights.clone(), &device).unwrap();
            let logits = HostTensor::from_device(mixer.forward(reference.patches(&device)));
            let difference = Difference::between("logits", &logits, &reference.values["logits"]);
            assert!(difference.relative > 1e-4, "{context}: {difference}");
        }
    }
}
