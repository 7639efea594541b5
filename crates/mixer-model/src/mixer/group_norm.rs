//! Normalisation over groups of channels, and the activation after it.

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use super::parameter::unfilled;
use super::standardised_rows::standardised_rows;

/// Added to the variance. PARITY: timm's; big_vision has 1e-6.
const EPSILON: f64 = 1e-5;

/// The normalisation of each group of channels over its channels and all places, and ReLU:
/// `y = relu((x − mean) / √(var + 1e-5) · gamma + beta)`.
///
/// # Source
/// Wu and He 2018; `timm/layers/norm_act.py` (`GroupNormAct`).
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// Scale, `[C]`.
    pub gamma: Param<Tensor<1>>,
    /// Shift, `[C]`.
    pub beta: Param<Tensor<1>>,
}

impl GroupNorm {
    /// A normalisation without values.
    pub(super) fn unfilled(device: &Device) -> Self {
        Self { gamma: unfilled(device), beta: unfilled(device) }
    }

    /// The normalised places, negative ones cut off.
    ///
    /// # Shapes
    /// - input and output: `[B, C, H, W]`; `num_groups` divides C
    pub(super) fn forward(&self, x: Tensor<4>, num_groups: usize) -> Tensor<4> {
        let shape = x.dims();
        let [b, c, height, width] = shape;
        let groups = x.reshape([b * num_groups, c / num_groups * height * width]);
        let normal = standardised_rows(groups, EPSILON).reshape(shape);
        let [gamma, beta] = [&self.gamma, &self.beta].map(|p| p.val().reshape([1, c, 1, 1]));
        relu(normal * gamma + beta)
    }
}
