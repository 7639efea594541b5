//! Loops for Burn's CPU backend: one pass per operation over all cores.
//!
//! Work is cut into pieces whose size depends on the shape alone, and partial sums are added in the
//! order of the pieces, so that results are the same bits for any number of threads.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, Shape, TensorData};
use rayon::prelude::*;

use crate::default;
use crate::ops::MixerOps;
use crate::scalar;

/// Elements per piece: 64 KiB of f32, so that a piece stays in the second-level cache.
const PIECE: usize = 16 * 1024;

impl MixerOps for Flex {
    fn gelu_erf(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => map(x, scalar::gelu_erf),
            _ => default::gelu_erf::<Self>(x),
        }
    }

    fn gelu_erf_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => zip(&x, grad, |x, grad| grad * scalar::gelu_erf_derivative(x)),
            _ => default::gelu_erf_backward::<Self>(x, grad),
        }
    }

    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => map(x, scalar::gelu_tanh),
            _ => default::gelu_tanh::<Self>(x),
        }
    }

    fn gelu_tanh_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => zip(&x, grad, |x, grad| grad * scalar::gelu_tanh_derivative(x)),
            _ => default::gelu_tanh_backward::<Self>(x, grad),
        }
    }

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => layer_norm(x, &gamma, &beta, epsilon as f32),
            _ => default::layer_norm::<Self>(x, gamma, beta, epsilon),
        }
    }

    fn fused_layer_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        match x.dtype() {
            DType::F32 => layer_norm_backward(&x, &gamma, grad, epsilon as f32),
            _ => default::layer_norm_backward::<Self>(x, gamma, grad, epsilon),
        }
    }
}

/// A tensor that owns exactly its elements, in order, so that it may be written to.
fn owned(tensor: FlexTensor) -> FlexTensor {
    let tensor = tensor.to_contiguous();
    let elements = tensor.layout().num_elements();
    if tensor.storage::<f32>().len() == elements {
        return tensor;
    }
    // A contiguous view into a larger buffer.
    from_vec(values(&tensor).to_vec(), tensor.shape())
}

/// The elements of a contiguous tensor.
fn values(tensor: &FlexTensor) -> &[f32] {
    let (start, end) = tensor
        .layout()
        .contiguous_offsets()
        .unwrap_or_else(|| unreachable!("the tensor was made contiguous"));
    &tensor.storage::<f32>()[start..end]
}

fn from_vec(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Applies `f` to every element, in place where nobody else holds the tensor.
fn map(x: FlexTensor, f: impl Fn(f32) -> f32 + Sync) -> FlexTensor {
    let mut x = owned(x);
    if let Some(values) = x.try_storage_mut::<f32>() {
        values.par_chunks_mut(PIECE).for_each(|piece| {
            for value in piece {
                *value = f(*value);
            }
        });
        return x;
    }
    let source = values(&x);
    let mut out = vec![0.0; source.len()];
    out.par_chunks_mut(PIECE).zip(source.par_chunks(PIECE)).for_each(|(out, source)| {
        for (out, &value) in out.iter_mut().zip(source) {
            *out = f(value);
        }
    });
    from_vec(out, x.shape())
}

/// `f(x, grad)` for every pair of elements, into `grad`'s memory.
fn zip(x: &FlexTensor, grad: FlexTensor, f: impl Fn(f32, f32) -> f32 + Sync) -> FlexTensor {
    let x = x.to_contiguous();
    let mut grad = owned(grad);
    grad.storage_mut::<f32>().par_chunks_mut(PIECE).zip(values(&x).par_chunks(PIECE)).for_each(
        |(grad, x)| {
            for (grad, &x) in grad.iter_mut().zip(x) {
                *grad = f(x, *grad);
            }
        },
    );
    grad
}

/// Rows of one piece, for rows of `channels` elements.
fn rows_per_piece(channels: usize) -> usize {
    (PIECE / channels).max(1)
}

/// Eight partial sums, so that the compiler may use vector registers; the order of additions is
/// fixed by the length alone.
#[inline(always)]
fn sum(terms: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0.0f32; 8];
    for (i, term) in terms.enumerate() {
        lanes[i % 8] += term;
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Sum of `f(a, b)` over two rows, in eight lanes.
#[inline(always)]
fn sum_zip(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..8 {
            lanes[i] += f(a[i], b[i]);
        }
    }
    let rest = sum(a_rest.iter().zip(b_rest).map(|(&a, &b)| f(a, b)));
    sum(lanes.into_iter()) + rest
}

/// Mean and `1 / √(var + epsilon)` of one row.
#[inline(always)]
fn statistics(row: &[f32], epsilon: f32) -> (f32, f32) {
    let scale = 1.0 / row.len() as f32;
    let mean = sum_zip(row, row, |x, _| x) * scale;
    let variance = sum_zip(row, row, |x, _| (x - mean) * (x - mean)) * scale;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

fn layer_norm(x: FlexTensor, gamma: &FlexTensor, beta: &FlexTensor, epsilon: f32) -> FlexTensor {
    let (x, gamma, beta) = (x.to_contiguous(), gamma.to_contiguous(), beta.to_contiguous());
    let (source, gamma, beta) = (values(&x), values(&gamma), values(&beta));
    let channels = gamma.len();
    let piece = rows_per_piece(channels) * channels;
    let mut out = vec![0.0; source.len()];
    out.par_chunks_mut(piece).zip(source.par_chunks(piece)).for_each(|(out, source)| {
        for (out, row) in out.chunks_exact_mut(channels).zip(source.chunks_exact(channels)) {
            let (mean, inverse_deviation) = statistics(row, epsilon);
            for (((out, &x), &gamma), &beta) in out.iter_mut().zip(row).zip(gamma).zip(beta) {
                *out = (x - mean) * inverse_deviation * gamma + beta;
            }
        }
    });
    from_vec(out, x.shape())
}

fn layer_norm_backward(
    x: &FlexTensor,
    gamma: &FlexTensor,
    grad: FlexTensor,
    epsilon: f32,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let (x, gamma) = (x.to_contiguous(), gamma.to_contiguous());
    let (source, gamma) = (values(&x), values(&gamma));
    let channels = gamma.len();
    let piece = rows_per_piece(channels) * channels;
    let scale = 1.0 / channels as f32;
    let mut dx = owned(grad);
    let partial: Vec<(Vec<f32>, Vec<f32>)> = dx
        .storage_mut::<f32>()
        .par_chunks_mut(piece)
        .zip(source.par_chunks(piece))
        .map(|(grad, source)| {
            let mut dgamma = vec![0.0f32; channels];
            let mut dbeta = vec![0.0f32; channels];
            let mut normal = vec![0.0f32; channels];
            for (grad, row) in grad.chunks_exact_mut(channels).zip(source.chunks_exact(channels)) {
                let (mean, inverse_deviation) = statistics(row, epsilon);
                for (n, &x) in normal.iter_mut().zip(row) {
                    *n = (x - mean) * inverse_deviation;
                }
                for ((sum, &grad), &n) in dgamma.iter_mut().zip(&*grad).zip(&normal) {
                    *sum += grad * n;
                }
                for (sum, &grad) in dbeta.iter_mut().zip(&*grad) {
                    *sum += grad;
                }
                for (grad, &gamma) in grad.iter_mut().zip(gamma) {
                    *grad *= gamma;
                }
                let mean_h = sum_zip(grad, &normal, |h, _| h) * scale;
                let mean_hn = sum_zip(grad, &normal, |h, n| h * n) * scale;
                for (grad, &n) in grad.iter_mut().zip(&normal) {
                    *grad = (*grad - mean_h - n * mean_hn) * inverse_deviation;
                }
            }
            (dgamma, dbeta)
        })
        .collect();
    let mut dgamma = vec![0.0f32; channels];
    let mut dbeta = vec![0.0f32; channels];
    for (gammas, betas) in &partial {
        for (sum, &term) in dgamma.iter_mut().zip(gammas) {
            *sum += term;
        }
        for (sum, &term) in dbeta.iter_mut().zip(betas) {
            *sum += term;
        }
    }
    let shape = Shape::from(vec![channels]);
    (dx, from_vec(dgamma, shape.clone()), from_vec(dbeta, shape))
}
