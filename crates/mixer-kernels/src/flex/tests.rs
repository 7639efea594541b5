//! Both mixing operations and the products under them, for every instruction set of this machine,
//! against plain loops in `f64`.

#![expect(clippy::needless_range_loop, reason = "indices as in the formulas")]

use burn::tensor::Shape;

use super::activation::cdf_f64;
use super::branch::View;
use super::buffer::{Output, Scratch};
use super::contiguous::values;
use super::format::{Bf16, F32, Format, PANEL};
use super::panel::Matrix;
use super::{channel, panel, token};
use crate::simd::{
    InstructionSet, Kernel, Simd, bf16_is_native, dispatch_bf16, dispatch_to, instruction_set,
};
use crate::spec::{Gelu, TANH_CUBIC, TANH_SLOPE};

/// SplitMix64.
struct Random(u64);

impl Random {
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

/// A half of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Half {
    Tokens,
    Channels,
}

/// Everything that a call reads.
struct Case {
    half: Half,
    dims: [usize; 3],
    hidden: usize,
    gelu: Gelu,
    x: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    weight1: Vec<f32>,
    bias1: Vec<f32>,
    weight2: Vec<f32>,
    bias2: Vec<f32>,
    scale: Vec<f32>,
    grad: Vec<f32>,
}

/// An output and seven gradients.
type Results<T> = [Vec<T>; 8];

const NAMES: [&str; 8] = ["y", "dx", "dgamma", "dbeta", "dweight1", "dbias1", "dweight2", "dbias2"];

impl Case {
    fn new(half: Half, dims: [usize; 3], hidden: usize, gelu: Gelu) -> Self {
        let mut random = Random(dims.iter().fold(hidden as u64, |seed, &d| seed * 31 + d as u64));
        let [b, s, c] = dims;
        let mixed = if half == Half::Tokens { s } else { c };
        let radius = (3.0 / mixed as f32).sqrt();
        Self {
            half,
            dims,
            hidden,
            gelu,
            x: random.values(b * s * c, 0.3, 2.0),
            gamma: random.values(c, 1.0, 0.5),
            beta: random.values(c, 0.0, 0.5),
            weight1: random.values(mixed * hidden, 0.0, radius),
            bias1: random.values(hidden, 0.0, 0.5),
            weight2: random.values(mixed * hidden, 0.0, (3.0 / hidden as f32).sqrt()),
            bias2: random.values(mixed, 0.0, 0.5),
            // Stochastic depth: the second example's branch is dropped, the others are scaled.
            scale: (0..b).map(|i| if i == 1 { 0.0 } else { 1.25 }).collect(),
            grad: random.values(b * s * c, 0.0, 1.0),
        }
    }

    /// Rows and columns of both weights.
    fn weight_dims(&self) -> [[usize; 2]; 2] {
        let [_, tokens, channels] = self.dims;
        match self.half {
            Half::Tokens => [[self.hidden, tokens], [tokens, self.hidden]],
            Half::Channels => [[channels, self.hidden], [self.hidden, channels]],
        }
    }

    fn branch(&self) -> View<'_> {
        let [dims1, dims2] = self.weight_dims();
        View {
            dims: self.dims,
            x: &self.x,
            gamma: &self.gamma,
            beta: &self.beta,
            weight1: Matrix::new(&self.weight1, dims1),
            bias1: &self.bias1,
            weight2: Matrix::new(&self.weight2, dims2),
            bias2: &self.bias2,
            branch_scale: &self.scale,
            gelu: self.gelu,
            epsilon: 1e-6,
        }
    }

    /// The results of the kernels.
    fn run<F: Format>(&self, set: InstructionSet, keep_hidden: bool) -> Results<f32> {
        self.run_on::<F>(set, keep_hidden, self.branch())
    }

    fn run_on<F: Format>(
        &self,
        set: InstructionSet,
        keep_hidden: bool,
        branch: View<'_>,
    ) -> Results<f32> {
        let (y, gradients) = match self.half {
            Half::Tokens => {
                let y = token::forward::<F>(set, &branch);
                (y, token::backward::<F>(set, &branch, &self.grad))
            }
            Half::Channels => {
                let (y, kept) = channel::forward::<F>(set, &branch, keep_hidden);
                let kept = kept.as_ref().map(values);
                (y, channel::backward::<F>(set, &branch, kept, &self.grad))
            }
        };
        [
            values(&y).to_vec(),
            values(&gradients.x).to_vec(),
            gradients.gamma,
            gradients.beta,
            values(&gradients.weight1).to_vec(),
            gradients.bias1,
            values(&gradients.weight2).to_vec(),
            gradients.bias2,
        ]
    }

    /// The same by the formulas in `f64`.
    fn reference(&self) -> Results<f64> {
        let [b, s, c] = self.dims;
        let f = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let (x, gamma, beta, grad) = (f(&self.x), f(&self.gamma), f(&self.beta), f(&self.grad));
        let (w1, b1, w2, b2) = (f(&self.weight1), f(&self.bias1), f(&self.weight2), f(&self.bias2));
        let scale = f(&self.scale);
        let (mixed, others, hidden) = match self.half {
            Half::Tokens => (s, c, self.hidden),
            Half::Channels => (c, s, self.hidden),
        };
        // An MLP's input `i` of vector `j`; a weight from `i` to hidden unit `h`, and back.
        let at = |i: usize, j: usize| match self.half {
            Half::Tokens => i * c + j,
            Half::Channels => j * c + i,
        };
        let first = |i: usize, h: usize| match self.half {
            Half::Tokens => h * mixed + i,
            Half::Channels => i * hidden + h,
        };
        let second = |h: usize, o: usize| match self.half {
            Half::Tokens => o * hidden + h,
            Half::Channels => h * mixed + o,
        };
        let mut y = x.clone();
        let mut dx = grad.clone();
        let (mut dgamma, mut dbeta) = (vec![0.0; c], vec![0.0; c]);
        let (mut dw1, mut db1) = (vec![0.0; w1.len()], vec![0.0; hidden]);
        let (mut dw2, mut db2) = (vec![0.0; w2.len()], vec![0.0; mixed]);
        for example in 0..b {
            let range = example * s * c..(example + 1) * s * c;
            let (x, grad) = (&x[range.clone()], &grad[range.clone()]);
            let (y, dx) = (&mut y[range.clone()], &mut dx[range]);
            let mut normal = vec![0.0; s * c];
            let mut inverse = vec![0.0; s];
            for (row, n) in normal.chunks_exact_mut(c).enumerate() {
                let x = &x[row * c..(row + 1) * c];
                let mean = x.iter().sum::<f64>() / c as f64;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / c as f64;
                inverse[row] = 1.0 / (variance + 1e-6).sqrt();
                for (n, x) in n.iter_mut().zip(x) {
                    *n = (x - mean) * inverse[row];
                }
            }
            let affine = |i: usize| normal[i] * gamma[i % c] + beta[i % c];
            let mut dnormal = vec![0.0; s * c];
            for j in 0..others {
                let mut units = b1.clone();
                for (h, unit) in units.iter_mut().enumerate() {
                    *unit += (0..mixed).map(|i| affine(at(i, j)) * w1[first(i, h)]).sum::<f64>();
                }
                let active: Vec<_> = units.iter().map(|&u| gelu_f64(u, self.gelu)).collect();
                for o in 0..mixed {
                    let sum: f64 = (0..hidden).map(|h| active[h].0 * w2[second(h, o)]).sum();
                    y[at(o, j)] += scale[example] * (sum + b2[o]);
                    db2[o] += scale[example] * grad[at(o, j)];
                }
                for h in 0..hidden {
                    let mut inner = 0.0;
                    for o in 0..mixed {
                        let outer = scale[example] * grad[at(o, j)];
                        dw2[second(h, o)] += active[h].0 * outer;
                        inner += w2[second(h, o)] * outer;
                    }
                    inner *= active[h].1;
                    db1[h] += inner;
                    for i in 0..mixed {
                        dw1[first(i, h)] += affine(at(i, j)) * inner;
                        dnormal[at(i, j)] += w1[first(i, h)] * inner;
                    }
                }
            }
            for row in 0..s {
                let range = row * c..(row + 1) * c;
                let (n, dy) = (&normal[range.clone()], &dnormal[range.clone()]);
                let h: Vec<f64> = dy.iter().zip(&gamma).map(|(dy, gamma)| dy * gamma).collect();
                let mean_h = h.iter().sum::<f64>() / c as f64;
                let mean_hn = h.iter().zip(n).map(|(h, n)| h * n).sum::<f64>() / c as f64;
                for i in 0..c {
                    dgamma[i] += dy[i] * n[i];
                    dbeta[i] += dy[i];
                    dx[range.start + i] += (h[i] - mean_h - n[i] * mean_hn) * inverse[row];
                }
            }
        }
        [y, dx, dgamma, dbeta, dw1, db1, dw2, db2]
    }
}

/// Value and slope.
fn gelu_f64(x: f64, form: Gelu) -> (f64, f64) {
    match form {
        Gelu::Erf => {
            let cdf = cdf_f64(x);
            let pdf = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            (x * cdf, cdf + x * pdf)
        }
        Gelu::Tanh => {
            let (k, a) = (TANH_SLOPE, TANH_CUBIC);
            let gate = 1.0 / (1.0 + (-2.0 * k * (x + a * x.powi(3))).exp());
            let slope = 2.0 * k * (1.0 + 3.0 * a * x * x);
            (x * gate, gate + x * gate * (1.0 - gate) * slope)
        }
    }
}

/// `‖found − expected‖ / ‖expected‖`.
fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |terms: &mut dyn Iterator<Item = f64>| terms.map(|t| t * t).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(&f, &e)| f64::from(f) - e));
    difference / norm(&mut expected.iter().copied()).max(1e-30)
}

fn cases() -> Vec<([usize; 3], usize)> {
    vec![
        ([1, 1, 2], 1),
        ([1, 1, 33], 5),
        ([2, 3, 17], 40),
        ([3, 49, 64], 96),
        ([1, 7, 100], 129),
        ([5, 10, 31], 32),
        ([2, 130, 36], 70),
        // Several tiles, groups, chunks of hidden units, and more examples than slots.
        ([5, 150, 40], 600),
        ([35, 20, 160], 45),
    ]
}

#[test]
fn both_halves_agree_with_float64_on_every_instruction_set() {
    let mut worst = 0.0f64;
    for half in [Half::Tokens, Half::Channels] {
        for (i, (dims, hidden)) in cases().into_iter().enumerate() {
            let gelu = if i % 2 == 0 { Gelu::Erf } else { Gelu::Tanh };
            let case = Case::new(half, dims, hidden, gelu);
            let reference = case.reference();
            for set in InstructionSet::available() {
                for keep in [true, false] {
                    let found = case.run::<F32>(set, keep);
                    for ((name, found), expected) in NAMES.iter().zip(&found).zip(&reference) {
                        // One token per example: the normalised rows of some sums cancel.
                        let error = relative_error(found, expected);
                        let what = format!("{half:?} {dims:?} {hidden} {set:?} {keep} {name}");
                        assert!(error < 3e-6, "{what}: {error:.2e}");
                        worst = worst.max(error);
                    }
                }
            }
        }
    }
    println!("worst relative error {worst:.2e}");
}

/// With and, where the processor has them, without the instructions for it, and by the twin of tiles.
#[test]
fn both_halves_agree_with_float64_to_the_precision_of_bf16() {
    let mut worst = 0.0f64;
    for half in [Half::Tokens, Half::Channels] {
        for (i, (dims, hidden)) in cases().into_iter().enumerate() {
            // A single token or channel leaves differences of rounded numbers only.
            if dims[1] == 1 {
                continue;
            }
            let gelu = if i % 2 == 0 { Gelu::Erf } else { Gelu::Tanh };
            let case = Case::new(half, dims, hidden, gelu);
            let reference = case.reference();
            for set in [instruction_set(), InstructionSet::Portable, InstructionSet::Twin] {
                for keep in [true, false] {
                    let found = case.run::<Bf16>(set, keep);
                    for ((name, found), expected) in NAMES.iter().zip(&found).zip(&reference) {
                        let error = relative_error(found, expected);
                        let what = format!("{half:?} {dims:?} {hidden} {set:?} {keep} {name}");
                        assert!(error < 8e-3, "{what}: {error:.2e}");
                        worst = worst.max(error);
                    }
                }
            }
        }
    }
    println!("worst relative error {worst:.2e}");
}

/// Registers through every conversion and back.
struct HalfJob<'a> {
    x: &'a [f32],
    /// The results of `narrow` and `widen`, then of `narrow_pairs` and `dot_pairs`.
    to: &'a mut Vec<f32>,
}

impl Kernel for HalfJob<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.x.chunks_exact(2 * S::LANES) {
            let mut found = [0.0f32; 64];
            let to = found.as_mut_ptr();
            // SAFETY: `x` has two registers, `found` four.
            unsafe {
                let (a, b) = (s.load(x.as_ptr()), s.load(x.as_ptr().add(S::LANES)));
                let [first, second] = s.widen(s.narrow(a, b));
                s.store(to, first);
                s.store(to.add(S::LANES), second);
                let pairs = s.narrow_pairs(a, b);
                let ones = s.narrow_pairs(s.splat(1.0), s.splat(0.0));
                s.store(to.add(2 * S::LANES), s.dot_pairs(pairs, ones, s.splat(0.0)));
                s.store(to.add(3 * S::LANES), s.dot_pairs(pairs, pairs, s.splat(3.0)));
            }
            self.to.extend(&found[..4 * S::LANES]);
        }
    }
}

#[test]
fn bf16_is_rounded_to_nearest_even_with_and_without_instructions() {
    let mut random = Random(5);
    let mut x = random.values(4096 - 32, 0.0, 100.0);
    // Ties to both sides, the edge of a binade, signed zeros.
    let special = [0x3f80_8000, 0x3f81_8000, 0x3fff_ffff, 0x8000_0000].map(f32::from_bits);
    x.extend(special.repeat(8));
    let expected = |x: f32| {
        let (below, above) = (x.to_bits() & 0xffff_0000, (x.to_bits() >> 16) + 1);
        let (below, above) = (f32::from_bits(below), f32::from_bits(above << 16));
        let (down, up) = ((x - below).abs(), (above - x).abs());
        let even = below.to_bits() >> 16 & 1 == 0;
        if down < up || (down == up && even) { below } else { above }
    };
    for set in [instruction_set(), InstructionSet::Portable] {
        let mut found = Vec::new();
        dispatch_bf16(set, HalfJob { x: &x, to: &mut found });
        let lanes = if bf16_is_native() && set != InstructionSet::Portable { 16 } else { 8 };
        assert_eq!(found.len(), 2 * x.len());
        for (found, x) in found.chunks_exact(4 * lanes).zip(x.chunks_exact(2 * lanes)) {
            for i in 0..2 * lanes {
                assert_eq!(found[i].to_bits(), expected(x[i]).to_bits(), "{set:?} {}", x[i]);
            }
            for i in 0..lanes {
                let (a, b) = (expected(x[i]), expected(x[lanes + i]));
                assert_eq!(found[2 * lanes + i], a, "{set:?}: the low half is the first");
                let square = f64::from(a).powi(2) + f64::from(b).powi(2) + 3.0;
                let error = (f64::from(found[3 * lanes + i]) - square).abs() / square;
                assert!(error < 2e-7, "{set:?} {a} {b}: {error:e}");
            }
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for half in [Half::Tokens, Half::Channels] {
        for (dims, hidden) in [([40, 49, 64], 80), ([3, 11, 40], 33)] {
            let case = Case::new(half, dims, hidden, Gelu::Erf);
            let bits = |bf16: Option<InstructionSet>, keep_hidden: bool, threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let results = pool.install(|| match bf16 {
                    None => case.run::<F32>(instruction_set(), keep_hidden),
                    Some(set) => case.run::<Bf16>(set, keep_hidden),
                });
                results.map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            };
            for bf16 in [None, Some(instruction_set()), Some(InstructionSet::Twin)] {
                for keep in [false, true] {
                    let one = bits(bf16, keep, 1);
                    for threads in [2, 3, 7] {
                        let same = bits(bf16, keep, threads) == one;
                        assert!(same, "{half:?} {dims:?} bf16 {bf16:?} {keep}: {threads} threads");
                    }
                }
            }
        }
    }
}

#[test]
fn hidden_units_that_are_computed_again_give_the_same_bits() {
    // Few rows, cut along columns where nothing is kept, and many.
    for dims in [[1, 3, 40], [4, 60, 40], [8, 60, 40]] {
        for gelu in [Gelu::Erf, Gelu::Tanh] {
            let case = Case::new(Half::Channels, dims, 600, gelu);
            for set in InstructionSet::available().chain([InstructionSet::Twin]) {
                let same = case.run::<F32>(set, true) == case.run::<F32>(set, false);
                assert!(same, "{set:?} {dims:?}");
                // The output alone: what is kept in bf16 is rounded.
                let [y, ..] = case.run::<Bf16>(set, true);
                assert!(y == case.run::<Bf16>(set, false)[0], "bf16 {set:?} {dims:?}");
            }
        }
    }
}

#[test]
fn weights_may_lie_in_memory_as_their_transposes() {
    for half in [Half::Tokens, Half::Channels] {
        // Few rows, cut along columns, and many; sizes that end within a panel.
        for dims in [[1, 7, 40], [8, 60, 70]] {
            let case = Case::new(half, dims, 530, Gelu::Erf);
            let [dims1, dims2] = case.weight_dims();
            let transposed = |weight: &[f32], [rows, columns]: [usize; 2]| {
                let at = |i: usize| weight[i % rows * columns + i / rows];
                (0..rows * columns).map(at).collect::<Vec<f32>>()
            };
            let weight1 = transposed(&case.weight1, dims1);
            let weight2 = transposed(&case.weight2, dims2);
            let turned = |[rows, columns]: [usize; 2]| [columns, rows];
            let view = || View {
                weight1: Matrix::new(&weight1, turned(dims1)).transposed(),
                weight2: Matrix::new(&weight2, turned(dims2)).transposed(),
                ..case.branch()
            };
            for set in InstructionSet::available() {
                let same = case.run_on::<F32>(set, false, view()) == case.run::<F32>(set, false);
                assert!(same, "{set:?} {half:?} {dims:?}");
                let same = case.run_on::<Bf16>(set, false, view()) == case.run::<Bf16>(set, false);
                assert!(same, "bf16 {set:?} {half:?} {dims:?}");
            }
        }
    }
}

/// One product with room around its output.
struct ProductJob<'a> {
    left: panel::Left,
    right: &'a [f32],
    depth: usize,
    to: &'a mut [f32],
    rows: usize,
    accumulate: bool,
}

const GUARD: usize = 64;

impl Kernel for ProductJob<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ProductJob { left, right, depth, to, rows, accumulate } = self;
        // SAFETY: the test gives room.
        unsafe {
            let to = to.as_mut_ptr().add(GUARD);
            let row = PANEL + 3;
            panel::multiply::<F32, S>(s, left, right.as_ptr(), depth, to, row, rows, accumulate);
        }
    }
}

#[test]
fn products_are_right_and_stay_in_their_place() {
    let mut random = Random(7);
    for set in InstructionSet::available() {
        for rows in 1..=32_usize {
            for depth in [1_usize, 2, 31, 32, 33, 70, 128, 290] {
                let panels = depth.div_ceil(PANEL);
                // As rows: `[panels][rows][32]`; as columns: `[depth][32]`.
                let by_rows = random.values(panels * rows * PANEL, 0.0, 1.0);
                let by_columns = random.values(depth * PANEL, 0.0, 1.0);
                let right = random.values(depth * PANEL, 0.0, 1.0);
                for transposed in [false, true] {
                    let left = if transposed {
                        panel::Left::Columns { from: by_columns.as_ptr() }
                    } else {
                        panel::Left::Rows { from: by_rows.as_ptr(), rows }
                    };
                    let row = PANEL + 3;
                    let before = random.values(2 * GUARD + rows * row, 0.0, 1.0);
                    for accumulate in [false, true] {
                        let mut after = before.clone();
                        let to = &mut after;
                        let right = &right;
                        dispatch_to(set, ProductJob { left, right, depth, to, rows, accumulate });
                        for (i, (&after, &before)) in after.iter().zip(&before).enumerate() {
                            let place = i.checked_sub(GUARD).map(|i| (i / row, i % row));
                            let Some((m, n)) = place.filter(|&(m, n)| m < rows && n < PANEL) else {
                                assert_eq!(after, before, "written outside at {i}");
                                continue;
                            };
                            let element = |k: usize| {
                                let left = if transposed {
                                    by_columns[k * PANEL + m]
                                } else {
                                    by_rows[(k / 32 * rows + m) * PANEL + k % 32]
                                };
                                f64::from(left) * f64::from(right[k * PANEL + n])
                            };
                            let mut expected: f64 = (0..depth).map(element).sum();
                            if accumulate {
                                expected += f64::from(before);
                            }
                            let error = (f64::from(after) - expected).abs();
                            assert!(error < 2e-5, "{set:?} {rows} {depth} {transposed}: {error}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn memory_that_comes_back_is_used_again_and_zeroed_where_asked() {
    let mut scratch = Scratch::take(1000);
    // SAFETY: there is room for a thousand floats.
    unsafe { *scratch.floats().at(999) = 5.0 };
    drop(scratch);
    let mut zeroed = Scratch::zeroed(1000);
    // SAFETY: as above.
    assert!((0..1000).all(|i| unsafe { *zeroed.floats().at(i) } == 0.0));
}

#[test]
fn a_tensor_on_pooled_memory_is_an_ordinary_tensor() {
    let mut output = Output::new(6);
    for i in 0..6 {
        // SAFETY: there is room for six floats.
        unsafe { *output.floats().at(i) = i as f32 };
    }
    let tensor = output.tensor(Shape::from(vec![2, 3]));
    let copy = tensor.clone();
    let mut changed = tensor.clone();
    changed.storage_mut::<f32>()[0] = 9.0;
    drop(tensor);
    assert_eq!(values(&copy), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(changed.into_data().iter::<f32>().next(), Some(9.0));
    assert_eq!(copy.into_data().iter::<f32>().sum::<f32>(), 15.0);
}
