//! A parameter that has no value yet.

use burn::module::{Param, ParamId};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

/// The place of a parameter, for `transfer.rs` to fill. It takes no memory.
pub(super) fn unfilled<const D: usize>(device: &Device) -> Param<Tensor<D>> {
    let empty = |device: &Device, _| Tensor::empty([0; D], device);
    Param::uninitialized(ParamId::new(), empty, device.clone(), true, [0; D].into())
}

/// A linear layer with a bias, of such parameters.
pub(super) fn unfilled_linear(device: &Device) -> Linear {
    Linear { weight: unfilled(device), bias: Some(unfilled(device)) }
}
