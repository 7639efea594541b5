//! NEON, which every AArch64 processor has.
//!
//! A register here is a pair of NEON's: the tile of a product then has the shape that it has for AVX2,
//! and fills thirty-two registers as well as that one fills sixteen.

use std::arch::aarch64::*;

use super::Simd;

/// Proof of NEON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon(());

/// Eight floats.
type V = float32x4x2_t;

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

/// `f` of each half.
#[inline(always)]
fn halves(f: impl Fn(usize) -> float32x4_t) -> V {
    float32x4x2_t(f(0), f(1))
}

#[inline(always)]
fn half(v: V, which: usize) -> float32x4_t {
    if which == 0 { v.0 } else { v.1 }
}

#[inline(always)]
fn bits(v: V, which: usize) -> uint32x4_t {
    // SAFETY: every AArch64 processor has the instruction.
    unsafe { vreinterpretq_u32_f32(half(v, which)) }
}

impl Simd for Neon {
    type V = V;
    const LANES: usize = 8;
    // Twenty-four NEON registers of accumulators, four of the right operand, one of the left: 29 of 32.
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        // SAFETY: `self` proves that the processor has the instructions.
        let v = unsafe { vdupq_n_f32(x) };
        float32x4x2_t(v, v)
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> V {
        // SAFETY: the caller's promise.
        unsafe { float32x4x2_t(vld1q_f32(from), vld1q_f32(from.add(4))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: V) {
        // SAFETY: the caller's promise.
        unsafe {
            vst1q_f32(to, v.0);
            vst1q_f32(to.add(4), v.1);
        }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, v: V) {
        // SAFETY: the caller's promise. There is no intrinsic for a store past the caches.
        unsafe { self.store(to, v) }
    }

    #[inline(always)]
    fn finish_streaming(self) {}

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        // SAFETY: `self` proves that the processor has the instructions.
        halves(|i| unsafe { vaddq_f32(half(a, i), half(b, i)) })
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        // SAFETY: `self` proves that the processor has the instructions.
        halves(|i| unsafe { vsubq_f32(half(a, i), half(b, i)) })
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        // SAFETY: `self` proves that the processor has the instructions.
        halves(|i| unsafe { vmulq_f32(half(a, i), half(b, i)) })
    }

    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        // SAFETY: `self` proves that the processor has the instructions.
        halves(|i| unsafe { vfmaq_f32(half(c, i), half(a, i), half(b, i)) })
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        // Not `vmaxq_f32`, which keeps what is no number.
        // SAFETY: `self` proves that the processor has the instructions.
        halves(|i| unsafe {
            let (a, b) = (half(a, i), half(b, i));
            vbslq_f32(vcgtq_f32(a, b), a, b)
        })
    }

    #[inline(always)]
    fn abs(self, a: V) -> V {
        // SAFETY: `self` proves that the processor has the instructions.
        halves(|i| unsafe { vabsq_f32(half(a, i)) })
    }

    #[inline(always)]
    fn reciprocal(self, a: V) -> V {
        // SAFETY: `self` proves that the processor has the instructions.
        halves(|i| unsafe { vdivq_f32(vdupq_n_f32(1.0), half(a, i)) })
    }

    #[inline(always)]
    fn truncate(self, a: V) -> V {
        // SAFETY: `self` proves that the processor has the instructions.
        halves(|i| unsafe {
            vreinterpretq_f32_u32(vandq_u32(bits(a, i), vdupq_n_u32(0xffff_f000)))
        })
    }

    #[inline(always)]
    fn select_negative(self, x: V, negative: V, other: V) -> V {
        // SAFETY: `self` proves that the processor has the instructions.
        halves(|i| unsafe {
            let sign = vcltzq_s32(vreinterpretq_s32_f32(half(x, i)));
            vbslq_f32(sign, half(negative, i), half(other, i))
        })
    }

    #[inline(always)]
    fn exp2_of_rounded(self, v: V) -> V {
        // SAFETY: `self` proves that the processor has the instructions.
        halves(|i| unsafe {
            let exponent = vshlq_n_u32::<23>(bits(v, i));
            vreinterpretq_f32_u32(vaddq_u32(exponent, vdupq_n_u32(127 << 23)))
        })
    }

    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { vaddvq_f32(vaddq_f32(a.0, a.1)) }
    }
}
