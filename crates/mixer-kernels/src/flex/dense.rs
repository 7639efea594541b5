//! A dense layer: Burn's products, and its bias in one pass.

use burn::backend::flex::FlexTensor;
use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use rayon::prelude::*;

use super::contiguous::{PIECE, from_vec, owned, values};
use crate::ops::dense::{Dense, DenseBackward, DenseGradients, DenseParameters};
use crate::simd::{Kernel, Simd, dispatch};

/// Columns that one job sums: two cache lines of every row.
const COLUMNS: usize = 32;

/// `x W + b` in f32.
pub(super) fn dense(layer: Dense<Flex>) -> FlexTensor {
    let mut y = owned::<f32>(Flex::float_matmul(layer.x, layer.weight));
    let bias = layer.bias.to_contiguous();
    let bias = values(&bias);
    let piece = (PIECE / bias.len().max(1)).max(1) * bias.len();
    if piece > 0 {
        let pieces = y.storage_mut::<f32>().par_chunks_mut(piece);
        pieces.for_each(|rows| dispatch(AddRowJob { rows, row: bias }));
    }
    y
}

/// The gradients of [`dense`].
pub(super) fn dense_backward(layer: DenseBackward<Flex>) -> DenseGradients<Flex> {
    let x = Flex::linear_x_backward(layer.weight, layer.grad.clone());
    DenseGradients { x, parameters: parameters_backward(layer.x, layer.grad) }
}

/// The gradients of the weight and the bias of [`dense`].
pub(super) fn parameters_backward(x: FlexTensor, grad: FlexTensor) -> DenseParameters<Flex> {
    let grad = grad.to_contiguous();
    let columns = grad.shape()[1];
    let mut bias = vec![0.0f32; columns];
    let sums = bias.par_chunks_mut(COLUMNS).enumerate();
    sums.for_each(|(i, sums)| {
        dispatch(SumRowsJob { rows: values(&grad), columns, first: i * COLUMNS, sums });
    });
    let bias = from_vec(bias, Shape::from(vec![columns]));
    DenseParameters { weight: Flex::linear_weight_backward(x, grad), bias }
}

/// Adds a row to each of many.
struct AddRowJob<'a> {
    rows: &'a mut [f32],
    row: &'a [f32],
}

impl Kernel for AddRowJob<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for row in self.rows.chunks_exact_mut(self.row.len()) {
            for (to, x) in row.iter_mut().zip(self.row) {
                *to += x;
            }
        }
    }
}

/// Adds some columns of rows up, from the first row to the last.
struct SumRowsJob<'a> {
    rows: &'a [f32],
    columns: usize,
    first: usize,
    sums: &'a mut [f32],
}

impl Kernel for SumRowsJob<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let columns = self.first..self.first + self.sums.len();
        for row in self.rows.chunks_exact(self.columns) {
            for (sum, x) in self.sums.iter_mut().zip(&row[columns.clone()]) {
                *sum += x;
            }
        }
    }
}
