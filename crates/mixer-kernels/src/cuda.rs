//! The room of CUDA by hand: the operations on NVIDIA GPUs, with products by cuBLASLt and everything between them by
//! kernels of ours, on Burn's tensors.
//!
//! The libraries are loaded when a device is first used. Where one is missing, or a network has sizes
//! that the kernels do not take, and on every other device of the same backend (Vulkan, Metal),
//! the default bodies run.
//!
//! The work goes to a stream of ours. Before an operation it waits for all that Burn has asked of the
//! device, and afterwards what Burn asks waits for it, so that both may use the same memory.

mod address;
mod bridge;
mod gpu;
mod mixing;
mod multiply;
mod nccl;
mod product;
mod update;

use std::sync::{Arc, Mutex};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeDevice;

use crate::any_tensor::AnyTensor;
use crate::clip::Clip;
use crate::ops::branch::{Branch, BranchGradients, Hidden, Keeping};
use crate::ops::dense::{Dense, DenseBackward, DenseGradients, DenseParameters};
use crate::ops::norm::{Norm, NormBackward, NormGradients};
use crate::ops::{MixerOps, default};
use crate::spec::{AdamwStep, MixingSpec, Precision, SgdStep};

use address::Address;
use bridge::{Buffer, Output, register};
pub use gpu::CudaTime;
use gpu::{Error, Gpu};
use mixing::{Affine, Dims, Gradients, Half, Normed, NormedGradients};
pub use nccl::{cuda_group_id, cuda_group_join, has_nccl, sum_over_gpus};
pub use product::CudaProduct;
use update::{Entry, Limit};

/// Most channels that the kernels hold in registers.
const MAX_CHANNELS: usize = 1536;

type Float = FloatTensor<Cube>;
type SharedGpu = Arc<Mutex<Gpu>>;

/// The driver's name of a CUDA device, and its memory. Opens nothing.
#[must_use]
pub fn cuda_device_name(index: usize) -> Option<String> {
    gpu::name(index).ok()
}

/// The place of a CUDA device on its machine (its PCI bus), whatever number it has in this process.
#[must_use]
pub fn cuda_bus_id(index: usize) -> Option<String> {
    gpu::bus_id(index).ok()
}

/// The reason why the kernels of this crate do not run on a CUDA device; `None` when they do.
#[must_use]
pub fn cuda_fallback_reason(index: usize) -> Option<String> {
    gpu::open(index).err()
}

/// True where the kernels of this crate run on a CUDA device, and multiply operands of this precision there.
#[must_use]
pub fn cuda_multiplies(index: usize, precision: Precision) -> bool {
    gpu::open(index).is_ok_and(|gpu| gpu.lock().is_ok_and(|gpu| gpu.multiplies(precision)))
}

/// Bytes in use on a CUDA device, by this process or another.
#[must_use]
pub fn cuda_memory_in_use(index: usize) -> Option<usize> {
    gpu::open(index).ok()?.lock().ok()?.memory_in_use().ok()
}

/// Seconds that cuBLASLt takes for a product of noise by the fastest of its ways; `None` where it cannot be
/// had.
///
/// # Errors
/// The words of the driver or the library.
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

/// False where the environment variable `MIXER_CUDA` is `burn`, which has Burn's kernels run, to compare them.
///
/// # Errors
/// Any other value that is not empty.
pub fn cuda_kernels_are_ours() -> Result<bool, String> {
    match std::env::var_os("MIXER_CUDA").unwrap_or_default() {
        value if value.is_empty() => Ok(true),
        value if value == "burn" => Ok(false),
        value => Err(value.to_string_lossy().into_owned()),
    }
}

/// The GPU of a tensor, where it is one of ours.
fn gpu_of(tensor: &Float) -> Option<SharedGpu> {
    static BURN_ONLY: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| cuda_kernels_are_ours() == Ok(false));
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

fn like(tensor: &Float) -> Output {
    Output::New(tensor.shape(), tensor.dtype())
}

fn f32_like(tensor: &Float) -> Output {
    Output::New(tensor.shape(), DType::F32)
}

/// The gradients of a branch's tensors: activations in their own type, parameters in f32.
fn branch_gradients(branch: &Branch<Cube>) -> [Output; 7] {
    let Branch { x, gamma, beta, weight1, bias1, weight2, bias2, .. } = branch;
    let [gamma, beta, weight1, bias1, weight2, bias2] =
        [gamma, beta, weight1, bias1, weight2, bias2].map(f32_like);
    [like(x), gamma, beta, weight1, bias1, weight2, bias2]
}

/// The first `N` addresses. Operations have as many buffers as they were described with.
fn addresses<const N: usize>(buffers: &[Buffer]) -> [Address; N] {
    std::array::from_fn(|i| buffers[i].address)
}

/// An operation of `I` inputs and `O` outputs, whose body gets their addresses.
fn operation<const I: usize, const O: usize>(
    name: &'static str,
    gpu: SharedGpu,
    inputs: [Float; I],
    outputs: [Output; O],
    body: impl Fn(&mut Gpu, [Address; I], [Address; O]) -> Result<(), Error> + Send + Sync + 'static,
) -> [Float; O] {
    all(register(name, gpu, inputs.into(), outputs.into(), move |gpu, inputs, outputs| {
        body(gpu, addresses(inputs), addresses(outputs))
    }))
}

/// An operation on a branch and `I` more inputs. `scaled` says that its scale is to be multiplied by.
fn branch_operation<const I: usize, const O: usize>(
    name: &'static str,
    gpu: SharedGpu,
    (branch, scaled): (Branch<Cube>, bool),
    more: [Float; I],
    outputs: [Output; O],
    body: impl Fn(&mut Gpu, &Half, [Address; I], [Address; O]) -> Result<(), Error>
    + Send
    + Sync
    + 'static,
) -> [Float; O] {
    let (tensors, scale) = branch.into_array();
    let inputs = tensors.into_iter().chain([scale]).chain(more).collect();
    all(register(name, gpu, inputs, outputs.into(), move |gpu, inputs, outputs| {
        let [x, gamma, beta, weight1, bias1, weight2, bias2, scale] = addresses(inputs);
        let (norm, scale) = (Affine { gamma, beta }, scaled.then_some(scale));
        let half = Half { x, norm, weight1, bias1, weight2, bias2, scale };
        body(gpu, &half, addresses(&inputs[8..]), addresses(outputs))
    }))
}

fn all<const O: usize>(tensors: Vec<Float>) -> [Float; O] {
    match tensors.try_into() {
        Ok(tensors) => tensors,
        Err(_) => unreachable!("every output that is described is there"),
    }
}

impl MixerOps for Cube {
    fn fused_layer_norm(norm: Norm<Self>, epsilon: f64) -> Float {
        let Some((gpu, d)) = branch_of(&norm.x, 0) else {
            return default::layer_norm::<Self>(norm, epsilon);
        };
        let Norm { x, gamma, beta } = norm;
        let (inputs, outputs) = ([x.clone(), gamma, beta], [like(&x)]);
        let [y] = operation("layer_norm", gpu, inputs, outputs, move |gpu, inputs, [y]| {
            let [x, gamma, beta] = inputs;
            gpu.layer_norm(x, Affine { gamma, beta }, y, &d, epsilon)
        });
        y
    }

    fn fused_layer_norm_backward(norm: NormBackward<Self>, epsilon: f64) -> NormGradients<Self> {
        let same_type = norm.x.dtype() == norm.grad.dtype();
        let Some((gpu, d)) = branch_of(&norm.x, 0).filter(|_| same_type) else {
            return default::layer_norm_backward::<Self>(norm, epsilon);
        };
        norm_backward("layer_norm_backward", gpu, norm, move |gpu, norm, gradients| {
            gpu.layer_norm_backward(norm, gradients, &d, epsilon)
        })
    }

    fn mean_layer_norm(norm: Norm<Self>, epsilon: f64) -> Float {
        let Some((gpu, d)) = branch_of(&norm.x, 0) else {
            return default::mean_layer_norm::<Self>(norm, epsilon);
        };
        let Norm { x, gamma, beta } = norm;
        let outputs = [Output::New(Shape::from(vec![d.b, d.c]), DType::F32)];
        let inputs = [x, gamma, beta];
        let [y] = operation("mean_layer_norm", gpu, inputs, outputs, move |gpu, inputs, [y]| {
            let [x, gamma, beta] = inputs;
            gpu.mean_norm(x, Affine { gamma, beta }, y, &d, epsilon)
        });
        y
    }

    fn mean_layer_norm_backward(norm: NormBackward<Self>, epsilon: f64) -> NormGradients<Self> {
        let Some((gpu, d)) = branch_of(&norm.x, 0) else {
            return default::mean_layer_norm_backward::<Self>(norm, epsilon);
        };
        norm_backward("mean_layer_norm_backward", gpu, norm, move |gpu, norm, gradients| {
            gpu.mean_norm_backward(norm, gradients, &d, epsilon)
        })
    }

    fn dense(layer: Dense<Self>, precision: Precision) -> Float {
        let (shape, n) = (layer.x.shape(), layer.bias.shape()[0]);
        let (rows, k) = (shape[0], shape[1]);
        let Some((gpu, d)) = gpu_of(&layer.x).zip(dense_dims(rows, n, precision)) else {
            return default::dense::<Self>(layer, precision);
        };
        let Dense { x, weight, bias } = layer;
        let outputs = [Output::New(Shape::from(vec![rows, n]), precision.dtype())];
        let [y] = operation("dense", gpu, [x, weight, bias], outputs, move |gpu, inputs, [y]| {
            let [x, weight, bias] = inputs;
            gpu.linear(x, (weight, bias), y, (rows, k, n), &d)
        });
        y
    }

    fn dense_backward(layer: DenseBackward<Self>, precision: Precision) -> DenseGradients<Self> {
        let (rows, k, n) = (layer.x.shape()[0], layer.x.shape()[1], layer.grad.shape()[1]);
        let Some((gpu, d)) = gpu_of(&layer.x).zip(dense_dims(rows, n, precision)) else {
            return default::dense_backward::<Self>(layer, precision);
        };
        let outputs = [like(&layer.x)];
        let parameters = dense_parameters(&gpu, &layer, d);
        let inputs = [layer.weight, layer.grad];
        let [x] = operation("dense_backward", gpu, inputs, outputs, move |gpu, inputs, [dx]| {
            let [weight, grad] = inputs;
            gpu.linear_backward_input(weight, grad, dx, (rows, k, n), &d)
        });
        DenseGradients { x, parameters }
    }

    fn dense_parameters_backward(
        layer: DenseBackward<Self>,
        precision: Precision,
    ) -> DenseParameters<Self> {
        let (rows, n) = (layer.x.shape()[0], layer.grad.shape()[1]);
        let Some((gpu, d)) = gpu_of(&layer.x).zip(dense_dims(rows, n, precision)) else {
            return default::dense_parameters_backward::<Self>(layer.x, layer.grad, precision);
        };
        dense_parameters(&gpu, &layer, d)
    }

    fn mix_tokens(branch: Branch<Self>, spec: MixingSpec) -> Float {
        let Some((gpu, d)) = branch_of(&branch.x, branch.bias1.shape()[0]) else {
            return default::mix_tokens::<Self>(branch, spec);
        };
        let (outputs, inputs) = ([like(&branch.x)], (branch, spec.scaled));
        let [y] =
            branch_operation("mix_tokens", gpu, inputs, [], outputs, move |gpu, p, [], [y]| {
                gpu.mix_tokens(p, y, &d, &spec)
            });
        y
    }

    fn mix_tokens_backward(
        branch: Branch<Self>,
        grad: Float,
        spec: MixingSpec,
    ) -> BranchGradients<Self> {
        let Some((gpu, d)) = branch_of(&branch.x, branch.bias1.shape()[0]) else {
            return default::mix_tokens_backward::<Self>(branch, grad, spec);
        };
        let (outputs, inputs) = (branch_gradients(&branch), (branch, spec.scaled));
        let name = "mix_tokens_backward";
        BranchGradients::from_array(branch_operation(
            name,
            gpu,
            inputs,
            [grad],
            outputs,
            move |gpu, p, [grad], gradients| {
                gpu.mix_tokens_backward(p, grad, &Gradients::from_array(gradients), &d, &spec)
            },
        ))
    }

    fn mix_channels(branch: Branch<Self>, spec: MixingSpec) -> Float {
        let Some((gpu, d)) = branch_of(&branch.x, branch.bias1.shape()[0]) else {
            return default::mix_channels::<Self>(branch, spec).y;
        };
        let (outputs, inputs) = ([like(&branch.x)], (branch, spec.scaled));
        let name = "mix_channels";
        let [y] = branch_operation(name, gpu, inputs, [], outputs, move |gpu, p, [], [y]| {
            gpu.mix_channels(p, y, None, &d, &spec)
        });
        y
    }

    fn mix_channels_keeping(branch: Branch<Self>, spec: MixingSpec) -> Keeping<Self> {
        let Some((gpu, d)) = branch_of(&branch.x, branch.bias1.shape()[0]) else {
            return default::mix_channels::<Self>(branch, spec);
        };
        let kept = Output::New(Shape::from(vec![2 * d.b * d.s, d.hidden]), branch.x.dtype());
        let (outputs, inputs) = ([like(&branch.x), kept], (branch, spec.scaled));
        let name = "mix_channels_keeping";
        let [y, hidden] =
            branch_operation(name, gpu, inputs, [], outputs, move |gpu, p, [], [y, hidden]| {
                gpu.mix_channels(p, y, Some(hidden), &d, &spec)
            });
        Keeping { y, hidden }
    }

    fn mix_channels_backward(
        branch: Branch<Self>,
        hidden: Hidden<Self>,
        grad: Float,
        spec: MixingSpec,
    ) -> BranchGradients<Self> {
        let Some((gpu, d)) = branch_of(&branch.x, branch.bias1.shape()[0]) else {
            return default::mix_channels_backward::<Self>(branch, hidden, grad, spec);
        };
        let (outputs, inputs) = (branch_gradients(&branch), (branch, spec.scaled));
        let name = "mix_channels_backward";
        let body = move |gpu: &mut Gpu, p: &Half, kept, grad, gradients| {
            gpu.mix_channels_backward(p, kept, grad, &Gradients::from_array(gradients), &d, &spec)
        };
        BranchGradients::from_array(match hidden {
            Hidden::Kept(hidden) => branch_operation(
                name,
                gpu,
                inputs,
                [grad, hidden],
                outputs,
                move |gpu, p, [grad, hidden], to| body(gpu, p, Some(hidden), grad, to),
            ),
            Hidden::Again => {
                let body =
                    move |gpu: &mut Gpu, p: &Half, [grad]: [Address; 1], to: [Address; 7]| {
                        body(gpu, p, None, grad, to)
                    };
                branch_operation(name, gpu, inputs, [grad], outputs, body)
            }
        })
    }
}

/// Gradients of a normalisation.
fn norm_backward(
    name: &'static str,
    gpu: SharedGpu,
    norm: NormBackward<Cube>,
    body: impl Fn(&mut Gpu, Normed, NormedGradients) -> Result<(), Error> + Send + Sync + 'static,
) -> NormGradients<Cube> {
    let NormBackward { x, gamma, grad } = norm;
    let outputs = [like(&x), f32_like(&gamma), f32_like(&gamma)];
    let [x, gamma, beta] =
        operation(name, gpu, [x, gamma, grad], outputs, move |gpu, inputs, outputs| {
            let ([x, gamma, grad], [dx, dgamma, dbeta]) = (inputs, outputs);
            let gradients = NormedGradients { x: dx, gamma: dgamma, beta: dbeta };
            body(gpu, Normed { x, gamma, grad }, gradients)
        });
    NormGradients { x, gamma, beta }
}

/// Gradients of a dense layer's parameters.
fn dense_parameters(
    gpu: &SharedGpu,
    layer: &DenseBackward<Cube>,
    d: Dims,
) -> DenseParameters<Cube> {
    let DenseBackward { x, weight, grad } = layer;
    let (rows, k, n) = (x.shape()[0], x.shape()[1], grad.shape()[1]);
    let outputs = [f32_like(weight), Output::New(Shape::from(vec![n]), DType::F32)];
    let (gpu, inputs) = (Arc::clone(gpu), [x.clone(), grad.clone()]);
    let [weight, bias] =
        operation("dense_parameters", gpu, inputs, outputs, move |gpu, [x, grad], outputs| {
            let [weight, bias] = outputs;
            gpu.linear_backward(x, grad, (weight, bias), (rows, k, n), &d)
        });
    DenseParameters { weight, bias }
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
    launch: impl Fn(&mut Gpu, &[Entry], Limit) -> Result<(), Error> + Send + Sync + 'static,
) -> Vec<[AnyTensor; O]> {
    let norm = clip.map(|clip| AnyTensor::from(clip.squared_norm.clone()));
    let tensors = groups.into_iter().flatten().chain(norm);
    let inputs: Vec<Float> = tensors.filter_map(primitive).collect();
    let limit = clip.map(|clip| clip.limit);
    let outputs = (0..own.len()).flat_map(|i| changed.map(|k| Output::Changed(I * i + k)));
    let changed = register(name, gpu, inputs, outputs.collect(), move |gpu, inputs, outputs| {
        let groups = own.iter().zip(inputs.chunks_exact(I)).zip(outputs.chunks_exact(O));
        let entry_of = groups.map(|((&(decay, rate), inputs), outputs)| {
            let output = |i: usize| outputs.get(i).map(|buffer| buffer.address);
            Entry {
                value: output(0),
                gradient: Some(inputs[1].address),
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
            (Some(norm), Some(limit)) => Limit { squared_norm: Some(norm.address), limit },
            _ => Limit::default(),
        };
        launch(gpu, &entries, clip)
    });
    let changed: Vec<AnyTensor> = changed.into_iter().map(any_tensor).collect();
    changed.chunks_exact(O).map(|group| std::array::from_fn(|i| group[i].clone())).collect()
}

/// One AdamW update of all parameters in one launch, where they are on a GPU of ours; else they are given
/// back.
#[expect(clippy::type_complexity, reason = "what was given is given back")]
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
#[expect(clippy::type_complexity, reason = "what was given is given back")]
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
                gradient: Some(input.address),
                len: input.shape.num_elements(),
                ..Entry::default()
            })
            .collect();
        gpu.squared_norm(&entries, outputs[0].address)
    });
    let [norm] = all(norm);
    Some(Tensor::from_primitive::<Cube>(norm))
}

fn primitive(tensor: AnyTensor) -> Option<Float> {
    // Burn asks for a rank, and does not look at it.
    Tensor::<1>::from_dispatch(tensor.0).try_into_primitive::<Cube>().ok()
}

fn any_tensor(tensor: Float) -> AnyTensor {
    AnyTensor(Tensor::<1>::from_primitive::<Cube>(tensor).into_dispatch())
}
