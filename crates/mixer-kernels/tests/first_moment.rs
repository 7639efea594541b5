//! First moments in sixteen bits: the parameter moves by what was not rounded yet, and what is kept is the
//! nearest value. bf16 goes through the CPU's own kernels, f16 through the bodies for any backend.

#![cfg(feature = "flex")]

use burn::tensor::{DType, Device, Tensor, TensorData, bf16, f16};
use mixer_kernels::{AdamwStep, AnyTensor, SgdStep, adamw_update, sgd_update};

/// More than a piece of work, and no multiple of a register.
const LEN: usize = 16 * 1024 + 11;
const RATE: f64 = 1e-2;
const DECAY: f64 = 0.1;
const SCALE: f64 = 0.5;

fn noise(seed: usize) -> Vec<f32> {
    (0..LEN).map(|i| ((i * 7919 + seed * 104_729) % 2017) as f32 / 1008.0 - 1.0).collect()
}

fn tensor(values: Vec<f32>) -> AnyTensor {
    Tensor::<1>::from_data(TensorData::new(values, [LEN]), &Device::flex()).into()
}

fn values(tensor: &AnyTensor) -> Vec<f32> {
    tensor.clone().cast(DType::F32).into_data().iter::<f32>().collect()
}

/// The value that a type keeps of another one.
fn rounded(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::BF16 => bf16::from_f32(value).to_f32(),
        _ => f16::from_f32(value).to_f32(),
    }
}

fn assert_near(found: &[f32], expected: &[f64], what: &str) {
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(error < 1e-6, "{what}, element {i}: {found}, expected {expected}");
    }
}

#[test]
fn adamw_moves_by_the_moment_before_it_is_rounded() {
    for dtype in [DType::BF16, DType::F16] {
        let mut state =
            [tensor(noise(1)), tensor(vec![0.0; LEN]).cast(dtype), tensor(vec![0.0; LEN])];
        for count in 1..=4u64 {
            let gradient = noise(1 + count as usize);
            let before = state.each_ref().map(values);
            let step = AdamwStep {
                gradient_scale: SCALE,
                learning_rate: RATE,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: DECAY,
                step: count,
            };
            let [parameter, first, second] = state;
            let tensors = [parameter, tensor(gradient.clone()), first, second];
            let mut updated = adamw_update(vec![(tensors, step)], None);
            state = updated.remove(0);
            let [parameter, first, second] = state.each_ref().map(values);
            let (mut parameters, mut seconds) = (Vec::new(), Vec::new());
            for (i, g) in gradient.iter().enumerate() {
                // In f32, as every bit of what is kept counts.
                let moment = before[1][i] * 0.9 + g * SCALE as f32 * (1.0 - 0.9f64) as f32;
                assert_eq!(
                    first[i],
                    rounded(dtype, moment),
                    "{dtype:?}, step {count}, element {i}"
                );
                let g = f64::from(*g) * SCALE;
                let moment = f64::from(before[1][i]) * 0.9 + g * (1.0 - 0.9);
                let square = f64::from(before[2][i]) * 0.999 + g * g * (1.0 - 0.999);
                let correct = |beta: f64| 1.0 / (1.0 - beta.powi(count as i32));
                let deviation = (square * correct(0.999)).sqrt() + 1e-8;
                let change = RATE * moment * correct(0.9) / deviation;
                parameters.push(f64::from(before[0][i]) * (1.0 - RATE * DECAY) - change);
                seconds.push(square);
            }
            assert_near(&parameter, &parameters, &format!("{dtype:?}, step {count}, parameter"));
            assert_near(&second, &seconds, &format!("{dtype:?}, step {count}, second moment"));
        }
    }
}

#[test]
fn sgd_moves_by_the_velocity_before_it_is_rounded() {
    for dtype in [DType::BF16, DType::F16] {
        let mut state = [tensor(noise(1)), tensor(vec![0.0; LEN]).cast(dtype)];
        for count in 1..=4 {
            let gradient = noise(1 + count);
            let before = state.each_ref().map(values);
            let step = SgdStep {
                gradient_scale: SCALE,
                learning_rate: RATE,
                momentum: 0.9,
                weight_decay: DECAY,
            };
            let [parameter, velocity] = state;
            let tensors = [parameter, tensor(gradient.clone()), velocity];
            let mut updated = sgd_update(vec![(tensors, step)], None);
            state = updated.remove(0);
            let [parameter, velocity] = state.each_ref().map(values);
            let mut parameters = Vec::new();
            for (i, g) in gradient.iter().enumerate() {
                let moment = before[1][i] * 0.9 + g * SCALE as f32;
                assert_eq!(
                    velocity[i],
                    rounded(dtype, moment),
                    "{dtype:?}, step {count}, element {i}"
                );
                let moment = f64::from(before[1][i]) * 0.9 + f64::from(*g) * SCALE;
                parameters.push(f64::from(before[0][i]) * (1.0 - RATE * DECAY) - RATE * moment);
            }
            assert_near(&parameter, &parameters, &format!("{dtype:?}, step {count}, parameter"));
        }
    }
}

/// Halfway between two values the even one is kept; what is not a number stays one.
#[test]
fn ties_go_to_even_and_nan_stays() {
    let wanted = [
        (0x3f80_8000, 0x3f80),
        (0x3f81_8000, 0x3f82),
        (0x3f80_8001, 0x3f81),
        (0xbf80_8000, 0xbf80),
        (0x7f7f_ffff, 0x7f80),
        (0x0000_8000, 0x0000),
        (0x8001_8000, 0x8002),
        (0x7f80_0000, 0x7f80),
        (0x7f80_0001, 0x7fc0),
        (0x7fff_ffff, 0x7fff),
    ];
    let gradient = wanted.map(|(bits, _)| f32::from_bits(bits)).to_vec();
    let short = |values| -> AnyTensor {
        Tensor::<1>::from_data(TensorData::new(values, [wanted.len()]), &Device::flex()).into()
    };
    let zeros = || short(vec![0.0f32; wanted.len()]);
    let step =
        SgdStep { gradient_scale: 1.0, learning_rate: 0.0, momentum: 0.0, weight_decay: 0.0 };
    let tensors = [zeros(), short(gradient), zeros().cast(DType::BF16)];
    let mut updated = sgd_update(vec![(tensors, step)], None);
    let [_, velocity] = updated.remove(0);
    let found: Vec<u16> = velocity.into_data().iter::<bf16>().map(bf16::to_bits).collect();
    assert_eq!(found, wanted.map(|(_, kept)| kept).to_vec());
}
