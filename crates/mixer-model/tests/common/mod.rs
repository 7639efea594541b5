//! The common ground of several tests: fixtures, devices, and a comparison that says where two tensors differ.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use mixer_model::{HostTensor, Metadata, Mixer};
use safetensors::SafeTensors;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The tensors of a fixture that are no parameters, by name, and its labels.
#[allow(dead_code, reason = "not every test that shares this file compares with a reference")]
pub fn read_values(file: &str) -> (BTreeMap<String, HostTensor>, Vec<usize>) {
    let bytes = std::fs::read(fixture(file)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut values = BTreeMap::new();
    let mut labels = Vec::new();
    for (name, tensor) in file.iter() {
        if name == "labels" {
            let (eights, []) = tensor.data().as_chunks::<8>() else { panic!("{name} is no I64") };
            labels = eights.iter().map(|&b| i64::from_le_bytes(b).try_into().unwrap()).collect();
            continue;
        }
        let (fours, []) = tensor.data().as_chunks::<4>() else { panic!("{name} is no F32") };
        let data = fours.iter().map(|&b| f32::from_le_bytes(b)).collect();
        values.insert(name.to_owned(), HostTensor { shape: tensor.shape().to_vec(), data });
    }
    (values, labels)
}

/// Softmax cross-entropy, averaged over the batch.
#[allow(dead_code, reason = "not every test that shares this file compares with a reference")]
pub fn cross_entropy(logits: Tensor<2>, labels: &[usize]) -> Tensor<1> {
    let [b, k] = logits.dims();
    let mut one_hot = vec![0.0_f32; b * k];
    for (row, &label) in one_hot.chunks_exact_mut(k).zip(labels) {
        row[label] = 1.0;
    }
    let one_hot = Tensor::from_data(TensorData::new(one_hot, [b, k]), &logits.device());
    (log_softmax(logits, 1) * one_hot).sum().neg() / b as f32
}

/// Every backend that is compiled in and has a device here, by name.
pub fn devices() -> Vec<(&'static str, Device)> {
    #[allow(unused_mut, reason = "without a GPU feature nothing is added")]
    let mut devices = vec![
        #[cfg(feature = "flex")]
        ("flex", Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated, reason = "the second backend that numbers are checked against")]
        ("ndarray", Device::ndarray()),
    ];
    #[cfg(feature = "cuda")]
    if let Some(device) = Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().next() {
        devices.push(("cuda", device));
    }
    #[cfg(feature = "wgpu")]
    if let Some(adapter) = mixer_kernels::adapters().iter().find(|adapter| adapter.flaw.is_none()) {
        devices.push(("wgpu", adapter.device.clone()));
    }
    devices
}

/// Largest |difference| ÷ largest |reference| of one tensor: what `f32` gives on a CPU, and what is
/// left where a GPU multiplies in TF32.
#[allow(dead_code, reason = "not every test that shares this file compares with a reference")]
pub fn tolerance(device_name: &str) -> f64 {
    match device_name {
        "flex" | "ndarray" => 1e-5,
        _ => 1e-3,
    }
}

pub fn to_device<const D: usize>(tensor: &HostTensor, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(tensor.data.clone(), tensor.shape.clone()), device)
}

/// Puts each parameter's gradient in its place.
struct IntoGradients<'a>(&'a Gradients);

impl ModuleMapper for IntoGradients<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let gradient = param.val().grad(self.0).unwrap();
        Param::initialized(param.id, gradient)
    }
}

/// The gradient of every parameter, under timm's names and in its layouts.
#[allow(dead_code, reason = "not every test that shares this file differentiates")]
pub fn gradients(mixer: Mixer, loss: &Tensor<1>) -> BTreeMap<String, HostTensor> {
    let gradients = loss.backward();
    mixer.map(&mut IntoGradients(&gradients)).to_weights(Metadata::default()).unwrap().tensors
}

/// The distance of a tensor from its reference.
pub struct Difference {
    /// Of the tensor.
    pub name: String,
    /// Largest |difference|; infinite where a value is NaN or infinite, so that `<` tells.
    pub absolute: f64,
    /// Largest |difference| ÷ largest |reference|; never NaN.
    pub relative: f64,
    index: Vec<usize>,
    found: Vec<f32>,
    expected: Vec<f32>,
}

impl Difference {
    pub fn between(name: &str, found: &HostTensor, expected: &HostTensor) -> Self {
        assert_eq!(found.shape, expected.shape, "{name}");
        assert_eq!(found.data.len(), expected.data.len(), "{name}");
        let (mut absolute, mut scale, mut position) = (0.0_f64, 0.0_f64, 0);
        for (i, (&f, &e)) in found.data.iter().zip(&expected.data).enumerate() {
            let difference = (f64::from(f) - f64::from(e)).abs();
            // `f64::max` and `>` would both pass over a NaN.
            let difference = if difference.is_nan() { f64::INFINITY } else { difference };
            if difference > absolute {
                (absolute, position) = (difference, i);
            }
            scale = scale.max(f64::from(e).abs());
        }
        let mut index = vec![0; expected.shape.len()];
        for (index, size) in index.iter_mut().zip(&expected.shape).rev() {
            *index = position % size;
            position /= size;
        }
        Self {
            name: name.to_owned(),
            absolute,
            relative: match absolute {
                0.0 => 0.0,
                f64::INFINITY => f64::INFINITY,
                _ => absolute / scale,
            },
            index,
            found: found.data.iter().copied().take(4).collect(),
            expected: expected.data.iter().copied().take(4).collect(),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, absolute, relative, index, found, expected } = self;
        write!(
            f,
            "{name}: max |Δ| {absolute:.2e} (relative {relative:.2e}) at {index:?}; \
             found {found:?}…, expected {expected:?}…"
        )
    }
}
