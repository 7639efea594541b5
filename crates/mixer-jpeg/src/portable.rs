//! The arithmetic on samples in plain Rust: what `vector.rs` must reproduce to the last bit.
//!
//! PARITY: libjpeg-turbo's accurate integer inverse DCT, its triangle filter and its colour
//! conversion, each with the same constants and roundings.

use crate::scan::Block;

/// Fraction bits of the constants of the inverse DCT.
pub(crate) const CONSTANT_BITS: u32 = 13;

/// Fraction bits kept between its two passes.
pub(crate) const PASS_BITS: u32 = 2;

/// The even part of the 8-point inverse DCT of Loeffler, Ligtenberg and Moschytz (1989): what
/// inputs 2 and 6 add to the four intermediate values, in 13-bit fixed point.
///
/// The rotation by 3π/8 shares a product of 0.541196100 (4433); 0.765366865 is 6270 and 1.847759065
/// is 15137.
pub(crate) const EVEN: [[i16; 2]; 2] = [[4433 + 6270, 4433], [4433, 4433 - 15137]];

/// The odd part: what inputs 1, 3, 5 and 7 add to outputs 0, 1, 2 and 3 (and take from 7, 6, 5, 4).
///
/// The algorithm saves products by sharing sums; multiplied out, with its constants rounded to 13
/// bits first, these are the weights. As nothing is rounded in between, both give the same integer.
pub(crate) const ODD: [[i16; 4]; 4] = {
    const INPUT_7: i32 = 2446; // 0.298631336
    const INPUT_5: i32 = 16819; // 2.053119869
    const INPUT_3: i32 = 25172; // 3.072711026
    const INPUT_1: i32 = 12299; // 1.501321110
    const SUM_17: i32 = -7373; // 0.899976223
    const SUM_35: i32 = -20995; // 2.562915447
    const SUM_37: i32 = -16069; // 1.961570560
    const SUM_15: i32 = -3196; // 0.390180644
    const ALL: i32 = 9633; // 1.175875602
    const fn row(weights: [i32; 4]) -> [i16; 4] {
        // All are cosines scaled by √2, below 1.4 in 13 bits.
        [weights[0] as i16, weights[1] as i16, weights[2] as i16, weights[3] as i16]
    }
    [
        row([INPUT_1 + SUM_17 + SUM_15 + ALL, ALL, SUM_15 + ALL, SUM_17 + ALL]),
        row([ALL, INPUT_3 + SUM_35 + SUM_37 + ALL, SUM_35 + ALL, SUM_37 + ALL]),
        row([SUM_15 + ALL, SUM_35 + ALL, INPUT_5 + SUM_35 + SUM_15 + ALL, ALL]),
        row([SUM_17 + ALL, SUM_37 + ALL, ALL, INPUT_7 + SUM_17 + SUM_37 + ALL]),
    ]
};

/// Factors of inputs 2 and 6, added to the outer two of four outputs and taken from the inner two.
///
/// The transform to half the size gives the means of neighbouring outputs of the whole one; input 4
/// has none. Constants are libjpeg's, in 13 bits.
pub(crate) const HALF_EVEN: [i16; 2] = [15137, -6270];

/// Factors of inputs 1, 3, 5 and 7, added to outputs 0 and 1 and taken from 3 and 2.
pub(crate) const HALF_ODD: [[i16; 4]; 2] =
    [[20995, 7373, -4926, -4176], [8697, -17799, 11893, -1730]];

/// Factors of inputs 1, 3, 5 and 7 in the transform to a quarter of the size, added to the first of two outputs and
/// taken from the second. Inputs 2, 4 and 6 have no part in means of four.
pub(crate) const QUARTER_ODD: [i16; 4] = [29692, -10426, 6967, -5906];

fn saturated(value: i32) -> i16 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// The weighted sum of some inputs.
fn weigh(weights: &[i16], from: &[i32]) -> i32 {
    weights
        .iter()
        .zip(from)
        .fold(0i32, |sum, (&weight, &value)| sum.wrapping_add(i32::from(weight) * value))
}

/// One 8-point inverse DCT, rounded by `shift` bits.
///
/// NUMERICS: sums wrap and results saturate as in vector instructions. Neither happens with
/// coefficients of a picture.
fn transform_line(input: [i16; 8], shift: u32) -> [i16; 8] {
    let input = input.map(i32::from);
    let sum = (input[0] + input[4]) << CONSTANT_BITS;
    let difference = (input[0] - input[4]) << CONSTANT_BITS;
    let outer = weigh(&EVEN[0], &[input[2], input[6]]);
    let inner = weigh(&EVEN[1], &[input[2], input[6]]);
    let even = [
        sum.wrapping_add(outer),
        difference.wrapping_add(inner),
        difference.wrapping_sub(inner),
        sum.wrapping_sub(outer),
    ];
    let half = 1 << (shift - 1);
    let mut output = [0; 8];
    for (at, even) in even.into_iter().enumerate() {
        let odd = weigh(&ODD[at], &[input[1], input[3], input[5], input[7]]);
        output[at] = saturated(even.wrapping_add(odd).wrapping_add(half) >> shift);
        output[7 - at] = saturated(even.wrapping_sub(odd).wrapping_add(half) >> shift);
    }
    output
}

/// The samples of a block: the inverse DCT of its columns, then of its rows.
pub(crate) fn transform(block: &Block) -> [[u8; 8]; 8] {
    let mut columns = [[0; 8]; 8];
    for (x, column) in columns.iter_mut().enumerate() {
        let input = std::array::from_fn(|y| block[y * 8 + x]);
        *column = transform_line(input, CONSTANT_BITS - PASS_BITS);
    }
    std::array::from_fn(|y| {
        let input = std::array::from_fn(|x| columns[x][y]);
        transform_line(input, CONSTANT_BITS + PASS_BITS + 3).map(sample)
    })
}

/// One transform from 8 points to 4, rounded by `shift` bits.
///
/// NUMERICS: as [`transform_line`].
fn half_line(input: [i16; 8], shift: u32) -> [i16; 4] {
    let input = input.map(i32::from);
    let constant = input[0] << (CONSTANT_BITS + 1);
    let outer = weigh(&HALF_EVEN, &[input[2], input[6]]);
    let even = [constant.wrapping_add(outer), constant.wrapping_sub(outer)];
    let half = 1 << (shift - 1);
    let mut output = [0; 4];
    for (at, even) in even.into_iter().enumerate() {
        let odd = weigh(&HALF_ODD[at], &[input[1], input[3], input[5], input[7]]);
        output[at] = saturated(even.wrapping_add(odd).wrapping_add(half) >> shift);
        output[3 - at] = saturated(even.wrapping_sub(odd).wrapping_add(half) >> shift);
    }
    output
}

/// One transform from 8 points to 2, rounded by `shift` bits.
///
/// NUMERICS: as [`transform_line`].
fn quarter_line(input: [i16; 8], shift: u32) -> [i16; 2] {
    let input = input.map(i32::from);
    let constant = input[0] << (CONSTANT_BITS + 2);
    let odd = weigh(&QUARTER_ODD, &[input[1], input[3], input[5], input[7]]);
    let half = 1 << (shift - 1);
    [constant.wrapping_add(odd), constant.wrapping_sub(odd)]
        .map(|sum| saturated(sum.wrapping_add(half) >> shift))
}

/// The samples of a block at half its size.
pub(crate) fn transform_half(block: &Block) -> [[u8; 4]; 4] {
    const SHIFT: u32 = CONSTANT_BITS + 1;
    let columns: [[i16; 4]; 8] = std::array::from_fn(|x| {
        half_line(std::array::from_fn(|y| block[y * 8 + x]), SHIFT - PASS_BITS)
    });
    std::array::from_fn(|y| {
        half_line(columns.map(|column| column[y]), SHIFT + PASS_BITS + 3).map(sample)
    })
}

/// The samples of a block at a quarter of its size.
pub(crate) fn transform_quarter(block: &Block) -> [[u8; 2]; 2] {
    const SHIFT: u32 = CONSTANT_BITS + 2;
    let columns: [[i16; 2]; 8] = std::array::from_fn(|x| {
        quarter_line(std::array::from_fn(|y| block[y * 8 + x]), SHIFT - PASS_BITS)
    });
    std::array::from_fn(|y| {
        quarter_line(columns.map(|column| column[y]), SHIFT + PASS_BITS + 3).map(sample)
    })
}

/// From values around zero to samples.
fn sample(value: i16) -> u8 {
    (value.clamp(-128, 127) + 128) as u8
}

/// The sample that fills a block without AC coefficients.
pub(crate) fn flat_sample(dc: i16) -> u8 {
    let first_pass = saturated(i32::from(dc) << PASS_BITS);
    sample(((i32::from(first_pass) + (1 << (PASS_BITS + 2))) >> (PASS_BITS + 3)) as i16)
}

/// Numbers that are added before the last shift of the triangle filter, at even and odd places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rounding {
    pub(crate) even: u16,
    pub(crate) odd: u16,
}

impl Rounding {
    /// 4:2:0: halves alternate between up and down, so that the average stays.
    pub(crate) const BOTH: Self = Self { even: 8, odd: 7 };
    /// 4:2:2: a row counts as its own neighbour, so that ¼ steps become 1/16 steps; libjpeg adds 1
    /// and 2 quarters here.
    pub(crate) const WIDTH: Self = Self { even: 4, odd: 8 };
}

/// Doubles the samples of a row: ¾ of the nearest and ¼ of the next, in both directions.
///
/// `near` and `far` hold one sample more on each side than the row has. `far` is the row on the
/// other side of the result, or `near` itself.
///
/// # Shapes
/// - `near`, `far`: n + 2
/// - `out`: 2 n
pub(crate) fn upsample(near: &[u8], far: &[u8], rounding: Rounding, out: &mut [u8]) {
    let vertical = |at: usize| 3 * u16::from(near[at]) + u16::from(far[at]);
    for (at, pair) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let centre = 3 * vertical(at + 1);
        pair[0] = ((centre + vertical(at) + rounding.even) >> 4) as u8;
        pair[1] = ((centre + vertical(at + 2) + rounding.odd) >> 4) as u8;
    }
}

/// Fraction bits of the constants of the colour conversion.
pub(crate) const COLOUR_BITS: u32 = 16;

/// Red's share of Cr, 1.40200.
pub(crate) const RED_CR: i32 = 91881;
/// Green's share of Cb, 0.34414.
pub(crate) const GREEN_CB: i32 = -22554;
/// Green's share of Cr, 0.71414.
pub(crate) const GREEN_CR: i32 = -46802;
/// Blue's share of Cb, 1.77200.
pub(crate) const BLUE_CB: i32 = 116_130;

/// YCbCr to RGB.
///
/// # Shapes
/// - `luma`, `cb`, `cr`: n
/// - `out`: 3 n
pub(crate) fn colour(luma: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    const HALF: i32 = 1 << (COLOUR_BITS - 1);
    let pixels = out.as_chunks_mut::<3>().0.iter_mut();
    for (((pixel, &luma), &cb), &cr) in pixels.zip(luma).zip(cb).zip(cr) {
        let (luma, cb, cr) = (i32::from(luma), i32::from(cb) - 128, i32::from(cr) - 128);
        let red = luma + ((RED_CR * cr + HALF) >> COLOUR_BITS);
        let green = luma + ((GREEN_CB * cb + GREEN_CR * cr + HALF) >> COLOUR_BITS);
        let blue = luma + ((BLUE_CB * cb + HALF) >> COLOUR_BITS);
        *pixel = [red, green, blue].map(|value| value.clamp(0, 255) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transform_is_the_inverse_cosine_transform_to_within_a_rounding() {
        // Two roundings to ½, the first of which has 2 fraction bits and passes through 8 weights.
        const TOLERANCE: f64 = 1.0;
        let mut state = 1u32;
        for _ in 0..200 {
            let block: Block = std::array::from_fn(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) as i16 >> 10
            });
            let samples = transform(&block);
            for (y, x) in (0..8).flat_map(|y| (0..8).map(move |x| (y, x))) {
                let scale = |k: usize| if k == 0 { 0.125f64.sqrt() } else { 0.5 };
                let wave = |k: usize, at: usize| {
                    scale(k) * (((2 * at + 1) * k) as f64 * std::f64::consts::PI / 16.0).cos()
                };
                let exact: f64 = (0..64)
                    .map(|at| f64::from(block[at]) * wave(at / 8, y) * wave(at % 8, x))
                    .sum();
                let exact = (exact + 128.0).clamp(0.0, 255.0);
                assert!((exact - f64::from(samples[y][x])).abs() <= TOLERANCE);
            }
        }
    }

    #[test]
    fn equal_samples_stay_equal_when_enlarged() {
        for rounding in [Rounding::BOTH, Rounding::WIDTH] {
            for value in 0..=255 {
                let mut out = [0; 8];
                upsample(&[value; 6], &[value; 6], rounding, &mut out);
                assert_eq!(out, [value; 8]);
            }
        }
    }

    #[test]
    fn neutral_chroma_is_grey_and_primaries_are_theirs() {
        let rgb = |ycc: [u8; 3]| {
            let mut out = [0; 3];
            colour(&ycc[..1], &ycc[1..2], &ycc[2..], &mut out);
            out
        };
        for luma in 0..=255 {
            assert_eq!(rgb([luma, 128, 128]), [luma; 3]);
        }
        assert_eq!(rgb([76, 85, 255]), [254, 0, 0]);
        assert_eq!(rgb([29, 255, 107]), [0, 0, 254]);
    }
}
