//! CUDA by hand: the operations on NVIDIA GPUs, with products by cuBLASLt and everything between them by
//! kernels of ours, on Burn's tensors.
//!
//! The libraries are loaded when a device is first used. Where one is missing, or a network has sizes
//! that the kernels do not take, and on every other device of the same backend (Vulkan, Metal),
//! the default bodies run.
//!
//! The work goes to a stream of ours. Before an operation it waits for all that Burn has asked of the
//! device, and afterwards what Burn asks waits for it, so that both may use the same memory.

mod bridge;
mod gpu;
mod mixing;
mod product;
mod update;

use std::sync::{Arc, Mutex};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeDevice;

use crate::any_tensor::AnyTensor;
use crate::functions::mixing::MixingSpec;
use crate::functions::update::{AdamwStep, Clip, SgdStep};
use crate::ops::MixerOps;
use crate::ops::default;
use crate::spec::Precision;

use bridge::{Buffer, Output, register};
pub use gpu::CudaTime;
use gpu::Gpu;
use mixing::{Dims, Gradients, Parameters};
pub use product::CudaProduct;
use update::Entry;

/// Most channels that the kernels hold in registers.
const MAX_CHANNELS: usize = 1536;

type Float = FloatTensor<Cube>;
type SharedGpu = Arc<Mutex<Gpu>>;

/// What the driver calls a CUDA device, and its memory. Opens nothing.
#[must_use]
pub fn cuda_device_name(index: usize) -> Option<String> {
    gpu::name(index).ok()
}

/// Why the kernels of this crate do not run on a CUDA device; `None` when they do.
#[must_use]
pub fn cuda_fallback_reason(index: usize) -> Option<String> {
    gpu::open(index).err()
}

/// Whether the kernels of this crate run on a CUDA device, and multiply operands of this precision there.
#[must_use]
pub fn cuda_multiplies(index: usize, precision: Precision) -> bool {
    gpu::open(index).is_ok_and(|gpu| gpu.lock().is_ok_and(|gpu| gpu.multiplies(precision)))
}

/// Bytes in use on a CUDA device, by this process or another.
#[must_use]
pub fn cuda_memory_in_use(index: usize) -> Option<usize> {
    gpu::open(index).ok()?.lock().ok()?.memory_in_use().ok()
}

/// What cuBLASLt takes for a product of noise by the fastest of its ways, seconds; `None` where it cannot be
/// had.
///
/// # Errors
/// What the driver or the library said.
pub fn cuda_product_seconds(
    index: usize,
    precision: Precision,
    product: &CudaProduct,
) -> Result<Option<f64>, String> {
    let Ok(gpu) = gpu::open(index) else { return Ok(None) };
    let mut gpu = gpu.lock().map_err(|error| error.to_string())?;
    gpu.product_seconds(product, precision)
}

/// Time on a CUDA device by kernel and product since the first call, the longest first. The first call
/// starts the account, which has every operation wait for the one before.
#[must_use]
pub fn cuda_profile(index: usize) -> Vec<CudaTime> {
    gpu::open(index)
        .ok()
        .and_then(|gpu| gpu.lock().ok().map(|mut gpu| gpu.profile()))
        .unwrap_or_default()
}

/// The GPU of a tensor, where it is one of ours. `MIXER_CUDA=burn` has Burn's kernels run instead, to
/// compare them.
fn gpu_of(tensor: &Float) -> Option<SharedGpu> {
    static BURN_ONLY: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var("MIXER_CUDA").is_ok_and(|v| v == "burn"));
    let CubeDevice::Cuda(device) = tensor.device() else { return None };
    if *BURN_ONLY {
        return None;
    }
    gpu::open(device.index).ok()
}

/// The GPU and the sizes of a branch with `hidden` units, where the kernels take them.
fn branch_of(x: &Float, hidden: usize) -> Option<(SharedGpu, Dims)> {
    let dims = dims_of(x)?;
    let fits = hidden.is_multiple_of(8);
    fits.then(|| gpu_of(x)).flatten().map(|gpu| (gpu, Dims { hidden, ..dims }))
}

/// `[B, S, C]`, or rows of C channels as one example.
fn dims_of(x: &Float) -> Option<Dims> {
    let shape = x.shape();
    let c = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / c.max(1);
    let (b, s) = if shape.num_dims() == 3 { (shape[0], shape[1]) } else { (1, rows) };
    let element = Precision::of(x.dtype())?;
    let fits = c.is_multiple_of(8) && (8..=MAX_CHANNELS).contains(&c) && rows > 0;
    fits.then_some(Dims { b, s, c, hidden: 0, element })
}

/// The sizes of a dense layer as the kernels take them; `None` where rows of its result are no multiple of
/// eight and it is rounded.
fn dense_dims(rows: usize, outputs: usize, precision: Precision) -> Option<Dims> {
    let fits = precision == Precision::F32 || outputs.is_multiple_of(8);
    fits.then_some(Dims { b: 1, s: rows, c: 8, hidden: 0, element: precision })
}

fn scale_of(spec: &MixingSpec, scale: &Buffer) -> u64 {
    if spec.scaled { scale.address } else { 0 }
}

/// Inputs 1 to 6 of a mixing operation.
fn parameters_of(inputs: &[Buffer]) -> Parameters {
    let at = |i: usize| inputs[i].address;
    Parameters {
        gamma: at(1),
        beta: at(2),
        weight1: at(3),
        bias1: at(4),
        weight2: at(5),
        bias2: at(6),
    }
}

fn gradients_of(outputs: &[Buffer]) -> Gradients {
    let at = |i: usize| outputs[i].address;
    Gradients {
        x: at(0),
        gamma: at(1),
        beta: at(2),
        weight1: at(3),
        bias1: at(4),
        weight2: at(5),
        bias2: at(6),
    }
}

fn like(tensor: &Float) -> Output {
    Output::New(tensor.shape(), tensor.dtype())
}

fn f32_like(tensor: &Float) -> Output {
    Output::New(tensor.shape(), DType::F32)
}

/// The only tensor of an operation with one output.
fn one(mut tensors: Vec<Float>) -> Float {
    match tensors.pop() {
        Some(tensor) => tensor,
        None => unreachable!("every output that is described is there"),
    }
}

fn seven(tensors: Vec<Float>) -> default::BranchGradients<Cube> {
    match <[Float; 7]>::try_from(tensors) {
        Ok([x, gamma, beta, w1, b1, w2, b2]) => (x, gamma, beta, w1, b1, w2, b2),
        Err(_) => unreachable!("every output that is described is there"),
    }
}

fn three(tensors: Vec<Float>) -> (Float, Float, Float) {
    match <[Float; 3]>::try_from(tensors) {
        Ok([a, b, c]) => (a, b, c),
        Err(_) => unreachable!("every output that is described is there"),
    }
}

/// Outputs of the backward pass of a branch.
fn branch_gradients(x: &Float, parameters: [&Float; 6]) -> Vec<Output> {
    std::iter::once(like(x)).chain(parameters.map(f32_like)).collect()
}

impl MixerOps for Cube {
    fn fused_layer_norm(x: Float, gamma: Float, beta: Float, epsilon: f64) -> Float {
        let Some((gpu, d)) = branch_of(&x, 0) else {
            return default::layer_norm::<Cube>(x, gamma, beta, epsilon);
        };
        let outputs = vec![like(&x)];
        one(register("layer_norm", gpu, vec![x, gamma, beta], outputs, move |gpu, i, o| {
            gpu.layer_norm(i[0].address, (i[1].address, i[2].address), o[0].address, &d, epsilon)
        }))
    }

    fn fused_layer_norm_backward(
        x: Float,
        gamma: Float,
        grad: Float,
        epsilon: f64,
    ) -> (Float, Float, Float) {
        let Some((gpu, d)) = branch_of(&x, 0).filter(|_| x.dtype() == grad.dtype()) else {
            return default::layer_norm_backward::<Cube>(x, gamma, grad, epsilon);
        };
        let outputs = vec![like(&x), f32_like(&gamma), f32_like(&gamma)];
        let inputs = vec![x, gamma, grad];
        three(register("layer_norm_backward", gpu, inputs, outputs, move |gpu, i, o| {
            let inputs = (i[0].address, i[1].address, i[2].address);
            let outputs = (o[0].address, o[1].address, o[2].address);
            gpu.layer_norm_backward(inputs, outputs, &d, epsilon)
        }))
    }

    fn mean_layer_norm(x: Float, gamma: Float, beta: Float, epsilon: f64) -> Float {
        let Some((gpu, d)) = branch_of(&x, 0) else {
            return default::mean_layer_norm::<Cube>(x, gamma, beta, epsilon);
        };
        let outputs = vec![Output::New(Shape::from(vec![d.b, d.c]), DType::F32)];
        one(register("mean_layer_norm", gpu, vec![x, gamma, beta], outputs, move |gpu, i, o| {
            gpu.mean_norm(i[0].address, (i[1].address, i[2].address), o[0].address, &d, epsilon)
        }))
    }

    fn mean_layer_norm_backward(
        x: Float,
        gamma: Float,
        grad: Float,
        epsilon: f64,
    ) -> (Float, Float, Float) {
        let Some((gpu, d)) = branch_of(&x, 0) else {
            return default::mean_layer_norm_backward::<Cube>(x, gamma, grad, epsilon);
        };
        let outputs = vec![like(&x), f32_like(&gamma), f32_like(&gamma)];
        let inputs = vec![x, gamma, grad];
        three(register("mean_layer_norm_backward", gpu, inputs, outputs, move |gpu, i, o| {
            let inputs = (i[0].address, i[1].address, i[2].address);
            let outputs = (o[0].address, o[1].address, o[2].address);
            gpu.mean_norm_backward(inputs, outputs, &d, epsilon)
        }))
    }

    fn dense(x: Float, weight: Float, bias: Float, precision: Precision) -> Float {
        let (shape, n) = (x.shape(), bias.shape()[0]);
        let (rows, k) = (shape[0], shape[1]);
        let Some((gpu, d)) = gpu_of(&x).zip(dense_dims(rows, n, precision)) else {
            return default::dense::<Cube>(x, weight, bias, precision);
        };
        let outputs = vec![Output::New(Shape::from(vec![rows, n]), precision.dtype())];
        one(register("dense", gpu, vec![x, weight, bias], outputs, move |gpu, i, o| {
            let parameters = (i[1].address, i[2].address);
            gpu.linear(i[0].address, parameters, o[0].address, (rows, k, n), &d)
        }))
    }

    fn dense_backward(
        x: Float,
        weight: Float,
        grad: Float,
        precision: Precision,
    ) -> (Float, Float, Float) {
        let (rows, k, n) = (x.shape()[0], x.shape()[1], grad.shape()[1]);
        let Some((gpu, d)) = gpu_of(&x).zip(dense_dims(rows, n, precision)) else {
            return default::dense_backward::<Cube>(x, weight, grad, precision);
        };
        let outputs = vec![like(&x)];
        let (dweight, dbias) = dense_parameters(&gpu, &x, &weight, &grad, d);
        let inputs = vec![weight, grad];
        let dx = one(register("dense_backward", gpu, inputs, outputs, move |gpu, i, o| {
            let inputs = (i[0].address, i[1].address);
            gpu.linear_backward_input(inputs, o[0].address, (rows, k, n), &d)
        }));
        (dx, dweight, dbias)
    }

    fn dense_parameters_backward(
        x: Float,
        weight: Float,
        grad: Float,
        precision: Precision,
    ) -> (Float, Float) {
        let (rows, n) = (x.shape()[0], grad.shape()[1]);
        let Some((gpu, d)) = gpu_of(&x).zip(dense_dims(rows, n, precision)) else {
            return default::dense_parameters_backward::<Cube>(x, grad, precision);
        };
        dense_parameters(&gpu, &x, &weight, &grad, d)
    }

    fn mix_tokens(
        x: Float,
        gamma: Float,
        beta: Float,
        weight1: Float,
        bias1: Float,
        weight2: Float,
        bias2: Float,
        branch_scale: Float,
        spec: MixingSpec,
    ) -> Float {
        let Some((gpu, d)) = branch_of(&x, bias1.shape()[0]) else {
            let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
            return default::mix_tokens::<Cube>(x, parameters, branch_scale, spec);
        };
        let outputs = vec![like(&x)];
        let inputs = vec![x, gamma, beta, weight1, bias1, weight2, bias2, branch_scale];
        one(register("mix_tokens", gpu, inputs, outputs, move |gpu, i, o| {
            let scale = scale_of(&spec, &i[7]);
            gpu.mix_tokens(i[0].address, &parameters_of(i), scale, o[0].address, &d, &spec)
        }))
    }

    fn mix_tokens_backward(
        x: Float,
        gamma: Float,
        beta: Float,
        weight1: Float,
        bias1: Float,
        weight2: Float,
        bias2: Float,
        branch_scale: Float,
        grad: Float,
        spec: MixingSpec,
    ) -> default::BranchGradients<Cube> {
        let Some((gpu, d)) = branch_of(&x, bias1.shape()[0]) else {
            let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
            return default::mix_tokens_backward::<Cube>(x, parameters, branch_scale, grad, spec);
        };
        let outputs = branch_gradients(&x, [&gamma, &beta, &weight1, &bias1, &weight2, &bias2]);
        let inputs = vec![x, gamma, beta, weight1, bias1, weight2, bias2, branch_scale, grad];
        seven(register("mix_tokens_backward", gpu, inputs, outputs, move |gpu, i, o| {
            let (x, scale, grad) = (i[0].address, scale_of(&spec, &i[7]), i[8].address);
            let gradients = gradients_of(o);
            gpu.mix_tokens_backward(x, &parameters_of(i), scale, grad, &gradients, &d, &spec)
        }))
    }

    fn mix_channels(
        x: Float,
        gamma: Float,
        beta: Float,
        weight1: Float,
        bias1: Float,
        weight2: Float,
        bias2: Float,
        branch_scale: Float,
        spec: MixingSpec,
    ) -> Float {
        let Some((gpu, d)) = branch_of(&x, bias1.shape()[0]) else {
            let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
            return default::mix_channels::<Cube>(x, parameters, branch_scale, spec).0;
        };
        let outputs = vec![like(&x)];
        let inputs = vec![x, gamma, beta, weight1, bias1, weight2, bias2, branch_scale];
        one(register("mix_channels", gpu, inputs, outputs, move |gpu, i, o| {
            let scale = scale_of(&spec, &i[7]);
            gpu.mix_channels(i[0].address, &parameters_of(i), scale, o[0].address, 0, &d, &spec)
        }))
    }

    fn mix_channels_keeping(
        x: Float,
        gamma: Float,
        beta: Float,
        weight1: Float,
        bias1: Float,
        weight2: Float,
        bias2: Float,
        branch_scale: Float,
        spec: MixingSpec,
    ) -> (Float, Float) {
        let Some((gpu, d)) = branch_of(&x, bias1.shape()[0]) else {
            let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
            return default::mix_channels::<Cube>(x, parameters, branch_scale, spec);
        };
        let kept = Output::New(Shape::from(vec![2 * d.b * d.s, d.hidden]), x.dtype());
        let outputs = vec![like(&x), kept];
        let inputs = vec![x, gamma, beta, weight1, bias1, weight2, bias2, branch_scale];
        let mut both = register("mix_channels_keeping", gpu, inputs, outputs, move |gpu, i, o| {
            let (x, scale) = (i[0].address, scale_of(&spec, &i[7]));
            let (out, kept) = (o[0].address, o[1].address);
            gpu.mix_channels(x, &parameters_of(i), scale, out, kept, &d, &spec)
        });
        let hidden = both.pop();
        match (both.pop(), hidden) {
            (Some(out), Some(hidden)) => (out, hidden),
            _ => unreachable!("every output that is described is there"),
        }
    }

    fn mix_channels_backward(
        x: Float,
        gamma: Float,
        beta: Float,
        weight1: Float,
        bias1: Float,
        weight2: Float,
        bias2: Float,
        branch_scale: Float,
        grad: Float,
        spec: MixingSpec,
    ) -> default::BranchGradients<Cube> {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        channels_backward(x, parameters, branch_scale, None, grad, spec)
    }

    fn mix_channels_backward_kept(
        x: Float,
        gamma: Float,
        beta: Float,
        weight1: Float,
        bias1: Float,
        weight2: Float,
        bias2: Float,
        branch_scale: Float,
        hidden: Float,
        grad: Float,
        spec: MixingSpec,
    ) -> default::BranchGradients<Cube> {
        let parameters = [gamma, beta, weight1, bias1, weight2, bias2];
        channels_backward(x, parameters, branch_scale, Some(hidden), grad, spec)
    }
}

fn channels_backward(
    x: Float,
    parameters: [Float; 6],
    branch_scale: Float,
    hidden: Option<Float>,
    grad: Float,
    spec: MixingSpec,
) -> default::BranchGradients<Cube> {
    let Some((gpu, d)) = branch_of(&x, parameters[3].shape()[0]) else {
        return default::mix_channels_backward::<Cube>(
            x,
            parameters,
            branch_scale,
            hidden,
            grad,
            spec,
        );
    };
    let outputs = branch_gradients(&x, parameters.each_ref());
    let mut inputs = vec![x];
    inputs.extend(parameters);
    inputs.extend([branch_scale, grad]);
    inputs.extend(hidden);
    seven(register("mix_channels_backward", gpu, inputs, outputs, move |gpu, i, o| {
        let (x, scale, grad) = (i[0].address, scale_of(&spec, &i[7]), i[8].address);
        let kept = i.get(9).map_or(0, |kept| kept.address);
        let gradients = gradients_of(o);
        gpu.mix_channels_backward(x, &parameters_of(i), scale, kept, grad, &gradients, &d, &spec)
    }))
}

/// Gradients of a dense layer's weight and bias.
fn dense_parameters(
    gpu: &SharedGpu,
    x: &Float,
    weight: &Float,
    grad: &Float,
    d: Dims,
) -> (Float, Float) {
    let (rows, k, n) = (x.shape()[0], x.shape()[1], grad.shape()[1]);
    let outputs = vec![f32_like(weight), Output::New(Shape::from(vec![n]), DType::F32)];
    let inputs = vec![x.clone(), grad.clone()];
    let mut both =
        register("dense_parameters", Arc::clone(gpu), inputs, outputs, move |gpu, i, o| {
            let inputs = (i[0].address, i[1].address);
            gpu.linear_backward(inputs, (o[0].address, o[1].address), (rows, k, n), &d)
        });
    let bias = both.pop();
    match (both.pop(), bias) {
        (Some(weight), Some(bias)) => (weight, bias),
        _ => unreachable!("every output that is described is there"),
    }
}

/// The GPU of many tensors, where it is one of ours and all are f32.
fn gpu_of_all<'a>(tensors: impl IntoIterator<Item = &'a AnyTensor>) -> Option<SharedGpu> {
    let mut tensors = tensors.into_iter();
    let first = tensors.next()?;
    let is_f32 = |tensor: &AnyTensor| tensor.0.dtype() == DType::F32;
    let all_f32 = is_f32(first) && tensors.all(is_f32);
    all_f32.then(|| primitive(first.clone())).flatten().as_ref().and_then(gpu_of)
}

/// One launch for many parameters: changes the tensors of the numbers `changed` in every group, the first
/// of which is what is updated, by the second of the group, in place where nobody else will read them.
/// `own` are the decay and learning rate of each group.
fn in_one_launch<const I: usize, const O: usize>(
    name: &'static str,
    gpu: SharedGpu,
    groups: impl IntoIterator<Item = [AnyTensor; I]>,
    changed: [usize; O],
    own: Vec<(f64, f64)>,
    clip: Option<&Clip>,
    launch: impl Fn(&mut Gpu, &[Entry], (u64, f64)) -> Result<(), String> + Send + Sync + 'static,
) -> Vec<[AnyTensor; O]> {
    let norm = clip.map(|clip| AnyTensor::from(clip.squared_norm.clone()));
    let tensors = groups.into_iter().flatten().chain(norm);
    let inputs: Vec<Float> = tensors.filter_map(primitive).collect();
    let limit = clip.map(|clip| clip.limit);
    let outputs = (0..own.len()).flat_map(|i| changed.map(|k| Output::Changed(I * i + k)));
    let changed = register(name, gpu, inputs, outputs.collect(), move |gpu, inputs, outputs| {
        let groups = own.iter().zip(inputs.chunks_exact(I)).zip(outputs.chunks_exact(O));
        let entry_of = groups.map(|((&(decay, rate), inputs), outputs)| {
            let output = |i: usize| outputs.get(i).map_or(0, |buffer| buffer.address);
            Entry {
                value: output(0),
                gradient: inputs[1].address,
                first: output(1),
                second: output(2),
                len: outputs[0].shape.num_elements(),
                decay,
                rate,
            }
        });
        let entries: Vec<Entry> = entry_of.collect();
        // The squared norm is the last input, where there is one.
        let clip = match (inputs.last(), limit) {
            (Some(norm), Some(limit)) => (norm.address, limit),
            _ => (0, 0.0),
        };
        launch(gpu, &entries, clip)
    });
    let changed: Vec<AnyTensor> = changed.into_iter().map(any_tensor).collect();
    changed.chunks_exact(O).map(|group| std::array::from_fn(|i| group[i].clone())).collect()
}

/// One AdamW update of all parameters in one launch, where they are on a GPU of ours; else they are given
/// back.
#[allow(clippy::type_complexity, reason = "what was given is given back")]
pub(crate) fn adamw_update(
    tensors: Vec<([AnyTensor; 4], AdamwStep)>,
    clip: Option<&Clip>,
) -> Result<Vec<[AnyTensor; 3]>, Vec<([AnyTensor; 4], AdamwStep)>> {
    let Some(step) = tensors.first().map(|(_, step)| *step) else { return Err(tensors) };
    let Some(gpu) = gpu_of_all(tensors.iter().flat_map(|(tensors, _)| tensors)) else {
        return Err(tensors);
    };
    let own = tensors.iter().map(|(_, step)| (step.constants().decay, step.learning_rate));
    let own = own.collect();
    let tensors = tensors.into_iter().map(|(tensors, _)| tensors);
    Ok(in_one_launch("adamw", gpu, tensors, [0, 2, 3], own, clip, move |gpu, entries, clip| {
        gpu.adamw(entries, clip, step)
    }))
}

/// As [`adamw_update`], by gradient descent with momentum.
#[allow(clippy::type_complexity, reason = "what was given is given back")]
pub(crate) fn sgd_update(
    tensors: Vec<([AnyTensor; 3], SgdStep)>,
    clip: Option<&Clip>,
) -> Result<Vec<[AnyTensor; 2]>, Vec<([AnyTensor; 3], SgdStep)>> {
    let Some(step) = tensors.first().map(|(_, step)| *step) else { return Err(tensors) };
    let Some(gpu) = gpu_of_all(tensors.iter().flat_map(|(tensors, _)| tensors)) else {
        return Err(tensors);
    };
    let own = tensors.iter().map(|(_, step)| (step.decay(), step.learning_rate)).collect();
    let tensors = tensors.into_iter().map(|(tensors, _)| tensors);
    Ok(in_one_launch("sgd", gpu, tensors, [0, 2], own, clip, move |gpu, entries, clip| {
        gpu.sgd(entries, clip, step)
    }))
}

/// Moves averages towards their parameters in one launch, where they are on a GPU of ours; else they are
/// given back.
pub(crate) fn average_update(
    pairs: Vec<[AnyTensor; 2]>,
    decay: f64,
) -> Result<Vec<AnyTensor>, Vec<[AnyTensor; 2]>> {
    let Some(gpu) = gpu_of_all(pairs.iter().flatten()) else { return Err(pairs) };
    let own = vec![(1.0, 0.0); pairs.len()];
    let averages = in_one_launch("average", gpu, pairs, [0], own, None, move |gpu, entries, _| {
        gpu.average(entries, decay)
    });
    Ok(averages.into_iter().map(|[average]| average).collect())
}

/// `Σ x²` over all tensors in one launch, `[1]`, where they are on a GPU of ours.
pub(crate) fn squared_norm(tensors: &[AnyTensor]) -> Option<Tensor<1>> {
    let gpu = gpu_of_all(tensors)?;
    let inputs: Vec<Float> = tensors.iter().cloned().filter_map(primitive).collect();
    let outputs = vec![Output::New(Shape::from(vec![1]), DType::F32)];
    let norm = register("squared_norm", gpu, inputs, outputs, |gpu, inputs, outputs| {
        let entries: Vec<Entry> = inputs
            .iter()
            .map(|input| Entry {
                gradient: input.address,
                len: input.shape.num_elements(),
                ..Entry::default()
            })
            .collect();
        gpu.squared_norm(&entries, outputs[0].address)
    });
    Some(Tensor::from_primitive::<Cube>(one(norm)))
}

fn primitive(tensor: AnyTensor) -> Option<Float> {
    // Burn asks for a rank, and does not look at it.
    Tensor::<1>::from_dispatch(tensor.0).try_into_primitive::<Cube>().ok()
}

fn any_tensor(tensor: Float) -> AnyTensor {
    AnyTensor(Tensor::<1>::from_primitive::<Cube>(tensor).into_dispatch())
}
