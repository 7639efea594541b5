//! Training follows optax and PyTorch: the same values and gradients of the losses, and update by
//! update the same losses, gradient norms and final weights on a fixed full batch. The references are
//! made by `scripts/export_golden.py`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use burn::tensor::{Distribution, Tensor, TensorData};
use common::references::{fixture, floats, labels, tolerance};
use mixer_model::{Metadata, Mixer, Weights};
use mixer_train::device::DeviceEntry;
use mixer_train::update::loss::{Loss, smoothed_targets};
use mixer_train::update::optimizer::{Clip, GradientSum, GradientTree, Optimizer, Rule};
use mixer_train::update::schedule::{Decay, Schedule};
use safetensors::SafeTensors;

struct Reference {
    losses: Vec<f64>,
    grad_norms: Vec<f64>,
    schedule: Schedule,
    rule: Rule,
    clip: f64,
}

fn reference(name: &str) -> Reference {
    let bytes = std::fs::read(fixture(name)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let meta = header.metadata().clone().unwrap();
    let number = |key: &str| meta[key].parse::<f64>().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let list = |name| floats(&file, name).into_iter().map(f64::from).collect();
    let decay = match meta["schedule"].as_str() {
        "cosine" => Decay::Cosine,
        "linear" => Decay::Linear,
        other => panic!("unknown schedule {other}"),
    };
    Reference {
        losses: list("losses"),
        grad_norms: list("grad_norms"),
        schedule: Schedule {
            base: number("lr"),
            decay,
            warmup_steps: number("warmup_steps") as u64,
            total_steps: number("total_steps") as u64,
            linear_end: 0.0,
        },
        rule: match meta["optimizer"].as_str() {
            "sgd" => Rule::Sgd { momentum: number("momentum"), weight_decay: 0.0 },
            "adamw" => Rule::Adamw {
                beta1: number("b1"),
                beta2: number("b2"),
                epsilon: number("eps"),
                weight_decay: number("weight_decay"),
            },
            other => panic!("unknown optimizer {other}"),
        },
        clip: number("clip"),
    }
}

/// Trains on the fixture's batch, cut into `microbatches`, and compares every step.
fn follow(
    params: &str,
    io: &str,
    trajectory: &str,
    last: &str,
    device: &DeviceEntry,
    microbatches: usize,
) {
    let reference = reference(trajectory);
    let bytes = std::fs::read(fixture(io)).unwrap();
    let io = SafeTensors::deserialize(&bytes).unwrap();
    let labels = labels(&io);
    let tolerance = tolerance(&device.name);
    let autodiff = device.device.clone().autodiff();
    let weights = Weights::read(&fixture(params), None).unwrap();
    let mut mixer = Mixer::from_weights(weights.clone(), &autodiff).unwrap();
    let (s, p) = (weights.config.num_tokens(), weights.config.patch_dim());
    let patches = Tensor::<3>::from_data(
        TensorData::new(floats(&io, "patches"), [labels.len(), s, p]),
        &autodiff,
    );
    let targets = Tensor::<2>::from_data(
        TensorData::new(
            smoothed_targets(&labels, weights.config.num_classes, 0.0),
            [labels.len(), weights.config.num_classes],
        ),
        &autodiff,
    );
    let mut optimizer = Optimizer::new(reference.rule.clone(), None);
    let rows = labels.len() / microbatches;
    assert_eq!(rows * microbatches, labels.len(), "the fixture's batch cannot be cut evenly");
    let mut worst = (0.0f64, 0.0f64);
    for (step, &expected) in reference.losses.iter().enumerate() {
        let mut gradients = GradientTree::new(1.0, device.is_gpu());
        let mut loss = 0.0;
        for i in 0..microbatches {
            let range = i * rows..(i + 1) * rows;
            let logits = mixer.forward_training(patches.clone().slice([range.clone()]), None);
            let losses = Loss::Softmax.per_example(logits, targets.clone().slice([range]));
            let mean = losses.mean() / microbatches as f64;
            loss += f64::from(mean.clone().into_scalar::<f32>());
            gradients.add(&mixer, mean.clone().inner(), &mean.backward());
        }
        let (_, gradients) = gradients.finish().unwrap();
        let error = (loss - expected).abs() / expected.abs();
        worst.0 = worst.0.max(error);
        assert!(error <= tolerance, "{trajectory} step {step}: {loss} expected {expected}");
        let Some(&expected_norm) = reference.grad_norms.get(step) else { break };
        let squared_norm = gradients.squared_norm().unwrap();
        let norm = f64::from(squared_norm.clone().into_scalar::<f32>()).sqrt();
        let error = (norm - expected_norm).abs() / expected_norm;
        worst.1 = worst.1.max(error);
        assert!(
            error <= tolerance,
            "{trajectory} step {step}: norm {norm} expected {expected_norm}"
        );
        let clip = Clip { squared_norm, limit: reference.clip };
        let rate = reference.schedule.rate(step as u64);
        mixer = optimizer.update(mixer, gradients, Some(&clip), rate);
    }
    println!(
        "{trajectory} on {}: largest relative error of the loss {:.1e}, of the gradient norm {:.1e}",
        device.name, worst.0, worst.1
    );
    let found = mixer.to_weights(Metadata::default()).unwrap();
    let expected = Weights::read(&fixture(last), None).unwrap();
    for (name, expected) in &expected.tensors {
        // Its true gradient is zero, so Adam makes full-size steps of rounding noise.
        if name.ends_with("mlp_tokens.fc2.bias") {
            continue;
        }
        let largest = expected.data.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
        for (i, (a, b)) in found.tensors[name].data.iter().zip(&expected.data).enumerate() {
            let error = f64::from((a - b).abs()) / largest;
            assert!(error <= tolerance, "{trajectory} {name}[{i}]: {a} expected {b}");
        }
    }
}

fn devices() -> Vec<DeviceEntry> {
    let entries = mixer_train::device::available();
    entries.into_iter().filter(|entry| entry.flaw.is_none()).collect()
}

#[test]
fn sgd_with_momentum_and_cosine_follows_optax() {
    for device in devices() {
        follow(
            "flax_tiny.npz",
            "flax_tiny_io.safetensors",
            "flax_tiny_sgd.safetensors",
            "flax_tiny_sgd_final.npz",
            &device,
            1,
        );
    }
}

#[test]
fn adamw_with_masked_decay_follows_optax() {
    for device in devices() {
        follow(
            "flax_tiny.npz",
            "flax_tiny_io.safetensors",
            "flax_tiny_adamw.safetensors",
            "flax_tiny_adamw_final.npz",
            &device,
            1,
        );
    }
}

#[test]
fn sgd_with_momentum_and_cosine_follows_pytorch() {
    for device in devices() {
        follow(
            "timm_tiny.safetensors",
            "timm_tiny_io.safetensors",
            "timm_tiny_sgd.safetensors",
            "timm_tiny_sgd_final.safetensors",
            &device,
            1,
        );
    }
}

#[test]
fn adamw_with_masked_decay_follows_pytorch() {
    for device in devices() {
        follow(
            "timm_tiny.safetensors",
            "timm_tiny_io.safetensors",
            "timm_tiny_adamw.safetensors",
            "timm_tiny_adamw_final.safetensors",
            &device,
            1,
        );
    }
}

#[test]
fn accumulated_microbatches_are_one_batch() {
    follow(
        "flax_tiny.npz",
        "flax_tiny_io.safetensors",
        "flax_tiny_sgd.safetensors",
        "flax_tiny_sgd_final.npz",
        &mixer_train::device::open("cpu").unwrap(),
        5,
    );
}

#[test]
fn losses_on_soft_targets_and_their_gradients_agree_with_optax() {
    let bytes = std::fs::read(fixture("flax_tiny_io.safetensors")).unwrap();
    let io = SafeTensors::deserialize(&bytes).unwrap();
    let logits = io.tensor("logits").unwrap();
    let (rows, classes) = (logits.shape()[0], logits.shape()[1]);
    let labels = labels(&io);
    let device = mixer_train::device::open("cpu").unwrap().device.autodiff();
    let matrix = |values: Vec<f32>| {
        Tensor::<2>::from_data(TensorData::new(values, [rows, classes]), &device)
    };
    let hard = smoothed_targets(&labels, classes, 0.0);
    for (name, loss, targets) in [
        ("loss", Loss::Softmax, hard.clone()),
        ("loss_soft", Loss::Softmax, floats(&io, "soft_labels")),
        ("loss_sigmoid", Loss::Sigmoid, hard),
    ] {
        let logits = matrix(floats(&io, "logits")).require_grad();
        let mean = loss.per_example(logits.clone(), matrix(targets)).mean();
        let value: f32 = mean.clone().into_scalar();
        let expected = floats(&io, name)[0];
        assert!((value - expected).abs() <= 1e-6 * expected.abs(), "{name}: {value} {expected}");
        let gradient = logits.grad(&mean.backward()).unwrap().into_data();
        let expected = floats(&io, &format!("{name}.logits_grad"));
        for (found, expected) in gradient.iter::<f32>().zip(expected) {
            assert!((found - expected).abs() <= 1e-6, "{name}: {found} {expected}");
        }
    }
}

#[test]
fn moving_average_of_the_weights_follows_its_formula_and_survives_the_host() {
    const DECAY: f64 = 0.6;
    for DeviceEntry { name, device, .. } in devices() {
        let autodiff = device.clone().autodiff();
        let weights = Weights::read(&fixture("timm_tiny.safetensors"), None).unwrap();
        let (s, p) = (weights.config.num_tokens(), weights.config.patch_dim());
        let mut mixer = Mixer::from_weights(weights.clone(), &autodiff).unwrap();
        let rule = Rule::Sgd { momentum: 0.5, weight_decay: 0.0 };
        let mut optimizer = Optimizer::new(rule.clone(), Some(DECAY));
        let mut expected = weights.tensors;
        for step in 1..=8u32 {
            let patches = Tensor::<3>::random([2, s, p], Distribution::Default, &autodiff);
            let logits = mixer.forward_training(patches, None);
            let loss = (logits.clone() * logits).mean();
            let gradients = GradientSum::of(&mixer, &loss.backward());
            mixer = optimizer.update(mixer, gradients, None, 0.1);
            // 2/11, 3/12, 4/13, …: less than the decay until there are updates enough.
            let decay = DECAY.min(f64::from(1 + step) / f64::from(10 + step)) as f32;
            let now = mixer.to_weights(Metadata::default()).unwrap().tensors;
            for (name, average) in &mut expected {
                for (average, now) in average.data.iter_mut().zip(&now[name].data) {
                    *average = decay * *average + (1.0 - decay) * now;
                }
            }
            // As a checkpoint does, in the middle of the run.
            if step == 4 {
                let (step, state) = optimizer.to_host();
                let restored =
                    Optimizer::from_host(rule.clone(), Some(DECAY), step, state.clone(), &device);
                optimizer = restored.unwrap();
                let refused = Optimizer::from_host(rule.clone(), None, step, state, &device);
                assert!(refused.unwrap_err().ends_with("has an average, expected none"));
            }
        }
        let found = optimizer.averaged(&mixer).unwrap().to_weights(Metadata::default()).unwrap();
        let raw = mixer.to_weights(Metadata::default()).unwrap();
        assert!(raw.tensors != found.tensors, "{name}: the average is not the weights");
        for (tensor, expected) in &expected {
            for (found, expected) in found.tensors[tensor].data.iter().zip(&expected.data) {
                assert!((found - expected).abs() < 1e-6, "{name} {tensor}: {found} not {expected}");
            }
        }
        assert!(Optimizer::new(rule, None).averaged(&mixer).is_none());
    }
}
