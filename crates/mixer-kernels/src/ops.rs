//! The backend extension: the operations that there are, each with the backends that have it.
//!
//! Backward operations are part of the trait because a backend that writes the forward pass by hand wants
//! to write the backward pass by hand too. Tensors have names (`branch`, `norm`, `dense`, `state`),
//! so that none of the eight of a block's half takes another's place unnoticed.
//!
//! ```text
//! MixerOps
//!   ├─ default     bodies over Burn's primitives, for any backend
//!   ├─ autodiff    one node per operation, backward by hand
//!   ├─ flex        the CPU by hand
//!   └─ cuda        NVIDIA GPUs by hand
//! ```
//!
//! One thing goes past the trait: `functions/update.rs` asks `cuda` for an update before it asks
//! `MixerOps::adamw_update` and its like. On a GPU all parameters are to be updated in one launch, and an
//! operation of a backend extension takes tensors one by one and no `Vec` of them (Burn 0.22.1).

// Burn deprecates its ndarray backend; here it stays until it is gone.
#![cfg_attr(
    feature = "ndarray",
    expect(deprecated, reason = "the second CPU backend, which numbers are checked against")
)]

mod autodiff;
pub(crate) mod branch;
pub(crate) mod default;
pub(crate) mod dense;
pub(crate) mod norm;
pub(crate) mod state;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use self::branch::{Branch, BranchGradients, Hidden, Keeping};
use self::dense::{Dense, DenseBackward, DenseGradients, DenseParameters};
use self::norm::{Norm, NormBackward, NormGradients};
use self::state::{AdamwState, SgdState};
use crate::spec::{AdamwStep, MixingSpec, Precision, SgdStep};

/// Mixer's operations on a Burn backend.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda")),
    Autodiff,
)]
pub trait MixerOps: Backend {
    /// `x Φ(x)`.
    fn gelu_erf(x: FloatTensor<Self>) -> FloatTensor<Self> {
        default::gelu_erf::<Self>(x)
    }

    /// `grad · (Φ(x) + x φ(x))`.
    fn gelu_erf_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        default::gelu_erf_backward::<Self>(x, grad)
    }

    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        default::gelu_tanh::<Self>(x)
    }

    /// `grad · (½(1 + t) + ½ x (1 − t²) √(2/π) (1 + 3 · 0.044715 x²))` with `t` the tanh of the
    /// forward pass.
    fn gelu_tanh_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        default::gelu_tanh_backward::<Self>(x, grad)
    }

    /// Layer normalisation over the last dimension. The result has the type of `x`.
    fn fused_layer_norm(#[extension_type] norm: Norm<Self>, epsilon: f64) -> FloatTensor<Self> {
        default::layer_norm::<Self>(norm, epsilon)
    }

    /// Gradients of [`MixerOps::fused_layer_norm`].
    ///
    /// With `n` the normalised input and `h = grad · gamma`:
    /// `dx = (h − mean(h) − n · mean(h · n)) / √(var + epsilon)`, `dgamma = Σ grad · n`,
    /// `dbeta = Σ grad`, the sums over all rows. The statistics are taken again from `x`, which
    /// costs one pass and saves keeping an activation.
    fn fused_layer_norm_backward(
        #[extension_type] norm: NormBackward<Self>,
        epsilon: f64,
    ) -> NormGradients<Self> {
        default::layer_norm_backward::<Self>(norm, epsilon)
    }

    /// The mean over tokens of [`MixerOps::fused_layer_norm`]: `x` is `[B, S, C]`, the result
    /// `[B, C]`, f32.
    fn mean_layer_norm(#[extension_type] norm: Norm<Self>, epsilon: f64) -> FloatTensor<Self> {
        default::mean_layer_norm::<Self>(norm, epsilon)
    }

    /// Gradients of [`MixerOps::mean_layer_norm`]; `grad` is `[B, C]`.
    fn mean_layer_norm_backward(
        #[extension_type] norm: NormBackward<Self>,
        epsilon: f64,
    ) -> NormGradients<Self> {
        default::mean_layer_norm_backward::<Self>(norm, epsilon)
    }

    /// `x W + b`.
    ///
    /// A backend that keeps activations in the type of `precision` gives the result in it; what follows
    /// takes activations of either type, and gives what it was given.
    fn dense(#[extension_type] layer: Dense<Self>, precision: Precision) -> FloatTensor<Self> {
        default::dense::<Self>(layer, precision)
    }

    /// Gradients of [`MixerOps::dense`].
    fn dense_backward(
        #[extension_type] layer: DenseBackward<Self>,
        precision: Precision,
    ) -> DenseGradients<Self> {
        default::dense_backward::<Self>(layer, precision)
    }

    /// Gradients of [`MixerOps::dense`] with respect to its parameters alone.
    fn dense_parameters_backward(
        #[extension_type] layer: DenseBackward<Self>,
        precision: Precision,
    ) -> DenseParameters<Self> {
        default::dense_parameters_backward::<Self>(layer.x, layer.grad, precision)
    }

    /// Token mixing with normalisation and residual addition:
    /// `x + scale · (W₂ gelu(W₁ LN(x) + b₁) + b₂)` for each example.
    fn mix_tokens(#[extension_type] branch: Branch<Self>, spec: MixingSpec) -> FloatTensor<Self> {
        default::mix_tokens::<Self>(branch, spec)
    }

    /// Gradients of [`MixerOps::mix_tokens`]. The hidden units are computed again.
    fn mix_tokens_backward(
        #[extension_type] branch: Branch<Self>,
        grad: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> BranchGradients<Self> {
        default::mix_tokens_backward::<Self>(branch, grad, spec)
    }

    /// Channel mixing with normalisation and residual addition:
    /// `x + scale · (gelu(LN(x) W₁ + b₁) W₂ + b₂)` for each token.
    fn mix_channels(#[extension_type] branch: Branch<Self>, spec: MixingSpec) -> FloatTensor<Self> {
        default::mix_channels::<Self>(branch, spec).y
    }

    /// [`MixerOps::mix_channels`] and the hidden units before GELU, in whatever layout the backend's
    /// [`MixerOps::mix_channels_backward`] likes.
    fn mix_channels_keeping(
        #[extension_type] branch: Branch<Self>,
        spec: MixingSpec,
    ) -> Keeping<Self> {
        default::mix_channels::<Self>(branch, spec)
    }

    /// Gradients of [`MixerOps::mix_channels`], with the hidden units that
    /// [`MixerOps::mix_channels_keeping`] gave, or computed again.
    fn mix_channels_backward(
        #[extension_type] branch: Branch<Self>,
        #[extension_type] hidden: Hidden<Self>,
        grad: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> BranchGradients<Self> {
        default::mix_channels_backward::<Self>(branch, hidden, grad, spec)
    }

    /// `Σ x y`, `[1]`.
    fn dot(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        default::dot::<Self>(x, y)
    }

    /// The state after an update: see [`adamw_update`](crate::adamw_update).
    fn adamw_update(
        #[extension_type] state: AdamwState<Self>,
        gradient: FloatTensor<Self>,
        step: AdamwStep,
    ) -> AdamwState<Self> {
        default::adamw_update::<Self>(state, gradient, step)
    }

    /// The state after an update: see [`sgd_update`](crate::sgd_update).
    fn sgd_update(
        #[extension_type] state: SgdState<Self>,
        gradient: FloatTensor<Self>,
        step: SgdStep,
    ) -> SgdState<Self> {
        default::sgd_update::<Self>(state, gradient, step)
    }

    /// The new average: see [`average_update`](crate::average_update).
    fn average_update(
        average: FloatTensor<Self>,
        parameter: FloatTensor<Self>,
        decay: f64,
    ) -> FloatTensor<Self> {
        default::average_update::<Self>(average, parameter, decay)
    }
}

#[cfg(feature = "ndarray")]
impl MixerOps for burn::backend::NdArray {}

#[cfg(all(feature = "wgpu", not(feature = "cuda")))]
impl MixerOps for burn::backend::Cube {}
