//! The way of parameters between host memory and a device: a network from weights, weights from a network.
//!
//! The table of `parameters.rs` says which tensor belongs to which place in the module, and how it lies
//! there. Nothing here knows a single parameter.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use mixer_kernels::mixes_with_transposes;

use crate::error::ModelError;
use crate::mixer::config::MixerConfig;
use crate::mixer::mixer::Mixer;
use crate::parameters::{ParameterSpec, Role, parameters};
use crate::tensor::HostTensor;
use crate::weights::metadata::Metadata;
use crate::weights::weights::Weights;

impl HostTensor {
    /// The tensor on `device`, without a copy where that is the host.
    fn into_device<const D: usize>(self, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.data, self.shape), device)
    }

    /// A copy of a tensor in host memory. SYNC: waits for the device.
    #[must_use]
    pub fn from_device<const D: usize>(tensor: Tensor<D>) -> Self {
        let shape = tensor.dims().to_vec();
        let data = tensor.into_data();
        // One copy of the whole where it is of this type, which on a CPU is a checkpoint's cost.
        let values = data.as_slice::<f32>().map(<[f32]>::to_vec);
        Self { shape, data: values.unwrap_or_else(|_| data.iter::<f32>().collect()) }
    }
}

impl Mixer {
    /// The network with these weights, on `device`.
    ///
    /// # Errors
    /// [`ModelError::Mismatch`] when the tensors are not those of the weights' own architecture.
    pub fn from_weights(weights: Weights, device: &Device) -> Result<Self, ModelError> {
        weights.check_fits(&weights.config)?;
        let Weights { config, tensors, .. } = weights;
        let mut filler = Filler { place: Place::of(parameters(&config)), tensors, device };
        Ok(Self::unfilled(config, device).map(&mut filler))
    }

    /// A copy of the parameters in host memory, in timm's names and layouts.
    ///
    /// # Errors
    /// [`ModelError::ClassCount`] when the class names of `metadata` are not one per output.
    pub fn to_weights(&self, metadata: Metadata) -> Result<Weights, ModelError> {
        let specs = parameters(self.config());
        // A layer whose bias was taken out computes as with zeros.
        let mut tensors: BTreeMap<String, HostTensor> = specs
            .iter()
            .filter(|spec| matches!(spec.role, Role::Bias | Role::SmallBias | Role::HeadBias))
            .map(|spec| (spec.name.clone(), HostTensor::filled(&spec.shape, 0.0)))
            .collect();
        // SYNC: reads every parameter back.
        self.visit(&mut Reader { place: Place::of(specs), tensors: &mut tensors });
        Weights::new(self.config().clone(), tensors, metadata)
    }
}

impl MixerConfig {
    /// The name that a parameter has in weights files (timm's), from its path in the module as a visitor
    /// sees it: `blocks.3.token_mixing.weight1` is `blocks.3.mlp_tokens.fc1.weight`. `None` for a path
    /// that no parameter of such networks has.
    #[must_use]
    pub fn weights_name(&self, path: &str) -> Option<String> {
        parameters(self).into_iter().find(|spec| spec.path == path).map(|spec| spec.name)
    }
}

/// A place in the module, on a walk through all of them.
struct Place {
    path: Vec<String>,
    by_path: BTreeMap<String, ParameterSpec>,
}

impl Place {
    fn of(specs: Vec<ParameterSpec>) -> Self {
        let by_path = specs.into_iter().map(|spec| (spec.path.clone(), spec)).collect();
        Self { path: Vec::new(), by_path }
    }

    /// The parameter that is here.
    fn take(&mut self) -> Option<ParameterSpec> {
        self.by_path.remove(&self.path.join("."))
    }
}

/// Fills a network with tensors.
struct Filler<'a> {
    place: Place,
    tensors: BTreeMap<String, HostTensor>,
    device: &'a Device,
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.place.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.path.pop();
    }

    fn map_float<const D: usize>(&mut self, _unfilled: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // Taken one by one, so that host and device never hold everything twice.
        let found = self.place.take().and_then(|spec| {
            let tensor = self.tensors.remove(&spec.name)?;
            Some((spec, tensor))
        });
        let Some((spec, tensor)) = found else {
            unreachable!("the module has a parameter that the table has not")
        };
        let tensor = if spec.may_be_view() && mixes_with_transposes(self.device) {
            tensor.into_device(self.device).swap_dims(0, 1)
        } else {
            spec.to_module(tensor).into_device(self.device)
        };
        // Records that it is to be trained, also where the device cannot differentiate. It gets a new identity.
        Param::from_tensor(tensor)
    }
}

/// Reads the tensors of a network.
struct Reader<'a> {
    place: Place,
    tensors: &'a mut BTreeMap<String, HostTensor>,
}

impl ModuleVisitor for Reader<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.place.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = HostTensor::from_device(param.val());
        let (name, tensor) = match self.place.take() {
            Some(spec) => (spec.name.clone(), spec.to_file(tensor)),
            // Of a layer that a caller has put there; the check of the whole names it.
            None => (self.place.path.join("."), tensor),
        };
        self.tensors.insert(name, tensor);
    }
}
