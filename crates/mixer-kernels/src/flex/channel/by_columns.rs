//! The forward pass for few rows: work is cut along columns instead of rows.
//!
//! Tiles of a single picture would each be a few rows high, and every one would stream all weights from
//! memory. Here a job takes all rows through one panel of weights, which it packs for itself: a weight is
//! read once, and there is work for as many cores as there are panels. Every sum has the order that it has
//! in tiles, so the output is the same to the last bit.

use std::marker::PhantomData;

use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::{Call, call};
use crate::flex::activation::Activation;
use crate::flex::branch::View;
use crate::flex::buffer::{Floats, Output, Scratch};
use crate::flex::format::{Format, PANEL, padded};
use crate::flex::panel::{Form, Left, Matrix, multiply, pack_panel, padded_vector};
use crate::flex::rows;
use crate::simd::{InstructionSet, Kernel, Simd};
use crate::spec::Gelu;

/// Rows up to which columns are cut: two pictures of 196 tokens. Their hidden units stay in the third-level
/// cache; with more rows tiles are high enough.
pub(super) const MOST_ROWS: usize = 448;
/// Rows that one job normalises.
const PIECE: usize = 16;
/// Rows of the second weight matrix that are packed at once.
const CHUNK: usize = 512;

/// A call, the weights as they are, and what lies between its steps: `normal` and `active` in panels of all
/// rows.
#[derive(Clone, Copy)]
struct Work<'a, F> {
    format: PhantomData<F>,
    set: InstructionSet,
    call: Call<'a>,
    weight1: Matrix<'a>,
    weight2: Matrix<'a>,
    normal: Floats,
    active: Floats,
    y: Floats,
}

/// The output.
pub(super) fn forward<F: Format>(set: InstructionSet, branch: &View<'_>) -> FlexTensor {
    let (mut gamma, mut beta) = (padded_vector(branch.gamma), padded_vector(branch.beta));
    let (mut bias1, mut bias2) = (padded_vector(branch.bias1), padded_vector(branch.bias2));
    let call = call(branch, &mut gamma, &mut beta, &mut bias1, &mut bias2);
    let (width, depth) = (padded(call.channels), padded(call.hidden));
    let mut normal = Scratch::take(call.rows * width / F::PER_WORD);
    let mut active = Scratch::take(call.rows * depth / F::PER_WORD);
    let mut y = Output::new(branch.x.len());
    let work = Work {
        format: PhantomData::<F>,
        set,
        call,
        weight1: branch.weight1,
        weight2: branch.weight2,
        normal: normal.floats(),
        active: active.floats(),
        y: y.floats(),
    };
    let each = |jobs: usize, run: &(dyn Fn(usize) + Sync)| {
        (0..jobs).into_par_iter().with_max_len(1).for_each(run);
    };
    each(call.rows.div_ceil(PIECE), &|piece| {
        F::dispatch(set, NormaliseJob { work, first: piece * PIECE });
    });
    each(depth / PANEL, &|panel| F::dispatch(set, HiddenJob { work, panel }));
    each(width / PANEL, &|panel| F::dispatch(set, OutputJob { work, panel }));
    y.tensor(Shape::from(branch.dims.to_vec()))
}

/// The normalisation of some rows.
struct NormaliseJob<'a, F> {
    work: Work<'a, F>,
    first: usize,
}

impl<F: Format> Kernel for NormaliseJob<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Work { call, normal, .. } = self.work;
        let width = padded(call.channels);
        let rows = PIECE.min(call.rows - self.first);
        let mut spare = Scratch::take(width);
        let mut unconverted = F::CONVERTS.then(|| Scratch::take(rows * width));
        let spare = spare.floats();
        // SAFETY: `normal` has room for all rows, and these are nobody else's.
        unsafe {
            let (floats, stride) = match &mut unconverted {
                Some(scratch) => (scratch.floats().at(0), rows * PANEL),
                None => (normal.at(self.first * PANEL), call.rows * PANEL),
            };
            for row in 0..rows {
                let from = call.x.as_ptr().add((self.first + row) * call.channels);
                let read = rows::read_row(s, from, call.channels, spare.at(0), call.epsilon);
                let to = floats.add(row * PANEL);
                rows::normalise(s, read, call.affine(), call.channels, to, stride);
            }
            if F::CONVERTS {
                for panel in 0..width / PANEL {
                    let to = normal.at((panel * call.rows + self.first) * F::ROW);
                    F::write_rows(s, floats.add(panel * stride), rows, to);
                }
            }
        }
    }
}

/// One panel of hidden units, after GELU.
struct HiddenJob<'a, F> {
    work: Work<'a, F>,
    panel: usize,
}

impl<F: Format> Kernel for HiddenJob<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.work.call.gelu {
            Gelu::Erf => self.run_with(s, F::ERF),
            Gelu::Tanh => self.run_with(s, F::TANH),
        }
    }
}

impl<F: Format> HiddenJob<'_, F> {
    #[inline(always)]
    fn run_with<S: Simd>(self, s: S, activation: impl Activation) {
        let Work { set, call, weight1, normal, active, .. } = self.work;
        let (panel, rows, width) = (self.panel, call.rows, padded(call.channels));
        let mut right = Scratch::take(width * F::ROW);
        let mut hidden = Scratch::take(rows * PANEL);
        let (right, hidden) = (right.floats(), hidden.floats());
        // SAFETY: everything was given the room that is used here; this panel of `active` is nobody
        // else's, and `normal` is written.
        unsafe {
            pack_panel::<F>(set, weight1, Form::Pairs, panel, right.at(0));
            let left = Left::Rows { from: normal.at(0), rows };
            let (right, hidden) = (right.at(0), hidden.at(0));
            multiply::<F, S>(s, left, right, width, hidden, PANEL, rows, false);
            let active = active.at(panel * rows * F::ROW);
            call.activate::<F, S>(s, activation, (panel, rows), hidden, None, active);
        }
    }
}

/// One panel of the output.
struct OutputJob<'a, F> {
    work: Work<'a, F>,
    panel: usize,
}

impl<F: Format> Kernel for OutputJob<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Work { set, call, weight2, active, y, .. } = self.work;
        let (panel, rows) = (self.panel, call.rows);
        let mut right = Scratch::take(CHUNK * F::ROW);
        let mut branch = Scratch::take(rows * PANEL);
        let (right, branch) = (right.floats(), branch.floats());
        // SAFETY: everything was given the room that is used here; this panel of `y` is nobody else's,
        // and `active` is written.
        unsafe {
            for chunk in (0..call.hidden).step_by(CHUNK) {
                let height = CHUNK.min(call.hidden - chunk);
                let weights = weight2.rows(chunk, height);
                pack_panel::<F>(set, weights, Form::Pairs, panel, right.at(0));
                let left = Left::Rows { from: active.at(chunk / PANEL * rows * F::ROW), rows };
                let (right, to, depth) = (right.at(0), branch.at(0), padded(height));
                multiply::<F, S>(s, left, right, depth, to, PANEL, rows, chunk > 0);
            }
            for row in 0..rows {
                call.add_branch(s, row, panel, branch.at(row * PANEL), y);
            }
        }
    }
}
