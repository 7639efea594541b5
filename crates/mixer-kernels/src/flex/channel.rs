//! Channel mixing with its normalisation, biases and residual addition, both ways.
//!
//! Rows (tokens of all examples) are cut into tiles of at most 98. A tile goes through the whole MLP
//! while it is in the second-level cache, its hidden units in chunks of 512; the weights stream by.
//! Backwards, tiles are taken in groups: first every tile of a group by itself, then the group's
//! part of the weight gradients. These are added up in the order of rows whatever the grouping, and
//! the small sums (biases, normalisation) in one slot per tile, so that the result is the same bits
//! for any number of threads.

mod by_columns;

use std::marker::PhantomData;

use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::activation::Activation;
use super::branch::{Gradients, View};
use super::buffer::{Floats, Output, Scratch};
use super::contiguous;
use super::format::{F32, Format, PANEL, padded};
use super::panel::{Form, Left, columns, multiply, packed, padded_vector, turn_panels};
use super::rows::{self, Affine, RowGradient};
use super::slots::sum_slots;
use crate::simd::{InstructionSet, Kernel, Simd};
use crate::spec::Gelu;

/// Most rows of a tile: with 512 channels its three matrices and a weight panel fit 1 MiB.
const TILE: usize = 98;
/// Words of a row of hidden units that a tile keeps at once.
const CHUNK_WORDS: usize = 512;

/// Panels of hidden units that a tile keeps at once.
const fn panels_at_once<F: Format>() -> usize {
    CHUNK_WORDS / F::ROW
}

/// Sizes and addresses of a call; all weights in panels, vectors filled up with zeros.
#[derive(Clone, Copy)]
struct Call<'a> {
    gelu: Gelu,
    epsilon: f32,
    rows: usize,
    /// Rows of one example.
    tokens: usize,
    channels: usize,
    hidden: usize,
    x: &'a [f32],
    branch_scale: &'a [f32],
    affine: (Floats, Floats),
    bias1: Floats,
    bias2: Floats,
}

impl Call<'_> {
    fn tile_rows(&self) -> usize {
        // At least sixteen tiles, for as many cores; decided by the shape alone.
        let most = TILE.min(self.rows.div_ceil(16).max(14));
        let tiles = self.rows.div_ceil(most);
        // Even, so that a tile ends where a word of two elements does.
        self.rows.div_ceil(tiles).next_multiple_of(2)
    }

    fn tiles(&self) -> usize {
        self.rows.div_ceil(self.tile_rows())
    }

    /// The rows of a tile.
    fn tile(&self, tile: usize) -> (usize, usize) {
        let first = tile * self.tile_rows();
        (first, self.tile_rows().min(self.rows - first))
    }

    fn scale(&self, row: usize) -> f32 {
        self.branch_scale[row / self.tokens]
    }

    /// # Safety
    /// The vectors must be there.
    #[inline(always)]
    unsafe fn affine(&self) -> Affine {
        // SAFETY: the caller's promise.
        unsafe { Affine { gamma: self.affine.0.at(0), beta: self.affine.1.at(0) } }
    }

    /// Adds the bias to `rows` rows of a panel of hidden units, `[rows][32]`, and writes GELU of them to
    /// `active` in the form of rows; before GELU they go to `kept`, where there is such a place.
    ///
    /// # Safety
    /// All of it must be there.
    #[inline(always)]
    unsafe fn activate<F: Format, S: Simd>(
        &self,
        s: S,
        activation: impl Activation,
        (panel, rows): (usize, usize),
        hidden: *const f32,
        kept: Option<*mut f32>,
        active: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for lane in (0..PANEL).step_by(2 * S::LANES) {
                let bias = F32::load_row(s, self.bias1.at(panel * PANEL + lane));
                for row in 0..rows {
                    let at = row * PANEL + lane;
                    let [h0, h1] = F32::load_row(s, hidden.add(at));
                    let (h0, h1) = (s.add(h0, bias[0]), s.add(h1, bias[1]));
                    if let Some(kept) = kept {
                        F::stream_row(s, kept.add(at / F::PER_WORD), [h0, h1]);
                    }
                    let values = [activation.value(s, h0), activation.value(s, h1)];
                    F::store_row(s, active.add(at / F::PER_WORD), values);
                }
            }
        }
    }

    /// Writes one panel of one row of the output: the residual stream, and what was computed.
    ///
    /// # Safety
    /// All of it must be there.
    #[inline(always)]
    unsafe fn add_branch<S: Simd>(
        &self,
        s: S,
        row: usize,
        panel: usize,
        branch: *const f32,
        y: Floats,
    ) {
        let at = row * self.channels + panel * PANEL;
        let count = (self.channels - panel * PANEL).min(PANEL);
        // SAFETY: the caller's promise.
        unsafe {
            let bias = |lane| s.load(self.bias2.at(panel * PANEL + lane));
            let (residual, to) = (self.x.as_ptr().add(at), y.at(at));
            rows::add_branch(s, residual, branch, bias, self.scale(row), to, count);
        }
    }
}

/// The output and, if asked for, the hidden units before GELU in tile-wise panels.
pub(super) fn forward<F: Format>(
    set: InstructionSet,
    branch: &View<'_>,
    keep_hidden: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    let [examples, tokens, _] = branch.dims;
    if !keep_hidden && examples * tokens <= by_columns::MOST_ROWS {
        return (by_columns::forward::<F>(set, branch), None);
    }
    let hidden = branch.bias1.len();
    let (mut gamma, mut beta) = (padded_vector(branch.gamma), padded_vector(branch.beta));
    let (mut bias1, mut bias2) = (padded_vector(branch.bias1), padded_vector(branch.bias2));
    let mut w1 = packed::<F>(set, branch.weight1, Form::Pairs);
    let mut w2 = packed::<F>(set, branch.weight2, Form::Pairs);
    let call = call(branch, &mut gamma, &mut beta, &mut bias1, &mut bias2);
    let mut y = Output::new(branch.x.len());
    let mut kept = keep_hidden.then(|| Output::new(call.rows * padded(hidden) / F::PER_WORD));
    let job = ForwardJob {
        format: PhantomData::<F>,
        call,
        tile: 0,
        w1: w1.floats(),
        w2: w2.floats(),
        y: y.floats(),
        kept: kept.as_mut().map(Output::floats),
    };
    (0..call.tiles())
        .into_par_iter()
        .with_max_len(1)
        .for_each(|tile| F::dispatch(set, ForwardJob { tile, ..job }));
    let kept_shape = Shape::from(vec![call.rows, padded(hidden) / F::PER_WORD]);
    (y.tensor(Shape::from(branch.dims.to_vec())), kept.map(|kept| kept.tensor(kept_shape)))
}

fn call<'a>(
    branch: &View<'a>,
    gamma: &mut Scratch,
    beta: &mut Scratch,
    bias1: &mut Scratch,
    bias2: &mut Scratch,
) -> Call<'a> {
    let [examples, tokens, channels] = branch.dims;
    Call {
        gelu: branch.gelu,
        epsilon: branch.epsilon,
        rows: examples * tokens,
        tokens,
        channels,
        hidden: branch.bias1.len(),
        x: branch.x,
        branch_scale: branch.branch_scale,
        affine: (gamma.floats(), beta.floats()),
        bias1: bias1.floats(),
        bias2: bias2.floats(),
    }
}

/// One tile of the forward pass.
#[derive(Clone, Copy)]
struct ForwardJob<'a, F> {
    format: PhantomData<F>,
    call: Call<'a>,
    tile: usize,
    w1: Floats,
    w2: Floats,
    y: Floats,
    kept: Option<Floats>,
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
        let (first, rows) = call.tile(self.tile);
        let (width, depth) = (padded(call.channels), padded(call.hidden));
        let (panels, hidden_panels) = (width / PANEL, depth / PANEL);
        let stride = rows * PANEL;
        let mut normal = Scratch::take(panels * rows * F::ROW);
        let mut active = Scratch::take(panels_at_once::<F>() * rows * F::ROW);
        let mut branch = Scratch::take(rows * width);
        let mut spare = Scratch::take(width.max(stride));
        let (normal, active) = (normal.floats(), active.floats());
        let (branch, spare) = (branch.floats(), spare.floats());
        // SAFETY: everything was given the room that is used here; the tile's rows of `y` and
        // `kept` are nobody else's.
        unsafe {
            // What is yet to be converted waits where the result will be.
            let floats = if F::CONVERTS { branch } else { normal };
            for row in 0..rows {
                let from = call.x.as_ptr().add((first + row) * call.channels);
                let read = rows::read_row(s, from, call.channels, spare.at(0), call.epsilon);
                let to = floats.at(row * PANEL);
                rows::normalise(s, read, call.affine(), call.channels, to, stride);
            }
            if F::CONVERTS {
                F::write_rows(s, floats.at(0), panels * rows, normal.at(0));
            }
            let hidden = spare.at(0);
            for chunk in (0..hidden_panels).step_by(panels_at_once::<F>()) {
                let chunk_panels = panels_at_once::<F>().min(hidden_panels - chunk);
                for i in 0..chunk_panels {
                    let panel = chunk + i;
                    let left = Left::Rows { from: normal.at(0), rows };
                    let right = self.w1.at(panel * width * F::ROW);
                    multiply::<F, S>(s, left, right, width, hidden, PANEL, rows, false);
                    let active = active.at(i * rows * F::ROW);
                    let kept_at = (first * hidden_panels + panel * rows) * F::ROW;
                    let kept = self.kept.map(|kept| kept.at(kept_at));
                    call.activate::<F, S>(s, activation, (panel, rows), hidden, kept, active);
                }
                for panel in 0..panels {
                    let left = Left::Rows { from: active.at(0), rows };
                    let right = self.w2.at((panel * depth + chunk * PANEL) * F::ROW);
                    let to = branch.at(panel * stride);
                    let (depth, accumulate) = (chunk_panels * PANEL, chunk > 0);
                    multiply::<F, S>(s, left, right, depth, to, PANEL, rows, accumulate);
                }
            }
            for row in 0..rows {
                for panel in 0..panels {
                    let branch = branch.at(panel * stride + row * PANEL);
                    call.add_branch(s, first + row, panel, branch, self.y);
                }
            }
            if self.kept.is_some() {
                s.finish_streaming();
            }
        }
    }
}

/// The gradients, with the hidden units that [`forward`] kept or computed again.
pub(super) fn backward<F: Format>(
    set: InstructionSet,
    branch: &View<'_>,
    kept: Option<&[f32]>,
    grad: &[f32],
) -> Gradients {
    let [_, _, channels] = branch.dims;
    let hidden = branch.bias1.len();
    let (width, depth) = (padded(channels), padded(hidden));
    let (mut gamma, mut beta) = (padded_vector(branch.gamma), padded_vector(branch.beta));
    let (mut bias1, mut bias2) = (padded_vector(branch.bias1), padded_vector(branch.bias2));
    let packed = |weight| packed::<F>(set, weight, Form::Pairs);
    let mut w1 = kept.is_none().then(|| packed(branch.weight1));
    let mut w1_transposed = packed(branch.weight1.transposed());
    let mut w2_transposed = packed(branch.weight2.transposed());
    let call = call(branch, &mut gamma, &mut beta, &mut bias1, &mut bias2);
    let tiles = call.tiles();
    // Enough rows for the weight gradients' sums to stay in registers for a while, and tiles for
    // every thread.
    let group_tiles = (6 * F::PER_WORD).next_multiple_of(rayon::current_num_threads());
    // A processor's own tiles sum 32 rows by themselves: groups begin where these do, whatever the threads.
    let twos = call.tile_rows().trailing_zeros().min(PANEL.trailing_zeros());
    let whole = if F::CONVERTS { PANEL >> twos } else { 1 };
    let group_tiles = group_tiles.next_multiple_of(whole).min(tiles);
    let group_rows = padded(group_tiles * call.tile_rows());
    let mut normal = Scratch::take(group_rows * width / F::PER_WORD);
    let mut outer = Scratch::take(group_rows * width / F::PER_WORD);
    let mut active = Scratch::take(group_rows * depth / F::PER_WORD);
    let mut inner = Scratch::take(group_rows * depth / F::PER_WORD);
    let mut dx = Output::new(branch.x.len());
    let mut dw1 = Output::new(channels * depth);
    let mut dw2 = Output::new(hidden * width);
    let slot = depth + 3 * width;
    let mut sums = Scratch::zeroed(tiles * slot);
    let job = TileJob {
        format: PhantomData::<F>,
        call,
        tile: 0,
        group_first: 0,
        group_rows: 0,
        kept,
        grad,
        w1: w1.as_mut().map(Scratch::floats),
        w1_transposed: w1_transposed.floats(),
        w2_transposed: w2_transposed.floats(),
        normal: normal.floats(),
        outer: outer.floats(),
        active: active.floats(),
        inner: inner.floats(),
        dx: dx.floats(),
        sums: sums.floats(),
    };
    // The weight gradients until the last group, where there is more than one.
    let several = tiles > group_tiles;
    let mut partial = Scratch::take(if several { 2 * depth * width } else { 0 });
    let weights = WeightJob {
        tile_job: job,
        panel: 0,
        height: 0,
        first: true,
        last: true,
        partial: several.then(|| partial.floats()),
        dw1: dw1.floats(),
        dw2: dw2.floats(),
    };
    for group in (0..tiles).step_by(group_tiles) {
        let end = (group + group_tiles).min(tiles);
        let group_first = call.tile(group).0;
        let (last_first, last_rows) = call.tile(end - 1);
        let height = last_first + last_rows - group_first;
        let group_rows = if F::CONVERTS { padded(height) } else { height };
        let job = TileJob { group_first, group_rows, ..job };
        (group..end)
            .into_par_iter()
            .with_max_len(1)
            .for_each(|tile| F::dispatch(set, TileJob { tile, ..job }));
        let stride = group_rows * F::ROW;
        // SAFETY: the group's panels are complete, and there is room for 32 rows at a time.
        unsafe {
            turn_panels::<F>(set, job.normal, width / PANEL, stride, height);
            turn_panels::<F>(set, job.active, depth / PANEL, stride, height);
        }
        let (first, last) = (group == 0, end == tiles);
        let weights = WeightJob { tile_job: job, height, first, last, ..weights };
        (0..2 * depth / PANEL)
            .into_par_iter()
            .with_max_len(1)
            .for_each(|panel| F::dispatch(set, WeightJob { panel, ..weights }));
    }
    // SAFETY: all slots were written by the tiles above.
    let total = unsafe { sum_slots(sums.floats(), tiles, slot) };
    let vector = |first: usize, len: usize| total[first..first + len].to_vec();
    Gradients {
        x: dx.tensor(Shape::from(branch.dims.to_vec())),
        gamma: vector(depth + width, channels),
        beta: vector(depth + 2 * width, channels),
        weight1: clipped(dw1, channels, hidden, depth),
        bias1: vector(0, hidden),
        weight2: clipped(dw2, hidden, channels, width),
        bias2: vector(depth, channels),
    }
}

/// The first `columns` of rows of `width` floats, as a tensor.
fn clipped(matrix: Output, rows: usize, columns: usize, width: usize) -> FlexTensor {
    let tensor = matrix.tensor(Shape::from(vec![rows, width]));
    if columns == width {
        return tensor;
    }
    let rows_of = contiguous::values(&tensor).chunks_exact(width);
    let clipped = rows_of.flat_map(|row| &row[..columns]).copied().collect();
    contiguous::from_vec(clipped, Shape::from(vec![rows, columns]))
}

/// One tile of the backward pass: everything but the weight gradients.
#[derive(Clone, Copy)]
struct TileJob<'a, F> {
    format: PhantomData<F>,
    call: Call<'a>,
    tile: usize,
    group_first: usize,
    /// Rows from one panel of the group to the next.
    group_rows: usize,
    kept: Option<&'a [f32]>,
    grad: &'a [f32],
    w1: Option<Floats>,
    w1_transposed: Floats,
    w2_transposed: Floats,
    /// Of the group, in the form of pairs: the normalised rows, the gradient of the second product's
    /// output, the hidden units after GELU, the gradient of those before GELU.
    normal: Floats,
    outer: Floats,
    active: Floats,
    inner: Floats,
    dx: Floats,
    /// A slot per tile: gradients of `bias1`, `bias2`, `gamma`, `beta`.
    sums: Floats,
}

impl<F: Format> Kernel for TileJob<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.call.gelu {
            Gelu::Erf => self.run_with(s, F::ERF),
            Gelu::Tanh => self.run_with(s, F::TANH),
        }
    }
}

impl<F: Format> TileJob<'_, F> {
    #[inline(always)]
    fn run_with<S: Simd>(self, s: S, activation: impl Activation) {
        let call = self.call;
        let (first, rows) = call.tile(self.tile);
        let in_group = first - self.group_first;
        let (width, depth) = (padded(call.channels), padded(call.hidden));
        let (panels, hidden_panels) = (width / PANEL, depth / PANEL);
        let stride = rows * PANEL;
        // Where the tile's part of a panel of the group begins.
        let in_group = |panel: usize| (panel * self.group_rows + in_group) * F::ROW;
        let mut dnormal = Scratch::take(rows * width);
        let mut spare = Scratch::take(width);
        let mut recomputed = Scratch::take(stride);
        // In f32 the group's panels are written to directly, and are left operands as well.
        let extra = |len: usize| Scratch::take(if F::CONVERTS { len } else { 0 });
        let mut normal_rows = extra(if self.kept.is_none() { panels * rows * F::ROW } else { 0 });
        let mut outer_rows = extra(panels * rows * F::ROW);
        let mut inner_rows = extra(panels_at_once::<F>() * rows * F::ROW);
        let mut inner_floats = extra(stride);
        let (dnormal, spare) = (dnormal.floats(), spare.floats());
        let inner_floats = inner_floats.floats();
        let (normal_rows, outer_rows) = (normal_rows.floats(), outer_rows.floats());
        let inner_rows = inner_rows.floats();
        // SAFETY: everything was given the room that is used here; the tile's rows of the group's
        // matrices and of `dx`, and its slot, are nobody else's.
        unsafe {
            let sums = self.sums.at(self.tile * (depth + 3 * width));
            let (dbias2, dgamma) = (sums.add(depth), sums.add(depth + width));
            let dbeta = sums.add(depth + 2 * width);
            let recomputed = recomputed.floats().at(0);
            let left = |own: Floats, group: Floats, chunk: usize| {
                if F::CONVERTS {
                    return Left::Rows { from: own.at(0), rows };
                }
                Left::Rows { from: group.at(in_group(chunk)), rows: self.group_rows }
            };
            // What is yet to be converted waits where the gradient will be.
            let unconverted = |group: Floats| {
                if F::CONVERTS {
                    return (dnormal.at(0), stride);
                }
                (group.at(in_group(0)), self.group_rows * PANEL)
            };
            let (normal, normal_stride) = unconverted(self.normal);
            for row in 0..rows {
                let from = call.x.as_ptr().add((first + row) * call.channels);
                let read = rows::read_row(s, from, call.channels, spare.at(0), call.epsilon);
                let to = normal.add(row * PANEL);
                rows::normalise(s, read, call.affine(), call.channels, to, normal_stride);
            }
            if F::CONVERTS {
                for panel in 0..panels {
                    let to = self.normal.at(in_group(panel));
                    F::write_pairs(s, normal.add(panel * stride), rows, to);
                }
                if self.kept.is_none() {
                    F::write_rows(s, normal, panels * rows, normal_rows.at(0));
                }
            }
            let (outer, outer_stride) = unconverted(self.outer);
            for row in 0..rows {
                let from = self.grad.as_ptr().add((first + row) * call.channels);
                let (to, scale) = (outer.add(row * PANEL), call.scale(first + row));
                rows::to_panels(s, from, call.channels, scale, to, outer_stride);
            }
            for panel in 0..panels {
                let from = outer.add(panel * outer_stride);
                add_columns(s, from, rows, dbias2.add(panel * PANEL));
                if F::CONVERTS {
                    F::write_pairs(s, from, rows, self.outer.at(in_group(panel)));
                }
            }
            if F::CONVERTS {
                F::write_rows(s, outer, panels * rows, outer_rows.at(0));
            }
            for chunk in (0..hidden_panels).step_by(panels_at_once::<F>()) {
                let chunk_panels = panels_at_once::<F>().min(hidden_panels - chunk);
                for panel in chunk..chunk + chunk_panels {
                    let offset = in_group(panel);
                    let inner =
                        if F::CONVERTS { inner_floats.at(0) } else { self.inner.at(offset) };
                    let right = self.w2_transposed.at(panel * width * F::ROW);
                    let outer = left(outer_rows, self.outer, 0);
                    multiply::<F, S>(s, outer, right, width, inner, PANEL, rows, false);
                    let mut kept = None;
                    match (self.kept, self.w1) {
                        (Some(all), _) => {
                            let at = (first * hidden_panels + panel * rows) * F::ROW;
                            kept = Some(all.as_ptr().add(at));
                        }
                        (None, Some(w1)) => {
                            let right = w1.at(panel * width * F::ROW);
                            let normal = left(normal_rows, self.normal, 0);
                            let to = recomputed;
                            multiply::<F, S>(s, normal, right, width, to, PANEL, rows, false);
                        }
                        (None, None) => unreachable!("hidden units are kept or computed again"),
                    }
                    let (active_to, inner_to) = (self.active.at(offset), self.inner.at(offset));
                    let rows_to = inner_rows.at((panel - chunk) * rows * F::ROW);
                    for lane in (0..PANEL).step_by(2 * S::LANES) {
                        let bias = F32::load_row(s, call.bias1.at(panel * PANEL + lane));
                        let mut column_sums = [s.splat(0.0); 2];
                        let source = match kept {
                            Some(kept) => Units::Kept(kept),
                            None => Units::Again(recomputed, bias),
                        };
                        for row in (0..rows).step_by(2) {
                            let at = row * PANEL + lane;
                            let units = source.load::<F>(s, at);
                            let first = through_gelu(s, activation, units, inner.add(at));
                            add_to(s, &mut column_sums, first[1]);
                            let mut second = None;
                            if row + 1 < rows {
                                let at = at + PANEL;
                                let units = source.load::<F>(s, at);
                                let found = through_gelu(s, activation, units, inner.add(at));
                                add_to(s, &mut column_sums, found[1]);
                                second = Some(found);
                            }
                            if F::CONVERTS {
                                F::store_row(s, rows_to.add(at / F::PER_WORD), first[1]);
                                if let Some(second) = second {
                                    F::store_row(
                                        s,
                                        rows_to.add((at + PANEL) / F::PER_WORD),
                                        second[1],
                                    );
                                }
                            }
                            for (what, to) in [active_to, inner_to].into_iter().enumerate() {
                                for half in 0..2 {
                                    let to = to.add(row * F::ROW + lane + half * S::LANES);
                                    let second = second.map(|second| second[what][half]);
                                    F::store_pair(s, to, first[what][half], second);
                                }
                            }
                        }
                        F32::store_row(s, sums.add(panel * PANEL + lane), column_sums);
                    }
                }
                for panel in 0..panels {
                    let inner = left(inner_rows, self.inner, chunk);
                    let right = self.w1_transposed.at((panel * depth + chunk * PANEL) * F::ROW);
                    let to = dnormal.at(panel * stride);
                    let (depth, accumulate) = (chunk_panels * PANEL, chunk > 0);
                    multiply::<F, S>(s, inner, right, depth, to, PANEL, rows, accumulate);
                }
            }
            for row in 0..rows {
                let at = (first + row) * call.channels;
                let from = call.x.as_ptr().add(at);
                let read = rows::read_row(s, from, call.channels, spare.at(0), call.epsilon);
                let gradient = RowGradient {
                    of_output: dnormal.at(row * PANEL),
                    stride,
                    of_residual: self.grad.as_ptr().add(at),
                    to: self.dx.at(at),
                    dgamma,
                    dbeta,
                };
                let gamma = call.affine().gamma;
                rows::normalise_backward(s, read, gamma, call.channels, gradient);
            }
        }
    }
}

/// The place of hidden units before GELU.
#[derive(Clone, Copy)]
enum Units<S: Simd> {
    /// With their bias, as the forward pass kept them.
    Kept(*const f32),
    /// Without their bias, which is given for two registers of columns.
    Again(*const f32, [S::V; 2]),
}

impl<S: Simd> Units<S> {
    /// Two registers of a row.
    ///
    /// # Safety
    /// They must be there.
    #[inline(always)]
    unsafe fn load<F: Format>(self, s: S, at: usize) -> [S::V; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Kept(kept) => F::load_row(s, kept.add(at / F::PER_WORD)),
                Self::Again(again, bias) => {
                    let [h0, h1] = F32::load_row(s, again.add(at));
                    [s.add(h0, bias[0]), s.add(h1, bias[1])]
                }
            }
        }
    }
}

/// GELU of two registers, and its gradient for that of its output at `outer`.
///
/// # Safety
/// `outer` must have two registers.
#[inline(always)]
unsafe fn through_gelu<S: Simd>(
    s: S,
    activation: impl Activation,
    [h0, h1]: [S::V; 2],
    outer: *const f32,
) -> [[S::V; 2]; 2] {
    // SAFETY: the caller's promise.
    let [d0, d1] = unsafe { F32::load_row(s, outer) };
    let (value0, slope0) = activation.value_and_slope(s, h0);
    let (value1, slope1) = activation.value_and_slope(s, h1);
    [[value0, value1], [s.mul(d0, slope0), s.mul(d1, slope1)]]
}

#[inline(always)]
fn add_to<S: Simd>(s: S, sums: &mut [S::V; 2], terms: [S::V; 2]) {
    *sums = [s.add(sums[0], terms[0]), s.add(sums[1], terms[1])];
}

/// Adds the sums of the 32 columns of `rows` rows to `to`.
///
/// # Safety
/// All of it must be there.
#[inline(always)]
unsafe fn add_columns<S: Simd>(s: S, from: *const f32, rows: usize, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        for lane in (0..PANEL).step_by(S::LANES) {
            let mut sum = s.load(to.add(lane));
            for row in 0..rows {
                sum = s.add(sum, s.load(from.add(row * PANEL + lane)));
            }
            s.store(to.add(lane), sum);
        }
    }
}

/// One panel of a group's part of the weight gradients: first those of `dw1`, then those of `dw2`.
///
/// They are summed in pieces of 32 by 32: rows of a whole matrix lie a multiple of a page apart, and would
/// push each other out of the caches.
#[derive(Clone, Copy)]
struct WeightJob<'a, F> {
    tile_job: TileJob<'a, F>,
    panel: usize,
    /// Rows of the group.
    height: usize,
    first: bool,
    last: bool,
    partial: Option<Floats>,
    dw1: Floats,
    dw2: Floats,
}

impl<F: Format> Kernel for WeightJob<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let WeightJob { tile_job: job, panel, height, first, last, partial, dw1, dw2 } = self;
        let call = job.call;
        let (width, depth) = (padded(call.channels), padded(call.hidden));
        let stride = job.group_rows * F::ROW;
        let hidden_panels = depth / PANEL;
        let mut own = Scratch::take(PANEL * PANEL);
        let own = own.floats();
        // SAFETY: the group's matrices are complete; this job's panel of a gradient is nobody
        // else's.
        unsafe {
            for other in 0..width / PANEL {
                let (left, right, to, to_row, rows);
                if panel < hidden_panels {
                    left = columns::<F, S>(s, job.normal.at(other * stride));
                    right = job.inner.at(panel * stride);
                    to = dw1.at(other * PANEL * depth + panel * PANEL);
                    to_row = depth;
                    rows = (call.channels - other * PANEL).min(PANEL);
                } else {
                    let panel = panel - hidden_panels;
                    left = columns::<F, S>(s, job.active.at(panel * stride));
                    right = job.outer.at(other * stride);
                    to = dw2.at(panel * PANEL * width + other * PANEL);
                    to_row = width;
                    rows = (call.hidden - panel * PANEL).min(PANEL);
                }
                let piece = match partial {
                    Some(partial) => partial.at((panel * width + other * PANEL) * PANEL),
                    None => own.at(0),
                };
                multiply::<F, S>(s, left, right, height, piece, PANEL, rows, !first);
                if last {
                    for row in 0..rows {
                        let (from, to) = (piece.add(row * PANEL), to.add(row * to_row));
                        for lane in (0..PANEL).step_by(S::LANES) {
                            s.store(to.add(lane), s.load(from.add(lane)));
                        }
                    }
                }
            }
        }
    }
}
