//! The operations on samples in AVX2. All unsafe code of this crate is here.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use crate::pixels::{Kernels, Target, store};
use crate::portable::{
    self, BLUE_CB, COLOUR_BITS, CONSTANT_BITS, EVEN, GREEN_CB, GREEN_CR, HALF_EVEN, HALF_ODD, ODD,
    PASS_BITS, QUARTER_ODD, RED_CR, Rounding,
};
use crate::scan::Block;

/// Proof that the processor has what this file uses: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Asks the processor. With AVX2 came the bit instructions that make variable shifts one step.
    pub(crate) fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("movbe");
        has_all.then_some(Self(()))
    }
}

impl Kernels for Avx2 {
    #[inline(always)]
    fn run<T>(self, work: impl FnOnce() -> T) -> T {
        // SAFETY: `self` proves that the processor has these instructions.
        unsafe { run(work) }
    }

    #[inline(always)]
    fn transform_pair(
        self,
        blocks: &[Block; 2],
        side: usize,
        samples: &mut [u8],
        targets: [Target; 2],
    ) {
        // SAFETY: `self` proves that the processor has these instructions.
        unsafe {
            match side {
                8 => transform_pair(blocks, samples, targets),
                4 => transform_pair_half(blocks, samples, targets),
                _ => transform_pair_quarter(blocks, samples, targets),
            }
        }
    }

    #[inline(always)]
    fn upsample(self, near: &[u8], far: &[u8], rounding: Rounding, out: &mut [u8]) {
        // SAFETY: `self` proves that the processor has these instructions.
        unsafe { upsample(near, far, rounding, out) }
    }

    #[inline(always)]
    fn colour(self, luma: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
        // SAFETY: `self` proves that the processor has these instructions.
        unsafe { colour(luma, cb, cr, out) }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,movbe")]
fn run<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// A pair of 16-bit weights for `_mm256_madd_epi16`.
#[target_feature(enable = "avx2")]
fn weights(first: i16, second: i16) -> __m256i {
    _mm256_set1_epi32(i32::from(first) & 0xffff | i32::from(second) << 16)
}

/// Eight 8-point inverse DCTs in each half, across registers; rounded by `SHIFT` bits.
#[target_feature(enable = "avx2")]
fn transform_lines<const SHIFT: i32>(input: [__m256i; 8]) -> [__m256i; 8] {
    const ONE: i16 = 1 << CONSTANT_BITS;
    // Inputs side by side, as the products of pairs need them: columns 0 to 3, and 4 to 7.
    let pair = |a: usize, b: usize| {
        [_mm256_unpacklo_epi16(input[a], input[b]), _mm256_unpackhi_epi16(input[a], input[b])]
    };
    let (in_04, in_26, in_13, in_57) = (pair(0, 4), pair(2, 6), pair(1, 3), pair(5, 7));
    let half = _mm256_set1_epi32(1 << (SHIFT - 1));
    let mut output = [[_mm256_setzero_si256(); 2]; 8];
    for part in 0..2 {
        let times = |pairs: [__m256i; 2], first: i16, second: i16| {
            _mm256_madd_epi16(pairs[part], weights(first, second))
        };
        let sum = _mm256_add_epi32(times(in_04, ONE, ONE), half);
        let difference = _mm256_add_epi32(times(in_04, ONE, -ONE), half);
        let outer = times(in_26, EVEN[0][0], EVEN[0][1]);
        let inner = times(in_26, EVEN[1][0], EVEN[1][1]);
        let even = [
            _mm256_add_epi32(sum, outer),
            _mm256_add_epi32(difference, inner),
            _mm256_sub_epi32(difference, inner),
            _mm256_sub_epi32(sum, outer),
        ];
        for at in 0..4 {
            let [w1, w3, w5, w7] = ODD[at];
            let odd = _mm256_add_epi32(times(in_13, w1, w3), times(in_57, w5, w7));
            output[at][part] = _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(even[at], odd));
            output[7 - at][part] = _mm256_srai_epi32::<SHIFT>(_mm256_sub_epi32(even[at], odd));
        }
    }
    output.map(
        #[inline(always)]
        |[low, high]| _mm256_packs_epi32(low, high),
    )
}

/// Transposes the 8 × 8 matrix in each half.
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let (ab_low, ab_high) = (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_epi16(c, d), _mm256_unpackhi_epi16(c, d));
    let (ef_low, ef_high) = (_mm256_unpacklo_epi16(e, f), _mm256_unpackhi_epi16(e, f));
    let (gh_low, gh_high) = (_mm256_unpacklo_epi16(g, h), _mm256_unpackhi_epi16(g, h));
    let (top_01, top_23) =
        (_mm256_unpacklo_epi32(ab_low, cd_low), _mm256_unpackhi_epi32(ab_low, cd_low));
    let (top_45, top_67) =
        (_mm256_unpacklo_epi32(ab_high, cd_high), _mm256_unpackhi_epi32(ab_high, cd_high));
    let (low_01, low_23) =
        (_mm256_unpacklo_epi32(ef_low, gh_low), _mm256_unpackhi_epi32(ef_low, gh_low));
    let (low_45, low_67) =
        (_mm256_unpacklo_epi32(ef_high, gh_high), _mm256_unpackhi_epi32(ef_high, gh_high));
    [
        _mm256_unpacklo_epi64(top_01, low_01),
        _mm256_unpackhi_epi64(top_01, low_01),
        _mm256_unpacklo_epi64(top_23, low_23),
        _mm256_unpackhi_epi64(top_23, low_23),
        _mm256_unpacklo_epi64(top_45, low_45),
        _mm256_unpackhi_epi64(top_45, low_45),
        _mm256_unpacklo_epi64(top_67, low_67),
        _mm256_unpackhi_epi64(top_67, low_67),
    ]
}

/// Row `y` of two blocks, one in each half.
#[target_feature(enable = "avx2")]
fn row_of_both([first, second]: &[Block; 2], y: usize) -> __m256i {
    let (first, second) = (&first.as_chunks::<8>().0[y], &second.as_chunks::<8>().0[y]);
    // SAFETY: each reference is to 16 bytes.
    unsafe { _mm256_loadu2_m128i(second.as_ptr().cast(), first.as_ptr().cast()) }
}

/// Transforms from 8 points to 4, one in each lane: inputs come in the pairs 0 and 4, 2 and 6, 1 and 3,
/// 5 and 7. Rounded by `SHIFT` bits.
#[target_feature(enable = "avx2")]
fn half_lines<const SHIFT: i32>([in_04, in_26, in_13, in_57]: [__m256i; 4]) -> [__m256i; 4] {
    const ONE: i16 = 1 << (CONSTANT_BITS + 1);
    let half = _mm256_set1_epi32(1 << (SHIFT - 1));
    let constant = _mm256_add_epi32(_mm256_madd_epi16(in_04, weights(ONE, 0)), half);
    let outer = _mm256_madd_epi16(in_26, weights(HALF_EVEN[0], HALF_EVEN[1]));
    let odd = |[w1, w3, w5, w7]: [i16; 4]| {
        let first = _mm256_madd_epi16(in_13, weights(w1, w3));
        _mm256_add_epi32(first, _mm256_madd_epi16(in_57, weights(w5, w7)))
    };
    let (even_03, odd_03) = (_mm256_add_epi32(constant, outer), odd(HALF_ODD[0]));
    let (even_12, odd_12) = (_mm256_sub_epi32(constant, outer), odd(HALF_ODD[1]));
    [
        _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(even_03, odd_03)),
        _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(even_12, odd_12)),
        _mm256_srai_epi32::<SHIFT>(_mm256_sub_epi32(even_12, odd_12)),
        _mm256_srai_epi32::<SHIFT>(_mm256_sub_epi32(even_03, odd_03)),
    ]
}

#[target_feature(enable = "avx2")]
fn transform_pair_half(blocks: &[Block; 2], samples: &mut [u8], targets: [Target; 2]) {
    const SHIFT: i32 = CONSTANT_BITS as i32 + 1;
    const FIRST: i32 = SHIFT - PASS_BITS as i32;
    const SECOND: i32 = SHIFT + PASS_BITS as i32 + 3;
    let pair = |a: usize, b: usize| {
        let (a, b) = (row_of_both(blocks, a), row_of_both(blocks, b));
        [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)]
    };
    // Weights of row 4 are zero: row 0 stands in for it.
    let (in_04, in_26, in_13, in_57) = (pair(0, 0), pair(2, 6), pair(1, 3), pair(5, 7));
    let left = half_lines::<FIRST>([in_04[0], in_26[0], in_13[0], in_57[0]]);
    let right = half_lines::<FIRST>([in_04[1], in_26[1], in_13[1], in_57[1]]);
    // Columns of a row in the pairs of the second pass, each pair in a lane.
    let order = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 1, 8, 9, 4, 5, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
    ));
    let mut rows = [_mm256_setzero_si256(); 4];
    for (y, row) in rows.iter_mut().enumerate() {
        *row = _mm256_shuffle_epi8(_mm256_packs_epi32(left[y], right[y]), order);
    }
    // Then a register has one pair, and a row in each lane.
    let (low_01, high_01) =
        (_mm256_unpacklo_epi32(rows[0], rows[1]), _mm256_unpackhi_epi32(rows[0], rows[1]));
    let (low_23, high_23) =
        (_mm256_unpacklo_epi32(rows[2], rows[3]), _mm256_unpackhi_epi32(rows[2], rows[3]));
    let [a, b, c, d] = half_lines::<SECOND>([
        _mm256_unpacklo_epi64(low_01, low_23),
        _mm256_unpackhi_epi64(low_01, low_23),
        _mm256_unpacklo_epi64(high_01, high_23),
        _mm256_unpackhi_epi64(high_01, high_23),
    ]);
    // Bytes of four columns, and back to four rows.
    let columns = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    let to_rows = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,
    ));
    let rows = _mm256_shuffle_epi8(columns, to_rows);
    store_both::<4>(_mm256_xor_si256(rows, _mm256_set1_epi8(-128)), samples, targets);
}

#[target_feature(enable = "avx2")]
fn transform_pair_quarter(blocks: &[Block; 2], samples: &mut [u8], targets: [Target; 2]) {
    const SHIFT: i32 = CONSTANT_BITS as i32 + 2;
    const FIRST: i32 = SHIFT - PASS_BITS as i32;
    const SECOND: i32 = SHIFT + PASS_BITS as i32 + 3;
    /// Half of the weight of input 0, which does not fit into 16 bits.
    const ONE: i16 = 1 << (CONSTANT_BITS + 1);
    let [w1, w3, w5, w7] = QUARTER_ODD;
    let pair = |a: usize, b: usize| {
        let (a, b) = (row_of_both(blocks, a), row_of_both(blocks, b));
        [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)]
    };
    let (in_00, in_13, in_57) = (pair(0, 0), pair(1, 3), pair(5, 7));
    // Columns 0 to 3 and 4 to 7, of both rows.
    let half = _mm256_set1_epi32(1 << (FIRST - 1));
    let mut columns = [[_mm256_setzero_si256(); 2]; 2];
    for (part, [first, second]) in columns.iter_mut().enumerate() {
        let constant = _mm256_madd_epi16(in_00[part], weights(ONE, ONE));
        let constant = _mm256_add_epi32(constant, half);
        let odd = _mm256_madd_epi16(in_13[part], weights(w1, w3));
        let odd = _mm256_add_epi32(odd, _mm256_madd_epi16(in_57[part], weights(w5, w7)));
        *first = _mm256_srai_epi32::<FIRST>(_mm256_add_epi32(constant, odd));
        *second = _mm256_srai_epi32::<FIRST>(_mm256_sub_epi32(constant, odd));
    }
    // A row in each register: the pairs of its columns, then their sums, in lanes.
    let order = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 1, 0, 1, 2, 3, 6, 7, 10, 11, 14, 15, -1, -1, -1, -1,
    ));
    let by_column = _mm256_broadcastsi128_si256(_mm_setr_epi16(ONE, ONE, w1, w3, w5, w7, 0, 0));
    let half = _mm256_broadcastsi128_si256(_mm_setr_epi32(1 << (SECOND - 1), 0, 0, 0));
    let sign = _mm256_broadcastsi128_si256(_mm_setr_epi32(1, -1, 0, 0));
    let mut rows = [_mm256_setzero_si256(); 2];
    for (y, row) in rows.iter_mut().enumerate() {
        let pairs = _mm256_shuffle_epi8(_mm256_packs_epi32(columns[0][y], columns[1][y]), order);
        let shares = _mm256_add_epi32(_mm256_madd_epi16(pairs, by_column), half);
        // The share of column 0 in both lanes, and that of the others for and against.
        let constant = _mm256_shuffle_epi32::<0b00_00_00_00>(shares);
        let odd = _mm256_add_epi32(
            _mm256_shuffle_epi32::<0b01_01_01_01>(shares),
            _mm256_shuffle_epi32::<0b10_10_10_10>(shares),
        );
        let sum = _mm256_add_epi32(constant, _mm256_sign_epi32(odd, sign));
        *row = _mm256_srai_epi32::<SECOND>(sum);
    }
    let words = _mm256_packs_epi32(_mm256_unpacklo_epi64(rows[0], rows[1]), _mm256_setzero_si256());
    let bytes = _mm256_packs_epi16(words, words);
    store_both::<2>(_mm256_xor_si256(bytes, _mm256_set1_epi8(-128)), samples, targets);
}

/// Puts `SIDE` rows of `SIDE` bytes from each half into their places.
#[target_feature(enable = "avx2")]
fn store_both<const SIDE: usize>(rows: __m256i, samples: &mut [u8], targets: [Target; 2]) {
    let mut bytes = [[0u8; 16]; 2];
    // SAFETY: the reference is to 32 bytes.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), rows) };
    for (bytes, target) in bytes.iter().zip(targets) {
        let rows = bytes.as_chunks::<SIDE>().0.first_chunk::<SIDE>().copied();
        store(rows.unwrap_or([[0; SIDE]; SIDE]), target, samples);
    }
}

#[target_feature(enable = "avx2")]
fn transform_pair(blocks: &[Block; 2], samples: &mut [u8], targets: [Target; 2]) {
    let mut rows = [_mm256_setzero_si256(); 8];
    for (y, row) in rows.iter_mut().enumerate() {
        *row = row_of_both(blocks, y);
    }
    let columns = transform_lines::<{ (CONSTANT_BITS - PASS_BITS) as i32 }>(rows);
    let [a, b, c, d, e, f, g, h] =
        transform_lines::<{ (CONSTANT_BITS + PASS_BITS + 3) as i32 }>(transpose(columns));

    // Now a register is a column. Packed to bytes in pairs, interleaving leads back to rows.
    let (ae, bf) = (_mm256_packs_epi16(a, e), _mm256_packs_epi16(b, f));
    let (cg, dh) = (_mm256_packs_epi16(c, g), _mm256_packs_epi16(d, h));
    let (ab, ef) = (_mm256_unpacklo_epi8(ae, bf), _mm256_unpackhi_epi8(ae, bf));
    let (cd, gh) = (_mm256_unpacklo_epi8(cg, dh), _mm256_unpackhi_epi8(cg, dh));
    let (abcd_0, abcd_4) = (_mm256_unpacklo_epi16(ab, cd), _mm256_unpackhi_epi16(ab, cd));
    let (efgh_0, efgh_4) = (_mm256_unpacklo_epi16(ef, gh), _mm256_unpackhi_epi16(ef, gh));
    let rows = [
        _mm256_unpacklo_epi32(abcd_0, efgh_0),
        _mm256_unpackhi_epi32(abcd_0, efgh_0),
        _mm256_unpacklo_epi32(abcd_4, efgh_4),
        _mm256_unpackhi_epi32(abcd_4, efgh_4),
    ];
    // From values around zero to samples.
    let middle = _mm256_set1_epi8(-128);
    for (block, Target { offset, stride }) in targets.into_iter().enumerate() {
        // The only check: all rows lie in here.
        let span = &mut samples[offset..][..7 * stride + 8];
        for (pair, &rows) in rows.iter().enumerate() {
            let rows = _mm256_xor_si256(rows, middle);
            let rows = match block {
                0 => _mm256_castsi256_si128(rows),
                _ => _mm256_extracti128_si256::<1>(rows),
            };
            // SAFETY: `pair` is at most 3, so that both rows of 8 bytes end within `span`.
            unsafe {
                let to = span.as_mut_ptr().add(2 * pair * stride);
                _mm_storel_epi64(to.cast(), rows);
                _mm_storeh_pd(to.add(stride).cast(), _mm_castsi128_pd(rows));
            }
        }
    }
}

/// The starts of steps of `STEP` that cover `length`; the last overlaps the one before.
fn steps<const STEP: usize>(length: usize) -> impl Iterator<Item = usize> {
    let last = length.checked_sub(STEP);
    last.into_iter().flat_map(|last| (0..last).step_by(STEP).chain([last]))
}

#[target_feature(enable = "avx2")]
fn upsample(near: &[u8], far: &[u8], rounding: Rounding, out: &mut [u8]) {
    const STEP: usize = 16;
    let length = out.len() / 2;
    assert!(near.len() == length + 2 && far.len() == length + 2 && out.len() == 2 * length);
    if length < STEP {
        return portable::upsample(near, far, rounding, out);
    }
    let even = _mm256_set1_epi16(rounding.even.cast_signed());
    let odd = _mm256_set1_epi16(rounding.odd.cast_signed());
    let times_3 = |x: __m256i| _mm256_add_epi16(x, _mm256_add_epi16(x, x));
    for at in steps::<STEP>(length) {
        let vertical = |shift: usize| {
            // SAFETY: `at + STEP <= length` and `shift` is at most 2, so that the 16 bytes end
            // within the `length + 2` of both rows.
            let (near, far) = unsafe {
                (
                    _mm_loadu_si128(near.as_ptr().add(at + shift).cast()),
                    _mm_loadu_si128(far.as_ptr().add(at + shift).cast()),
                )
            };
            _mm256_add_epi16(times_3(_mm256_cvtepu8_epi16(near)), _mm256_cvtepu8_epi16(far))
        };
        let centre = times_3(vertical(1));
        let left = _mm256_add_epi16(_mm256_add_epi16(centre, vertical(0)), even);
        let right = _mm256_add_epi16(_mm256_add_epi16(centre, vertical(2)), odd);
        // Weights add up to 16, so that both results fit into a byte.
        let left = _mm256_srli_epi16::<4>(left);
        let right = _mm256_slli_epi16::<8>(_mm256_srli_epi16::<4>(right));
        // SAFETY: `at + STEP <= length`, so that the 32 bytes end within the `2 * length`.
        unsafe {
            let to = out.as_mut_ptr().add(2 * at);
            _mm256_storeu_si256(to.cast(), _mm256_or_si256(left, right));
        }
    }
}

/// Positions that spread one channel of 16 pixels over a third of their 48 bytes; other bytes zero.
const fn spread(channel: usize, third: usize) -> [i8; 16] {
    let mut positions = [-1; 16];
    let mut at = 0;
    while at < 16 {
        let byte = third * 16 + at;
        if byte % 3 == channel {
            positions[at] = (byte / 3) as i8;
        }
        at += 1;
    }
    positions
}

const SPREAD: [[[i8; 16]; 3]; 3] = [
    [spread(0, 0), spread(1, 0), spread(2, 0)],
    [spread(0, 1), spread(1, 1), spread(2, 1)],
    [spread(0, 2), spread(1, 2), spread(2, 2)],
];

/// Red, green and blue of 16 pixels in 16 bits, in the order of the bytes' halves.
#[target_feature(enable = "avx2")]
fn convert(luma: __m256i, cb: __m256i, cr: __m256i) -> [__m256i; 3] {
    const ONE: i32 = 1 << COLOUR_BITS;
    const HALF: i32 = 1 << (COLOUR_BITS - 1);
    let middle = _mm256_set1_epi16(128);
    let (cb, cr) = (_mm256_sub_epi16(cb, middle), _mm256_sub_epi16(cr, middle));
    let half = _mm256_set1_epi32(HALF);
    // Weights above 1 do not fit into 16 bits: whole parts are added apart.
    let pairs = [_mm256_unpacklo_epi16(cb, cr), _mm256_unpackhi_epi16(cb, cr)];
    let share = |cb_weight: i32, cr_weight: i32| {
        let weights = weights(cb_weight as i16, cr_weight as i16);
        let [low, high] = pairs.map(
            #[inline(always)]
            |pair| {
                let sum = _mm256_add_epi32(_mm256_madd_epi16(pair, weights), half);
                _mm256_srai_epi32::<{ COLOUR_BITS as i32 }>(sum)
            },
        );
        _mm256_packs_epi32(low, high)
    };
    let red = _mm256_add_epi16(_mm256_add_epi16(luma, cr), share(0, RED_CR - ONE));
    let green = _mm256_sub_epi16(_mm256_add_epi16(luma, share(GREEN_CB, GREEN_CR + ONE)), cr);
    let twice_cb = _mm256_add_epi16(cb, cb);
    let blue = _mm256_add_epi16(_mm256_add_epi16(luma, twice_cb), share(BLUE_CB - 2 * ONE, 0));
    [red, green, blue]
}

#[target_feature(enable = "avx2")]
fn colour(luma: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    const STEP: usize = 32;
    let length = luma.len();
    assert!(cb.len() == length && cr.len() == length && out.len() == 3 * length);
    if length < STEP {
        return portable::colour(luma, cb, cr, out);
    }
    let spread = SPREAD.map(
        #[inline(always)]
        |channels| {
            channels.map(
                #[inline(always)]
                |positions| {
                    // SAFETY: the reference is to 16 bytes.
                    let positions = unsafe { _mm_loadu_si128(positions.as_ptr().cast()) };
                    _mm256_broadcastsi128_si256(positions)
                },
            )
        },
    );
    let zero = _mm256_setzero_si256();
    for at in steps::<STEP>(length) {
        // SAFETY: `at + STEP <= length`, the length of all three rows.
        let [luma, cb, cr] = [luma, cb, cr].map(
            #[inline(always)]
            |row| unsafe { _mm256_loadu_si256(row.as_ptr().add(at).cast()) },
        );
        let low = convert(
            _mm256_unpacklo_epi8(luma, zero),
            _mm256_unpacklo_epi8(cb, zero),
            _mm256_unpacklo_epi8(cr, zero),
        );
        let high = convert(
            _mm256_unpackhi_epi8(luma, zero),
            _mm256_unpackhi_epi8(cb, zero),
            _mm256_unpackhi_epi8(cr, zero),
        );
        let [red, green, blue] = [
            _mm256_packus_epi16(low[0], high[0]),
            _mm256_packus_epi16(low[1], high[1]),
            _mm256_packus_epi16(low[2], high[2]),
        ];
        for (third, [for_red, for_green, for_blue]) in spread.into_iter().enumerate() {
            let bytes = _mm256_or_si256(
                _mm256_or_si256(
                    _mm256_shuffle_epi8(red, for_red),
                    _mm256_shuffle_epi8(green, for_green),
                ),
                _mm256_shuffle_epi8(blue, for_blue),
            );
            // SAFETY: `at + STEP <= length`: the 96 bytes from `3 * at` on end within the
            // `3 * length`, and `third` is at most 2.
            unsafe {
                let to = out.as_mut_ptr().add(3 * at + 16 * third);
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(bytes));
                _mm_storeu_si128(to.add(48).cast(), _mm256_extracti128_si256::<1>(bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pixels::Portable;

    /// Coefficients as pictures have them, as the decoder may hand them over at most, or any.
    fn coefficient() -> impl Strategy<Value = i16> {
        prop_oneof![Just(0), -40i16..40, -1100i16..1100, -4096i16..4096, any::<i16>()]
    }

    fn block() -> impl Strategy<Value = Block> {
        prop::array::uniform32((coefficient(), coefficient())).prop_map(|pairs| {
            std::array::from_fn(|at| if at % 2 == 0 { pairs[at / 2].0 } else { pairs[at / 2].1 })
        })
    }

    fn rows(
        length: impl Strategy<Value = usize>,
        count: usize,
    ) -> impl Strategy<Value = Vec<Vec<u8>>> {
        length.prop_flat_map(move |length| {
            prop::collection::vec(prop::collection::vec(any::<u8>(), length), count)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn transforms_agree(first in block(), second in block(), gap in 0usize..20) {
            let Some(avx2) = Avx2::detect() else { return Ok(()) };
            for side in [8, 4, 2] {
                let stride = 2 * side + gap;
                let targets = [
                    Target { offset: gap, stride },
                    Target { offset: gap + side, stride },
                ];
                // The last byte of the last row is the last of the buffer.
                let mut ours = vec![7; gap + (side - 1) * stride + 2 * side];
                let mut portable = ours.clone();
                avx2.transform_pair(&[first, second], side, &mut ours, targets);
                Portable.transform_pair(&[first, second], side, &mut portable, targets);
                prop_assert_eq!(ours, portable);
            }
        }

        #[test]
        fn a_flat_block_is_what_the_transform_makes_of_it(dc in -4096i16..4096) {
            let mut block = [0; 64];
            block[0] = dc;
            let sample = portable::flat_sample(dc);
            prop_assert_eq!(portable::transform(&block), [[sample; 8]; 8]);
            prop_assert_eq!(portable::transform_half(&block), [[sample; 4]; 4]);
            prop_assert_eq!(portable::transform_quarter(&block), [[sample; 2]; 2]);
        }

        #[test]
        fn enlarged_rows_agree(rows in rows(3usize..90, 2), both: bool) {
            let Some(avx2) = Avx2::detect() else { return Ok(()) };
            let rounding = if both { Rounding::BOTH } else { Rounding::WIDTH };
            let mut ours = vec![0; 2 * (rows[0].len() - 2)];
            let mut portable = ours.clone();
            avx2.upsample(&rows[0], &rows[1], rounding, &mut ours);
            Portable.upsample(&rows[0], &rows[1], rounding, &mut portable);
            prop_assert_eq!(ours, portable);
        }

        #[test]
        fn coloured_rows_of_all_lengths_agree(rows in rows(1usize..150, 3)) {
            let Some(avx2) = Avx2::detect() else { return Ok(()) };
            let mut ours = vec![0; 3 * rows[0].len()];
            let mut portable = ours.clone();
            avx2.colour(&rows[0], &rows[1], &rows[2], &mut ours);
            Portable.colour(&rows[0], &rows[1], &rows[2], &mut portable);
            prop_assert_eq!(ours, portable);
        }
    }

    #[test]
    fn every_colour_agrees() {
        let Some(avx2) = Avx2::detect() else { return };
        let every: Vec<u8> = (0..=255).collect();
        let (mut ours, mut portable) = (vec![0; 256 * 3], vec![0; 256 * 3]);
        for luma in (0..=255).step_by(15) {
            for cb in 0..=255 {
                let (luma, cb) = ([luma; 256], [cb; 256]);
                avx2.colour(&luma, &cb, &every, &mut ours);
                Portable.colour(&luma, &cb, &every, &mut portable);
                assert!(ours == portable, "luma {}, cb {}", luma[0], cb[0]);
            }
        }
    }
}
