//! Holds every operation, forward and backward, on every CPU backend against the formula in `f64`:
//! loops by hand on Flex, the default bodies on NdArray.
//!
//! Sizes and memory layouts are those where such loops go wrong: one row, channels that are no multiple
//! of a vector, more than one piece of parallel work, and tensors that are windows into others,
//! transposed, reversed or shared.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::f64::consts::{PI, SQRT_2};

use burn::tensor::{DType, Device, Tensor, TensorData};
use mixer_kernels::{
    Gelu, MixingParameters, MixingSpec, NormParameters, Precision, average_update, gelu,
    layer_norm, mix_channels, mix_tokens,
};

const EPSILON: f64 = 1e-6;

/// GELU: |error| ÷ (1 + |x|).
const GELU_TOLERANCE: f64 = 5e-7;
/// Derivative of GELU: |error| ÷ |upstream gradient|.
const GELU_GRADIENT_TOLERANCE: f64 = 2e-6;
/// Layer normalisation: |error| ÷ largest |reference|.
const NORM_TOLERANCE: f64 = 1e-5;
/// Its gradients: |error| ÷ what the terms of the sum would give if none cancelled.
const NORM_GRADIENT_TOLERANCE: f64 = 2e-6;

/// Every CPU device that is compiled in, by name.
fn devices() -> Vec<(&'static str, Device)> {
    vec![
        #[cfg(feature = "flex")]
        ("flex", Device::flex()),
        #[cfg(feature = "ndarray")]
        #[expect(deprecated, reason = "the second backend that numbers are checked against")]
        ("ndarray", Device::ndarray()),
    ]
}

/// SplitMix64, so that the tests need no random-number crate.
struct Random(u64);

impl Random {
    /// Uniform in [-1, 1).
    fn value(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 40) as f64 / (1_u64 << 23) as f64 - 1.0) as f32
    }

    fn values(&mut self, n: usize, centre: f32, radius: f32) -> Vec<f32> {
        (0..n).map(|_| centre + radius * self.value()).collect()
    }
}

/// The layout of a tensor in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    /// In order, and all of its buffer.
    Plain,
    /// The last two axes exchanged.
    Swapped,
    /// In order from the start, with other elements after.
    Prefix,
    /// In order, with other elements before and after.
    Window,
    /// Rows with other elements between them.
    Columns,
    /// The last axis backwards.
    Reversed,
}

const LAYOUTS: [Layout; 6] = [
    Layout::Plain,
    Layout::Swapped,
    Layout::Prefix,
    Layout::Window,
    Layout::Columns,
    Layout::Reversed,
];

impl Layout {
    /// The shape that `view` makes `shape` of.
    fn buffer(self, [a, b, c]: [usize; 3]) -> [usize; 3] {
        match self {
            Layout::Plain | Layout::Reversed => [a, b, c],
            Layout::Swapped => [a, c, b],
            Layout::Prefix => [a + 1, b, c],
            Layout::Window => [a + 2, b, c],
            Layout::Columns => [a, b, c + 3],
        }
    }

    fn view(self, buffer: Tensor<3>) -> Tensor<3> {
        let [a, b, c] = buffer.dims();
        match self {
            Layout::Plain => buffer,
            Layout::Swapped => buffer.swap_dims(1, 2),
            Layout::Prefix => buffer.slice([0..a - 1, 0..b, 0..c]),
            Layout::Window => buffer.slice([1..a - 1, 0..b, 0..c]),
            Layout::Columns => buffer.slice([0..a, 0..b, 1..c - 2]),
            Layout::Reversed => buffer.flip([2]),
        }
    }
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// A tensor of some shape and layout, with values of its own, to be differentiated or not.
struct Input {
    layout: Layout,
    buffer: Tensor<3>,
}

impl Input {
    fn new(shape: [usize; 3], layout: Layout, scale: (f32, f32), seed: u64, on: &Device) -> Input {
        let shape = layout.buffer(shape);
        let values = Random(seed).values(shape.iter().product(), scale.0, scale.1);
        let buffer = tensor(&values, shape, on);
        let buffer = if on.is_autodiff() { buffer.require_grad() } else { buffer };
        Input { layout, buffer }
    }

    fn tensor(&self) -> Tensor<3> {
        self.layout.view(self.buffer.clone())
    }

    fn values(&self) -> Vec<f32> {
        values(self.tensor())
    }

    fn gradient(&self, gradients: &burn::tensor::Gradients) -> Vec<f32> {
        values(self.layout.view(self.buffer.grad(gradients).unwrap()))
    }
}

/// Shapes `[…, C]`: one row, odd and single channels, and enough to make many pieces of parallel work
/// with a last one that is cut short.
const SHAPES: [[usize; 3]; 10] = [
    [1, 1, 1],
    [1, 1, 7],
    [3, 5, 1],
    [2, 9, 3],
    [5, 11, 13],
    [1, 37, 100],
    [3, 5, 257],
    [7, 97, 100],
    [3, 67, 257],
    [2, 3, 20_011],
];

/// Every shape in every layout.
fn cases() -> impl Iterator<Item = ([usize; 3], Layout)> {
    SHAPES.into_iter().flat_map(|shape| LAYOUTS.map(|layout| (shape, layout)))
}

/// Φ through the error function's series or, further out, its complement's continued fraction.
fn normal_cdf(x: f64) -> f64 {
    let z = x.abs() / SQRT_2;
    let tail = if z < 2.5 {
        let (mut term, mut sum) = (z, z);
        for n in 1..80 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        0.5 - sum / PI.sqrt()
    } else {
        let fraction = (1..80).rev().fold(0.0, |f, n| f64::from(n) / 2.0 / (z + f));
        0.5 * (-z * z).exp() / (z + fraction) / PI.sqrt()
    };
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// GELU and its derivative.
fn gelu_f64(x: f64, form: Gelu) -> (f64, f64) {
    match form {
        Gelu::Erf => {
            let cdf = normal_cdf(x);
            (x * cdf, cdf + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt())
        }
        Gelu::Tanh => {
            let slope = (2.0 / PI).sqrt();
            let t = (slope * (x + 0.044_715 * x.powi(3))).tanh();
            let inner = slope * (1.0 + 3.0 * 0.044_715 * x * x);
            (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)
        }
    }
}

/// Panics at the first element that is further from its reference than its tolerance, or NaN.
#[track_caller]
fn assert_within(what: &str, found: &[f32], expected: impl ExactSizeIterator<Item = (f64, f64)>) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&found, (expected, tolerance))) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(
            error <= tolerance,
            "{what}: {found:e} at {i}, expected {expected:e}: off by {error:.2e}, not {tolerance:.2e}"
        );
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

#[test]
fn gelu_agrees_with_float64() {
    for (name, device) in devices() {
        for form in [Gelu::Tanh, Gelu::Erf] {
            for (shape, layout) in cases() {
                let what = format!("{form:?} on {name}, {shape:?} {layout:?}");
                let check = |x: &[f32], y: Tensor<3>| {
                    assert_eq!(y.dims(), shape, "{what}");
                    let expected = x.iter().map(|&x| {
                        let x = f64::from(x);
                        (gelu_f64(x, form).0, GELU_TOLERANCE * (1.0 + x.abs()))
                    });
                    assert_within(&what, &values(y), expected);
                };
                // Held by another, and therefore not to be written to.
                let x = Input::new(shape, layout, (0.0, 9.0), 1, &device);
                let before = x.values();
                check(&before, gelu(x.tensor(), form));
                assert_eq!(x.values(), before, "{what}: the input was changed");
                // Given away, and therefore free to be written to.
                check(&before, gelu(x.layout.view(x.buffer), form));
            }
        }
    }
}

#[test]
fn gradient_of_gelu_agrees_with_float64() {
    for (name, device) in devices() {
        let device = device.autodiff();
        for form in [Gelu::Tanh, Gelu::Erf] {
            for (shape, layout) in cases() {
                let what = format!("{form:?} on {name}, {shape:?} {layout:?}");
                let x = Input::new(shape, layout, (0.0, 9.0), 2, &device);
                // The upstream gradient has the layout that its own view leaves it in.
                let upstream = Input::new(shape, layout, (0.0, 2.0), 3, &device);
                let y = gelu(x.tensor(), form);
                let gradients = (y * upstream.tensor()).sum().backward();
                let (inputs, weights) = (x.values(), upstream.values());
                let expected = inputs.iter().zip(&weights).map(|(&x, &weight)| {
                    let weight = f64::from(weight);
                    let gradient = weight * gelu_f64(f64::from(x), form).1;
                    (gradient, GELU_GRADIENT_TOLERANCE * weight.abs())
                });
                assert_within(&what, &x.gradient(&gradients), expected);
            }
        }
    }
}

/// `x + f(x)`, as in a residual branch: one upstream gradient for two readers, of which neither may write
/// over what the other reads.
#[test]
fn gradients_that_others_read_are_left_alone() {
    let shape = [3, 67, 101];
    for (name, device) in devices() {
        let device = device.autodiff();
        for layout in LAYOUTS {
            let what = format!("{name}, {layout:?}");
            let x = Input::new(shape, layout, (0.0, 3.0), 4, &device);
            let upstream = Input::new(shape, layout, (0.0, 2.0), 5, &device);
            let gradient = |y: Tensor<3>| {
                // Multiplied in the order of memory, so that what flows back has the layout of `x`.
                let product = match layout {
                    Layout::Swapped => y.swap_dims(1, 2) * upstream.tensor().swap_dims(1, 2),
                    _ => y * upstream.tensor(),
                };
                wide(&x.gradient(&product.sum().backward()))
            };
            let gamma = tensor(&[1.5; 101], [101], &device);
            let operations: [&dyn Fn(Tensor<3>) -> Tensor<3>; 3] =
                [&|x| gelu(x, Gelu::Tanh), &|x| gelu(x, Gelu::Erf), &|x| {
                    layer_norm(
                        x,
                        NormParameters { gamma: gamma.clone(), beta: gamma.clone() },
                        EPSILON,
                    )
                }];
            let weights = wide(&upstream.values());
            for operation in operations {
                let alone = gradient(operation(x.tensor()));
                let (first, second) = (x.tensor(), x.tensor());
                for sum in [
                    gradient(first.clone() + operation(first)),
                    gradient(operation(second.clone()) + second),
                ] {
                    for ((sum, alone), weight) in sum.iter().zip(&alone).zip(&weights) {
                        let error = (sum - alone - weight).abs();
                        assert!(error <= 1e-6 * (1.0 + alone.abs()), "{what}: {error:e}");
                    }
                }
            }
        }
    }
}

/// The gradient of a plain sum is a broadcast one: every element the same memory.
#[test]
fn broadcast_gradients_are_read_element_by_element() {
    let shape = [2, 131, 101];
    for (name, device) in devices() {
        let device = device.autodiff();
        for form in [Gelu::Tanh, Gelu::Erf] {
            let x = Input::new(shape, Layout::Plain, (0.0, 9.0), 6, &device);
            let gradients = gelu(x.tensor(), form).sum().backward();
            let inputs = x.values();
            let expected =
                inputs.iter().map(|&x| (gelu_f64(f64::from(x), form).1, GELU_GRADIENT_TOLERANCE));
            assert_within(name, &x.gradient(&gradients), expected);
        }
        let x = Input::new(shape, Layout::Plain, (0.0, 3.0), 7, &device);
        let gamma = Random(8).values(101, 1.0, 0.5);
        let norm = Norm::of(&wide(&x.values()), &wide(&gamma), &vec![1.0; 2 * 131 * 101]);
        let [gamma, beta] = [&gamma, &gamma].map(|v| tensor(v, [101], &device).require_grad());
        let y = layer_norm(
            x.tensor(),
            NormParameters { gamma: gamma.clone(), beta: beta.clone() },
            EPSILON,
        );
        let gradients = y.sum().backward();
        norm.check_gradients(
            name,
            &x.gradient(&gradients),
            &values(gamma.grad(&gradients).unwrap()),
            &values(beta.grad(&gradients).unwrap()),
        );
    }
}

/// Layer normalisation of `[rows, C]` in `f64`, and its gradients for an upstream gradient. With each
/// gradient comes the sum of the magnitudes of its terms, against which rounding is to be judged.
struct Norm {
    normal: Vec<f64>,
    dx: Vec<(f64, f64)>,
    dgamma: Vec<(f64, f64)>,
    dbeta: Vec<(f64, f64)>,
}

impl Norm {
    fn of(x: &[f64], gamma: &[f64], upstream: &[f64]) -> Norm {
        let c = gamma.len();
        let mean = |terms: &mut dyn Iterator<Item = f64>| terms.sum::<f64>() / c as f64;
        let mut norm = Norm {
            normal: Vec::with_capacity(x.len()),
            dx: Vec::with_capacity(x.len()),
            dgamma: vec![(0.0, 0.0); c],
            dbeta: vec![(0.0, 0.0); c],
        };
        for (row, upstream) in x.chunks_exact(c).zip(upstream.chunks_exact(c)) {
            let centre = mean(&mut row.iter().copied());
            let variance = mean(&mut row.iter().map(|x| (x - centre).powi(2)));
            let scale = 1.0 / (variance + EPSILON).sqrt();
            let normal: Vec<f64> = row.iter().map(|x| (x - centre) * scale).collect();
            let h: Vec<f64> = upstream.iter().zip(gamma).map(|(u, g)| u * g).collect();
            let mean_h = mean(&mut h.iter().copied());
            let mean_hn = mean(&mut h.iter().zip(&normal).map(|(h, n)| h * n));
            let terms_h = mean(&mut h.iter().map(|h| h.abs()));
            let terms_hn = mean(&mut h.iter().zip(&normal).map(|(h, n)| (h * n).abs()));
            for i in 0..c {
                let n = normal[i];
                norm.dx.push((
                    (h[i] - mean_h - n * mean_hn) * scale,
                    (h[i].abs() + terms_h + n.abs() * terms_hn) * scale,
                ));
                // `n` is as far off where it is small as where it is 1.
                let weight = upstream[i];
                for (sum, term, size) in [
                    (&mut norm.dgamma[i], weight * n, weight.abs() * n.abs().max(1.0)),
                    (&mut norm.dbeta[i], weight, weight.abs()),
                ] {
                    sum.0 += term;
                    sum.1 += size;
                }
            }
            norm.normal.extend(normal);
        }
        norm
    }

    #[track_caller]
    fn check_gradients(&self, what: &str, dx: &[f32], dgamma: &[f32], dbeta: &[f32]) {
        for (name, found, expected) in
            [("dx", dx, &self.dx), ("dgamma", dgamma, &self.dgamma), ("dbeta", dbeta, &self.dbeta)]
        {
            let expected =
                expected.iter().map(|&(value, scale)| (value, NORM_GRADIENT_TOLERANCE * scale));
            assert_within(&format!("{name} {what}"), found, expected);
        }
    }
}

#[test]
fn layer_norm_agrees_with_float64() {
    for (name, device) in devices() {
        for (shape, layout) in cases() {
            let what = format!("{name}, {shape:?} {layout:?}");
            let c = shape[2];
            let x = Input::new(shape, layout, (0.3, 2.0), 9, &device);
            let gamma = Random(10).values(c, 1.0, 0.5);
            let beta = Random(11).values(c, 0.0, 0.5);
            let before = x.values();
            let normal = Norm::of(&wide(&before), &wide(&gamma), &wide(&before)).normal;
            let expected: Vec<f64> = normal
                .chunks_exact(c)
                .flat_map(|row| row.iter().zip(&gamma).zip(&beta))
                .map(|((n, &gamma), &beta)| n * f64::from(gamma) + f64::from(beta))
                .collect();
            let largest = expected.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
            let [gamma, beta] = [&gamma, &beta].map(|v| tensor(v, [c], &device));
            let y = layer_norm(
                x.tensor(),
                NormParameters { gamma: gamma.clone(), beta: beta.clone() },
                EPSILON,
            );
            assert_eq!(y.dims(), shape, "{what}");
            let expected = expected.iter().map(|&y| (y, NORM_TOLERANCE * largest));
            assert_within(&what, &values(y), expected.clone());
            assert_eq!(x.values(), before, "{what}: the input was changed");
            let y = layer_norm(x.layout.view(x.buffer), NormParameters { gamma, beta }, EPSILON);
            assert_within(&what, &values(y), expected);
        }
    }
}

#[test]
fn gradients_of_layer_norm_agree_with_float64() {
    for (name, device) in devices() {
        let device = device.autodiff();
        for (shape, layout) in cases() {
            let what = format!("{name}, {shape:?} {layout:?}");
            let c = shape[2];
            let x = Input::new(shape, layout, (0.3, 2.0), 12, &device);
            let upstream = Input::new(shape, layout, (0.0, 2.0), 13, &device);
            let gamma = Random(14).values(c, 1.0, 0.5);
            let norm = Norm::of(&wide(&x.values()), &wide(&gamma), &wide(&upstream.values()));
            let [gamma, beta] = [&gamma, &gamma].map(|v| tensor(v, [c], &device).require_grad());
            let y = layer_norm(
                x.tensor(),
                NormParameters { gamma: gamma.clone(), beta: beta.clone() },
                EPSILON,
            );
            let gradients = (y * upstream.tensor()).sum().backward();
            norm.check_gradients(
                &what,
                &x.gradient(&gradients),
                &values(gamma.grad(&gradients).unwrap()),
                &values(beta.grad(&gradients).unwrap()),
            );
        }
    }
}

/// A mean of 1000 is only known to half its last place, 3e-5, and to the rounding of its sum; a variance
/// taken as E[x²] − E[x]² would be wrong by 0.06 instead.
#[test]
fn a_large_mean_costs_no_more_than_its_own_rounding() {
    let shape = [3, 31, 257];
    for (name, device) in devices() {
        for centre in [1e3, -1e3] {
            let x = Input::new(shape, Layout::Plain, (centre, 2.0), 15, &device);
            let x64 = wide(&x.values());
            let expected = Norm::of(&x64, &[1.0; 257], &x64).normal;
            let [ones, zeros] = [1.0, 0.0].map(|v| tensor(&[v; 257], [257], &device));
            let y = values(layer_norm(
                x.tensor(),
                NormParameters { gamma: ones, beta: zeros },
                EPSILON,
            ));
            let largest = y.iter().zip(&expected).map(|(y, e)| (f64::from(*y) - e).abs());
            println!("{name}, mean {centre}: {:.2e}", largest.fold(0.0, f64::max));
            assert_within(name, &y, expected.iter().map(|&y| (y, 2e-4)));
        }
    }
}

/// Where nothing varies, the epsilon decides: finite everywhere, and the output is the shift.
#[test]
fn constant_rows_give_the_shift() {
    let c = 13;
    for (name, device) in devices() {
        let device = device.autodiff();
        for value in [0.0, 1.0, -2.5] {
            let x = tensor(&[value; 39], [3, 1, c], &device).require_grad();
            let beta = Random(16).values(c, 0.0, 1.0);
            let gamma = tensor(&vec![1.5; c], [c], &device);
            let y = layer_norm(
                x.clone(),
                NormParameters { gamma, beta: tensor(&beta, [c], &device) },
                EPSILON,
            );
            let expected = beta.iter().cycle().take(3 * c).map(|&beta| (f64::from(beta), 1e-3));
            assert_within(name, &values(y.clone()), expected.collect::<Vec<_>>().into_iter());
            let gradient = values(x.grad(&y.powi_scalar(2).sum().backward()).unwrap());
            assert!(gradient.iter().all(|g| g.is_finite()), "{name}: {gradient:?}");
        }
    }
}

/// The default bodies' formulas, without `f32` in the way.
/// Output and eight gradients of a half of a block: `x`, normalisation, both dense layers, and the
/// upstream gradient's own way in.
fn mixing(
    tokens: bool,
    shape: [usize; 3],
    hidden: usize,
    layout: Layout,
    spec: MixingSpec,
    device: &Device,
) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let [b, s, c] = shape;
    let mixed = if tokens { s } else { c };
    let (rows, columns) = if tokens { (hidden, mixed) } else { (mixed, hidden) };
    let mut random = Random(shape.iter().fold(hidden as u64, |seed, &d| seed * 31 + d as u64));
    let mut vector = |n: usize, centre: f32, radius: f32| {
        tensor(&random.values(n, centre, radius), [n], &device).require_grad()
    };
    let vectors = [
        vector(c, 1.0, 0.5),
        vector(c, 0.0, 0.5),
        vector(hidden, 0.0, 0.5),
        vector(mixed, 0.0, 0.5),
    ];
    // Weights are views as well: `[1, rows, columns]` in the layout.
    let radius = (3.0 / mixed as f32).sqrt();
    let weight1 = Input::new([1, rows, columns], layout, (0.0, radius), 21, &device);
    let radius = (3.0 / hidden as f32).sqrt();
    let weight2 = Input::new([1, columns, rows], layout, (0.0, radius), 22, &device);
    let x = Input::new(shape, layout, (0.3, 2.0), 23, &device);
    let upstream = Input::new(shape, layout, (0.0, 1.0), 24, &device);
    // The second example's branch is dropped, as by stochastic depth.
    let scale: Vec<f32> = (0..b).map(|i| if i == 1 { 0.0 } else { 1.25 }).collect();
    let [gamma, beta, bias1, bias2] = vectors.clone();
    let parameters = MixingParameters {
        gamma,
        beta,
        weight1: weight1.tensor().squeeze_dim::<2>(0),
        bias1,
        weight2: weight2.tensor().squeeze_dim::<2>(0),
        bias2,
    };
    let mix = if tokens { mix_tokens } else { mix_channels };
    let y = mix(x.tensor(), parameters, tensor(&scale, [b], &device), spec);
    let gradients = (y.clone() * upstream.tensor()).sum().backward();
    let mut results = vec![values(y)];
    results.extend([&x, &upstream, &weight1, &weight2].map(|input| input.gradient(&gradients)));
    results.extend(vectors.map(|vector| values(vector.grad(&gradients).unwrap())));
    results
}

/// ‖a − b‖ ÷ ‖b‖.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let norm: f64 = b.iter().map(|&b| square(f64::from(b))).sum();
    difference.sqrt() / norm.sqrt().max(1e-30)
}

/// The hand-written halves of a block on Flex against the default bodies on NdArray, through autodiff,
/// with windows, transposed and reversed tensors as inputs and weights.
#[test]
fn halves_of_a_block_agree_between_backends() {
    let devices = devices();
    let mut worst = 0.0f64;
    for (i, layout) in LAYOUTS.into_iter().enumerate() {
        for (shape, hidden) in
            [([1, 2, 5], 3), ([3, 49, 32], 64), ([2, 7, 100], 33), ([5, 33, 64], 257)]
        {
            for tokens in [true, false] {
                for recompute in [false, true] {
                    let form = if i % 2 == 0 { Gelu::Erf } else { Gelu::Tanh };
                    let precision = Precision::F32;
                    let spec = MixingSpec {
                        gelu: form,
                        epsilon: EPSILON,
                        recompute,
                        precision,
                        scaled: true,
                    };
                    let of = |device| mixing(tokens, shape, hidden, layout, spec, device);
                    let found: Vec<_> = devices.iter().map(|(_, device)| of(device)).collect();
                    for (i, results) in found.iter().enumerate().skip(1) {
                        for (k, (a, b)) in found[0].iter().zip(results).enumerate() {
                            let error = distance(a, b);
                            worst = worst.max(error);
                            let what =
                                format!("{tokens} {shape:?} {hidden} {layout:?} {recompute}");
                            assert!(error < 5e-6, "{}: {what} {k}: {error:.1e}", devices[i].0);
                        }
                    }
                }
            }
        }
    }
    println!("largest relative distance {worst:.1e}");
}

#[cfg(feature = "flex")]
#[test]
fn bf16_stays_near_f32_and_the_same_bits_for_the_same_input() {
    let spec = |precision, recompute| MixingSpec {
        gelu: Gelu::Erf,
        epsilon: EPSILON,
        recompute,
        precision,
        scaled: true,
    };
    let device = Device::flex();
    for tokens in [true, false] {
        for recompute in [false, true] {
            let of = |precision| {
                let spec = spec(precision, recompute);
                mixing(tokens, [5, 49, 64], 200, Layout::Plain, spec, &device)
            };
            let (exact, half) = (of(Precision::F32), of(Precision::Bf16));
            assert_eq!(half, of(Precision::Bf16));
            for (k, (a, b)) in half.iter().zip(&exact).enumerate() {
                let error = distance(a, b);
                // Rounded, but to bf16: neither nothing nor more happened.
                assert!(error < 8e-3, "{tokens} {k}: {error:.1e}");
            }
            assert!(distance(&half[0], &exact[0]) > 1e-4, "nothing was rounded");
        }
    }
}

#[test]
fn default_bodies_are_exact_in_float64() {
    let (shape, c) = ([3, 5, 7], 7);
    for (name, device) in devices() {
        let device = device.autodiff();
        let wide_tensor =
            |values: &[f64], shape: &[usize]| TensorData::new(values.to_vec(), shape.to_vec());
        let x64 = wide(&Random(17).values(105, 0.0, 4.0));
        let w64 = wide(&Random(18).values(105, 0.0, 2.0));
        let (g64, b64) =
            (wide(&Random(19).values(c, 1.0, 0.5)), wide(&Random(20).values(c, 0.0, 1.0)));
        let options = || (&device, DType::F64);
        let x = Tensor::<3>::from_data(wide_tensor(&x64, &shape), options()).require_grad();
        let w = Tensor::<3>::from_data(wide_tensor(&w64, &shape), options());
        let gamma = Tensor::<1>::from_data(wide_tensor(&g64, &[c]), options()).require_grad();
        let beta = Tensor::<1>::from_data(wide_tensor(&b64, &[c]), options()).require_grad();
        let close = |what: &str, found: TensorData, expected: Vec<f64>, tolerance: f64| {
            assert_eq!(found.dtype(), DType::F64, "{name}");
            for (found, expected) in found.iter::<f64>().zip(expected) {
                let error = (found - expected).abs();
                assert!(error <= tolerance * (1.0 + expected.abs()), "{name}, {what}: {error:e}");
            }
        };
        for form in [Gelu::Tanh, Gelu::Erf] {
            let y = gelu(x.clone(), form);
            let expected = x64.iter().map(|&x| gelu_f64(x, form).0).collect();
            close("gelu", y.clone().into_data(), expected, 1e-12);
            let gradient = x.grad(&(y * w.clone()).sum().backward()).unwrap();
            let expected = x64.iter().zip(&w64).map(|(&x, w)| w * gelu_f64(x, form).1).collect();
            close("dgelu", gradient.into_data(), expected, 1e-12);
        }
        let norm = Norm::of(&x64, &g64, &w64);
        let y = layer_norm(
            x.clone(),
            NormParameters { gamma: gamma.clone(), beta: beta.clone() },
            EPSILON,
        );
        let expected = norm.normal.iter().enumerate().map(|(i, n)| n * g64[i % c] + b64[i % c]);
        close("layer_norm", y.clone().into_data(), expected.collect(), 1e-12);
        let gradients = (y * w).sum().backward();
        let first = |pairs: &[(f64, f64)]| pairs.iter().map(|pair| pair.0).collect::<Vec<_>>();
        close("dx", x.grad(&gradients).unwrap().into_data(), first(&norm.dx), 1e-12);
        close("dgamma", gamma.grad(&gradients).unwrap().into_data(), first(&norm.dgamma), 1e-12);
        close("dbeta", beta.grad(&gradients).unwrap().into_data(), first(&norm.dbeta), 1e-12);
    }
}

#[cfg(feature = "flex")]
#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let run = |(shape, layout): ([usize; 3], Layout)| {
        let device = Device::flex().autodiff();
        let x = Input::new(shape, layout, (0.3, 3.0), 21, &device);
        let upstream = Input::new(shape, layout, (0.0, 2.0), 22, &device);
        let c = shape[2];
        let [gamma, beta] = [23, 24]
            .map(|seed| tensor(&Random(seed).values(c, 1.0, 0.5), [c], &device).require_grad());
        let mut bits: Vec<u32> = Vec::new();
        let mut put = |values: Vec<f32>| bits.extend(values.iter().map(|value| value.to_bits()));
        for form in [Gelu::Tanh, Gelu::Erf] {
            let y = gelu(x.tensor(), form);
            put(values(y.clone()));
            put(x.gradient(&(y * upstream.tensor()).sum().backward()));
        }
        let y = layer_norm(
            x.tensor(),
            NormParameters { gamma: gamma.clone(), beta: beta.clone() },
            EPSILON,
        );
        put(values(y.clone()));
        let gradients = (y * upstream.tensor()).sum().backward();
        put(x.gradient(&gradients));
        put(values(gamma.grad(&gradients).unwrap()));
        put(values(beta.grad(&gradients).unwrap()));
        bits
    };
    let in_pool = |threads, case| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(case))
    };
    for case in cases() {
        let alone = in_pool(1, case);
        for threads in [2, 4] {
            assert!(in_pool(threads, case) == alone, "{threads} threads, {case:?}");
        }
    }
}

/// The moving average `a` after another value.
fn averaged(a: Tensor<3>, p: Tensor<3>) -> Tensor<3> {
    average_update(vec![[a.into(), p.into()]], 0.9999).remove(0).into_tensor()
}

#[test]
fn moving_average_is_its_formula_and_leaves_what_others_hold() {
    for (name, device) in devices() {
        for shape in [[1, 1, 1], [1, 3, 5], [2, 7, 33], [3, 100, 161]] {
            for layout in [Layout::Plain, Layout::Window, Layout::Columns] {
                let mut random = Random(11);
                let buffer = layout.buffer(shape);
                let elements = buffer.iter().product();
                let average = random.values(elements, 0.5, 2.0);
                let parameter = random.values(elements, -0.5, 2.0);
                let [a, p] = [&average, &parameter]
                    .map(|values| layout.view(tensor(values, buffer, &device)));
                let expected: Vec<f64> = values(a.clone())
                    .iter()
                    .zip(values(p.clone()))
                    .map(|(&a, p)| 0.9999 * f64::from(a) + 0.0001 * f64::from(p))
                    .collect();
                let held = (a.clone(), values(a.clone()));
                let found = values(averaged(a, p.clone()));
                for (found, expected) in found.iter().zip(&expected) {
                    let error = (f64::from(*found) - expected).abs();
                    assert!(error < 4e-7, "{name} {shape:?} {layout:?}: {found} not {expected}");
                }
                assert_eq!(values(held.0), held.1, "{name} {shape:?} {layout:?}: written over");
                // An average of equal values stays what it is, to the last bit.
                assert_eq!(values(averaged(p.clone(), p.clone())), values(p));
            }
        }
    }
}
