//! GELU in its two forms, exact in both directions on every backend.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::ops::MixerOps;

/// Which form of GELU. Burn's own backward pass is that of the tanh form on most backends, whatever
/// the forward pass was; these match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, as the official JAX code.
    Tanh,
    /// `x Φ(x)`, as timm and PyTorch.
    Erf,
}

/// Applies GELU to every element.
///
/// # Shapes
/// - input and output: any, the same
pub fn gelu<const D: usize>(x: Tensor<D>, form: Gelu) -> Tensor<D> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(match form {
        Gelu::Tanh => <Dispatch as MixerOps>::gelu_tanh(x),
        Gelu::Erf => <Dispatch as MixerOps>::gelu_erf(x),
    })
}
