//! The values that say how an operation is carried out, besides its tensors. Nothing here knows a backend.

use std::fmt;

use burn::tensor::DType;

/// The slope of GELU's tanh form at 0, √(2/π).
pub(crate) const TANH_SLOPE: f64 = 0.797_884_560_802_865_4;
/// The cubic coefficient of GELU's tanh form.
pub(crate) const TANH_CUBIC: f64 = 0.044_715;

/// The form of GELU that a network was trained with. It is part of the architecture: the two differ by up
/// to 4.7e-4 per activation, enough to move logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Gelu {
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`: the official JAX code.
    Tanh,
    /// `x Φ(x)`, exact: timm and PyTorch's default.
    Erf,
}

impl Gelu {
    /// Both forms.
    pub const ALL: [Self; 2] = [Self::Tanh, Self::Erf];

    /// Its name in configurations and weights files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tanh => "tanh",
            Self::Erf => "erf",
        }
    }
}

impl fmt::Display for Gelu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The type that the operands of matrix products are rounded to. Sums, parameters, their gradients,
/// optimizer state, and what is computed inside normalisation and activation stay f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// bf16: eight bits of fraction. Up to twice the speed on CPUs that multiply it (AVX512-BF16), ten times
    /// on NVIDIA GPUs; there, activations between the stem and the last block are kept in it as well.
    Bf16,
    /// f16: eleven bits of fraction, but nothing above 65504, and ever fewer bits below 6.1e-5: losses have
    /// to be scaled for their gradients to lie between. For GPUs that have no bf16; there are no kernels for
    /// CPUs, where it is far slower than f32.
    F16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// Its name in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// The type of what is rounded.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// The precision whose type this is.
    #[cfg(feature = "cuda")]
    pub(crate) fn of(dtype: DType) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| precision.dtype() == dtype)
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The form of a mixing operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixingSpec {
    /// The form of GELU.
    pub gelu: Gelu,
    /// Added to the variance by the normalisation.
    pub epsilon: f64,
    /// Has channel mixing's backward pass compute the hidden units again instead of finding them kept: a
    /// sixth more products, `B S D_C` floats less per block.
    pub recompute: bool,
    /// The type that the operands of its products are rounded to.
    pub precision: Precision,
    /// Says that some example's branch is multiplied by something other than 1. Where none is, the
    /// multiplication may be left out.
    pub scaled: bool,
}

/// Constants of one AdamW update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamwStep {
    /// The factor that the gradient is multiplied by first (clipping).
    pub gradient_scale: f64,
    /// Learning rate `η`.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay `λ`; 0 for parameters that do not decay.
    pub weight_decay: f64,
    /// Updates done, this one included; bias correction counts them.
    pub step: u64,
}

/// The factors that an AdamW update multiplies by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamwConstants {
    pub(crate) gradient_scale: f64,
    pub(crate) decay: f64,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) rest1: f64,
    pub(crate) rest2: f64,
    pub(crate) correct1: f64,
    pub(crate) correct2: f64,
    pub(crate) epsilon: f64,
    pub(crate) learning_rate: f64,
}

impl AdamwStep {
    pub(crate) fn constants(&self) -> AdamwConstants {
        let Self { gradient_scale, learning_rate, beta1, beta2, epsilon, .. } = *self;
        let step = self.step as f64;
        AdamwConstants {
            gradient_scale,
            decay: 1.0 - learning_rate * self.weight_decay,
            beta1,
            beta2,
            rest1: 1.0 - beta1,
            rest2: 1.0 - beta2,
            correct1: 1.0 / (1.0 - beta1.powf(step)),
            correct2: 1.0 / (1.0 - beta2.powf(step)),
            epsilon,
            learning_rate,
        }
    }
}

/// Constants of one update by gradient descent with momentum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// The factor that the gradient is multiplied by first (clipping).
    pub gradient_scale: f64,
    /// Learning rate `η`.
    pub learning_rate: f64,
    /// Decay of the momentum; there is no dampening.
    pub momentum: f64,
    /// Decoupled weight decay `λ`; 0 for parameters that do not decay.
    pub weight_decay: f64,
}

impl SgdStep {
    /// The factor that the parameter is multiplied by.
    pub(crate) fn decay(&self) -> f64 {
        1.0 - self.learning_rate * self.weight_decay
    }
}
