//! One update of a parameter, and the norm that clipping needs.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

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

/// `Σ x²`.
///
/// # Shapes
/// - `x`: any; output: `[1]`
pub fn squared_norm<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as MixerOps>::squared_norm(x.into_dispatch()))
}

/// The new value, first and second moment:
/// `m ← β₁ m + (1 − β₁) g`, `v ← β₂ v + (1 − β₂) g²`,
/// `p ← p (1 − η λ) − η m̂ / (√v̂ + ε)`.
///
/// # Shapes
/// - all: any, the same
///
/// # Source
/// Loshchilov and Hutter 2019, algorithm 2.
pub fn adamw_update<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: AdamwStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let [first, second] = moments.map(Tensor::into_dispatch);
    let (parameter, first, second) = <Dispatch as MixerOps>::adamw_update(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        first,
        second,
        step,
    );
    (Tensor::from_dispatch(parameter), [first, second].map(Tensor::from_dispatch))
}

/// Scales gradients down to a norm, over all of them.
#[derive(Debug, Clone)]
pub struct Clip {
    /// `Σ g²` over all gradients, `[1]`: [`squared_norm_all`].
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

/// [`adamw_update`] of many parameters: parameter, gradient, first and second moment of each become
/// parameter, first and second moment.
///
/// On a CUDA device, all are updated in one launch, the factor of `clip` is found there without waiting
/// for it, and nothing is changed where the norm is not finite. Elsewhere the factor is read first.
///
/// The steps may differ in their learning rates and weight decays alone.
#[must_use]
pub fn adamw_update_all(
    tensors: Vec<([Tensor<1>; 4], AdamwStep)>,
    clip: Option<&Clip>,
) -> Vec<[Tensor<1>; 3]> {
    #[cfg(feature = "cuda")]
    let tensors = match crate::cuda::adamw_update_all(tensors, clip) {
        Ok(updated) => return updated,
        Err(tensors) => tensors,
    };
    let factor = clip.map_or(1.0, Clip::factor);
    let update = |([parameter, gradient, first, second], step): ([Tensor<1>; 4], AdamwStep)| {
        let step = AdamwStep { gradient_scale: step.gradient_scale * factor, ..step };
        let (parameter, [first, second]) = adamw_update(parameter, gradient, [first, second], step);
        [parameter, first, second]
    };
    tensors.into_iter().map(update).collect()
}

/// [`sgd_update`] of many parameters: parameter, gradient and velocity of each become parameter and
/// velocity. As [`adamw_update_all`] otherwise.
#[must_use]
pub fn sgd_update_all(
    tensors: Vec<([Tensor<1>; 3], SgdStep)>,
    clip: Option<&Clip>,
) -> Vec<[Tensor<1>; 2]> {
    #[cfg(feature = "cuda")]
    let tensors = match crate::cuda::sgd_update_all(tensors, clip) {
        Ok(updated) => return updated,
        Err(tensors) => tensors,
    };
    let factor = clip.map_or(1.0, Clip::factor);
    let update = |([parameter, gradient, velocity], step): ([Tensor<1>; 3], SgdStep)| {
        let step = SgdStep { gradient_scale: step.gradient_scale * factor, ..step };
        let (parameter, velocity) = sgd_update(parameter, gradient, velocity, step);
        [parameter, velocity]
    };
    tensors.into_iter().map(update).collect()
}

/// [`average_update`] of many: average and parameter of each become the average. On a CUDA device, all in
/// one launch.
#[must_use]
pub fn average_update_all(pairs: Vec<[Tensor<1>; 2]>, decay: f64) -> Vec<Tensor<1>> {
    #[cfg(feature = "cuda")]
    let pairs = match crate::cuda::average_update_all(pairs, decay) {
        Ok(averages) => return averages,
        Err(pairs) => pairs,
    };
    let update = |[average, parameter]: [Tensor<1>; 2]| average_update(average, parameter, decay);
    pairs.into_iter().map(update).collect()
}

/// `Σ x²` over all tensors, `[1]`. `None` of none.
#[must_use]
pub fn squared_norm_all(tensors: &[Tensor<1>]) -> Option<Tensor<1>> {
    #[cfg(feature = "cuda")]
    if let Some(norm) = crate::cuda::squared_norm_all(tensors) {
        return Some(norm);
    }
    let squares: Vec<Tensor<1>> = tensors.iter().cloned().map(squared_norm).collect();
    (!squares.is_empty()).then(|| Tensor::cat(squares, 0).sum())
}

/// The exponential moving average after another value: `a ← a + (1 − decay) (p − a)`.
///
/// # Shapes
/// - all: any, the same
///
/// # Source
/// Polyak and Juditsky 1992; `timm/utils/model_ema.py@aa4b585` (`ModelEmaV3`).
pub fn average_update<const D: usize>(
    average: Tensor<D>,
    parameter: Tensor<D>,
    decay: f64,
) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as MixerOps>::average_update(
        average.into_dispatch(),
        parameter.into_dispatch(),
        decay,
    ))
}

/// The new value and velocity: `u ← μ u + g`, `p ← p (1 − η λ) − η u`.
///
/// # Shapes
/// - all: any, the same
pub fn sgd_update<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    velocity: Tensor<D>,
    step: SgdStep,
) -> (Tensor<D>, Tensor<D>) {
    let (parameter, velocity) = <Dispatch as MixerOps>::sgd_update(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        velocity.into_dispatch(),
        step,
    );
    (Tensor::from_dispatch(parameter), Tensor::from_dispatch(velocity))
}
