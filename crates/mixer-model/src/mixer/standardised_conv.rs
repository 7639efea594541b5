//! Convolution with standardised weights.

use burn::module::{Module, Param};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use mixer_kernels::Precision;

use super::parameter::unfilled;
use super::standardised_rows::standardised_rows;

/// Added to the variance of an output's weights. PARITY: timm's for BiT; big_vision adds 1e-5 to the standard
/// deviation instead.
const EPSILON: f64 = 1e-8;

/// A convolution without a bias whose weights have mean 0 and variance 1 for each output.
///
/// # Source
/// Qiao et al. 2019, eq. 5; `timm/layers/std_conv.py` (`StdConv2d`).
#[derive(Module, Debug)]
pub struct StandardisedConv {
    /// Weights before they are standardised, `[O, I, k, k]`.
    pub weight: Param<Tensor<4>>,
}

impl StandardisedConv {
    /// A convolution without values.
    pub(super) fn unfilled(device: &Device) -> Self {
        Self { weight: unfilled(device) }
    }

    /// The convolution of a square kernel, padded by half of its side with zeros.
    ///
    /// In another precision than f32 its operands are rounded to it, and so is the gradient of its weights; the
    /// result is f32.
    ///
    /// # Shapes
    /// - input: `[B, I, H, W]`; output: `[B, O, ⌈H / stride⌉, ⌈W / stride⌉]`
    pub(super) fn forward(&self, x: Tensor<4>, stride: usize, precision: Precision) -> Tensor<4> {
        let weight = self.standardised();
        let half = (weight.dims()[2] - 1) / 2;
        let options = ConvOptions::new([stride; 2], [half; 2], [1; 2], 1);
        if precision == Precision::F32 {
            return conv2d(x, weight, None, options);
        }
        let (dtype, result) = (precision.dtype(), x.dtype());
        conv2d(x.cast(dtype), weight.cast(dtype), None, options).cast(result)
    }

    /// The weights with mean 0 and variance 1 over the inputs of each output.
    fn standardised(&self) -> Tensor<4> {
        let weight = self.weight.val();
        let shape = weight.dims();
        standardised_rows(weight.flatten(1, 3), EPSILON).reshape(shape)
    }
}
