//! One update of every parameter: global-norm clipping, then AdamW or SGD with momentum.
//!
//! Burn's own optimizers clip each tensor by itself and differ in their defaults; these follow optax
//! and PyTorch.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
pub use mixer_kernels::Clip;
use mixer_kernels::{
    AdamwStep, AnyTensor, SgdStep, adamw_update, average_update, dot, sgd_update, squared_norm,
};
use mixer_model::{HostTensor, Mixer, ParameterSpec, Precision, parameters};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::group::Group;
use crate::group::tree::{Counter, sum_over};
use crate::update::parameter_rates::ParameterRates;

/// Type that AdamW's first moment, or the momentum of SGD, is kept in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FirstMomentDtype {
    /// Nothing is rounded.
    #[default]
    F32,
    /// Rounded to the nearest (of two, to the even one) when it is put away: half the bytes.
    Bf16,
}

impl FirstMomentDtype {
    /// Its type in Burn.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

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

impl Rule {
    /// Moments that it keeps of every parameter.
    pub(crate) fn num_moments(&self) -> usize {
        match self {
            Self::Adamw { .. } => 2,
            Self::Sgd { .. } => 1,
        }
    }
}

/// The rule with what it keeps of every parameter.
#[derive(Debug, Clone)]
pub struct Optimizer {
    rule: Rule,
    /// Decay of the moving average of the weights; absent when none is kept.
    ema_decay: Option<f64>,
    /// Factor of each parameter's learning rate.
    rates: ParameterRates,
    /// Type that the first moment, or the momentum, is kept in.
    first_moment_dtype: FirstMomentDtype,
    /// Updates done; Adam's bias correction counts them.
    step: u64,
    /// By the parameter's path.
    kept: BTreeMap<String, Kept>,
}

/// Moments and average of one parameter, in its shape, or flat as they came from the host.
#[derive(Debug, Clone, Default)]
struct Kept {
    /// Momentum, or first and second moment.
    moments: Vec<AnyTensor>,
    /// Its exponential moving average.
    average: Option<AnyTensor>,
}

/// In host memory an average is called `{path}.average`, a moment `{path}.{index}`.
const AVERAGE: &str = "average";

/// The gradients of microbatches on the way to their sum.
#[derive(Debug)]
pub struct GradientTree {
    /// Factor of the losses.
    loss_scale: f64,
    counter: Counter<(Tensor<1>, BTreeMap<String, AnyTensor>)>,
}

impl GradientTree {
    /// Of losses that are multiplied by a factor. On a CPU the order of the sum is that of any number of
    /// processes; on a GPU one sum is kept and not one for each level, as memory is dear there and sums of
    /// processes have an order of their own.
    #[must_use]
    pub fn new(loss_scale: f64, is_gpu: bool) -> Self {
        let counter = if is_gpu { Counter::fold() } else { Counter::tree() };
        Self { loss_scale, counter }
    }

    /// Factor of the losses.
    pub(super) fn loss_scale(&self) -> f64 {
        self.loss_scale
    }

    /// Adds one microbatch: its loss, `[1]`, and its gradients.
    pub fn add(&mut self, mixer: &Mixer, loss: Tensor<1>, gradients: &Gradients) {
        let mut collector = Collector { path: Vec::new(), gradients, found: BTreeMap::new() };
        mixer.visit(&mut collector);
        self.counter.add((loss, collector.found), Self::join);
    }

    /// The sum of the losses, and that of the gradients; absent without a microbatch.
    #[must_use]
    pub fn finish(self) -> Option<(Tensor<1>, GradientSum)> {
        let Self { loss_scale, counter } = self;
        counter.finish(Self::join).map(|(loss, sums)| (loss, GradientSum { loss_scale, sums }))
    }

    fn join(
        (loss, mut sums): (Tensor<1>, BTreeMap<String, AnyTensor>),
        (right_loss, right): (Tensor<1>, BTreeMap<String, AnyTensor>),
    ) -> (Tensor<1>, BTreeMap<String, AnyTensor>) {
        for (path, right) in right {
            let sum = match sums.remove(&path) {
                // NUMERICS: the order in which microbatches are summed.
                Some(left) => left.plus(right),
                None => right,
            };
            sums.insert(path, sum);
        }
        (loss + right_loss, sums)
    }
}

/// The gradient of every parameter by its path.
#[derive(Debug)]
pub struct GradientSum {
    /// Factor of the loss, and so of everything in here.
    loss_scale: f64,
    sums: BTreeMap<String, AnyTensor>,
}

impl GradientSum {
    /// The gradients of one batch.
    #[must_use]
    pub fn of(mixer: &Mixer, gradients: &Gradients) -> Self {
        let mut collector = Collector { path: Vec::new(), gradients, found: BTreeMap::new() };
        mixer.visit(&mut collector);
        Self { loss_scale: 1.0, sums: collector.found }
    }

    /// Adds up gradients and losses (`[1]`) of all processes, so that each has the sums.
    ///
    /// Between GPUs that are in a group, as `precision` says; else in f32 and in the order of the tree.
    pub(crate) fn sum_over(
        self,
        group: &dyn Group,
        loss: Tensor<1>,
        #[cfg_attr(not(feature = "cuda"), expect(unused_variables))] precision: Precision,
    ) -> (Self, Tensor<1>) {
        if group.size() == 1 {
            return (self, loss);
        }
        let Self { loss_scale, sums } = self;
        let device = loss.device();
        #[cfg(feature = "cuda")]
        let (sums, loss) = match over_gpus(sums, loss, precision) {
            Ok((sums, loss)) => return (Self { loss_scale, sums }, loss),
            Err(own) => own,
        };
        // SYNC: every gradient to the host, and back.
        let mut values: Vec<f32> = loss.into_data().iter::<f32>().collect();
        let mut shapes = Vec::with_capacity(sums.len());
        for (path, sum) in sums {
            shapes.push((path, sum.dims()));
            let sum = sum.into_data();
            match sum.as_slice::<f32>() {
                Ok(sum) => values.extend_from_slice(sum),
                // Of another type, value by value.
                Err(_) => values.extend(sum.iter::<f32>()),
            }
        }
        sum_over(group, &mut values);
        let mut at = 1;
        let sums = shapes.into_iter().map(|(path, dims)| {
            let len = dims.iter().product::<usize>();
            let data = TensorData::new(values[at..at + len].to_vec(), [len]);
            at += len;
            let flat: AnyTensor = Tensor::<1>::from_data(data, &device).into();
            (path, flat.reshaped(&dims))
        });
        let sums = sums.collect();
        let loss = Tensor::from_data(TensorData::new(values[..1].to_vec(), [1]), &device);
        (Self { loss_scale, sums }, loss)
    }

    /// Norm of each parameter's gradient by its path, and how many of its values are not finite. The loss's
    /// factor is divided out, here and in [`GradientSum::squared_norm`].
    #[must_use]
    pub fn norms(&self) -> Vec<(String, f64, usize)> {
        let norm = |(path, sum): (&String, &AnyTensor)| {
            let values: Vec<f32> = sum.clone().into_data().iter::<f32>().collect();
            let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
            let non_finite = values.iter().filter(|value| !value.is_finite()).count();
            (path.clone(), squares.sqrt() / self.loss_scale, non_finite)
        };
        self.sums.iter().map(norm).collect()
    }

    /// The squared norm over all parameters, on the device; absent where nothing is trained.
    #[must_use]
    pub fn squared_norm(&self) -> Option<Tensor<1>> {
        self.unscaled(squared_norm(&self.sums.values().cloned().collect::<Vec<_>>()))
    }

    /// A squared norm, `[1]`, with the loss's factor divided out.
    pub(super) fn unscaled(&self, norm: Option<Tensor<1>>) -> Option<Tensor<1>> {
        // Where it is 1, the products would be one more launch on a GPU. NUMERICS: twice, as f32 may not hold
        // the square.
        let inverse = 1.0 / self.loss_scale;
        norm.map(|norm| if inverse == 1.0 { norm } else { norm * inverse * inverse })
    }

    /// Factor of the loss.
    pub(super) fn loss_scale(&self) -> f64 {
        self.loss_scale
    }

    /// The gradient of the parameter at a path, with the loss's factor in it.
    pub(super) fn of_parameter<const D: usize>(&self, path: &str) -> Option<Tensor<D>> {
        self.sums.get(path).map(|sum| sum.clone().into_tensor())
    }

    /// This gradient `p` less a share of what of another one, `g`, is orthogonal to it:
    /// `p − α (g − ⟨g, p⟩ p / ‖p‖²)`. `agreed` is as of [`Sam::ascended`](super::sam::Sam::ascended).
    pub(super) fn less_orthogonal_of(
        self,
        mut other: Self,
        alpha: f64,
        agreed: impl Fn(Tensor<1>) -> Tensor<1>,
    ) -> Self {
        let pairs = self.sums.iter().filter_map(|(path, p)| Some((other.sums.get(path)?, p)));
        let (Some(along), Some(squares)) =
            (dot(pairs), squared_norm(&self.sums.values().cloned().collect::<Vec<_>>()))
        else {
            return self;
        };
        // So that a gradient of zeros is one of zeros.
        let parallel = agreed(along) / (agreed(squares) + f64::from(f32::MIN_POSITIVE));
        let less = parallel.full_like(-alpha);
        let own = parallel * alpha + 1.0;
        let sums = self.sums.into_iter().map(|(path, p)| {
            let sum = match other.sums.remove(&path) {
                Some(g) => p.times(&own).plus(g.times(&less)),
                None => p,
            };
            (path, sum)
        });
        Self { loss_scale: self.loss_scale, sums: sums.collect() }
    }
}

/// Sums over the group of GPUs that the gradients' one is in; they are given back where it is in none.
#[cfg(feature = "cuda")]
#[expect(
    clippy::type_complexity,
    clippy::result_large_err,
    reason = "what was given is given back, and only where there is no group"
)]
fn over_gpus(
    sums: BTreeMap<String, AnyTensor>,
    loss: Tensor<1>,
    precision: Precision,
) -> Result<(BTreeMap<String, AnyTensor>, Tensor<1>), (BTreeMap<String, AnyTensor>, Tensor<1>)> {
    let f32 = Precision::F32.dtype();
    let (paths, gradients): (Vec<String>, Vec<AnyTensor>) = sums.into_iter().unzip();
    let cast = |gradients: Vec<AnyTensor>, dtype| -> Vec<AnyTensor> {
        gradients.into_iter().map(|gradient| gradient.cast(dtype)).collect()
    };
    let mut tensors = cast(gradients.clone(), precision.dtype());
    // Of the loss not a digit is lost.
    tensors.push(loss.clone().into());
    match mixer_kernels::sum_over_gpus(tensors) {
        Ok(mut sums) => {
            let loss = sums.pop().map_or(loss, AnyTensor::into_tensor::<1>);
            Ok((paths.into_iter().zip(cast(sums, f32)).collect(), loss))
        }
        Err(_) => Err((paths.into_iter().zip(gradients).collect(), loss)),
    }
}

impl Optimizer {
    /// Nothing kept yet. With `ema_decay` there will be a moving average of the weights.
    #[must_use]
    pub fn new(rule: Rule, ema_decay: Option<f64>) -> Self {
        let rates = ParameterRates::default();
        let first_moment_dtype = FirstMomentDtype::default();
        Self { rule, ema_decay, rates, first_moment_dtype, step: 0, kept: BTreeMap::new() }
    }

    /// The same optimizer with a learning rate of its own for each parameter. What is frozen has no
    /// gradient, and so neither update nor decay nor moments.
    #[must_use]
    pub fn with_rates(self, rates: ParameterRates) -> Self {
        Self { rates, ..self }
    }

    /// The same optimizer with its first moment, or its momentum, kept in this type. Values that it holds
    /// already keep their bits.
    #[must_use]
    pub fn with_first_moment_dtype(mut self, first_moment_dtype: FirstMomentDtype) -> Self {
        for first in self.kept.values_mut().filter_map(|kept| kept.moments.first_mut()) {
            *first = first.clone().cast(first_moment_dtype.dtype());
        }
        Self { first_moment_dtype, ..self }
    }

    /// The type that the first moment, or the momentum, is kept in.
    #[must_use]
    pub fn first_moment_dtype(&self) -> FirstMomentDtype {
        self.first_moment_dtype
    }

    /// Applies one update; `None` for `clip` never clips.
    #[must_use]
    pub fn update(
        &mut self,
        mixer: Mixer,
        gradients: GradientSum,
        clip: Option<&Clip>,
        learning_rate: f64,
    ) -> Mixer {
        self.step += 1;
        // Taken out, updated together, put back: a GPU updates all of them in one launch, and nobody
        // else holds them, so that they are written in place.
        let mut taken = Taken {
            path: Vec::new(),
            gradients: gradients.sums,
            parameters: Vec::new(),
            empty: BTreeMap::new(),
        };
        let specs: BTreeMap<String, ParameterSpec> =
            parameters(mixer.config()).into_iter().map(|spec| (spec.path.clone(), spec)).collect();
        let mixer = mixer.map(&mut taken);
        let gradient_scale = 1.0 / gradients.loss_scale;
        let values = self.apply(taken.parameters, &specs, gradient_scale, clip, learning_rate);
        mixer.map(&mut PutBack { path: Vec::new(), values })
    }

    /// The network with the moving average of its weights, without autodiff; `None` where none is
    /// kept.
    #[must_use]
    pub fn averaged(&self, mixer: &Mixer) -> Option<Mixer> {
        self.ema_decay?;
        Some(mixer.valid().map(&mut Averaged { path: Vec::new(), kept: &self.kept }))
    }

    /// Updates done, and every moment and average in host memory by `{path}.{index}` and
    /// `{path}.average`.
    #[must_use]
    pub fn to_host(&self) -> (u64, BTreeMap<String, HostTensor>) {
        let mut state = BTreeMap::new();
        for (path, kept) in &self.kept {
            let moments = kept.moments.iter().enumerate().map(|(i, m)| (i.to_string(), m));
            let average = kept.average.iter().map(|average| (AVERAGE.to_owned(), average));
            for (name, tensor) in moments.chain(average) {
                let flat = tensor.clone().reshaped(&[tensor.dims().iter().product()]);
                // Of bf16, not a bit is lost.
                let flat = flat.cast(DType::F32);
                let flat = HostTensor::from_device(flat.into_tensor::<1>());
                state.insert(format!("{path}.{name}"), flat);
            }
        }
        (self.step, state)
    }

    /// The state that [`Optimizer::to_host`] gave.
    ///
    /// # Errors
    /// The tensor that does not fit: one without an index, or of a parameter without all that is kept of it.
    pub fn from_host(
        rule: Rule,
        ema_decay: Option<f64>,
        step: u64,
        state: BTreeMap<String, HostTensor>,
        device: &Device,
    ) -> Result<Self, String> {
        let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
        // A `BTreeMap` yields `a.0` before `a.1`, so moments come in their order.
        for (name, tensor) in state {
            let (path, what) =
                name.rsplit_once('.').ok_or_else(|| format!("the moment `{name}` has no index"))?;
            if tensor.shape.len() != 1 {
                return Err(format!("`{name}` is {:?}, expected one axis", tensor.shape));
            }
            let data = TensorData::new(tensor.data, tensor.shape);
            let tensor = Tensor::<1>::from_data(data, device).into();
            let kept = kept.entry(path.to_owned()).or_default();
            match what {
                AVERAGE => kept.average = Some(tensor),
                _ => kept.moments.push(tensor),
            }
        }
        let expected = rule.num_moments();
        for (path, kept) in &kept {
            let found = kept.moments.len();
            if found != expected {
                return Err(format!("`{path}` has {found} moments, expected {expected}"));
            }
            if kept.average.is_some() != ema_decay.is_some() {
                let (found, expected) = match ema_decay {
                    Some(_) => ("no average", "one"),
                    None => ("an average", "none"),
                };
                return Err(format!("`{path}` has {found}, expected {expected}"));
            }
        }
        let rates = ParameterRates::default();
        let first_moment_dtype = FirstMomentDtype::default();
        Ok(Self { rule, ema_decay, rates, first_moment_dtype, step, kept })
    }

    /// Decay of the average in this update: that of the plan, but less in the first ones, so that the
    /// initial weights are forgotten.
    ///
    /// # Source
    /// `tf.train.ExponentialMovingAverage` with `num_updates`.
    fn average_decay(&self, decay: f64) -> f64 {
        let step = self.step as f64;
        decay.min((1.0 + step) / (10.0 + step))
    }

    /// The new values by path. Only kernels decay.
    fn apply(
        &mut self,
        parameters: Vec<Parameter>,
        specs: &BTreeMap<String, ParameterSpec>,
        gradient_scale: f64,
        clip: Option<&Clip>,
        learning_rate: f64,
    ) -> BTreeMap<String, AnyTensor> {
        let mut inputs = Vec::with_capacity(parameters.len());
        let mut paths = Vec::with_capacity(parameters.len());
        let mut averages = Vec::new();
        for Parameter { path, value, gradient } in parameters {
            let Kept { moments, average } = self.kept.remove(&path).unwrap_or_default();
            let dims = value.dims();
            let shaped = |kept: AnyTensor| kept.reshaped(&dims);
            // Held by both until the first update, which then writes elsewhere.
            if self.ema_decay.is_some() {
                averages.push(average.map_or_else(|| value.clone(), shaped));
            }
            let moments: Vec<AnyTensor> = moments.into_iter().map(shaped).collect();
            let spec = specs.get(&path);
            let is_kernel = spec.is_some_and(|spec| spec.role.is_kernel());
            // A learning rate of its own, which its decay is multiplied by too.
            let factor = spec.map_or(1.0, |spec| self.rates.factor(spec));
            inputs.push((value, gradient, moments, is_kernel, learning_rate * factor));
            paths.push(path);
        }
        let first_moment = self.first_moment_dtype.dtype();
        let decay = |weight_decay, is_kernel| if is_kernel { weight_decay } else { 0.0 };
        let updated: Vec<(AnyTensor, Vec<AnyTensor>)> = match self.rule {
            Rule::Adamw { beta1, beta2, epsilon, weight_decay } => {
                let with_moments = |(value, gradient, moments, is_kernel, learning_rate)| {
                    let gradient: AnyTensor = gradient;
                    let zeros = || gradient.zeros_like();
                    let [first, second]: [AnyTensor; 2] = Vec::try_into(moments)
                        .unwrap_or_else(|_| [zeros().cast(first_moment), zeros()]);
                    let step = AdamwStep {
                        gradient_scale,
                        learning_rate,
                        beta1,
                        beta2,
                        epsilon,
                        weight_decay: decay(weight_decay, is_kernel),
                        step: self.step,
                    };
                    ([value, gradient, first, second], step)
                };
                let updated = adamw_update(inputs.into_iter().map(with_moments).collect(), clip);
                updated
                    .into_iter()
                    .map(|[value, first, second]| (value, vec![first, second]))
                    .collect()
            }
            Rule::Sgd { momentum, weight_decay } => {
                let with_velocity = |(value, gradient, moments, is_kernel, learning_rate)| {
                    let gradient: AnyTensor = gradient;
                    let [velocity]: [AnyTensor; 1] = Vec::try_into(moments)
                        .unwrap_or_else(|_| [gradient.zeros_like().cast(first_moment)]);
                    let weight_decay = decay(weight_decay, is_kernel);
                    let step = SgdStep { gradient_scale, learning_rate, momentum, weight_decay };
                    ([value, gradient, velocity], step)
                };
                let updated = sgd_update(inputs.into_iter().map(with_velocity).collect(), clip);
                updated.into_iter().map(|[value, velocity]| (value, vec![velocity])).collect()
            }
        };
        let mut averages = match self.ema_decay {
            Some(decay) => {
                let values = updated.iter().map(|(value, _)| value.clone());
                let pairs = averages.into_iter().zip(values).map(|(a, v)| [a, v]).collect();
                average_update(pairs, self.average_decay(decay))
            }
            None => averages,
        }
        .into_iter();
        let mut values = BTreeMap::new();
        for (path, (value, moments)) in paths.into_iter().zip(updated) {
            self.kept.insert(path.clone(), Kept { moments, average: averages.next() });
            values.insert(path, value);
        }
        values
    }
}

/// A parameter that is to be updated.
struct Parameter {
    path: String,
    value: AnyTensor,
    gradient: AnyTensor,
}

struct Collector<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: BTreeMap<String, AnyTensor>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.found.insert(self.path.join("."), gradient.into());
        }
    }
}

/// Takes parameters out of a network, and leaves empty tensors.
struct Taken {
    path: Vec<String>,
    gradients: BTreeMap<String, AnyTensor>,
    parameters: Vec<Parameter>,
    /// Stand-ins in their places, by rank: one tensor for all.
    empty: BTreeMap<usize, AnyTensor>,
}

impl ModuleMapper for Taken {
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
        let device = tensor.device();
        let empty =
            self.empty.entry(D).or_insert_with(|| Tensor::<D>::empty([1; D], &device).into());
        let empty = empty.clone().into_tensor();
        self.parameters.push(Parameter { path, value: tensor.inner().into(), gradient });
        Param::from_mapped_value(id, empty, mapper)
    }
}

/// Puts new values where [`Taken`] took them.
struct PutBack {
    path: Vec<String>,
    values: BTreeMap<String, AnyTensor>,
}

impl ModuleMapper for PutBack {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(value) = self.values.remove(&self.path.join(".")) else { return param };
        let (id, _, mapper) = param.consume();
        let tensor = value.into_tensor::<D>().autodiff().require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// Puts averages in the place of parameters.
struct Averaged<'a> {
    path: Vec<String>,
    kept: &'a BTreeMap<String, Kept>,
}

impl ModuleMapper for Averaged<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let kept = self.kept.get(&self.path.join("."));
        let Some(average) = kept.and_then(|kept| kept.average.clone()) else { return param };
        let (id, tensor, mapper) = param.consume();
        let average = average.reshaped(&tensor.dims()).into_tensor();
        Param::from_mapped_value(id, average, mapper)
    }
}
