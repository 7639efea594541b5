//! Token mixing with its normalisation, biases and residual addition, both ways.
//!
//! The weights multiply an example's `[tokens, channels]` matrix from the left, so nothing is
//! transposed but, backwards, the 32-column pieces that the weight gradients contract over. An
//! example's panels go through the whole MLP one by one. The hidden units are never kept: they are
//! often more than those of channel mixing, and cost one product in seven to compute again.
//!
//! Weight gradients are summed over examples in at most 32 slots, which the shape alone decides.

use std::marker::PhantomData;

use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::activation::Activation;
use super::branch::{Gradients, View};
use super::buffer::{Floats, Output, Scratch};
use super::contiguous;
use super::format::{Format, PANEL, padded};
use super::panel::{Form, Left, columns, multiply, packed, padded_vector};
use super::rows::{self, Affine, RowGradient};
use super::slots::sum_slots;
use crate::simd::{InstructionSet, Kernel, Simd, dispatch_to};
use crate::spec::Gelu;

/// Most slots of partial sums.
const SLOTS: usize = 32;
/// Panels whose transposes are kept at once.
const CHUNK: usize = 4;

/// Sizes and addresses of a call.
#[derive(Clone, Copy)]
struct Call<'a> {
    gelu: Gelu,
    epsilon: f32,
    tokens: usize,
    channels: usize,
    hidden: usize,
    x: &'a [f32],
    branch_scale: &'a [f32],
    bias1: &'a [f32],
    bias2: &'a [f32],
    affine: (Floats, Floats),
    /// `[hidden, tokens]` and `[tokens, hidden]` in panels, columns filled up with zeros, as left
    /// operands and as transposed ones.
    w1: Weights,
    w2: Weights,
}

/// A matrix as left operand and as transposed one, with this many rows.
#[derive(Debug, Clone, Copy)]
struct Weights {
    rows: Floats,
    columns: Floats,
    height: usize,
}

impl Weights {
    fn left(self) -> Left {
        // SAFETY: the matrix begins there.
        Left::Rows { from: unsafe { self.rows.at(0) }, rows: self.height }
    }

    /// 32 rows of the transpose.
    ///
    /// # Safety
    /// They must be there.
    #[inline(always)]
    unsafe fn transposed<F: Format, S: Simd>(self, s: S, row: usize) -> Left {
        // SAFETY: the caller's promise.
        columns::<F, S>(s, unsafe { self.columns.at(row / PANEL * self.height * F::ROW) })
    }
}

impl Call<'_> {
    fn scale(&self, example: usize) -> f32 {
        self.branch_scale[example]
    }

    /// # Safety
    /// The vectors must be there.
    #[inline(always)]
    unsafe fn affine(&self) -> Affine {
        // SAFETY: the caller's promise.
        unsafe { Affine { gamma: self.affine.0.at(0), beta: self.affine.1.at(0) } }
    }

    /// `to = W₁ · normal` for one panel, `[hidden][32]`.
    ///
    /// # Safety
    /// All of it must be there.
    #[inline(always)]
    unsafe fn hidden_units<F: Format, S: Simd>(&self, s: S, normal: *const f32, to: *mut f32) {
        let (left, depth, rows) = (self.w1.left(), self.tokens, self.hidden);
        // SAFETY: the caller's promise.
        unsafe { multiply::<F, S>(s, left, normal, depth, to, PANEL, rows, false) };
    }

    /// Writes the normalised rows of an example to panels.
    ///
    /// # Safety
    /// All of it must be there.
    #[inline(always)]
    unsafe fn normalise<S: Simd>(&self, s: S, example: usize, spare: *mut f32, to: Floats) {
        // SAFETY: the caller's promise.
        unsafe {
            for row in 0..self.tokens {
                let from = self.x.as_ptr().add((example * self.tokens + row) * self.channels);
                let read = rows::read_row(s, from, self.channels, spare, self.epsilon);
                let (to, stride) = (to.at(row * PANEL), self.tokens * PANEL);
                rows::normalise(s, read, self.affine(), self.channels, to, stride);
            }
        }
    }
}

/// Weights and vectors in the kernels' layout, for as long as a call needs them.
struct Operands {
    w1: Scratch,
    w2: Scratch,
    /// The same for transposed operands, where it is another.
    columns: Option<(Scratch, Scratch)>,
    gamma: Scratch,
    beta: Scratch,
}

impl Operands {
    fn new<F: Format>(set: InstructionSet, branch: &View<'_>, backward: bool) -> Self {
        let w1 = |form| packed::<F>(set, branch.weight1, form);
        let w2 = |form| packed::<F>(set, branch.weight2, form);
        Self {
            w1: w1(Form::Rows),
            w2: w2(Form::Rows),
            columns: (F::CONVERTS && backward).then(|| (w1(Form::Columns), w2(Form::Columns))),
            gamma: padded_vector(branch.gamma),
            beta: padded_vector(branch.beta),
        }
    }

    fn call<'a>(&mut self, branch: &View<'a>) -> Call<'a> {
        let [_, tokens, channels] = branch.dims;
        let hidden = branch.bias1.len();
        let (w1, w2) = (self.w1.floats(), self.w2.floats());
        let columns = self.columns.as_mut().map(|(w1, w2)| (w1.floats(), w2.floats()));
        let (w1_columns, w2_columns) = columns.unwrap_or((w1, w2));
        Call {
            gelu: branch.gelu,
            epsilon: branch.epsilon,
            tokens,
            channels,
            hidden,
            x: branch.x,
            branch_scale: branch.branch_scale,
            bias1: branch.bias1,
            bias2: branch.bias2,
            affine: (self.gamma.floats(), self.beta.floats()),
            // `packed` fills up rows as well.
            w1: Weights { rows: w1, columns: w1_columns, height: padded(hidden) },
            w2: Weights { rows: w2, columns: w2_columns, height: padded(tokens) },
        }
    }
}

/// The output.
pub(super) fn forward<F: Format>(set: InstructionSet, branch: &View<'_>) -> FlexTensor {
    let [examples, ..] = branch.dims;
    let mut operands = Operands::new::<F>(set, branch, false);
    let call = operands.call(branch);
    let panels = padded(call.channels) / PANEL;
    let mut y = Output::new(branch.x.len());
    let to = y.floats();
    (0..examples).into_par_iter().with_max_len(1).for_each(|example| {
        let mut normal = Scratch::take(call.tokens * padded(call.channels));
        let normal = normal.floats();
        dispatch_to(set, NormaliseJob { call, example, to: normal });
        let format = PhantomData::<F>;
        let job = ForwardJob { format, call, example, first: 0, last: panels, normal, y: to };
        // A single example is shared out by its panels.
        let piece = panels.div_ceil((16 / examples).max(1));
        if piece == panels {
            return F::dispatch(set, job);
        }
        (0..panels.div_ceil(piece)).into_par_iter().with_max_len(1).for_each(|i| {
            let (first, last) = (i * piece, ((i + 1) * piece).min(panels));
            F::dispatch(set, ForwardJob { first, last, ..job });
        });
    });
    y.tensor(Shape::from(branch.dims.to_vec()))
}

/// The normalisation of one example.
struct NormaliseJob<'a> {
    call: Call<'a>,
    example: usize,
    to: Floats,
}

impl Kernel for NormaliseJob<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut spare = Scratch::take(padded(self.call.channels));
        // SAFETY: `to` has room for the example.
        unsafe { self.call.normalise(s, self.example, spare.floats().at(0), self.to) };
    }
}

/// Some panels of one example, forward.
#[derive(Clone, Copy)]
struct ForwardJob<'a, F> {
    format: PhantomData<F>,
    call: Call<'a>,
    example: usize,
    first: usize,
    last: usize,
    normal: Floats,
    y: Floats,
}

impl<F: Format> Kernel for ForwardJob<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.call.gelu {
            Gelu::Erf => self.run_with(s, F::ERF),
            Gelu::Tanh => self.run_with(s, F::TANH),
        }
    }
}

impl<F: Format> ForwardJob<'_, F> {
    #[inline(always)]
    fn run_with<S: Simd>(self, s: S, activation: impl Activation) {
        let call = self.call;
        let mut active = Scratch::take(call.hidden * PANEL);
        let mut branch = Scratch::take(call.tokens * PANEL);
        let extra = |rows| Scratch::take(if F::CONVERTS { pairs::<F>(rows) } else { 0 });
        let (mut normal_pairs, mut active_pairs) = (extra(call.tokens), extra(call.hidden));
        let (active, branch) = (active.floats(), branch.floats());
        let (normal_pairs, active_pairs) = (normal_pairs.floats(), active_pairs.floats());
        let scale = call.scale(self.example);
        // SAFETY: everything was given the room that is used here; these columns of the example
        // are nobody else's.
        unsafe {
            for panel in self.first..self.last {
                let normal = self.normal.at(panel * call.tokens * PANEL);
                let normal = as_pairs::<F, S>(s, normal, call.tokens, normal_pairs);
                call.hidden_units::<F, S>(s, normal, active.at(0));
                for (row, &bias) in call.bias1.iter().enumerate() {
                    for lane in (0..PANEL).step_by(S::LANES) {
                        let at = active.at(row * PANEL + lane);
                        s.store(at, activation.value(s, s.add(s.load(at), s.splat(bias))));
                    }
                }
                let active = as_pairs::<F, S>(s, active.at(0), call.hidden, active_pairs);
                let (left, depth) = (call.w2.left(), call.hidden);
                let (to, rows) = (branch.at(0), call.tokens);
                multiply::<F, S>(s, left, active, depth, to, PANEL, rows, false);
                let count = (call.channels - panel * PANEL).min(PANEL);
                for (row, &bias) in call.bias2.iter().enumerate() {
                    let at = (self.example * call.tokens + row) * call.channels + panel * PANEL;
                    let (residual, branch) = (call.x.as_ptr().add(at), branch.at(row * PANEL));
                    let bias = s.splat(bias);
                    rows::add_branch(s, residual, branch, |_| bias, scale, self.y.at(at), count);
                }
            }
        }
    }
}

/// Words of a panel of so many rows in the form of pairs.
const fn pairs<F: Format>(rows: usize) -> usize {
    rows.div_ceil(F::PER_WORD) * PANEL
}

/// A panel as a right operand: converted to `to` if it has to be.
///
/// # Safety
/// All of it must be there.
#[inline(always)]
unsafe fn as_pairs<F: Format, S: Simd>(
    s: S,
    panel: *const f32,
    rows: usize,
    to: Floats,
) -> *const f32 {
    if !F::CONVERTS {
        return panel;
    }
    // SAFETY: the caller's promise.
    unsafe {
        F::write_pairs(s, panel, rows, to.at(0));
        to.at(0)
    }
}

/// The beginnings of the parts of a slot, in floats.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// `[tokens, hidden]` in panels: the gradient of `weight1`, transposed.
    weight1: usize,
    /// `[tokens, hidden]` in panels.
    weight2: usize,
    bias1: usize,
    bias2: usize,
    gamma: usize,
    beta: usize,
    len: usize,
}

impl Slot {
    fn new(tokens: usize, channels: usize, hidden: usize) -> Self {
        let (weight, width) = (tokens * padded(hidden), padded(channels));
        let bias1 = 2 * weight;
        let bias2 = bias1 + padded(hidden);
        let gamma = bias2 + padded(tokens);
        let beta = gamma + width;
        Self { weight1: 0, weight2: weight, bias1, bias2, gamma, beta, len: beta + width }
    }
}

/// The gradients.
pub(super) fn backward<F: Format>(
    set: InstructionSet,
    branch: &View<'_>,
    grad: &[f32],
) -> Gradients {
    let [examples, tokens, channels] = branch.dims;
    let hidden = branch.bias1.len();
    let mut operands = Operands::new::<F>(set, branch, true);
    let call = operands.call(branch);
    let slot = Slot::new(tokens, channels, hidden);
    let slots = examples.min(SLOTS);
    let mut sums = Scratch::take(slots * slot.len);
    let mut dx = Output::new(branch.x.len());
    let (sums, to) = (sums.floats(), dx.floats());
    (0..slots).into_par_iter().with_max_len(1).for_each(|index| {
        let examples = index * examples / slots..(index + 1) * examples / slots;
        // SAFETY: each job has a slot of its own.
        let sums = unsafe {
            let sums = sums.at(index * slot.len);
            sums.write_bytes(0, slot.len);
            sums
        };
        let sums = Floats::new(sums);
        for example in examples {
            let format = PhantomData::<F>;
            F::dispatch(set, BackwardJob { format, call, slot, example, grad, dx: to, sums });
        }
    });
    // SAFETY: all slots were written above.
    let total = unsafe { sum_slots(sums, slots, slot.len) };
    let dx = dx.tensor(Shape::from(branch.dims.to_vec()));
    let at = |token: usize, unit: usize| (unit / PANEL * tokens + token) * PANEL + unit % PANEL;
    let mut weight1 = vec![0.0; hidden * tokens];
    weight1.par_chunks_mut(tokens).enumerate().for_each(|(unit, row)| {
        for (token, value) in row.iter_mut().enumerate() {
            *value = total[slot.weight1 + at(token, unit)];
        }
    });
    let mut weight2 = vec![0.0; tokens * hidden];
    weight2.par_chunks_mut(hidden).enumerate().for_each(|(token, row)| {
        for (piece, values) in row.chunks_mut(PANEL).enumerate() {
            let from = slot.weight2 + at(token, piece * PANEL);
            values.copy_from_slice(&total[from..from + values.len()]);
        }
    });
    let vector = |first: usize, len: usize| total[first..first + len].to_vec();
    Gradients {
        x: dx,
        gamma: vector(slot.gamma, channels),
        beta: vector(slot.beta, channels),
        weight1: contiguous::from_vec(weight1, Shape::from(vec![hidden, tokens])),
        bias1: vector(slot.bias1, hidden),
        weight2: contiguous::from_vec(weight2, Shape::from(vec![tokens, hidden])),
        bias2: vector(slot.bias2, tokens),
    }
}

/// One example of the backward pass.
struct BackwardJob<'a, F> {
    format: PhantomData<F>,
    call: Call<'a>,
    slot: Slot,
    example: usize,
    grad: &'a [f32],
    dx: Floats,
    /// The slot.
    sums: Floats,
}

impl<F: Format> Kernel for BackwardJob<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.call.gelu {
            Gelu::Erf => self.run_with(s, F::ERF),
            Gelu::Tanh => self.run_with(s, F::TANH),
        }
    }
}

impl<F: Format> BackwardJob<'_, F> {
    #[inline(always)]
    fn run_with<S: Simd>(self, s: S, activation: impl Activation) {
        let BackwardJob { call, slot, example, grad, dx, sums, .. } = self;
        let (tokens, hidden) = (call.tokens, call.hidden);
        let (width, depth) = (padded(call.channels), padded(hidden));
        let stride = tokens * PANEL;
        let panels = width / PANEL;
        let mut normal = Scratch::take(tokens * width);
        let mut outer = Scratch::take(tokens * width);
        let mut dnormal = Scratch::take(tokens * width);
        let mut units = Scratch::take(depth * PANEL);
        let mut inner = Scratch::take(depth * PANEL);
        let transposed = || Scratch::take(depth * CHUNK * F::ROW);
        let (mut active_transposed, mut inner_transposed) = (transposed(), transposed());
        let mut spare = Scratch::take(width);
        let extra = |len| Scratch::take(if F::CONVERTS { len } else { 0 });
        let (mut normal_rows, mut outer_rows) =
            (extra(CHUNK * tokens * F::ROW), extra(CHUNK * tokens * F::ROW));
        let (mut token_pairs, mut unit_pairs) = (extra(pairs::<F>(tokens)), extra(depth * F::ROW));
        let (normal, outer, dnormal) = (normal.floats(), outer.floats(), dnormal.floats());
        let (units, inner, spare) = (units.floats(), inner.floats(), spare.floats());
        let active_transposed = active_transposed.floats();
        let inner_transposed = inner_transposed.floats();
        let (normal_rows, outer_rows) = (normal_rows.floats(), outer_rows.floats());
        let (token_pairs, unit_pairs) = (token_pairs.floats(), unit_pairs.floats());
        // SAFETY: everything was given the room that is used here; the example's rows of `dx` and
        // the slot are nobody else's.
        unsafe {
            call.normalise(s, example, spare.at(0), normal);
            for row in 0..tokens {
                let from = grad.as_ptr().add((example * tokens + row) * call.channels);
                let to = outer.at(row * PANEL);
                rows::to_panels(s, from, call.channels, call.scale(example), to, stride);
            }
            add_rows(s, outer, panels, tokens, sums.at(slot.bias2));
            // The padding of the hidden units, which the transposes read.
            for row in hidden..depth {
                units.at(row * PANEL).write_bytes(0, PANEL);
                inner.at(row * PANEL).write_bytes(0, PANEL);
            }
            for chunk in (0..panels).step_by(CHUNK) {
                let chunk_panels = CHUNK.min(panels - chunk);
                let chunk_rows = chunk_panels * PANEL;
                for i in 0..chunk_panels {
                    let panel = chunk + i;
                    let right = normal.at(panel * stride);
                    let right = as_pairs::<F, S>(s, right, tokens, token_pairs);
                    call.hidden_units::<F, S>(s, right, units.at(0));
                    let right = outer.at(panel * stride);
                    let right = as_pairs::<F, S>(s, right, tokens, token_pairs);
                    for unit in (0..hidden).step_by(PANEL) {
                        let left = call.w2.transposed::<F, S>(s, unit);
                        let rows = PANEL.min(hidden - unit);
                        let to = inner.at(unit * PANEL);
                        multiply::<F, S>(s, left, right, tokens, to, PANEL, rows, false);
                    }
                    for (row, &bias) in call.bias1.iter().enumerate() {
                        for lane in (0..PANEL).step_by(S::LANES) {
                            let at = row * PANEL + lane;
                            let h = s.add(s.load(units.at(at)), s.splat(bias));
                            let (value, slope) = activation.value_and_slope(s, h);
                            s.store(units.at(at), value);
                            s.store(inner.at(at), s.mul(s.load(inner.at(at)), slope));
                        }
                    }
                    add_rows(s, inner, 1, hidden, sums.at(slot.bias1));
                    let right = as_pairs::<F, S>(s, inner.at(0), hidden, unit_pairs);
                    for token in (0..tokens).step_by(PANEL) {
                        let left = call.w1.transposed::<F, S>(s, token);
                        let rows = PANEL.min(tokens - token);
                        let to = dnormal.at(panel * stride + token * PANEL);
                        multiply::<F, S>(s, left, right, hidden, to, PANEL, rows, false);
                    }
                    for (from, to) in [(units, active_transposed), (inner, inner_transposed)] {
                        let mut from = from;
                        if F::CONVERTS {
                            F::write_rows(s, from.at(0), depth, unit_pairs.at(0));
                            from = unit_pairs;
                        }
                        for unit in (0..depth).step_by(PANEL) {
                            let to = to.at((unit * chunk_rows + i * PANEL * PANEL) / F::PER_WORD);
                            transpose::<F>(from.at(unit * F::ROW), to);
                        }
                    }
                    if F::CONVERTS {
                        let at = i * tokens * F::ROW;
                        F::write_rows(s, normal.at(panel * stride), tokens, normal_rows.at(at));
                        F::write_rows(s, outer.at(panel * stride), tokens, outer_rows.at(at));
                    }
                }
                let left = |own: Floats, example: Floats| {
                    let from = if F::CONVERTS { own.at(0) } else { example.at(chunk * stride) };
                    Left::Rows { from, rows: tokens }
                };
                for unit in (0..depth).step_by(PANEL) {
                    for (left, right, to) in [
                        (left(normal_rows, normal), inner_transposed, slot.weight1),
                        (left(outer_rows, outer), active_transposed, slot.weight2),
                    ] {
                        let right = right.at(unit * chunk_rows / F::PER_WORD);
                        let to = sums.at(to + unit * tokens);
                        multiply::<F, S>(s, left, right, chunk_rows, to, PANEL, tokens, true);
                    }
                }
            }
            for row in 0..tokens {
                let at = (example * tokens + row) * call.channels;
                let from = call.x.as_ptr().add(at);
                let read = rows::read_row(s, from, call.channels, spare.at(0), call.epsilon);
                let gradient = RowGradient {
                    of_output: dnormal.at(row * PANEL),
                    stride,
                    of_residual: grad.as_ptr().add(at),
                    to: dx.at(at),
                    dgamma: sums.at(slot.gamma),
                    dbeta: sums.at(slot.beta),
                };
                let gamma = call.affine().gamma;
                rows::normalise_backward(s, read, gamma, call.channels, gradient);
            }
        }
    }
}

/// Adds the sum of each of the `count` rows of some panels to `to`.
///
/// # Safety
/// All of it must be there.
#[inline(always)]
unsafe fn add_rows<S: Simd>(s: S, from: Floats, panels: usize, count: usize, to: *mut f32) {
    for row in 0..count {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = s.splat(0.0);
            for panel in 0..panels {
                for lane in (0..PANEL).step_by(S::LANES) {
                    sum = s.add(sum, s.load(from.at((panel * count + row) * PANEL + lane)));
                }
            }
            *to.add(row) += s.sum(sum);
        }
    }
}

/// Transposes 32 rows of a panel in the form of rows, word by word: columns become pairs.
///
/// # Safety
/// All of it must be there twice.
#[inline(always)]
unsafe fn transpose<F: Format>(from: *const f32, to: *mut f32) {
    // SAFETY: the caller's promise. Four by four, so that a store's line is used again soon.
    unsafe {
        for row in (0..PANEL).step_by(4) {
            for word in 0..F::ROW {
                let from = from.add(row * F::ROW + word);
                let to = to.add(word * PANEL + row);
                for i in 0..4 {
                    *to.add(i) = *from.add(i * F::ROW);
                }
            }
        }
    }
}
