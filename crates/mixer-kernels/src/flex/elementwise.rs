//! GELU by itself, element by element.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::activation::Activation;
use super::contiguous::{PIECE, owned, values};
use crate::simd::{Kernel, Simd, dispatch};

/// Applies an activation to every element, in place where nobody else holds the tensor.
pub(super) fn activate(x: FlexTensor, activation: impl Activation) -> FlexTensor {
    let mut x = owned::<f32>(x);
    let values = x.storage_mut::<f32>();
    values.par_chunks_mut(PIECE).for_each(|piece| dispatch(ActivateJob { piece, activation }));
    x
}

/// `grad · f′(x)`, into `grad`'s memory where nobody else holds it.
pub(super) fn activate_backward(
    x: &FlexTensor,
    grad: FlexTensor,
    activation: impl Activation,
) -> FlexTensor {
    let x = x.to_contiguous();
    let mut grad = owned::<f32>(grad);
    grad.storage_mut::<f32>()
        .par_chunks_mut(PIECE)
        .zip(values(&x).par_chunks(PIECE))
        .for_each(|(piece, x)| dispatch(ActivateBackwardJob { piece, x, activation }));
    grad
}

/// Calls `f` with the offset of every whole register in `len` floats, then with copies of the rest.
#[inline(always)]
fn for_each_register<S: Simd, const N: usize>(
    s: S,
    pointers: [*const f32; N],
    to: *mut f32,
    len: usize,
    f: impl Fn([S::V; N]) -> S::V,
) {
    let whole = len - len % S::LANES;
    // SAFETY: the callers' slices are `len` floats long; a register is at most 16.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            s.store(to.add(i), f(pointers.map(|from| s.load(from.add(i)))));
        }
        let mut pieces = [[0.0f32; 16]; N];
        for (piece, from) in pieces.iter_mut().zip(pointers) {
            std::ptr::copy_nonoverlapping(from.add(whole), piece.as_mut_ptr(), len - whole);
        }
        let mut result = [0.0f32; 16];
        s.store(result.as_mut_ptr(), f(pieces.each_ref().map(|piece| s.load(piece.as_ptr()))));
        std::ptr::copy_nonoverlapping(result.as_ptr(), to.add(whole), len - whole);
    }
}

struct ActivateJob<'a, A> {
    piece: &'a mut [f32],
    activation: A,
}

impl<A: Activation> Kernel for ActivateJob<'_, A> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (to, len) = (self.piece.as_mut_ptr(), self.piece.len());
        for_each_register(s, [to.cast_const()], to, len, |[x]| self.activation.value(s, x));
    }
}

struct ActivateBackwardJob<'a, A> {
    piece: &'a mut [f32],
    x: &'a [f32],
    activation: A,
}

impl<A: Activation> Kernel for ActivateBackwardJob<'_, A> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (to, len) = (self.piece.as_mut_ptr(), self.piece.len());
        for_each_register(s, [self.x.as_ptr(), to.cast_const()], to, len, |[x, grad]| {
            s.mul(grad, self.activation.value_and_slope(s, x).1)
        });
    }
}
