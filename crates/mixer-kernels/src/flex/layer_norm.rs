//! Layer normalisation by itself.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use rayon::prelude::*;

use super::buffer::{Floats, Output, Scratch};
use super::contiguous::{PIECE, from_vec, values};
use super::format::{PANEL, padded};
use super::panel::padded_vector;
use super::rows::{self, Affine, RowGradient};
use super::slots::sum_slots;
use crate::ops::norm::{Norm, NormBackward, NormGradients};
use crate::simd::{Kernel, Simd, dispatch};

/// Rows of one piece, for rows of `channels` elements.
fn rows_per_piece(channels: usize) -> usize {
    (PIECE / channels).max(1)
}

pub(super) fn layer_norm(norm: &Norm<Flex>, epsilon: f32) -> FlexTensor {
    let (x, gamma) = (norm.x.to_contiguous(), norm.gamma.to_contiguous());
    let beta = norm.beta.to_contiguous();
    let (x_values, channels) = (values(&x), values(&gamma).len());
    let (mut gamma, mut beta) = (padded_vector(values(&gamma)), padded_vector(values(&beta)));
    let mut out = Output::new(x_values.len());
    let job = LayerNormJob {
        x: &[],
        first: 0,
        channels,
        gamma: gamma.floats(),
        beta: beta.floats(),
        epsilon,
        to: out.floats(),
    };
    let piece = rows_per_piece(channels) * channels;
    x_values.par_chunks(piece).enumerate().for_each(|(i, x)| {
        dispatch(LayerNormJob { x, first: i * piece, ..job });
    });
    out.tensor(x.shape())
}

#[derive(Clone, Copy)]
struct LayerNormJob<'a> {
    x: &'a [f32],
    first: usize,
    channels: usize,
    gamma: Floats,
    beta: Floats,
    epsilon: f32,
    to: Floats,
}

impl Kernel for LayerNormJob<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = padded(self.channels);
        let (mut spare, mut normal) = (Scratch::take(width), Scratch::take(width));
        let (spare, normal) = (spare.floats(), normal.floats());
        for (i, row) in self.x.chunks_exact(self.channels).enumerate() {
            // SAFETY: the piece's rows are nobody else's, and there is room for one in `normal`.
            unsafe {
                let affine = Affine { gamma: self.gamma.at(0), beta: self.beta.at(0) };
                let row = rows::read_row(s, row.as_ptr(), self.channels, spare.at(0), self.epsilon);
                rows::normalise(s, row, affine, self.channels, normal.at(0), PANEL);
                let to = self.to.at(self.first + i * self.channels);
                std::ptr::copy_nonoverlapping(normal.at(0), to, self.channels);
            }
        }
    }
}

pub(super) fn layer_norm_backward(norm: &NormBackward<Flex>, epsilon: f32) -> NormGradients<Flex> {
    let (x, gamma) = (norm.x.to_contiguous(), norm.gamma.to_contiguous());
    let grad = norm.grad.to_contiguous();
    let (x_values, grad_values) = (values(&x), values(&grad));
    let channels = values(&gamma).len();
    let width = padded(channels);
    let mut gamma = padded_vector(values(&gamma));
    let piece = rows_per_piece(channels) * channels;
    let pieces = x_values.len().div_ceil(piece);
    let mut dx = Output::new(x_values.len());
    let mut sums = Scratch::zeroed(pieces * 2 * width);
    let zeros = vec![0.0; channels];
    let job = LayerNormBackwardJob {
        x: &[],
        grad: &[],
        zeros: &zeros,
        piece: 0,
        first: 0,
        gamma: gamma.floats(),
        epsilon,
        dx: dx.floats(),
        sums: sums.floats(),
    };
    x_values.par_chunks(piece).zip(grad_values.par_chunks(piece)).enumerate().for_each(
        |(i, (x, grad))| {
            dispatch(LayerNormBackwardJob { x, grad, piece: i, first: i * piece, ..job });
        },
    );
    // SAFETY: every piece has a slot.
    let total = unsafe { sum_slots(sums.floats(), pieces, 2 * width) };
    let vector = |first: usize| {
        from_vec(total[first..first + channels].to_vec(), Shape::from(vec![channels]))
    };
    NormGradients { x: dx.tensor(x.shape()), gamma: vector(0), beta: vector(width) }
}

#[derive(Clone, Copy)]
struct LayerNormBackwardJob<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    /// A row of zeros: there is no residual here.
    zeros: &'a [f32],
    piece: usize,
    first: usize,
    gamma: Floats,
    epsilon: f32,
    dx: Floats,
    sums: Floats,
}

impl Kernel for LayerNormBackwardJob<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.zeros.len();
        let width = padded(channels);
        let (mut spare, mut dy) = (Scratch::take(width), Scratch::take(width));
        let (spare, dy) = (spare.floats(), dy.floats());
        let grads = self.grad.chunks_exact(channels);
        for (i, (row, grad)) in self.x.chunks_exact(channels).zip(grads).enumerate() {
            // SAFETY: the piece's rows and its slot are nobody else's.
            unsafe {
                let row = rows::read_row(s, row.as_ptr(), channels, spare.at(0), self.epsilon);
                rows::to_panels(s, grad.as_ptr(), channels, 1.0, dy.at(0), PANEL);
                let sums = self.sums.at(self.piece * 2 * width);
                let gradient = RowGradient {
                    of_output: dy.at(0),
                    stride: PANEL,
                    of_residual: self.zeros.as_ptr(),
                    to: self.dx.at(self.first + i * channels),
                    dgamma: sums,
                    dbeta: sums.add(width),
                };
                rows::normalise_backward(s, row, self.gamma.at(0), channels, gradient);
            }
        }
    }
}
