//! One update of every parameter: global-norm clipping, then AdamW or SGD with momentum.
//!
//! Burn's own optimizers clip each tensor by itself and differ in their defaults; these follow optax
//! and PyTorch.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use mixer_kernels::{AdamwStep, SgdStep, adamw_update, sgd_update, squared_norm};
use mixer_model::{HostTensor, Mixer};
use serde::{Deserialize, Serialize};

/// Rule and constants of the update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    Adamw {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        epsilon: f64,
        /// Decay of kernels, multiplied by the learning rate.
        weight_decay: f64,
    },
    /// Gradient descent with momentum, without dampening.
    Sgd {
        /// Decay of the momentum.
        momentum: f64,
        /// Decay of kernels, multiplied by the learning rate.
        weight_decay: f64,
    },
}

/// The rule with its moments.
#[derive(Debug, Clone)]
pub struct Optimizer {
    rule: Rule,
    /// Updates done; Adam's bias correction counts them.
    step: u64,
    /// By the parameter's path: momentum, or first and second moment, flat.
    moments: BTreeMap<String, Vec<Tensor<1>>>,
}

/// The gradient of every parameter by its path, flat.
#[derive(Debug, Default)]
pub struct GradientSum {
    sums: BTreeMap<String, Tensor<1>>,
}

impl GradientSum {
    /// Adds the gradients of one microbatch.
    pub fn add(&mut self, mixer: &Mixer, gradients: &Gradients) {
        let mut collector = Collector { path: Vec::new(), gradients, sums: &mut self.sums };
        mixer.visit(&mut collector);
    }

    /// The squared norm over all parameters, on the device.
    #[must_use]
    pub fn squared_norm(&self) -> Option<Tensor<1>> {
        let squares = self.sums.values().cloned().map(squared_norm).collect::<Vec<_>>();
        (!squares.is_empty()).then(|| Tensor::cat(squares, 0).sum())
    }
}

/// Factor that brings a gradient of norm `norm` to at most `clip_norm`. `None` never clips.
///
/// PARITY: optax's rule, `clip / norm`; PyTorch adds 1e-6 to the norm.
#[must_use]
pub fn clip_factor(norm: f64, clip_norm: Option<f64>) -> f64 {
    match clip_norm {
        Some(limit) if norm > limit => limit / norm,
        _ => 1.0,
    }
}

impl Optimizer {
    /// No moments yet.
    #[must_use]
    pub fn new(rule: Rule) -> Optimizer {
        Optimizer { rule, step: 0, moments: BTreeMap::new() }
    }

    /// Applies one update with gradients multiplied by `factor`.
    #[must_use]
    pub fn update(
        &mut self,
        mixer: Mixer,
        gradients: GradientSum,
        factor: f64,
        learning_rate: f64,
    ) -> Mixer {
        self.step += 1;
        mixer.map(&mut Update {
            path: Vec::new(),
            optimizer: self,
            gradients: gradients.sums,
            scales: Scales { gradient_scale: factor, learning_rate },
        })
    }

    /// Updates done and every moment in host memory, as `{path}.{index}`.
    #[must_use]
    pub fn to_host(&self) -> (u64, BTreeMap<String, HostTensor>) {
        let moments = self.moments.iter().flat_map(|(path, moments)| {
            moments
                .iter()
                .enumerate()
                .map(move |(i, m)| (format!("{path}.{i}"), HostTensor::from_device(m.clone())))
        });
        (self.step, moments.collect())
    }

    /// The state that [`Optimizer::to_host`] gave.
    ///
    /// # Errors
    /// What does not fit: a moment without an index, or a parameter without all that the rule keeps.
    pub fn from_host(
        rule: Rule,
        step: u64,
        state: BTreeMap<String, HostTensor>,
        device: &Device,
    ) -> Result<Optimizer, String> {
        let mut moments: BTreeMap<String, Vec<Tensor<1>>> = BTreeMap::new();
        // A `BTreeMap` yields `a.0` before `a.1`, so moments come in their order.
        for (name, tensor) in state {
            let (path, _) =
                name.rsplit_once('.').ok_or_else(|| format!("the moment `{name}` has no index"))?;
            let data = TensorData::new(tensor.data, tensor.shape);
            moments.entry(path.to_owned()).or_default().push(Tensor::from_data(data, device));
        }
        let expected = match rule {
            Rule::Adamw { .. } => 2,
            Rule::Sgd { .. } => 1,
        };
        if let Some((path, found)) = moments.iter().find(|(_, found)| found.len() != expected) {
            return Err(format!("`{path}` has {} moments, expected {expected}", found.len()));
        }
        Ok(Optimizer { rule, step, moments })
    }

    /// The new value of one parameter. Only kernels decay: biases and LayerNorm parameters have one
    /// dimension.
    fn apply(
        &mut self,
        path: &str,
        value: Tensor<1>,
        gradient: Tensor<1>,
        Scales { gradient_scale, learning_rate }: Scales,
        is_kernel: bool,
    ) -> Tensor<1> {
        let moments = self.moments.remove(path).unwrap_or_default();
        let zeros = || gradient.zeros_like();
        let decay = |weight_decay| if is_kernel { weight_decay } else { 0.0 };
        let (value, moments) = match self.rule {
            Rule::Adamw { beta1, beta2, epsilon, weight_decay } => {
                let step = AdamwStep {
                    gradient_scale,
                    learning_rate,
                    beta1,
                    beta2,
                    epsilon,
                    weight_decay: decay(weight_decay),
                    step: self.step,
                };
                let moments = moments.try_into().unwrap_or_else(|_| [zeros(), zeros()]);
                let (value, moments) = adamw_update(value, gradient, moments, step);
                (value, moments.to_vec())
            }
            Rule::Sgd { momentum, weight_decay } => {
                let weight_decay = decay(weight_decay);
                let step = SgdStep { gradient_scale, learning_rate, momentum, weight_decay };
                let [velocity] = moments.try_into().unwrap_or_else(|_| [zeros()]);
                let (value, velocity) = sgd_update(value, gradient, velocity, step);
                (value, vec![velocity])
            }
        };
        self.moments.insert(path.to_owned(), moments);
        value
    }
}

/// What an update is scaled by.
#[derive(Debug, Clone, Copy)]
struct Scales {
    gradient_scale: f64,
    learning_rate: f64,
}

struct Collector<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    sums: &'a mut BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.val().grad(self.gradients) else { return };
        let elements = gradient.shape().num_elements();
        let gradient = gradient.reshape([elements]);
        let path = self.path.join(".");
        let sum = match self.sums.remove(&path) {
            Some(sum) => sum + gradient,
            None => gradient,
        };
        self.sums.insert(path, sum);
    }
}

struct Update<'a> {
    path: Vec<String>,
    optimizer: &'a mut Optimizer,
    gradients: BTreeMap<String, Tensor<1>>,
    scales: Scales,
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let Some(gradient) = self.gradients.remove(&path) else { return param };
        let (id, tensor, mapper) = param.consume();
        let dims = tensor.dims();
        let value = tensor.inner().reshape([dims.iter().product::<usize>()]);
        let updated = self.optimizer.apply(&path, value, gradient, self.scales, dims.len() > 1);
        let tensor = updated.reshape(dims).autodiff().require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}
