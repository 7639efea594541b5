//! The backend extension: which operations there are.
//!
//! The backward operations are part of the trait because a backend that writes the forward pass by
//! hand wants to write the backward pass by hand too.

// Burn deprecates its ndarray backend; it stays here as the second CPU backend that numbers are checked
// against, until it is gone.
#![allow(deprecated)]

mod autodiff;
pub(crate) mod default;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use crate::functions::mixing::MixingSpec;
use crate::functions::update::{AdamwStep, SgdStep};
use crate::spec::Precision;

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

    /// Layer normalisation over the last dimension. `x` is `[…, C]`, `gamma` and `beta` are `[C]`; the
    /// result has the type of `x`.
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        default::layer_norm::<Self>(x, gamma, beta, epsilon)
    }

    /// Gradients of [`MixerOps::fused_layer_norm`] with respect to `x`, `gamma` and `beta`.
    ///
    /// With `n` the normalised input and `h = grad · gamma`:
    /// `dx = (h − mean(h) − n · mean(h · n)) / √(var + epsilon)`, `dgamma = Σ grad · n`,
    /// `dbeta = Σ grad`, the sums over all rows. The statistics are taken again from `x`, which
    /// costs one pass and saves keeping an activation.
    fn fused_layer_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        default::layer_norm_backward::<Self>(x, gamma, grad, epsilon)
    }

    /// The mean over tokens of [`MixerOps::fused_layer_norm`]: `x` is `[B, S, C]`, the result
    /// `[B, C]`, f32.
    fn mean_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        default::mean_layer_norm::<Self>(x, gamma, beta, epsilon)
    }

    /// Gradients of [`MixerOps::mean_layer_norm`] with respect to `x`, `gamma` and `beta`; `grad` is
    /// `[B, C]`.
    fn mean_layer_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        default::mean_layer_norm_backward::<Self>(x, gamma, grad, epsilon)
    }

    /// `x W + b`. `x` is `[N, I]`, `weight` `[I, O]`, `bias` `[O]`.
    ///
    /// A backend that keeps activations in the type of `precision` gives the result in it; what follows
    /// takes activations of either type, and gives what it was given.
    fn dense(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        default::dense::<Self>(x, weight, bias, precision)
    }

    /// Gradients of [`MixerOps::dense`] with respect to `x`, `weight` and `bias`.
    fn dense_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        default::dense_backward::<Self>(x, weight, grad, precision)
    }

    /// Gradients of [`MixerOps::dense`] with respect to `weight` and `bias` alone.
    fn dense_parameters_backward(
        x: FloatTensor<Self>,
        _weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        default::dense_parameters_backward::<Self>(x, grad, precision)
    }

    /// Token mixing with normalisation and residual addition:
    /// `x + scale · (W₂ gelu(W₁ LN(x) + b₁) + b₂)` for each example.
    ///
    /// `x` is `[B, S, C]`, `gamma` and `beta` are `[C]`, `weight1` is `[D_S, S]`, `bias1` `[D_S]`,
    /// `weight2` `[S, D_S]`, `bias2` `[S]`, `branch_scale` `[B]`.
    #[allow(clippy::too_many_arguments)]
    fn mix_tokens(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> FloatTensor<Self> {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        default::mix_tokens::<Self>(x, parameters, branch_scale, spec)
    }

    /// Gradients of [`MixerOps::mix_tokens`] with respect to `x`, `gamma`, `beta`, `weight1`,
    /// `bias1`, `weight2` and `bias2`. The hidden units are computed again.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    fn mix_tokens_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        default::mix_tokens_backward::<Self>(x, parameters, branch_scale, grad, spec)
    }

    /// Channel mixing with normalisation and residual addition:
    /// `x + scale · (gelu(LN(x) W₁ + b₁) W₂ + b₂)` for each token.
    ///
    /// `x` is `[B, S, C]`, `gamma` and `beta` are `[C]`, `weight1` is `[C, D_C]`, `bias1` `[D_C]`,
    /// `weight2` `[D_C, C]`, `bias2` `[C]`, `branch_scale` `[B]`.
    #[allow(clippy::too_many_arguments)]
    fn mix_channels(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> FloatTensor<Self> {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        default::mix_channels::<Self>(x, parameters, branch_scale, spec).0
    }

    /// [`MixerOps::mix_channels`] and the hidden units before GELU, in whatever layout the backend's
    /// [`MixerOps::mix_channels_backward`] likes.
    #[allow(clippy::too_many_arguments)]
    fn mix_channels_keeping(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        default::mix_channels::<Self>(x, parameters, branch_scale, spec)
    }

    /// Gradients of [`MixerOps::mix_channels`], as of [`MixerOps::mix_tokens_backward`].
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    fn mix_channels_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        default::mix_channels_backward::<Self>(x, parameters, branch_scale, None, grad, spec)
    }

    /// [`MixerOps::mix_channels_backward`] with the hidden units that
    /// [`MixerOps::mix_channels_keeping`] gave.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    fn mix_channels_backward_kept(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        default::mix_channels_backward::<Self>(
            x,
            parameters,
            branch_scale,
            Some(hidden),
            grad,
            spec,
        )
    }

    /// `Σ x²`, `[1]`.
    fn squared_norm(x: FloatTensor<Self>) -> FloatTensor<Self> {
        default::squared_norm::<Self>(x)
    }

    /// The new parameter, first and second moment: see [`adamw_update`](crate::adamw_update).
    fn adamw_update(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamwStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        default::adamw_update::<Self>(parameter, gradient, first, second, step)
    }

    /// The new parameter and velocity: see [`sgd_update`](crate::sgd_update).
    fn sgd_update(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        step: SgdStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        default::sgd_update::<Self>(parameter, gradient, velocity, step)
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
