//! Layer normalisation over channels.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use mixer_kernels::NormParameters;

use super::parameter::unfilled;

/// Flax's and timm's epsilon; Burn's default is ten times larger.
pub(crate) const EPSILON: f64 = 1e-6;

/// The normalisation of each token over its channels: `y = (x − mean) / √(var + 1e-6) · gamma + beta`.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[C]`.
    pub gamma: Param<Tensor<1>>,
    /// Shift, `[C]`.
    pub beta: Param<Tensor<1>>,
}

impl LayerNorm {
    /// A normalisation without values.
    pub(super) fn unfilled(device: &Device) -> Self {
        Self { gamma: unfilled(device), beta: unfilled(device) }
    }

    fn parameters(&self) -> NormParameters {
        NormParameters { gamma: self.gamma.val(), beta: self.beta.val() }
    }

    /// The normalised tokens.
    ///
    /// # Shapes
    /// - input and output: `[B, S, C]`
    pub(super) fn forward(&self, x_bsc: Tensor<3>) -> Tensor<3> {
        mixer_kernels::layer_norm(x_bsc, self.parameters(), EPSILON)
    }

    /// The mean over tokens of [`LayerNorm::forward`].
    ///
    /// # Shapes
    /// - input: `[B, S, C]`; output: `[B, C]`
    pub(super) fn forward_mean(&self, x_bsc: Tensor<3>) -> Tensor<2> {
        mixer_kernels::mean_layer_norm(x_bsc, self.parameters(), EPSILON)
    }
}
