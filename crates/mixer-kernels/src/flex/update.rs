//! One pass over a parameter, its gradient and its moments.
//!
//! Plain loops: inside a [`Kernel`] the compiler vectorises them for every instruction set, and
//! memory is what they wait for. Nothing is fused or reordered, so all sets give the same bits.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape, bf16};
use rayon::prelude::*;

use super::contiguous::{PIECE, Stored, from_vec, owned, values};
use crate::ops::state::{AdamwState, SgdState};
use crate::simd::{Kernel, Simd, dispatch, half};
use crate::spec::{AdamwStep, SgdStep};

/// `Σ x y`: in f32 over 1024 elements, in f64 beyond.
pub(super) fn dot(x: &FlexTensor, y: &FlexTensor) -> FlexTensor {
    let (x, y) = (x.to_contiguous(), y.to_contiguous());
    let mut sums = vec![0.0f64; values(&x).len().div_ceil(PIECE)];
    let pieces = values(&x).par_chunks(PIECE).zip(values(&y).par_chunks(PIECE)).zip(&mut sums);
    pieces.for_each(|((x, y), sum)| dispatch(DotJob { x, y, sum }));
    from_vec(vec![sums.iter().sum::<f64>() as f32], Shape::from(vec![1]))
}

struct DotJob<'a> {
    x: &'a [f32],
    y: &'a [f32],
    sum: &'a mut f64,
}

impl Kernel for DotJob<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (x, y) in self.x.chunks(1024).zip(self.y.chunks(1024)) {
            let ((x, rest_x), (y, rest_y)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
            let mut lanes = [0.0f32; 16];
            for (x, y) in x.iter().zip(y) {
                for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
                    *lane += x * y;
                }
            }
            *self.sum += f64::from(lanes.iter().sum::<f32>())
                + f64::from(rest_x.iter().zip(rest_y).map(|(x, y)| x * y).sum::<f32>());
        }
    }
}

/// The parameter goes where it was if nobody else holds it, else where its gradient was.
fn places(parameter: FlexTensor, gradient: FlexTensor) -> (FlexTensor, FlexTensor, bool) {
    let parameter = owned::<f32>(parameter);
    if parameter.is_unique() {
        return (parameter, gradient.to_contiguous(), true);
    }
    (parameter, owned::<f32>(gradient), false)
}

/// Runs `job` over pieces of parameter and gradient; the result is in the one that is returned.
fn in_pieces<M: Send>(
    parameter: FlexTensor,
    gradient: FlexTensor,
    moments: impl IndexedParallelIterator<Item = M>,
    job: impl Fn(Update<'_>, M) + Sync,
) -> FlexTensor {
    let (mut parameter, mut gradient, in_place) = places(parameter, gradient);
    if in_place {
        let pieces = parameter.storage_mut::<f32>().par_chunks_mut(PIECE);
        pieces.zip(values(&gradient).par_chunks(PIECE)).zip(moments).for_each(|((to, g), m)| {
            job(Update::Parameter { parameter: to, gradient: g }, m);
        });
        parameter
    } else {
        let pieces = gradient.storage_mut::<f32>().par_chunks_mut(PIECE);
        pieces.zip(values(&parameter).par_chunks(PIECE)).zip(moments).for_each(|((to, p), m)| {
            job(Update::Gradient { parameter: p, gradient: to }, m);
        });
        gradient
    }
}

/// A parameter and its gradient, one of which is overwritten with the new parameter.
enum Update<'a> {
    Parameter { parameter: &'a mut [f32], gradient: &'a [f32] },
    Gradient { parameter: &'a [f32], gradient: &'a mut [f32] },
}

impl Update<'_> {
    /// `parameter ← f(parameter, gradient, moment)` for every element.
    #[inline(always)]
    fn apply<M>(self, moments: impl Iterator<Item = M>, f: impl Fn(f32, f32, M) -> f32) {
        match self {
            Update::Parameter { parameter, gradient } => {
                for ((p, &g), m) in parameter.iter_mut().zip(gradient).zip(moments) {
                    *p = f(*p, g, m);
                }
            }
            Update::Gradient { parameter, gradient } => {
                for ((&p, g), m) in parameter.iter().zip(gradient).zip(moments) {
                    *g = f(p, *g, m);
                }
            }
        }
    }
}

/// The type that a first moment is kept in.
trait Moment: Stored {
    /// The value that is kept.
    fn value(self) -> f32;

    /// The nearest one that can be kept; of two, the even one.
    fn rounded(value: f32) -> Self;
}

impl Moment for f32 {
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }

    #[inline(always)]
    fn rounded(value: f32) -> Self {
        value
    }
}

impl Moment for bf16 {
    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn rounded(value: f32) -> Self {
        Self::from_bits(half::round(value) as u16)
    }
}

/// One update; `first` is f32 or bf16, everything else f32.
pub(super) fn adamw(
    state: AdamwState<Flex>,
    gradient: FlexTensor,
    step: AdamwStep,
) -> AdamwState<Flex> {
    match state.first.dtype() {
        DType::BF16 => adamw_of::<bf16>(state, gradient, step),
        _ => adamw_of::<f32>(state, gradient, step),
    }
}

fn adamw_of<M: Moment>(
    state: AdamwState<Flex>,
    gradient: FlexTensor,
    step: AdamwStep,
) -> AdamwState<Flex> {
    let (mut first, mut second) = (owned::<M>(state.first), owned::<f32>(state.second));
    let moments = M::stored_mut(&mut first).par_chunks_mut(PIECE);
    let moments = moments.zip(second.storage_mut::<f32>().par_chunks_mut(PIECE));
    let parameter = in_pieces(state.parameter, gradient, moments, |update, (first, second)| {
        dispatch(AdamwJob { update, first, second, step });
    });
    AdamwState { parameter, first, second }
}

struct AdamwJob<'a, M> {
    update: Update<'a>,
    first: &'a mut [M],
    second: &'a mut [f32],
    step: AdamwStep,
}

impl<M: Moment> Kernel for AdamwJob<'_, M> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let c = self.step.constants();
        let (scale, decay) = (c.gradient_scale as f32, c.decay as f32);
        let (beta1, beta2) = (c.beta1 as f32, c.beta2 as f32);
        let (rest1, rest2) = (c.rest1 as f32, c.rest2 as f32);
        let (correct1, correct2) = (c.correct1 as f32, c.correct2 as f32);
        let (epsilon, rate) = (c.epsilon as f32, c.learning_rate as f32);
        let moments = self.first.iter_mut().zip(self.second);
        self.update.apply(moments, |p, g, (first, second)| {
            let g = g * scale;
            // NUMERICS: the parameter moves by the moment as it was before it is rounded, as in optax.
            let moment = first.value() * beta1 + g * rest1;
            *first = M::rounded(moment);
            *second = *second * beta2 + g * g * rest2;
            let deviation = (*second * correct2).sqrt() + epsilon;
            p * decay - moment * correct1 / deviation * rate
        });
    }
}

/// One update; the velocity is f32 or bf16, everything else f32.
pub(super) fn sgd(state: SgdState<Flex>, gradient: FlexTensor, step: SgdStep) -> SgdState<Flex> {
    match state.velocity.dtype() {
        DType::BF16 => sgd_of::<bf16>(state, gradient, step),
        _ => sgd_of::<f32>(state, gradient, step),
    }
}

fn sgd_of<M: Moment>(state: SgdState<Flex>, gradient: FlexTensor, step: SgdStep) -> SgdState<Flex> {
    let mut velocity = owned::<M>(state.velocity);
    let moments = M::stored_mut(&mut velocity).par_chunks_mut(PIECE);
    let parameter = in_pieces(state.parameter, gradient, moments, |update, velocity| {
        dispatch(SgdJob { update, velocity, step });
    });
    SgdState { parameter, velocity }
}

struct SgdJob<'a, M> {
    update: Update<'a>,
    velocity: &'a mut [M],
    step: SgdStep,
}

impl<M: Moment> Kernel for SgdJob<'_, M> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let SgdStep { gradient_scale, learning_rate, momentum, weight_decay } = self.step;
        let (scale, momentum) = (gradient_scale as f32, momentum as f32);
        let decay = (1.0 - learning_rate * weight_decay) as f32;
        let rate = learning_rate as f32;
        self.update.apply(self.velocity.iter_mut(), |p, g, velocity| {
            // NUMERICS: as in AdamW, rounded after it is used.
            let moment = velocity.value() * momentum + g * scale;
            *velocity = M::rounded(moment);
            p * decay - moment * rate
        });
    }
}

pub(super) fn average(average: FlexTensor, parameter: &FlexTensor, decay: f64) -> FlexTensor {
    let (mut average, parameter) = (owned::<f32>(average), parameter.to_contiguous());
    let rate = (1.0 - decay) as f32;
    let pieces = average.storage_mut::<f32>().par_chunks_mut(PIECE);
    pieces.zip(values(&parameter).par_chunks(PIECE)).for_each(|(average, parameter)| {
        dispatch(AverageJob { average, parameter, rate });
    });
    average
}

struct AverageJob<'a> {
    average: &'a mut [f32],
    parameter: &'a [f32],
    rate: f32,
}

impl Kernel for AverageJob<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (average, parameter) in self.average.iter_mut().zip(self.parameter) {
            *average += (parameter - *average) * self.rate;
        }
    }
}
