//! bf16 in plain Rust: what processors without instructions for it do.

use super::Simd;

/// Rounds to the nearest bf16, to an even one from the middle; not a number stays that. Without a branch, so that
/// loops of it are vectorised.
#[inline(always)]
pub(crate) fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    (if x.is_nan() { bits | 0x40_0000 } else { nearest }) >> 16
}

/// The bf16 in the low and in the high half of a word.
#[inline(always)]
fn halves(word: f32) -> [f32; 2] {
    let bits = word.to_bits();
    [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
}

/// The lanes of a register, and the register of lanes.
#[inline(always)]
fn lanes<S: Simd>(s: S, v: S::V) -> [f32; 16] {
    let mut lanes = [0.0; 16];
    // SAFETY: no register has more than sixteen lanes.
    unsafe { s.store(lanes.as_mut_ptr(), v) };
    lanes
}

#[inline(always)]
fn register<S: Simd>(s: S, f: impl Fn(usize) -> f32) -> S::V {
    let mut lanes = [0.0; 16];
    for (i, lane) in lanes.iter_mut().enumerate().take(S::LANES) {
        *lane = f(i);
    }
    // SAFETY: no register has more than sixteen lanes.
    unsafe { s.load(lanes.as_ptr()) }
}

#[inline(always)]
fn word(low: f32, high: f32) -> f32 {
    f32::from_bits(round(low) | (round(high) << 16))
}

#[inline(always)]
pub(super) fn narrow<S: Simd>(s: S, a: S::V, b: S::V) -> S::V {
    let (a, b) = (lanes(s, a), lanes(s, b));
    let at = |i: usize| if i < S::LANES { a[i] } else { b[i - S::LANES] };
    register(s, |i| word(at(2 * i), at(2 * i + 1)))
}

#[inline(always)]
pub(super) fn narrow_pairs<S: Simd>(s: S, a: S::V, b: S::V) -> S::V {
    let (a, b) = (lanes(s, a), lanes(s, b));
    register(s, |i| word(a[i], b[i]))
}

#[inline(always)]
pub(super) fn widen<S: Simd>(s: S, words: S::V) -> [S::V; 2] {
    let words = lanes(s, words);
    let at = |i: usize| halves(words[i / 2])[i % 2];
    [register(s, at), register(s, |i| at(S::LANES + i))]
}

#[inline(always)]
pub(super) fn dot_pairs<S: Simd>(s: S, a: S::V, b: S::V, sum: S::V) -> S::V {
    let (a, b, sum) = (lanes(s, a), lanes(s, b), lanes(s, sum));
    register(s, |i| {
        let ([a0, a1], [b0, b1]) = (halves(a[i]), halves(b[i]));
        (sum[i] + a1 * b1) + a0 * b0
    })
}
