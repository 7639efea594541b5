//! AVX-512 and AVX2 with fused multiply-add.

// Every intrinsic here needs an instruction that the type's existence proves to be there.

use std::arch::x86_64::*;

use super::amx::Amx;
use super::tiles::Tiles;
use super::{Kernel, Simd, half};

/// Proof of AVX-512 F, DQ, BW and VL; with `BF16`, of its BF16 as well. AMX may be beside them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>(Option<Amx>);

impl<const BF16: bool> Avx512<BF16> {
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma")
            && (!BF16 || is_x86_feature_detected!("avx512bf16"));
        found.then_some(Self(None))
    }
}

impl Avx512<true> {
    /// The set whose products of bf16 are AMX's.
    pub(crate) fn with_tiles() -> Option<Self> {
        Self::detect().and_then(|_| Amx::detect()).map(|tiles| Self(Some(tiles)))
    }
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type V = __m512;
    const LANES: usize = 16;
    // 28 accumulators, two registers of the right operand, one of the left: 31 of 32.
    const TILE_ROWS: usize = 14;

    fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
        #[inline(never)]
        fn with<const BF16: bool>(s: Avx512<BF16>, kernel: impl Kernel) {
            kernel.run(s);
        }
        #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
        #[inline(never)]
        fn with_bf16<const BF16: bool>(s: Avx512<BF16>, kernel: impl Kernel) {
            kernel.run(s);
        }
        // SAFETY: `self` exists, so the processor has the features.
        unsafe { if BF16 { with_bf16(self, kernel) } else { with(self, kernel) } }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        prefetch(from);
    }

    #[inline(always)]
    fn tiles(self) -> Option<impl Tiles> {
        self.0
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m512) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, v: __m512) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_stream_ps(to, v) }
    }

    #[inline(always)]
    fn finish_streaming(self) {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm512_abs_ps(a) }
    }

    #[inline(always)]
    fn reciprocal(self, a: __m512) -> __m512 {
        // One Newton step on a guess of fourteen bits.
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe {
            let guess = _mm512_rcp14_ps(a);
            let error = _mm512_fnmadd_ps(a, guess, _mm512_set1_ps(1.0));
            _mm512_fmadd_ps(guess, error, guess)
        }
    }

    #[inline(always)]
    fn truncate(self, a: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm512_and_ps(a, _mm512_castsi512_ps(_mm512_set1_epi32(!0xfff))) }
    }

    #[inline(always)]
    fn select_negative(self, x: __m512, negative: __m512, other: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe {
            _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x)), other, negative)
        }
    }

    #[inline(always)]
    fn exp2_of_rounded(self, v: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(v));
            _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(127 << 23)))
        }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    fn narrow(self, a: __m512, b: __m512) -> __m512 {
        if !BF16 {
            return half::narrow(self, a, b);
        }
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm512_castsi512_ps(bits(_mm512_cvtne2ps_pbh(b, a))) }
    }

    #[inline(always)]
    fn narrow_pairs(self, a: __m512, b: __m512) -> __m512 {
        if !BF16 {
            return half::narrow_pairs(self, a, b);
        }
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe {
            // Half-word `i` of `a`, then of `b`, which begins sixteen half-words later.
            let order = _mm512_set_epi16(
                31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
            );
            let both = bits(_mm512_cvtne2ps_pbh(b, a));
            _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, both))
        }
    }

    #[inline(always)]
    fn widen(self, words: __m512) -> [__m512; 2] {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe {
            let words = _mm512_castps_si512(words);
            let halves = [_mm512_castsi512_si256(words), _mm512_extracti64x4_epi64::<1>(words)];
            halves.map(|half| {
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
            })
        }
    }

    #[inline(always)]
    fn dot_pairs(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        if !BF16 {
            return half::dot_pairs(self, a, b, sum);
        }
        // SAFETY: both types are 64 bytes of which every pattern is a value.
        unsafe {
            let [a, b] = [a, b].map(|words| std::mem::transmute::<__m512, __m512bh>(words));
            _mm512_dpbf16_ps(sum, a, b)
        }
    }
}

/// The bits of a register of bf16.
#[inline(always)]
fn bits(v: __m512bh) -> __m512i {
    // SAFETY: both types are 64 bytes of which every pattern is a value.
    unsafe { std::mem::transmute(v) }
}

#[inline(always)]
fn prefetch(from: *const f32) {
    // SAFETY: every x86-64 processor has the instruction, and it may name any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) };
}

/// Proof of AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        found.then_some(Self(()))
    }
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    // Twelve accumulators, three registers of the left operand, one of the right: all sixteen. A tile as
    // wide as a panel reads whole cache lines, and seven registers for twelve products; one of six rows and
    // half the width read eight.
    const TILE_ROWS: usize = 3;
    const TILE_WIDTH: usize = 4;
    // 16 KiB of a first-level cache of 32 KiB.
    const DEPTH: usize = 128;
    const PREFETCHES: bool = true;

    fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "avx2,fma")]
        #[inline(never)]
        fn with(s: Avx2, kernel: impl Kernel) {
            kernel.run(s);
        }
        // SAFETY: `self` exists, so the processor has the features.
        unsafe { with(self, kernel) }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        prefetch(from);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m256) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, v: __m256) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_stream_ps(to, v) }
    }

    #[inline(always)]
    fn finish_streaming(self) {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }

    #[inline(always)]
    fn reciprocal(self, a: __m256) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_div_ps(_mm256_set1_ps(1.0), a) }
    }

    #[inline(always)]
    fn truncate(self, a: __m256) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(!0xfff))) }
    }

    #[inline(always)]
    fn select_negative(self, x: __m256, negative: __m256, other: __m256) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_blendv_ps(other, negative, x) }
    }

    #[inline(always)]
    fn exp2_of_rounded(self, v: __m256) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(v));
            _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(127 << 23)))
        }
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        }
    }
}
