//! Burn's CPU backend by hand: few passes over memory, vector instructions, all cores.
//!
//! Work is cut into pieces whose size depends on the shape alone, and partial sums are added in the
//! order of the pieces, so that results are the same bits for any number of threads.
//!
//! ```text
//! MixerOps for Flex
//!   ├─ channel, token     the two halves of a block, forwards and backwards
//!   │    ├─ panel         the layout inside, and products of matrices in it
//!   │    ├─ format        what its elements are stored as: f32 or bf16
//!   │    └─ rows          normalisation and copies between tensors and panels
//!   ├─ update             the optimizer's passes
//!   ├─ elementwise loops  GELU and LayerNorm by themselves
//!   └─ buffer             memory that is used again
//! ```

mod activation;
mod buffer;
mod channel;
mod format;
mod panel;
mod rows;
#[cfg(test)]
mod tests;
mod token;
mod update;

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, Shape, TensorData};
use rayon::prelude::*;

use self::activation::{Activation, Erf, Tanh};
use self::buffer::{Floats, Output, Scratch};
use self::format::{Bf16, F32};
use self::panel::padded_vector;
use self::rows::{Affine, RowGradient};
use crate::functions::gelu::Gelu;
use crate::functions::mixing::MixingSpec;
use crate::functions::update::{AdamwStep, SgdStep};
use crate::ops::MixerOps;
use crate::ops::default;
use crate::simd::{Kernel, Simd, dispatch, instruction_set};
use crate::spec::Precision;

/// Elements per piece: 64 KiB of f32, so that a piece stays in the second-level cache.
const PIECE: usize = 16 * 1024;

/// What a mixing operation reads.
struct Branch<'a> {
    /// Examples, tokens, channels.
    dims: [usize; 3],
    x: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    weight1: &'a [f32],
    bias1: &'a [f32],
    weight2: &'a [f32],
    bias2: &'a [f32],
    branch_scale: &'a [f32],
    gelu: Gelu,
    epsilon: f32,
}

/// What its backward pass gives.
struct BranchGradients {
    x: FlexTensor,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    weight1: FlexTensor,
    bias1: Vec<f32>,
    weight2: FlexTensor,
    bias2: Vec<f32>,
}

impl BranchGradients {
    fn into_tensors(self) -> default::BranchGradients<Flex> {
        let vector = |values: Vec<f32>| {
            let shape = Shape::from(vec![values.len()]);
            from_vec(values, shape)
        };
        (
            self.x,
            vector(self.gamma),
            vector(self.beta),
            self.weight1,
            vector(self.bias1),
            self.weight2,
            vector(self.bias2),
        )
    }
}

/// The tensors of a mixing operation, contiguous.
struct BranchTensors {
    x: FlexTensor,
    parameters: [FlexTensor; 6],
    branch_scale: FlexTensor,
    spec: MixingSpec,
}

impl BranchTensors {
    /// `None` unless there are kernels for the precision and every tensor is f32.
    fn new(
        x: &FlexTensor,
        parameters: &[FlexTensor; 6],
        branch_scale: &FlexTensor,
        spec: MixingSpec,
    ) -> Option<BranchTensors> {
        let tensors = || [x].into_iter().chain(parameters).chain([branch_scale]);
        let has_kernels = spec.precision != Precision::F16;
        let all_f32 = tensors().all(|tensor| tensor.dtype() == DType::F32);
        (has_kernels && all_f32).then(|| BranchTensors {
            x: x.to_contiguous(),
            parameters: parameters.each_ref().map(FlexTensor::to_contiguous),
            branch_scale: branch_scale.to_contiguous(),
            spec,
        })
    }

    fn branch(&self) -> Branch<'_> {
        let [gamma, beta, weight1, bias1, weight2, bias2] = self.parameters.each_ref().map(values);
        let shape = self.x.shape();
        Branch {
            dims: [shape[0], shape[1], shape[2]],
            x: values(&self.x),
            gamma,
            beta,
            weight1,
            bias1,
            weight2,
            bias2,
            branch_scale: values(&self.branch_scale),
            gelu: self.spec.gelu,
            epsilon: self.spec.epsilon as f32,
        }
    }
}

impl MixerOps for Flex {
    fn gelu_erf(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => activate(x, Erf),
            _ => default::gelu_erf::<Self>(x),
        }
    }

    fn gelu_erf_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => activate_backward(&x, grad, Erf),
            _ => default::gelu_erf_backward::<Self>(x, grad),
        }
    }

    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => activate(x, Tanh),
            _ => default::gelu_tanh::<Self>(x),
        }
    }

    fn gelu_tanh_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => activate_backward(&x, grad, Tanh),
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
            DType::F32 => layer_norm(&x, &gamma, &beta, epsilon as f32),
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
            DType::F32 => layer_norm_backward(&x, &gamma, &grad, epsilon as f32),
            _ => default::layer_norm_backward::<Self>(x, gamma, grad, epsilon),
        }
    }

    fn dense(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        default::dense::<Self>(x, weight, bias, dense_precision(precision))
    }

    fn dense_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        default::dense_backward::<Self>(x, weight, grad, dense_precision(precision))
    }

    fn dense_parameters_backward(
        x: FloatTensor<Self>,
        _weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        default::dense_parameters_backward::<Self>(x, grad, dense_precision(precision))
    }

    fn mix_tokens(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> FloatTensor<Self> {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        match BranchTensors::new(&x, &parameters, &branch_scale, spec) {
            Some(tensors) => {
                let (set, branch) = (instruction_set(), tensors.branch());
                match spec.precision {
                    Precision::Bf16 => token::forward::<Bf16>(set, &branch),
                    _ => token::forward::<F32>(set, &branch),
                }
            }
            None => default::mix_tokens::<Self>(x, parameters, branch_scale, spec),
        }
    }

    fn mix_tokens_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> default::BranchGradients<Self> {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        match BranchTensors::new(&x, &parameters, &branch_scale, spec) {
            Some(tensors) => {
                let grad = grad.to_contiguous();
                let (set, branch, grad) = (instruction_set(), tensors.branch(), values(&grad));
                let gradients = match spec.precision {
                    Precision::Bf16 => token::backward::<Bf16>(set, &branch, grad),
                    _ => token::backward::<F32>(set, &branch, grad),
                };
                gradients.into_tensors()
            }
            None => default::mix_tokens_backward::<Self>(x, parameters, branch_scale, grad, spec),
        }
    }

    fn mix_channels(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> FloatTensor<Self> {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        match BranchTensors::new(&x, &parameters, &branch_scale, spec) {
            Some(tensors) => mix_channels(&tensors, false).0,
            None => default::mix_channels::<Self>(x, parameters, branch_scale, spec).0,
        }
    }

    fn mix_channels_keeping(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        if let Some(tensors) = BranchTensors::new(&x, &parameters, &branch_scale, spec)
            && let (y, Some(hidden)) = mix_channels(&tensors, true)
        {
            return (y, hidden);
        }
        default::mix_channels::<Self>(x, parameters, branch_scale, spec)
    }

    fn mix_channels_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> default::BranchGradients<Self> {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        mix_channels_backward(x, parameters, branch_scale, None, grad, spec)
    }

    fn mix_channels_backward_kept(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> default::BranchGradients<Self> {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        mix_channels_backward(x, parameters, branch_scale, Some(hidden), grad, spec)
    }

    fn squared_norm(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => update::squared_norm(&x),
            _ => default::squared_norm::<Self>(x),
        }
    }

    fn adamw_update(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamwStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if [&parameter, &gradient, &first, &second].iter().all(|x| x.dtype() == DType::F32) {
            return update::adamw(parameter, gradient, first, second, step);
        }
        default::adamw_update::<Self>(parameter, gradient, first, second, step)
    }

    fn sgd_update(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        step: SgdStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if [&parameter, &gradient, &velocity].iter().all(|x| x.dtype() == DType::F32) {
            return update::sgd(parameter, gradient, velocity, step);
        }
        default::sgd_update::<Self>(parameter, gradient, velocity, step)
    }

    fn average_update(
        average: FloatTensor<Self>,
        parameter: FloatTensor<Self>,
        decay: f64,
    ) -> FloatTensor<Self> {
        if [&average, &parameter].iter().all(|x| x.dtype() == DType::F32) {
            return update::average(average, &parameter, decay);
        }
        default::average_update::<Self>(average, parameter, decay)
    }
}

/// Of a dense layer outside the blocks. With bf16, the blocks round operands by themselves and everything
/// else stays f32.
fn dense_precision(precision: Precision) -> Precision {
    if precision == Precision::Bf16 { Precision::F32 } else { precision }
}

fn mix_channels(tensors: &BranchTensors, keep_hidden: bool) -> (FlexTensor, Option<FlexTensor>) {
    let (set, branch) = (instruction_set(), tensors.branch());
    match tensors.spec.precision {
        Precision::Bf16 => channel::forward::<Bf16>(set, &branch, keep_hidden),
        _ => channel::forward::<F32>(set, &branch, keep_hidden),
    }
}

fn mix_channels_backward(
    x: FlexTensor,
    parameters: [FlexTensor; 6],
    branch_scale: FlexTensor,
    hidden: Option<FlexTensor>,
    grad: FlexTensor,
    spec: MixingSpec,
) -> default::BranchGradients<Flex> {
    match BranchTensors::new(&x, &parameters, &branch_scale, spec) {
        Some(tensors) => {
            let grad = grad.to_contiguous();
            let (kept, grad) = (hidden.as_ref().map(values), values(&grad));
            let (set, branch) = (instruction_set(), tensors.branch());
            let gradients = match spec.precision {
                Precision::Bf16 => channel::backward::<Bf16>(set, &branch, kept, grad),
                _ => channel::backward::<F32>(set, &branch, kept, grad),
            };
            gradients.into_tensors()
        }
        None => {
            default::mix_channels_backward::<Flex>(x, parameters, branch_scale, hidden, grad, spec)
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

/// Applies an activation to every element, in place where nobody else holds the tensor.
fn activate(x: FlexTensor, activation: impl Activation) -> FlexTensor {
    let mut x = owned(x);
    let values = x.storage_mut::<f32>();
    values.par_chunks_mut(PIECE).for_each(|piece| dispatch(ActivateJob { piece, activation }));
    x
}

/// `grad · f′(x)`, into `grad`'s memory where nobody else holds it.
fn activate_backward(x: &FlexTensor, grad: FlexTensor, activation: impl Activation) -> FlexTensor {
    let x = x.to_contiguous();
    let mut grad = owned(grad);
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

/// Rows of one piece, for rows of `channels` elements.
fn rows_per_piece(channels: usize) -> usize {
    (PIECE / channels).max(1)
}

fn layer_norm(x: &FlexTensor, gamma: &FlexTensor, beta: &FlexTensor, epsilon: f32) -> FlexTensor {
    let (x, gamma, beta) = (x.to_contiguous(), gamma.to_contiguous(), beta.to_contiguous());
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
        let width = panel::padded(self.channels);
        let (mut spare, mut normal) = (Scratch::take(width), Scratch::take(width));
        let (spare, normal) = (spare.floats(), normal.floats());
        for (i, row) in self.x.chunks_exact(self.channels).enumerate() {
            // SAFETY: the piece's rows are nobody else's, and there is room for one in `normal`.
            unsafe {
                let affine = Affine { gamma: self.gamma.at(0), beta: self.beta.at(0) };
                let row = rows::read_row(s, row.as_ptr(), self.channels, spare.at(0), self.epsilon);
                rows::normalise(s, row, affine, self.channels, normal.at(0), panel::PANEL);
                let to = self.to.at(self.first + i * self.channels);
                std::ptr::copy_nonoverlapping(normal.at(0), to, self.channels);
            }
        }
    }
}

fn layer_norm_backward(
    x: &FlexTensor,
    gamma: &FlexTensor,
    grad: &FlexTensor,
    epsilon: f32,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let (x, gamma, grad) = (x.to_contiguous(), gamma.to_contiguous(), grad.to_contiguous());
    let (x_values, grad_values) = (values(&x), values(&grad));
    let channels = values(&gamma).len();
    let width = panel::padded(channels);
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
    let total = unsafe { channel::sum_slots(sums.floats(), pieces, 2 * width) };
    let vector = |first: usize| {
        from_vec(total[first..first + channels].to_vec(), Shape::from(vec![channels]))
    };
    (dx.tensor(x.shape()), vector(0), vector(width))
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
        let width = panel::padded(channels);
        let (mut spare, mut dy) = (Scratch::take(width), Scratch::take(width));
        let (spare, dy) = (spare.floats(), dy.floats());
        let grads = self.grad.chunks_exact(channels);
        for (i, (row, grad)) in self.x.chunks_exact(channels).zip(grads).enumerate() {
            // SAFETY: the piece's rows and its slot are nobody else's.
            unsafe {
                let row = rows::read_row(s, row.as_ptr(), channels, spare.at(0), self.epsilon);
                rows::to_panels(s, grad.as_ptr(), channels, 1.0, dy.at(0), panel::PANEL);
                let sums = self.sums.at(self.piece * 2 * width);
                let gradient = RowGradient {
                    of_output: dy.at(0),
                    stride: panel::PANEL,
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
