//! Every operation over Burn's own primitives: what a backend runs that has nothing better.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

/// √(2/π), the slope of the tanh form at 0.
pub(crate) const TANH_SLOPE: f64 = 0.797_884_560_802_865_4;
/// The cubic coefficient of the tanh form.
pub(crate) const TANH_CUBIC: f64 = 0.044_715;

pub(crate) fn gelu_erf<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let cdf = normal_cdf::<B>(x.clone());
    B::float_mul(x, cdf)
}

pub(crate) fn gelu_erf_backward<B: Backend>(
    x: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let cdf = normal_cdf::<B>(x.clone());
    let square = B::float_mul(x.clone(), x.clone());
    let exp = B::float_exp(B::float_mul_scalar(square, (-0.5).into()));
    let pdf = B::float_mul_scalar(exp, (1.0 / (2.0 * PI).sqrt()).into());
    B::float_mul(grad, B::float_add(cdf, B::float_mul(x, pdf)))
}

pub(crate) fn gelu_tanh<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let tanh = B::float_tanh(tanh_argument::<B>(x.clone()));
    let gate = B::float_mul_scalar(B::float_add_scalar(tanh, 1.0.into()), 0.5.into());
    B::float_mul(x, gate)
}

pub(crate) fn gelu_tanh_backward<B: Backend>(
    x: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let t = B::float_tanh(tanh_argument::<B>(x.clone()));
    let square = B::float_mul(x.clone(), x.clone());
    let slope = B::float_mul_scalar(
        B::float_add_scalar(B::float_mul_scalar(square, (3.0 * TANH_CUBIC).into()), 1.0.into()),
        TANH_SLOPE.into(),
    );
    let sech2 = B::float_add_scalar(B::float_neg(B::float_mul(t.clone(), t.clone())), 1.0.into());
    let rest = B::float_mul(B::float_mul(x, sech2), slope);
    let twice = B::float_add(B::float_add_scalar(t, 1.0.into()), rest);
    B::float_mul(grad, B::float_mul_scalar(twice, 0.5.into()))
}

pub(crate) fn layer_norm<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let shape = x.shape();
    let (normal, _) = normalise::<B>(x, epsilon);
    let y = B::float_mul(normal, broadcast::<B>(gamma, &shape));
    B::float_add(y, broadcast::<B>(beta, &shape))
}

pub(crate) fn layer_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    grad: FloatTensor<B>,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let last = shape.num_dims() - 1;
    let (normal, inverse_deviation) = normalise::<B>(x, epsilon);
    let dgamma = sum_rows::<B>(B::float_mul(grad.clone(), normal.clone()));
    let dbeta = sum_rows::<B>(grad.clone());
    let h = B::float_mul(grad, broadcast::<B>(gamma, &shape));
    let mean_h = B::float_mean_dim(h.clone(), last);
    let mean_hn = B::float_mean_dim(B::float_mul(h.clone(), normal.clone()), last);
    let centred = B::float_sub(B::float_sub(h, mean_h), B::float_mul(normal, mean_hn));
    (B::float_mul(centred, inverse_deviation), dgamma, dbeta)
}

/// `Φ(x) = ½ (1 + erf(x / √2))`.
fn normal_cdf<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let erf = B::float_erf(B::float_mul_scalar(x, FRAC_1_SQRT_2.into()));
    B::float_mul_scalar(B::float_add_scalar(erf, 1.0.into()), 0.5.into())
}

/// `√(2/π) (x + 0.044715 x³)`.
fn tanh_argument<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let square = B::float_mul(x.clone(), x.clone());
    let factor = B::float_add_scalar(B::float_mul_scalar(square, TANH_CUBIC.into()), 1.0.into());
    B::float_mul_scalar(B::float_mul(x, factor), TANH_SLOPE.into())
}

/// The normalised input and `1 / √(var + epsilon)` (`[…, 1]`).
fn normalise<B: Backend>(x: FloatTensor<B>, epsilon: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let last = x.shape().num_dims() - 1;
    let mean = B::float_mean_dim(x.clone(), last);
    let centred = B::float_sub(x, mean);
    // NUMERICS: the two-pass variance; E[x²] − E[x]² cancels when the mean is large.
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), last);
    let inverse_deviation =
        B::float_recip(B::float_sqrt(B::float_add_scalar(variance, epsilon.into())));
    (B::float_mul(centred, inverse_deviation.clone()), inverse_deviation)
}

/// A `[C]` vector as `[1, …, C]`.
fn broadcast<B: Backend>(vector: FloatTensor<B>, like: &Shape) -> FloatTensor<B> {
    let mut dims = vec![1; like.num_dims()];
    if let Some(last) = dims.last_mut() {
        *last = vector.shape().num_elements();
    }
    B::float_reshape(vector, Shape::from(dims))
}

/// Sums `[…, C]` over everything but the last dimension.
fn sum_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let channels = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / channels;
    let flat = B::float_reshape(x, Shape::from(vec![rows, channels]));
    B::float_reshape(B::float_sum_dim(flat, 0), Shape::from(vec![channels]))
}
