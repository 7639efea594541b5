//! One update of all parameters, and the norm that clipping needs.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::any_tensor::AnyTensor;
use crate::clip::Clip;
use crate::ops::MixerOps;
use crate::ops::state::{AdamwState, SgdState};
use crate::spec::{AdamwStep, SgdStep};

/// `Σ x²` over all tensors, `[1]`. `None` of none.
#[must_use]
pub fn squared_norm(tensors: &[AnyTensor]) -> Option<Tensor<1>> {
    #[cfg(feature = "cuda")]
    if let Some(norm) = crate::cuda::squared_norm(tensors) {
        return Some(norm);
    }
    dot(tensors.iter().zip(tensors))
}

/// `Σ x y` over all pairs of tensors of one shape, `[1]`. `None` of none.
#[must_use]
pub fn dot<'a>(
    pairs: impl IntoIterator<Item = (&'a AnyTensor, &'a AnyTensor)>,
) -> Option<Tensor<1>> {
    let of_one = |(x, y): (&AnyTensor, &AnyTensor)| {
        Tensor::from_dispatch(<Dispatch as MixerOps>::dot(x.0.clone(), y.0.clone()))
    };
    let products: Vec<Tensor<1>> = pairs.into_iter().map(of_one).collect();
    (!products.is_empty()).then(|| Tensor::cat(products, 0).sum())
}

/// One AdamW update of many parameters. Parameter `p`, gradient `g`, first and second moment `m` and `v` of
/// each become parameter, first and second moment:
/// `m ← β₁ m + (1 − β₁) g`, `v ← β₂ v + (1 − β₂) g²`,
/// `p ← p (1 − η λ) − η m̂ / (√v̂ + ε)`. The tensors of one parameter have one shape.
///
/// On a CUDA device, all are updated in one launch, the factor of `clip` is found there without waiting
/// for it, and nothing is changed where the norm is not finite. Elsewhere the factor is read first.
///
/// The steps may differ in their learning rates and weight decays alone. Except on a CUDA device, the first
/// moment may be bf16: what is kept is rounded to the nearest (of two, to the even one), after the parameter
/// has moved by what it was before, as with `mu_dtype` in optax.
///
/// # Source
/// Loshchilov and Hutter 2019, algorithm 2.
#[must_use]
pub fn adamw_update(
    tensors: Vec<([AnyTensor; 4], AdamwStep)>,
    clip: Option<&Clip>,
) -> Vec<[AnyTensor; 3]> {
    #[cfg(feature = "cuda")]
    let tensors = match crate::cuda::adamw_update(tensors, clip) {
        Ok(updated) => return updated,
        Err(tensors) => tensors,
    };
    let factor = clip.map_or(1.0, Clip::factor);
    let update = |([parameter, gradient, first, second], step): ([AnyTensor; 4], AdamwStep)| {
        let step = AdamwStep { gradient_scale: step.gradient_scale * factor, ..step };
        let state = AdamwState { parameter: parameter.0, first: first.0, second: second.0 };
        let state = <Dispatch as MixerOps>::adamw_update(state, gradient.0, step);
        [state.parameter, state.first, state.second].map(AnyTensor)
    };
    tensors.into_iter().map(update).collect()
}

/// One update of many parameters by gradient descent with momentum. Parameter `p`, gradient `g` and velocity
/// `u` of each become parameter and velocity: `u ← μ u + g`, `p ← p (1 − η λ) − η u`. As [`adamw_update`]
/// otherwise.
#[must_use]
pub fn sgd_update(
    tensors: Vec<([AnyTensor; 3], SgdStep)>,
    clip: Option<&Clip>,
) -> Vec<[AnyTensor; 2]> {
    #[cfg(feature = "cuda")]
    let tensors = match crate::cuda::sgd_update(tensors, clip) {
        Ok(updated) => return updated,
        Err(tensors) => tensors,
    };
    let factor = clip.map_or(1.0, Clip::factor);
    let update = |([parameter, gradient, velocity], step): ([AnyTensor; 3], SgdStep)| {
        let step = SgdStep { gradient_scale: step.gradient_scale * factor, ..step };
        let state = SgdState { parameter: parameter.0, velocity: velocity.0 };
        let state = <Dispatch as MixerOps>::sgd_update(state, gradient.0, step);
        [state.parameter, state.velocity].map(AnyTensor)
    };
    tensors.into_iter().map(update).collect()
}

/// Exponential moving averages after another value of each: average `a` and parameter `p` become
/// `a + (1 − decay) (p − a)`. On a CUDA device, all in one launch.
///
/// # Source
/// Polyak and Juditsky 1992; `timm/utils/model_ema.py@aa4b585` (`ModelEmaV3`).
#[must_use]
pub fn average_update(pairs: Vec<[AnyTensor; 2]>, decay: f64) -> Vec<AnyTensor> {
    #[cfg(feature = "cuda")]
    let pairs = match crate::cuda::average_update(pairs, decay) {
        Ok(averages) => return averages,
        Err(pairs) => pairs,
    };
    let update = |[average, parameter]: [AnyTensor; 2]| {
        AnyTensor(<Dispatch as MixerOps>::average_update(average.0, parameter.0, decay))
    };
    pairs.into_iter().map(update).collect()
}
