//! The room of Burn's CPU backend by hand: few passes over memory, vector instructions, all cores.
//!
//! Work is cut into pieces whose size depends on the shape alone, and partial sums are added in the
//! order of the pieces, so that results are the same bits for any number of threads.
//!
//! ```text
//! MixerOps for Flex
//!   ├─ channel, token            the two halves of a block, forwards and backwards
//!   │    ├─ panel                products of matrices in the layout inside
//!   │    ├─ format               that layout, in f32 or bf16
//!   │    ├─ rows                 normalisation and copies between tensors and panels
//!   │    ├─ activation           GELU on vectors
//!   │    └─ slots                partial sums
//!   ├─ dense                     a layer outside the blocks: Burn's products, and the bias
//!   ├─ update                    the optimizer's passes
//!   ├─ elementwise, layer_norm   GELU and LayerNorm by themselves
//!   ├─ branch, contiguous        tensors as slices of floats
//!   └─ buffer                    memory that is used again
//! ```

mod activation;
mod branch;
mod buffer;
mod channel;
mod contiguous;
mod dense;
mod elementwise;
mod format;
mod layer_norm;
mod panel;
mod rows;
mod slots;
#[cfg(test)]
mod tests;
mod tiled;
mod token;
mod update;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;

use self::activation::{Erf, Tanh};
use self::branch::Contiguous;
use self::contiguous::values;
use self::elementwise::{activate, activate_backward};
use self::format::{Bf16, F32};
use crate::ops::branch::{Branch, BranchGradients, Hidden, Keeping};
use crate::ops::dense::{Dense, DenseBackward, DenseGradients, DenseParameters};
use crate::ops::norm::{Norm, NormBackward, NormGradients};
use crate::ops::state::{AdamwState, SgdState};
use crate::ops::{MixerOps, default};
use crate::simd::instruction_set;
use crate::spec::{AdamwStep, MixingSpec, Precision, SgdStep};

impl MixerOps for Flex {
    fn gelu_erf(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => activate(x, Erf),
            _ => default::gelu_erf::<Self>(x),
        }
    }

    fn gelu_erf_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => activate_backward(&x, grad, Erf),
            _ => default::gelu_erf_backward::<Self>(x, grad),
        }
    }

    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => activate(x, Tanh),
            _ => default::gelu_tanh::<Self>(x),
        }
    }

    fn gelu_tanh_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => activate_backward(&x, grad, Tanh),
            _ => default::gelu_tanh_backward::<Self>(x, grad),
        }
    }

    fn fused_layer_norm(norm: Norm<Self>, epsilon: f64) -> FloatTensor<Self> {
        match norm.x.dtype() {
            DType::F32 => layer_norm::layer_norm(&norm, epsilon as f32),
            _ => default::layer_norm::<Self>(norm, epsilon),
        }
    }

    fn fused_layer_norm_backward(norm: NormBackward<Self>, epsilon: f64) -> NormGradients<Self> {
        match norm.x.dtype() {
            DType::F32 => layer_norm::layer_norm_backward(&norm, epsilon as f32),
            _ => default::layer_norm_backward::<Self>(norm, epsilon),
        }
    }

    fn dense(layer: Dense<Self>, precision: Precision) -> FloatTensor<Self> {
        match (layer.x.dtype(), dense_precision(precision)) {
            (DType::F32, Precision::F32) => dense::dense(layer),
            (_, precision) => default::dense::<Self>(layer, precision),
        }
    }

    fn dense_backward(layer: DenseBackward<Self>, precision: Precision) -> DenseGradients<Self> {
        match (layer.x.dtype(), dense_precision(precision)) {
            (DType::F32, Precision::F32) => dense::dense_backward(layer),
            (_, precision) => default::dense_backward::<Self>(layer, precision),
        }
    }

    fn dense_parameters_backward(
        layer: DenseBackward<Self>,
        precision: Precision,
    ) -> DenseParameters<Self> {
        let (x, grad) = (layer.x, layer.grad);
        match (x.dtype(), dense_precision(precision)) {
            (DType::F32, Precision::F32) => dense::parameters_backward(x, grad),
            (_, precision) => default::dense_parameters_backward::<Self>(x, grad, precision),
        }
    }

    fn mix_tokens(branch: Branch<Self>, spec: MixingSpec) -> FloatTensor<Self> {
        match Contiguous::new(&branch, spec) {
            Some(tensors) => {
                let (set, view) = (instruction_set(), tensors.view());
                match spec.precision {
                    Precision::Bf16 => token::forward::<Bf16>(set, &view),
                    _ => token::forward::<F32>(set, &view),
                }
            }
            None => default::mix_tokens::<Self>(branch, spec),
        }
    }

    fn mix_tokens_backward(
        branch: Branch<Self>,
        grad: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> BranchGradients<Self> {
        match Contiguous::new(&branch, spec) {
            Some(tensors) => {
                let grad = grad.to_contiguous();
                let (set, view, grad) = (instruction_set(), tensors.view(), values(&grad));
                let gradients = match spec.precision {
                    Precision::Bf16 => token::backward::<Bf16>(set, &view, grad),
                    _ => token::backward::<F32>(set, &view, grad),
                };
                gradients.into_tensors()
            }
            None => default::mix_tokens_backward::<Self>(branch, grad, spec),
        }
    }

    fn mix_channels(branch: Branch<Self>, spec: MixingSpec) -> FloatTensor<Self> {
        match Contiguous::new(&branch, spec) {
            Some(tensors) => mix_channels(&tensors, false).0,
            None => default::mix_channels::<Self>(branch, spec).y,
        }
    }

    fn mix_channels_keeping(branch: Branch<Self>, spec: MixingSpec) -> Keeping<Self> {
        if let Some(tensors) = Contiguous::new(&branch, spec)
            && let (y, Some(hidden)) = mix_channels(&tensors, true)
        {
            return Keeping { y, hidden };
        }
        default::mix_channels::<Self>(branch, spec)
    }

    fn mix_channels_backward(
        branch: Branch<Self>,
        hidden: Hidden<Self>,
        grad: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> BranchGradients<Self> {
        match Contiguous::new(&branch, spec) {
            Some(tensors) => {
                let grad = grad.to_contiguous();
                let kept = match &hidden {
                    Hidden::Kept(hidden) => Some(values(hidden)),
                    Hidden::Again => None,
                };
                let (set, view, grad) = (instruction_set(), tensors.view(), values(&grad));
                let gradients = match spec.precision {
                    Precision::Bf16 => channel::backward::<Bf16>(set, &view, kept, grad),
                    _ => channel::backward::<F32>(set, &view, kept, grad),
                };
                gradients.into_tensors()
            }
            None => default::mix_channels_backward::<Self>(branch, hidden, grad, spec),
        }
    }

    fn dot(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        match (x.dtype(), y.dtype()) {
            (DType::F32, DType::F32) => update::dot(&x, &y),
            _ => default::dot::<Self>(x, y),
        }
    }

    fn adamw_update(
        state: AdamwState<Self>,
        gradient: FloatTensor<Self>,
        step: AdamwStep,
    ) -> AdamwState<Self> {
        let AdamwState { parameter, first, second } = &state;
        let is_kept = matches!(first.dtype(), DType::F32 | DType::BF16);
        if is_kept && [parameter, &gradient, second].iter().all(|x| x.dtype() == DType::F32) {
            return update::adamw(state, gradient, step);
        }
        default::adamw_update::<Self>(state, gradient, step)
    }

    fn sgd_update(
        state: SgdState<Self>,
        gradient: FloatTensor<Self>,
        step: SgdStep,
    ) -> SgdState<Self> {
        let SgdState { parameter, velocity } = &state;
        let is_kept = matches!(velocity.dtype(), DType::F32 | DType::BF16);
        if is_kept && [parameter, &gradient].iter().all(|x| x.dtype() == DType::F32) {
            return update::sgd(state, gradient, step);
        }
        default::sgd_update::<Self>(state, gradient, step)
    }

    fn average_update(
        average: FloatTensor<Self>,
        parameter: FloatTensor<Self>,
        decay: f64,
    ) -> FloatTensor<Self> {
        if [&average, &parameter].iter().all(|x| x.dtype() == DType::F32) {
            return update::average(average, &parameter, decay);
        }
        default::average_update::<Self>(average, parameter, decay)
    }
}

/// Of a dense layer outside the blocks. With bf16, the blocks round operands by themselves and everything
/// else stays f32.
fn dense_precision(precision: Precision) -> Precision {
    if precision == Precision::Bf16 { Precision::F32 } else { precision }
}

/// The output of channel mixing and, where they are to be kept, its hidden units.
fn mix_channels(
    tensors: &Contiguous,
    keep_hidden: bool,
) -> (FloatTensor<Flex>, Option<FloatTensor<Flex>>) {
    let (set, view) = (instruction_set(), tensors.view());
    match tensors.spec.precision {
        Precision::Bf16 => channel::forward::<Bf16>(set, &view, keep_hidden),
        _ => channel::forward::<F32>(set, &view, keep_hidden),
    }
}
