//! The losses on soft targets agree with optax.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use mixer_train::loss::{Loss, smoothed_targets};
use safetensors::SafeTensors;

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap().data().to_vec();
    data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn values_and_gradients_agree_with_optax() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../mixer-model/tests/fixtures/flax_tiny_io.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let io = SafeTensors::deserialize(&bytes).unwrap();
    let logits = io.tensor("logits").unwrap();
    let (rows, classes) = (logits.shape()[0], logits.shape()[1]);
    let labels: Vec<u32> = io
        .tensor("labels")
        .unwrap()
        .data()
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| i64::from_le_bytes(*b) as u32)
        .collect();
    let device = Device::flex().autodiff();
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
