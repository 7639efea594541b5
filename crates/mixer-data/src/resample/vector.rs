//! The passes of a resize in AVX2 and AVX-512. All unsafe code of this crate is here.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use crate::resample::passes::{COLOURS, Columns, FRACTION_BITS, MARGIN, Passes, ROWS};
use crate::resample::portable::Portable;
use crate::resample::weights::Weights;

/// Proof that the processor has AVX2: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// Asks the processor.
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl Passes for Avx2 {
    #[inline]
    fn vertical(self, source: &[u8], stride: usize, weights: &[i16], bits: u32, out: &mut [i16]) {
        // SAFETY: `self` proves that the processor has these instructions.
        unsafe { vertical(source, stride, weights, bits, out) }
    }

    #[inline]
    fn horizontal(self, source: &[i16], columns: &Columns<'_>, out: &mut [u8]) {
        // SAFETY: `self` proves that the processor has these instructions.
        unsafe { horizontal(source, columns, out) }
    }
}

/// Proof that the processor has the part of AVX-512 that permutes 16-bit values, and AVX2: only
/// [`Avx512::detect`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx512(Avx2);

impl Avx512 {
    /// Asks the processor.
    pub(super) fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        Avx2::detect().filter(|_| has_all).map(Self)
    }

    /// The passes, given what [`Groups::prepare`] found for the same columns.
    pub(super) fn passes(self, groups: &Groups) -> Avx512Passes<'_> {
        Avx512Passes { processor: self, groups }
    }
}

/// The passes of [`Avx512`].
#[derive(Clone, Copy)]
pub(super) struct Avx512Passes<'a> {
    processor: Avx512,
    groups: &'a Groups,
}

impl Passes for Avx512Passes<'_> {
    /// Wider steps would wait for the one unit that permutes 64 bytes.
    #[inline]
    fn vertical(self, source: &[u8], stride: usize, weights: &[i16], bits: u32, out: &mut [i16]) {
        self.processor.0.vertical(source, stride, weights, bits, out);
    }

    #[inline]
    fn horizontal(self, source: &[i16], columns: &Columns<'_>, out: &mut [u8]) {
        // SAFETY: the field proves that the processor has these instructions.
        unsafe { horizontal_groups(source, columns.weights, self.groups, out) }
    }
}

/// Neighbouring results that [`Avx512`] makes together: their windows lie in 64 bytes, from which one
/// permutation takes a pair of taps for each result and colour.
#[derive(Default)]
pub(super) struct Groups {
    /// Number of results in a group; in the last one there may be fewer.
    size: usize,
    groups: Vec<Group>,
    /// `[groups, pairs]`: two weights for each result and colour.
    weights: Vec<[u32; GROUP_VALUES]>,
}

/// 32-bit values in a register.
const GROUP_VALUES: usize = 16;

struct Group {
    /// Start of its windows in a row, in values.
    offset: usize,
    /// For each result and colour, where its first two taps are behind that: 16 bits each.
    taps: [u32; GROUP_VALUES],
}

impl Groups {
    /// Finds groups as large as possible.
    pub(super) fn prepare(&mut self, columns: &Columns<'_>) {
        /// Values that the first pair of taps of a group may reach over.
        const REACH: u32 = 32;
        const COLOURS_U32: u32 = COLOURS as u32;
        let offsets = columns.offsets;
        let fits = |size: usize| {
            offsets.chunks(size).all(|group| {
                let (first, last) = extremes(group);
                last - first + 2 * COLOURS_U32 <= REACH
            })
        };
        self.size = (2..=GROUP_VALUES / COLOURS).rev().find(|&size| fits(size)).unwrap_or(1);

        let taps = columns.weights.taps();
        self.groups.clear();
        self.weights.clear();
        let weights = columns.weights.values().chunks(self.size * taps);
        for (offsets, weights) in offsets.chunks(self.size).zip(weights) {
            let (offset, _) = extremes(offsets);
            let mut group = Group { offset: offset as usize, taps: [0; GROUP_VALUES] };
            let results = group.taps.as_chunks_mut::<COLOURS>().0.iter_mut();
            for (taps, &start) in results.zip(offsets) {
                for (colour, taps) in (0..).zip(taps) {
                    let first = start - offset + colour;
                    *taps = first | (first + COLOURS_U32) << 16;
                }
            }
            self.groups.push(group);
            for pair in 0..taps / 2 {
                let mut spread = [0; GROUP_VALUES];
                let results = spread.as_chunks_mut::<COLOURS>().0.iter_mut();
                for (spread, weights) in results.zip(weights.chunks_exact(taps)) {
                    *spread = [pack([weights[2 * pair], weights[2 * pair + 1]]); COLOURS];
                }
                self.weights.push(spread);
            }
        }
    }
}

/// The least and the greatest. They may be anywhere: a cubic window that is centred on a pixel is
/// trimmed to it, and begins behind the next one.
fn extremes(offsets: &[u32]) -> (u32, u32) {
    offsets.iter().fold((u32::MAX, 0), |(least, most), &at| (least.min(at), most.max(at)))
}

/// A pair of weights as the lower and the upper half of a word.
fn pack([first, second]: [i16; 2]) -> u32 {
    u32::from(first.cast_unsigned()) | u32::from(second.cast_unsigned()) << 16
}

#[target_feature(enable = "avx512f,avx512bw")]
fn horizontal_groups(source: &[i16], weights: &Weights, groups: &Groups, out: &mut [u8]) {
    let (source_stride, out_stride) = (source.len() / ROWS, out.len() / ROWS);
    let (taps, bits) = (weights.taps(), weights.bits());
    let shift = bits + FRACTION_BITS;
    let half = _mm512_set1_epi32(1 << (shift - 1));
    let shift = _mm_cvtsi32_si128(shift.cast_signed());
    // Four values of each row in each quarter, to a row in each quarter.
    let transposed = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let pairs = groups.weights.chunks_exact(taps / 2);
    for ((at, group), pairs) in groups.groups.iter().enumerate().zip(pairs) {
        // SAFETY: the reference is to 64 bytes.
        let order = unsafe { _mm512_loadu_si512(group.taps.as_ptr().cast()) };
        // The only check: what is loaded of all rows lies in here.
        let reach = (ROWS - 1) * source_stride + taps * COLOURS + MARGIN;
        let span = &source[group.offset..][..reach];
        let mut sums = [half; ROWS];
        for (pair, weights) in pairs.iter().enumerate() {
            // SAFETY: the reference is to 64 bytes.
            let weights = unsafe { _mm512_loadu_si512(weights.as_ptr().cast()) };
            for (row, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a pair begins before the end of the taps, and what is loaded ends at most
                // `MARGIN` values behind that.
                let values = unsafe {
                    let from = span.as_ptr().add(row * source_stride + pair * 2 * COLOURS);
                    _mm512_loadu_si512(from.cast())
                };
                let values = _mm512_permutexvar_epi16(order, values);
                *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(values, weights));
            }
        }
        for sum in &mut sums {
            *sum = _mm512_sra_epi32(*sum, shift);
        }
        let [a, b, c, d] = sums;
        let bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        let bytes = _mm512_permutexvar_epi32(transposed, bytes);
        let reach = (ROWS - 1) * out_stride + GROUP_VALUES;
        let span = &mut out[at * groups.size * COLOURS..][..reach];
        // SAFETY: the last of the rows, `out_stride` apart, ends within `span`.
        unsafe {
            let to = span.as_mut_ptr();
            _mm_storeu_si128(to.cast(), _mm512_castsi512_si128(bytes));
            let [b, c, d] = [
                _mm512_extracti32x4_epi32::<1>(bytes),
                _mm512_extracti32x4_epi32::<2>(bytes),
                _mm512_extracti32x4_epi32::<3>(bytes),
            ];
            _mm_storeu_si128(to.add(out_stride).cast(), b);
            _mm_storeu_si128(to.add(2 * out_stride).cast(), c);
            _mm_storeu_si128(to.add(3 * out_stride).cast(), d);
        }
    }
}

/// The starts of steps of `STEP` that cover `length`; the last overlaps the one before.
fn steps<const STEP: usize>(length: usize) -> impl Iterator<Item = usize> {
    let last = length.checked_sub(STEP);
    last.into_iter().flat_map(|last| (0..last).step_by(STEP).chain([last]))
}

/// A pair of weights for `_mm256_madd_epi16`.
#[target_feature(enable = "avx2")]
fn broadcast([first, second]: [i16; 2]) -> __m256i {
    _mm256_set1_epi32(i32::from(first) & 0xffff | i32::from(second) << 16)
}

#[target_feature(enable = "avx2")]
fn vertical(source: &[u8], stride: usize, weights: &[i16], bits: u32, out: &mut [i16]) {
    const STEP: usize = 32;
    let length = out.len();
    if length < STEP {
        return Portable.vertical(source, stride, weights, bits, out);
    }
    // The only check: all rows lie in here.
    let source = &source[..(weights.len() - 1) * stride + length];
    let (pairs, single) = weights.as_chunks::<2>();
    let shift = bits - FRACTION_BITS;
    let half = _mm256_set1_epi32(1 << (shift - 1));
    let shift = _mm_cvtsi32_si128(shift.cast_signed());
    let zero = _mm256_setzero_si256();
    for at in steps::<STEP>(length) {
        let load = |row: usize| {
            // SAFETY: `row` is below the number of weights and `at + STEP <= length`, so that the 32
            // bytes end within `source`.
            unsafe { _mm256_loadu_si256(source.as_ptr().add(row * stride + at).cast()) }
        };
        let mut sums = [half; 4];
        let mut add = |first: __m256i, second: __m256i, weights: __m256i| {
            let low = _mm256_unpacklo_epi8(first, second);
            let high = _mm256_unpackhi_epi8(first, second);
            let quarters = [
                _mm256_unpacklo_epi8(low, zero),
                _mm256_unpackhi_epi8(low, zero),
                _mm256_unpacklo_epi8(high, zero),
                _mm256_unpackhi_epi8(high, zero),
            ];
            for (sum, quarter) in sums.iter_mut().zip(quarters) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(quarter, weights));
            }
        };
        for (pair, &weights) in pairs.iter().enumerate() {
            add(load(2 * pair), load(2 * pair + 1), broadcast(weights));
        }
        if let [weight] = *single {
            add(load(2 * pairs.len()), zero, broadcast([weight, 0]));
        }
        for sum in &mut sums {
            *sum = _mm256_sra_epi32(*sum, shift);
        }
        let [a, b, c, d] = sums;
        // Columns 0 to 7 and 16 to 23; 8 to 15 and 24 to 31.
        let (even, odd) = (_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        // SAFETY: `at + STEP <= length`, the length of `out`.
        unsafe {
            let to = out.as_mut_ptr().add(at);
            _mm256_storeu_si256(to.cast(), _mm256_permute2x128_si256::<0x20>(even, odd));
            _mm256_storeu_si256(to.add(16).cast(), _mm256_permute2x128_si256::<0x31>(even, odd));
        }
    }
}

#[target_feature(enable = "avx2")]
fn horizontal(source: &[i16], columns: &Columns<'_>, out: &mut [u8]) {
    /// Results that are packed together.
    const STEP: usize = 4;
    let (source_stride, out_stride) = (source.len() / ROWS, out.len() / ROWS);
    let (offsets, taps) = (columns.offsets, columns.weights.taps());
    if offsets.len() < STEP {
        return Portable.horizontal(source, columns, out);
    }
    let (pairs, _) = columns.weights.values().as_chunks::<2>();
    let pairs_per_result = taps / 2;
    assert!(pairs.len() == offsets.len() * pairs_per_result);
    assert!(out_stride >= offsets.len() * COLOURS + MARGIN);
    let shift = columns.weights.bits() + FRACTION_BITS;
    let half = _mm256_set1_epi32(1 << (shift - 1));
    let shift = _mm_cvtsi32_si128(shift.cast_signed());
    // Two pixels to pairs of the same colour.
    let neighbours = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, -1, -1, -1, -1,
    ));
    // Without every fourth byte.
    let dense = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1,
    ));
    for at in steps::<STEP>(offsets.len()) {
        // Of two rows each.
        let mut sums = [[half; STEP]; ROWS / 2];
        for (step, result) in (at..at + STEP).enumerate() {
            let offset = offsets[result] as usize;
            let pairs = &pairs[result * pairs_per_result..][..pairs_per_result];
            // The only check: all taps of all rows lie in here, and what is loaded beside them.
            let reach = (ROWS - 1) * source_stride + taps * COLOURS + 2;
            let span = &source[offset..][..reach];
            for (pair, &weights) in pairs.iter().enumerate() {
                let weights = broadcast(weights);
                for (rows, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: 8 values from a pair on reach 2 beyond its taps, so that they end within
                    // `span`, those of the last row too.
                    let pixels = unsafe {
                        let row = 2 * rows * source_stride;
                        let from = span.as_ptr().add(row + pair * 2 * COLOURS);
                        _mm256_loadu2_m128i(from.add(source_stride).cast(), from.cast())
                    };
                    let pixels = _mm256_shuffle_epi8(pixels, neighbours);
                    let products = _mm256_madd_epi16(pixels, weights);
                    sums[step] = _mm256_add_epi32(sums[step], products);
                }
            }
        }
        let reach = (ROWS - 1) * out_stride + 16;
        let span = &mut out[at * COLOURS..][..reach];
        for (rows, mut sums) in sums.into_iter().enumerate() {
            for sum in &mut sums {
                *sum = _mm256_sra_epi32(*sum, shift);
            }
            let [a, b, c, d] = sums;
            let (low, high) = (_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let bytes = _mm256_shuffle_epi8(_mm256_packus_epi16(low, high), dense);
            // SAFETY: the last of the rows, `out_stride` apart, ends within `span`.
            unsafe {
                let to = span.as_mut_ptr().add(2 * rows * out_stride);
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(bytes));
                _mm_storeu_si128(to.add(out_stride).cast(), _mm256_extracti128_si256::<1>(bytes));
            }
        }
    }
}
