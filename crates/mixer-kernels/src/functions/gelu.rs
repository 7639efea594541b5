//! GELU in its two forms, exact in both directions on every backend.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::ops::MixerOps;
use crate::spec::Gelu;

/// GELU of every element. Burn's own backward pass is that of the tanh form on most backends, whatever the
/// forward pass was; these match.
///
/// # Shapes
/// - input and output: any, the same
#[must_use]
pub fn gelu<const D: usize>(x: Tensor<D>, form: Gelu) -> Tensor<D> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(match form {
        Gelu::Tanh => <Dispatch as MixerOps>::gelu_tanh(x),
        Gelu::Erf => <Dispatch as MixerOps>::gelu_erf(x),
    })
}
