//! The bodies of every operation over Burn's own primitives, for a backend that has nothing better.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, Shape};

use super::MixerOps;
use super::branch::{Branch, BranchGradients, Hidden, Keeping};
use super::dense::{Dense, DenseBackward, DenseGradients, DenseParameters};
use super::norm::{Norm, NormBackward, NormGradients};
use super::state::{AdamwState, SgdState};
use crate::spec::{
    AdamwConstants, AdamwStep, Gelu, MixingSpec, Precision, SgdStep, TANH_CUBIC, TANH_SLOPE,
};

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

/// Of the type of `x`, computed in f32.
pub(crate) fn layer_norm<B: Backend>(norm: Norm<B>, epsilon: f64) -> FloatTensor<B> {
    let Norm { x, gamma, beta } = norm;
    let (shape, dtype) = (x.shape(), x.dtype());
    let (normal, _) = normalise::<B>(widened::<B>(x), epsilon);
    let y = B::float_mul(normal, broadcast::<B>(gamma, &shape));
    as_dtype::<B>(B::float_add(y, broadcast::<B>(beta, &shape)), dtype)
}

pub(crate) fn layer_norm_backward<B: Backend>(
    norm: NormBackward<B>,
    epsilon: f64,
) -> NormGradients<B> {
    let NormBackward { x, gamma, grad } = norm;
    let (shape, dtype) = (x.shape(), x.dtype());
    let last = shape.num_dims() - 1;
    let grad = widened::<B>(grad);
    let (normal, inverse_deviation) = normalise::<B>(widened::<B>(x), epsilon);
    let dgamma = sum_rows::<B>(B::float_mul(grad.clone(), normal.clone()));
    let dbeta = sum_rows::<B>(grad.clone());
    let h = B::float_mul(grad, broadcast::<B>(gamma, &shape));
    let mean_h = B::float_mean_dim(h.clone(), last);
    let mean_hn = B::float_mean_dim(B::float_mul(h.clone(), normal.clone()), last);
    let centred = B::float_sub(B::float_sub(h, mean_h), B::float_mul(normal, mean_hn));
    let dx = as_dtype::<B>(B::float_mul(centred, inverse_deviation), dtype);
    NormGradients { x: dx, gamma: dgamma, beta: dbeta }
}

pub(crate) fn mean_layer_norm<B: MixerOps>(norm: Norm<B>, epsilon: f64) -> FloatTensor<B> {
    let shape = norm.x.shape();
    let norm = Norm { x: widened::<B>(norm.x), ..norm };
    let mean = B::float_mean_dim(B::fused_layer_norm(norm, epsilon), 1);
    B::float_reshape(mean, Shape::from(vec![shape[0], shape[2]]))
}

pub(crate) fn mean_layer_norm_backward<B: MixerOps>(
    norm: NormBackward<B>,
    epsilon: f64,
) -> NormGradients<B> {
    let NormBackward { x, gamma, grad } = norm;
    let (shape, dtype) = (x.shape(), x.dtype());
    let share = B::float_mul_scalar(grad, (1.0 / shape[1] as f64).into());
    let share = B::float_reshape(share, Shape::from(vec![shape[0], 1, shape[2]]));
    let share = B::float_expand(share, shape);
    let norm = NormBackward { x: widened::<B>(x), gamma, grad: share };
    let gradients = B::fused_layer_norm_backward(norm, epsilon);
    NormGradients { x: as_dtype::<B>(gradients.x, dtype), ..gradients }
}

/// Of the type that products are rounded to: the next operations keep it.
pub(crate) fn dense<B: Backend>(layer: Dense<B>, precision: Precision) -> FloatTensor<B> {
    let Dense { x, weight, bias } = layer;
    let operand = operand_type::<B>(&x, precision);
    if operand == x.dtype() {
        return B::linear(x, weight, Some(bias));
    }
    let y = B::float_add(product::<B>(x, weight, operand), reshape::<B>(bias, &[1, 0]));
    as_dtype::<B>(y, operand)
}

pub(crate) fn dense_backward<B: Backend>(
    layer: DenseBackward<B>,
    precision: Precision,
) -> DenseGradients<B> {
    let DenseBackward { x, weight, grad } = layer;
    let operand = operand_type::<B>(&x, precision);
    let dx = if operand == DType::F32 {
        B::linear_x_backward(weight, grad.clone())
    } else {
        product::<B>(grad.clone(), B::float_swap_dims(weight, 0, 1), operand)
    };
    DenseGradients { x: dx, parameters: dense_parameters_backward::<B>(x, grad, precision) }
}

pub(crate) fn dense_parameters_backward<B: Backend>(
    x: FloatTensor<B>,
    grad: FloatTensor<B>,
    precision: Precision,
) -> DenseParameters<B> {
    let operand = operand_type::<B>(&x, precision);
    if operand == x.dtype() {
        let weight = B::linear_weight_backward(x, grad.clone());
        return DenseParameters { weight, bias: B::linear_bias_backward(grad) };
    }
    let weight = product::<B>(B::float_swap_dims(x, 0, 1), grad.clone(), operand);
    DenseParameters { weight, bias: sum_rows::<B>(widened::<B>(grad)) }
}

pub(crate) fn mix_tokens<B: MixerOps>(branch: Branch<B>, spec: MixingSpec) -> FloatTensor<B> {
    let Branch { x, gamma, beta, weight1, bias1, weight2, bias2, branch_scale } = branch;
    let (dtype, operand) = (x.dtype(), operand_type::<B>(&x, spec.precision));
    let x = widened::<B>(x);
    let normal = normalised::<B>(&x, gamma, beta, spec);
    let hidden = B::float_add(
        product::<B>(reshape::<B>(weight1, &[1, 0, 0]), normal, operand),
        reshape::<B>(bias1, &[1, 0, 1]),
    );
    let active = gelu::<B>(hidden, spec.gelu);
    let branch = B::float_add(
        product::<B>(reshape::<B>(weight2, &[1, 0, 0]), active, operand),
        reshape::<B>(bias2, &[1, 0, 1]),
    );
    as_dtype::<B>(B::float_add(x, scaled::<B>(branch, branch_scale)), dtype)
}

pub(crate) fn mix_tokens_backward<B: MixerOps>(
    branch: Branch<B>,
    grad: FloatTensor<B>,
    spec: MixingSpec,
) -> BranchGradients<B> {
    let Branch { x, gamma, beta, weight1, bias1, weight2, bias2, branch_scale } = branch;
    let (weight1_shape, weight2_shape) = (weight1.shape(), weight2.shape());
    let (bias1_shape, bias2_shape) = (bias1.shape(), bias2.shape());
    let (dtype, operand) = (x.dtype(), operand_type::<B>(&x, spec.precision));
    let (x, grad) = (widened::<B>(x), widened::<B>(grad));
    let normal = normalised::<B>(&x, gamma.clone(), beta, spec);
    let normal = as_dtype::<B>(normal, operand);
    let weight1 = as_dtype::<B>(reshape::<B>(weight1, &[1, 0, 0]), operand);
    let weight2 = as_dtype::<B>(reshape::<B>(weight2, &[1, 0, 0]), operand);
    let hidden = B::float_add(
        product::<B>(weight1.clone(), normal.clone(), operand),
        reshape::<B>(bias1, &[1, 0, 1]),
    );
    let active = gelu::<B>(hidden.clone(), spec.gelu);
    let outer = scaled::<B>(grad.clone(), branch_scale);
    let dbias2 = sum_to::<B>(outer.clone(), &[0, 2], &bias2_shape);
    let outer = as_dtype::<B>(outer, operand);
    let dweight2 = product::<B>(outer.clone(), B::float_swap_dims(active, 1, 2), operand);
    let dweight2 = sum_to::<B>(dweight2, &[0], &weight2_shape);
    let inner = product::<B>(B::float_swap_dims(weight2, 1, 2), outer, operand);
    let inner = gelu_backward::<B>(hidden, inner, spec.gelu);
    let dbias1 = sum_to::<B>(inner.clone(), &[0, 2], &bias1_shape);
    let inner = as_dtype::<B>(inner, operand);
    let dweight1 = product::<B>(inner.clone(), B::float_swap_dims(normal, 1, 2), operand);
    let dweight1 = sum_to::<B>(dweight1, &[0], &weight1_shape);
    let dnormal = product::<B>(B::float_swap_dims(weight1, 1, 2), inner, operand);
    let norm = NormBackward { x, gamma, grad: dnormal };
    let norm = B::fused_layer_norm_backward(norm, spec.epsilon);
    BranchGradients {
        x: as_dtype::<B>(B::float_add(norm.x, grad), dtype),
        gamma: norm.gamma,
        beta: norm.beta,
        weight1: dweight1,
        bias1: dbias1,
        weight2: dweight2,
        bias2: dbias2,
    }
}

/// The output and the hidden units before GELU, `[B S, D_C]`, in the type of the operands.
pub(crate) fn mix_channels<B: MixerOps>(branch: Branch<B>, spec: MixingSpec) -> Keeping<B> {
    let Branch { x, gamma, beta, weight1, bias1, weight2, bias2, branch_scale } = branch;
    let (shape, dtype, operand) = (x.shape(), x.dtype(), operand_type::<B>(&x, spec.precision));
    let x = widened::<B>(x);
    let normal = flat::<B>(normalised::<B>(&x, gamma, beta, spec));
    let hidden = B::float_add(product::<B>(normal, weight1, operand), reshape::<B>(bias1, &[1, 0]));
    let branch = B::float_add(
        product::<B>(gelu::<B>(hidden.clone(), spec.gelu), weight2, operand),
        reshape::<B>(bias2, &[1, 0]),
    );
    let branch = scaled::<B>(B::float_reshape(branch, shape), branch_scale);
    Keeping {
        y: as_dtype::<B>(B::float_add(x, branch), dtype),
        hidden: as_dtype::<B>(hidden, operand),
    }
}

pub(crate) fn mix_channels_backward<B: MixerOps>(
    branch: Branch<B>,
    hidden: Hidden<B>,
    grad: FloatTensor<B>,
    spec: MixingSpec,
) -> BranchGradients<B> {
    let Branch { x, gamma, beta, weight1, bias1, weight2, bias2, branch_scale } = branch;
    let (bias1_shape, bias2_shape) = (bias1.shape(), bias2.shape());
    let (shape, dtype, operand) = (x.shape(), x.dtype(), operand_type::<B>(&x, spec.precision));
    let (x, grad) = (widened::<B>(x), widened::<B>(grad));
    let normal = flat::<B>(normalised::<B>(&x, gamma.clone(), beta, spec));
    let normal = as_dtype::<B>(normal, operand);
    let weight1 = as_dtype::<B>(weight1, operand);
    let hidden = match hidden {
        Hidden::Kept(hidden) => widened::<B>(hidden),
        Hidden::Again => B::float_add(
            product::<B>(normal.clone(), weight1.clone(), operand),
            reshape::<B>(bias1, &[1, 0]),
        ),
    };
    let active = gelu::<B>(hidden.clone(), spec.gelu);
    let outer = flat::<B>(scaled::<B>(grad.clone(), branch_scale));
    let dbias2 = sum_to::<B>(outer.clone(), &[0], &bias2_shape);
    let outer = as_dtype::<B>(outer, operand);
    let dweight2 = product::<B>(B::float_swap_dims(active, 0, 1), outer.clone(), operand);
    let inner = product::<B>(outer, B::float_swap_dims(weight2, 0, 1), operand);
    let inner = gelu_backward::<B>(hidden, inner, spec.gelu);
    let dbias1 = sum_to::<B>(inner.clone(), &[0], &bias1_shape);
    let inner = as_dtype::<B>(inner, operand);
    let dweight1 = product::<B>(B::float_swap_dims(normal, 0, 1), inner.clone(), operand);
    let dnormal = product::<B>(inner, B::float_swap_dims(weight1, 0, 1), operand);
    let dnormal = B::float_reshape(dnormal, shape);
    let norm = NormBackward { x, gamma, grad: dnormal };
    let norm = B::fused_layer_norm_backward(norm, spec.epsilon);
    BranchGradients {
        x: as_dtype::<B>(B::float_add(norm.x, grad), dtype),
        gamma: norm.gamma,
        beta: norm.beta,
        weight1: dweight1,
        bias1: dbias1,
        weight2: dweight2,
        bias2: dbias2,
    }
}

/// The type that the operands of products are rounded to. Where the device has no arithmetic in the type that was
/// asked for, they are not.
fn operand_type<B: Backend>(x: &FloatTensor<B>, precision: Precision) -> DType {
    let dtype = precision.dtype();
    let is_rounded = precision != Precision::F32 && B::supports_dtype(&x.device(), dtype);
    if is_rounded { dtype } else { wide_type(x.dtype()) }
}

/// The type of sums of such values.
fn wide_type(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        wide => wide,
    }
}

/// In another type.
fn as_dtype<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype { x } else { B::float_cast(x, dtype.into()) }
}

/// In the type of sums.
fn widened<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = wide_type(x.dtype());
    as_dtype::<B>(x, dtype)
}

/// `a · b` of operands rounded to a type, in the type of sums.
fn product<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>, operand: DType) -> FloatTensor<B> {
    let [a, b] = [a, b].map(|x| as_dtype::<B>(x, operand));
    widened::<B>(B::float_matmul(a, b))
}

pub(crate) fn dot<B: Backend>(x: FloatTensor<B>, y: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum(B::float_mul(x, y))
}

pub(crate) fn adamw_update<B: Backend>(
    state: AdamwState<B>,
    gradient: FloatTensor<B>,
    step: AdamwStep,
) -> AdamwState<B> {
    let AdamwState { parameter, first, second } = state;
    let (kept_in, first) = (first.dtype(), cast::<B>(first, parameter.dtype()));
    let AdamwConstants { gradient_scale, decay, beta1, beta2, rest1, rest2, .. } = step.constants();
    let AdamwConstants { correct1, correct2, epsilon, learning_rate, .. } = step.constants();
    let scale = |x: FloatTensor<B>, factor: f64| B::float_mul_scalar(x, factor.into());
    let gradient = if gradient_scale == 1.0 { gradient } else { scale(gradient, gradient_scale) };
    let square = B::float_mul(gradient.clone(), gradient.clone());
    let first = B::float_add(scale(first, beta1), scale(gradient, rest1));
    let second = B::float_add(scale(second, beta2), scale(square, rest2));
    let deviation = B::float_sqrt(scale(second.clone(), correct2));
    let deviation = B::float_add_scalar(deviation, epsilon.into());
    let change = B::float_div(scale(first.clone(), correct1), deviation);
    let decayed = if decay == 1.0 { parameter } else { scale(parameter, decay) };
    let parameter = B::float_sub(decayed, scale(change, learning_rate));
    AdamwState { parameter, first: cast::<B>(first, kept_in), second }
}

pub(crate) fn sgd_update<B: Backend>(
    state: SgdState<B>,
    gradient: FloatTensor<B>,
    step: SgdStep,
) -> SgdState<B> {
    let SgdState { parameter, velocity } = state;
    let (kept_in, velocity) = (velocity.dtype(), cast::<B>(velocity, parameter.dtype()));
    let scale = |x: FloatTensor<B>, factor: f64| B::float_mul_scalar(x, factor.into());
    let velocity =
        B::float_add(scale(velocity, step.momentum), scale(gradient, step.gradient_scale));
    let decay = step.decay();
    let change = scale(velocity.clone(), step.learning_rate);
    let parameter = B::float_sub(scale(parameter, decay), change);
    SgdState { parameter, velocity: cast::<B>(velocity, kept_in) }
}

/// The same values in a type, which they may have already.
fn cast<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype { x } else { B::float_cast(x, dtype.into()) }
}

pub(crate) fn average_update<B: Backend>(
    average: FloatTensor<B>,
    parameter: FloatTensor<B>,
    decay: f64,
) -> FloatTensor<B> {
    let change = B::float_sub(parameter, average.clone());
    B::float_add(average, B::float_mul_scalar(change, (1.0 - decay).into()))
}

fn gelu<B: MixerOps>(x: FloatTensor<B>, form: Gelu) -> FloatTensor<B> {
    match form {
        Gelu::Erf => B::gelu_erf(x),
        Gelu::Tanh => B::gelu_tanh(x),
    }
}

fn gelu_backward<B: MixerOps>(
    x: FloatTensor<B>,
    grad: FloatTensor<B>,
    form: Gelu,
) -> FloatTensor<B> {
    match form {
        Gelu::Erf => B::gelu_erf_backward(x, grad),
        Gelu::Tanh => B::gelu_tanh_backward(x, grad),
    }
}

/// The normalised input of a branch.
fn normalised<B: MixerOps>(
    x: &FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    spec: MixingSpec,
) -> FloatTensor<B> {
    B::fused_layer_norm(Norm { x: x.clone(), gamma, beta }, spec.epsilon)
}

/// Reshapes to `dims`, where each 0 stands for the tensor's next dimension.
fn reshape<B: Backend>(x: FloatTensor<B>, dims: &[usize]) -> FloatTensor<B> {
    let shape = x.shape();
    let mut own = 0..shape.num_dims();
    let dims: Vec<usize> = dims
        .iter()
        .map(|&dim| if dim == 0 { own.next().map_or(1, |i| shape[i]) } else { dim })
        .collect();
    B::float_reshape(x, Shape::from(dims))
}

/// `[B, S, C]` as rows of channels.
fn flat<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    B::float_reshape(x, Shape::from(vec![shape[0] * shape[1], shape[2]]))
}

/// Multiplies each example of a branch by its scale.
fn scaled<B: Backend>(branch: FloatTensor<B>, scale: FloatTensor<B>) -> FloatTensor<B> {
    B::float_mul(branch, reshape::<B>(scale, &[0, 1, 1]))
}

/// Sums over `dims` and gives the result its shape.
fn sum_to<B: Backend>(x: FloatTensor<B>, dims: &[usize], shape: &Shape) -> FloatTensor<B> {
    let sum = dims.iter().fold(x, |x, &dim| B::float_sum_dim(x, dim));
    B::float_reshape(sum, shape.clone())
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
