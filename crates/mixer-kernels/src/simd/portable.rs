//! Eight lanes as an array: the compiler maps them to what the target always has.

use super::Simd;
use super::tiles::Tiles;

/// Proof of nothing; tests have tiles beside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable<T>(pub(super) Option<T>);

const LANES: usize = 8;
type V = [f32; LANES];

/// Applies `f` lane by lane.
#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl<T: Tiles> Simd for Portable<T> {
    type V = V;
    const LANES: usize = LANES;
    const TILE_ROWS: usize = 2;

    #[inline(always)]
    fn tiles(self) -> Option<impl Tiles> {
        self.0
    }

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> V {
        // SAFETY: the caller's promise; an array of floats may be read at a float's alignment.
        unsafe { from.cast::<V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: V) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<V>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, v: V) {
        // SAFETY: the caller's promise.
        unsafe { self.store(to, v) }
    }

    #[inline(always)]
    fn finish_streaming(self) {}

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        // Without the instruction, `f32::mul_add` is a call.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            std::array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn abs(self, a: V) -> V {
        a.map(f32::abs)
    }

    #[inline(always)]
    fn reciprocal(self, a: V) -> V {
        a.map(|a| 1.0 / a)
    }

    #[inline(always)]
    fn truncate(self, a: V) -> V {
        a.map(|a| f32::from_bits(a.to_bits() & 0xffff_f000))
    }

    #[inline(always)]
    fn select_negative(self, x: V, negative: V, other: V) -> V {
        std::array::from_fn(|i| if x[i].is_sign_negative() { negative[i] } else { other[i] })
    }

    #[inline(always)]
    fn exp2_of_rounded(self, v: V) -> V {
        v.map(|v| f32::from_bits((v.to_bits() << 23).wrapping_add(127 << 23)))
    }

    #[inline(always)]
    fn sum(self, [a, b, c, d, e, f, g, h]: V) -> f32 {
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}
