//! Every device and precision that is there against the CPU's own kernels in f32: outputs, all gradients and
//! updates. Without a GPU that leaves the default bodies in f16, on the CPU.

#![cfg(feature = "flex")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use mixer_kernels::{
    AdamwStep, AnyTensor, Clip, Gelu, MixingParameters, MixingSpec, NormParameters, Precision,
    SgdStep, adamw_update, average_update, dense, dot, layer_norm, mean_layer_norm, mix_channels,
    mix_tokens, sgd_update, squared_norm,
};

const EPSILON: f64 = 1e-6;

/// ‖found − expected‖ ÷ ‖expected‖ that f32 sums in another order may give.
const F32_TOLERANCE: f64 = 5e-6;
#[cfg(feature = "wgpu")]
/// The same where products of f32 may be computed in TF32, which Burn leaves to measurement.
const TF32_TOLERANCE: f64 = 1e-3;
/// And rounding to bf16 on the way, or to f16, which has three bits more.
const BF16_TOLERANCE: f64 = 1.5e-2;
const F16_TOLERANCE: f64 = 2e-3;

/// A device, and a precision in which it computes.
#[derive(Debug, Clone)]
struct Target {
    name: &'static str,
    device: Device,
    precision: Precision,
    tolerance: f64,
    is_software: bool,
}

/// The input of a block that a program on the CPU is given: compiling for a size takes it minutes.
const SHAPE_IN_SOFTWARE: [usize; 3] = [2, 12, 64];

/// The first GPU of every kind, the tolerance of its f32, and whether it is a program on the CPU.
fn gpus() -> Vec<(&'static str, Device, f64, bool)> {
    #[cfg_attr(not(feature = "gpu"), expect(unused_mut, reason = "nothing is added without a GPU"))]
    let mut gpus: Vec<(&'static str, Device, f64, bool)> = Vec::new();
    #[cfg(feature = "cuda")]
    if let Some(device) = Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().next() {
        assert_eq!(mixer_kernels::cuda_fallback_reason(0), None);
        gpus.push(("cuda", device, F32_TOLERANCE, false));
    }
    #[cfg(feature = "wgpu")]
    if let Some(adapter) = mixer_kernels::adapters().iter().find(|adapter| adapter.flaw.is_none()) {
        // Nothing that is a program has TF32.
        let tolerance = if adapter.is_software { F32_TOLERANCE } else { TF32_TOLERANCE };
        gpus.push(("wgpu", adapter.device.clone(), tolerance, adapter.is_software));
    }
    gpus
}

fn targets() -> Vec<Target> {
    let mut targets = vec![Target {
        name: "flex",
        device: Device::flex(),
        precision: Precision::F16,
        tolerance: F16_TOLERANCE,
        is_software: false,
    }];
    for (name, device, f32_tolerance, is_software) in gpus() {
        for (precision, tolerance) in [
            (Precision::F32, f32_tolerance),
            (Precision::Bf16, BF16_TOLERANCE),
            (Precision::F16, F16_TOLERANCE),
        ] {
            if device.supports_dtype(precision.dtype()) {
                let device = device.clone();
                targets.push(Target { name, device, precision, tolerance, is_software });
            } else {
                println!("{name} does not compute in {precision:?}");
            }
        }
    }
    targets
}

/// SplitMix64, uniform in [-1, 1).
fn noise(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut state = seed;
    let mut value = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 40) as f64 / (1_u64 << 23) as f64 - 1.0) as f32
    };
    (0..len).map(|_| scale * value()).collect()
}

fn tensor<const D: usize>(
    seed: u64,
    shape: [usize; D],
    scale: f32,
    centre: f32,
    on: &Device,
) -> Tensor<D> {
    let values = noise(seed, shape.iter().product(), scale).iter().map(|v| v + centre).collect();
    Tensor::from_data(TensorData::new::<f32, _>(values, shape), on)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(FloatDType::F32).into_data().iter::<f32>().collect()
}

fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let pairs = found.iter().zip(expected);
    let difference: f64 = pairs.map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let norm: f64 = expected.iter().map(|&b| square(f64::from(b))).sum();
    let distance = difference.sqrt() / norm.sqrt().max(1e-30);
    if distance.is_nan() { f64::INFINITY } else { distance }
}

fn list(errors: &[f64]) -> String {
    errors.iter().map(|error| format!("{error:.1e} ")).collect()
}

#[derive(Debug, Clone, Copy)]
struct Case {
    tokens: bool,
    shape: [usize; 3],
    hidden: usize,
    spec: MixingSpec,
}

/// Output and gradients of x, both weights, gamma, beta and both biases.
fn mixing(case: Case, device: &Device) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let [b, s, c] = case.shape;
    let (w1, w2, o) = if case.tokens {
        ([case.hidden, s], [s, case.hidden], s)
    } else {
        ([c, case.hidden], [case.hidden, c], c)
    };
    let fan = |shape: [usize; 2], inputs: usize| (shape, 1.7 / (inputs as f32).sqrt());
    let ((w1, scale1), (w2, scale2)) =
        (fan(w1, if case.tokens { s } else { c }), fan(w2, case.hidden));
    let x = tensor::<3>(1, case.shape, 2.0, 0.3, &device).require_grad();
    let weight1 = tensor::<2>(2, w1, scale1, 0.0, &device).require_grad();
    let weight2 = tensor::<2>(3, w2, scale2, 0.0, &device).require_grad();
    let gamma = tensor::<1>(4, [c], 0.5, 1.0, &device).require_grad();
    let beta = tensor::<1>(5, [c], 0.5, 0.0, &device).require_grad();
    let bias1 = tensor::<1>(6, [case.hidden], 0.5, 0.0, &device).require_grad();
    let bias2 = tensor::<1>(7, [o], 0.5, 0.0, &device).require_grad();
    let factor = |i: usize| match (case.spec.scaled, i % 3) {
        (true, 1) => 0.0,
        (true, _) => 1.25,
        (false, _) => 1.0,
    };
    let scale: Vec<f32> = (0..b).map(factor).collect();
    let scale = Tensor::<1>::from_data(TensorData::new(scale, [b]), &device);
    let parameters = MixingParameters {
        gamma: gamma.clone(),
        beta: beta.clone(),
        weight1: weight1.clone(),
        bias1: bias1.clone(),
        weight2: weight2.clone(),
        bias2: bias2.clone(),
    };
    let dtype = case.spec.precision.dtype();
    let mix = if case.tokens { mix_tokens } else { mix_channels };
    let y = mix(x.clone().cast(dtype), parameters, scale, case.spec);
    assert_eq!(y.dtype(), dtype);
    let y = y.cast(FloatDType::F32);
    let upstream = tensor::<3>(8, case.shape, 1.0, 0.0, &device);
    let gradients = (y.clone() * upstream).sum().backward();
    let mut results = vec![values(y), values(x.grad(&gradients).unwrap())];
    results.extend([weight1, weight2].map(|w| values(w.grad(&gradients).unwrap())));
    results.extend([gamma, beta, bias1, bias2].map(|v| values(v.grad(&gradients).unwrap())));
    results
}

#[test]
fn halves_of_a_block_agree_with_the_cpu() {
    let names = ["y", "x", "weight1", "weight2", "gamma", "beta", "bias1", "bias2"];
    let targets = targets();
    let mut worst = vec![[0.0_f64; 8]; targets.len()];
    let mut failures = Vec::new();
    for (shape, hidden) in [
        ([3, 49, 64], 128),
        ([2, 196, 256], 136),
        ([5, 16, 320], 640),
        ([1, 7, 8], 8),
        (SHAPE_IN_SOFTWARE, 33),
    ] {
        for tokens in [true, false] {
            for (i, gelu) in [Gelu::Tanh, Gelu::Erf].into_iter().enumerate() {
                for (recompute, scaled) in [(false, false), (i == 0, true), (true, false)] {
                    let precision = Precision::F32;
                    let spec = MixingSpec { gelu, epsilon: EPSILON, recompute, precision, scaled };
                    let case = Case { tokens, shape, hidden, spec };
                    let expected = mixing(case, &Device::flex());
                    for (target, worst) in targets.iter().zip(&mut worst) {
                        if target.is_software && shape != SHAPE_IN_SOFTWARE {
                            continue;
                        }
                        let spec = MixingSpec { precision: target.precision, ..spec };
                        let found = mixing(Case { spec, ..case }, &target.device);
                        for (k, (found, expected)) in found.iter().zip(&expected).enumerate() {
                            let error = distance(found, expected);
                            worst[k] = worst[k].max(error);
                            if error > target.tolerance {
                                let name = target.name;
                                failures.push(format!("{name} {} {error:.1e} {case:?}", names[k]));
                            }
                        }
                    }
                }
            }
        }
    }
    for (target, worst) in targets.iter().zip(&worst) {
        println!("{} {:?}: {names:?} {}", target.name, target.precision, list(worst));
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures[..failures.len().min(12)].join("\n")
    );
}

#[test]
fn layers_around_the_blocks_agree_with_the_cpu() {
    let run = |device: &Device, precision: Precision| {
        let device = device.clone().autodiff();
        let x = tensor::<2>(1, [98, 48], 1.0, 0.0, &device);
        let weight = tensor::<2>(2, [48, 264], 0.2, 0.0, &device).require_grad();
        let bias = tensor::<1>(3, [264], 0.5, 0.0, &device).require_grad();
        let gamma = tensor::<1>(4, [264], 0.5, 1.0, &device).require_grad();
        let beta = tensor::<1>(5, [264], 0.5, 0.0, &device).require_grad();
        let head = tensor::<2>(6, [264, 10], 0.1, 0.0, &device).require_grad();
        let head_bias = tensor::<1>(7, [10], 0.1, 0.0, &device).require_grad();
        let tokens = dense(x, weight.clone(), bias.clone(), precision).reshape([2, 49, 264]);
        let normal = layer_norm(
            tokens.clone(),
            NormParameters { gamma: gamma.clone(), beta: beta.clone() },
            EPSILON,
        );
        let features = mean_layer_norm(
            tokens,
            NormParameters { gamma: gamma.clone(), beta: beta.clone() },
            EPSILON,
        );
        let logits = dense(features.clone(), head.clone(), head_bias.clone(), Precision::F32);
        let upstream = tensor::<2>(8, [2, 10], 1.0, 0.0, &device);
        let more = tensor::<3>(9, [2, 49, 264], 0.1, 0.0, &device);
        let loss =
            (logits.clone() * upstream).sum() + (normal.clone().cast(FloatDType::F32) * more).sum();
        let gradients = loss.backward();
        let mut results = vec![values(normal), values(features), values(logits)];
        results.extend([weight, head].map(|w| values(w.grad(&gradients).unwrap())));
        results.extend([bias, gamma, beta, head_bias].map(|v| values(v.grad(&gradients).unwrap())));
        results
    };
    let expected = run(&Device::flex(), Precision::F32);
    for target in targets() {
        let found = run(&target.device, target.precision);
        let errors: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| distance(a, b)).collect();
        println!("{} {:?}: {}", target.name, target.precision, list(&errors));
        assert!(
            errors.iter().all(|&error| error < target.tolerance),
            "{target:?}: {}",
            list(&errors)
        );
    }
}

#[test]
fn updates_agree_with_the_cpu() {
    let lens = [1, 1000, 8192, 20_001];
    // Of one axis, and of two.
    let any = |n: usize, seed, scale, centre, device: &Device| match n {
        1000 => AnyTensor::from(tensor(seed, [25, 40], scale, centre, device)),
        _ => AnyTensor::from(tensor(seed, [n], scale, centre, device)),
    };
    let values_of = |tensor: AnyTensor| tensor.into_data().iter::<f32>().collect::<Vec<f32>>();
    let run = |device: &Device| {
        let mut state: Vec<[AnyTensor; 3]> = lens
            .iter()
            .map(|&n| {
                let parameter = any(n, n as u64, 1.0, 0.0, device);
                let zeros = parameter.zeros_like();
                [parameter, zeros.clone(), zeros]
            })
            .collect();
        let mut norms = Vec::new();
        let mut averages: Vec<AnyTensor> = state.iter().map(|[p, ..]| p.clone()).collect();
        // Held by somebody else, who must not see it change.
        let held = state[1][0].clone();
        for step in 1..4 {
            let gradients: Vec<AnyTensor> =
                lens.iter().map(|&n| any(n, n as u64 + step, 0.5, 0.1, device)).collect();
            let squared_norm = squared_norm(&gradients).unwrap();
            norms.extend(values(squared_norm.clone()));
            norms.extend(values(dot(gradients.iter().zip(&averages)).unwrap()));
            let scaled: Vec<AnyTensor> =
                gradients.iter().map(|g| g.clone().times(&squared_norm)).collect();
            norms.extend(values(dot(gradients.iter().zip(&scaled)).unwrap()));
            // Clips in the first step alone.
            let clip = Clip { squared_norm, limit: if step == 1 { 1.0 } else { 1e6 } };
            let inputs = state.into_iter().zip(gradients).enumerate().map(|(i, ([p, m, v], g))| {
                let weight_decay = if i % 2 == 0 { 0.1 } else { 0.0 };
                let step = AdamwStep {
                    gradient_scale: 0.7,
                    learning_rate: 1e-2 / (i + 1) as f64,
                    beta1: 0.9,
                    beta2: 0.999,
                    epsilon: 1e-8,
                    weight_decay,
                    step,
                };
                ([p, g, m, v], step)
            });
            state = adamw_update(inputs.collect(), Some(&clip));
            let inputs = state.into_iter().map(|[p, m, v]| {
                let step = SgdStep {
                    gradient_scale: 0.5,
                    learning_rate: 1e-2,
                    momentum: 0.9,
                    weight_decay: 0.1,
                };
                (([p, v.clone(), m], step), v)
            });
            let (inputs, seconds): (Vec<_>, Vec<_>) = inputs.unzip();
            let updated = sgd_update(inputs, Some(&clip)).into_iter().zip(seconds);
            state = updated.map(|([p, m], v)| [p, m, v]).collect();
            averages = average_update(
                averages.into_iter().zip(&state).map(|(a, [p, ..])| [a, p.clone()]).collect(),
                0.9,
            );
        }
        let mut results: Vec<Vec<f32>> = state.into_iter().flatten().map(values_of).collect();
        results.extend(averages.into_iter().map(values_of));
        results.push(norms);
        results.push(values_of(held));
        results
    };
    let expected = run(&Device::flex());
    for (name, device, ..) in gpus() {
        for (i, (found, expected)) in run(&device).iter().zip(&expected).enumerate() {
            let error = distance(found, expected);
            assert!(error < F32_TOLERANCE, "{name} {i}: {error:.1e}");
        }
    }
}

/// Where the norm is not read before the update.
#[cfg(feature = "cuda")]
#[test]
fn an_update_with_a_norm_that_is_not_finite_changes_nothing() {
    let Some((_, cuda, ..)) = gpus().into_iter().find(|(name, ..)| *name == "cuda") else { return };
    for bad in [f32::NAN, f32::INFINITY] {
        let before = noise(1, 100, 1.0);
        let state = [1, 2, 3].map(|_| AnyTensor::from(tensor::<1>(1, [100], 1.0, 0.0, &cuda)));
        let gradient = Tensor::<1>::from_data(TensorData::new(vec![bad; 100], [100]), &cuda);
        let gradient = AnyTensor::from(gradient);
        let clip = Clip {
            squared_norm: squared_norm(std::slice::from_ref(&gradient)).unwrap(),
            limit: 1.0,
        };
        let step = AdamwStep {
            gradient_scale: 1.0,
            learning_rate: 1e-2,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.1,
            step: 1,
        };
        let [p, m, v] = state;
        for group in adamw_update(vec![([p, gradient, m, v], step)], Some(&clip)) {
            for after in group {
                assert_eq!(after.into_data().iter::<f32>().collect::<Vec<f32>>(), before);
            }
        }
    }
}

/// The way that gradients of several processes take, with a group of one GPU: it has to leave every value.
#[cfg(feature = "cuda")]
#[test]
fn a_group_of_one_gpu_sums_to_what_it_has() {
    let Some((_, device, ..)) = gpus().into_iter().find(|(name, ..)| *name == "cuda") else {
        return;
    };
    if !mixer_kernels::has_nccl() {
        println!("NCCL was not found: nothing was summed");
        return;
    }
    let tensors = || -> Vec<AnyTensor> {
        let large = tensor::<2>(1, [300, 257], 3.0, 0.0, &device);
        let small = tensor::<1>(2, [1], 1.0, 0.0, &device);
        let half = tensor::<2>(3, [64, 64], 1.0, 0.0, &device).cast(FloatDType::BF16);
        vec![large.into(), small.into(), half.into()]
    };
    // It is in no group yet.
    assert!(mixer_kernels::sum_over_gpus(tensors()).is_err());
    assert!(mixer_kernels::cuda_group_join(0, &[1, 2, 3], 0, 1).unwrap_err().contains("3 bytes"));
    let id = mixer_kernels::cuda_group_id().unwrap();
    mixer_kernels::cuda_group_join(0, &id, 0, 1).unwrap();
    for kept in [false, true] {
        let given = tensors();
        // Where somebody else reads them, they are summed in a copy.
        let held = kept.then(|| given.clone());
        let sums = mixer_kernels::sum_over_gpus(given).unwrap();
        let data = |tensors: Vec<AnyTensor>| -> Vec<TensorData> {
            tensors.into_iter().map(AnyTensor::into_data).collect()
        };
        assert_eq!(data(sums), data(tensors()));
        assert_eq!(held.map(data), kept.then(|| data(tensors())));
    }
}
