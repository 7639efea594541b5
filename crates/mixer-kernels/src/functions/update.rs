//! One update of all parameters, and the norm that clipping needs.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::any_tensor::AnyTensor;
use crate::ops::MixerOps;

/// Constants of one AdamW update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamwStep {
    /// What the gradient is multiplied by first (clipping).
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
        let AdamwStep { gradient_scale, learning_rate, beta1, beta2, epsilon, .. } = *self;
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
    /// What the gradient is multiplied by first (clipping).
    pub gradient_scale: f64,
    /// Learning rate `η`.
    pub learning_rate: f64,
    /// Decay of the momentum; there is no dampening.
    pub momentum: f64,
    /// Decoupled weight decay `λ`; 0 for parameters that do not decay.
    pub weight_decay: f64,
}

impl SgdStep {
    /// What the parameter is multiplied by.
    pub(crate) fn decay(&self) -> f64 {
        1.0 - self.learning_rate * self.weight_decay
    }
}

/// Scales gradients down to a norm, over all of them.
#[derive(Debug, Clone)]
pub struct Clip {
    /// `Σ g²` over all gradients, `[1]`: [`squared_norm`].
    pub squared_norm: Tensor<1>,
    /// The largest norm that is left as it is.
    pub limit: f64,
}

impl Clip {
    /// What gradients are multiplied by. Waits for the device.
    ///
    /// PARITY: optax's rule, `limit / norm`; PyTorch adds 1e-6 to the norm.
    #[must_use]
    pub fn factor(&self) -> f64 {
        // SYNC: one number.
        let squared = self.squared_norm.clone().into_data().iter::<f32>().next();
        let norm = squared.map_or(f64::NAN, f64::from).sqrt();
        if norm > self.limit { self.limit / norm } else { 1.0 }
    }
}

/// `Σ x²` over all tensors, `[1]`. `None` of none.
#[must_use]
pub fn squared_norm(tensors: &[AnyTensor]) -> Option<Tensor<1>> {
    #[cfg(feature = "cuda")]
    if let Some(norm) = crate::cuda::squared_norm(tensors) {
        return Some(norm);
    }
    let of_one = |x: &AnyTensor| <Dispatch as MixerOps>::squared_norm(x.0.clone());
    let squares: Vec<Tensor<1>> = tensors.iter().map(of_one).map(Tensor::from_dispatch).collect();
    (!squares.is_empty()).then(|| Tensor::cat(squares, 0).sum())
}

/// One AdamW update of many parameters. Parameter `p`, gradient `g`, first and second moment `m` and `v` of
/// each become parameter, first and second moment:
/// `m ← β₁ m + (1 − β₁) g`, `v ← β₂ v + (1 − β₂) g²`,
/// `p ← p (1 − η λ) − η m̂ / (√v̂ + ε)`. The tensors of one parameter have one shape.
///
/// On a CUDA device, all are updated in one launch, the factor of `clip` is found there without waiting
/// for it, and nothing is changed where the norm is not finite. Elsewhere the factor is read first.
///
/// The steps may differ in their learning rates and weight decays alone.
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
        let (parameter, first, second) =
            <Dispatch as MixerOps>::adamw_update(parameter.0, gradient.0, first.0, second.0, step);
        [parameter, first, second].map(AnyTensor)
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
        let (parameter, velocity) =
            <Dispatch as MixerOps>::sgd_update(parameter.0, gradient.0, velocity.0, step);
        [parameter, velocity].map(AnyTensor)
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
