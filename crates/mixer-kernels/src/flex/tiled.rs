//! Products of panels of bf16 by tiles: [`super::panel::multiply`] where a processor has registers for
//! matrices.
//!
//! Panels lie as tiles want them: 16 rows of a left operand are one, and 16 rows of words of a right one
//! are two, side by side. Only a transposed left operand is turned first, once for all its products.

#![expect(
    clippy::too_many_arguments,
    reason = "a product has two operands, a result and their sizes"
)]

use super::format::PANEL;
use crate::simd::tiles::{TILE, TileProduct, Tiles};

/// See [`super::panel::multiply`]: `from` has panels of `height` rows; depth in words.
///
/// # Safety
/// All of it must be there.
pub(super) unsafe fn multiply<T: Tiles>(
    tiles: T,
    from: *const f32,
    height: usize,
    right: *const f32,
    words: usize,
    to: *mut f32,
    to_row: usize,
    rows: usize,
    accumulate: bool,
) {
    let (steps, rest, left_step) = (words / TILE, words % TILE, height * TILE);
    for row in (0..rows).step_by(2 * TILE) {
        // SAFETY: the caller's promise, part by part; what is added to has been written before.
        unsafe {
            let whole = TileProduct {
                left: from.add(row * TILE),
                left_step,
                right,
                steps,
                words: TILE,
                to: to.add(row * to_row),
                to_row,
                rows: (rows - row).min(2 * TILE),
                accumulate,
            };
            if steps > 0 {
                tiles.product(&whole);
            }
            if rest > 0 {
                tiles.product(&TileProduct {
                    left: whole.left.add(steps * left_step),
                    right: right.add(steps * TILE * PANEL),
                    steps: 1,
                    words: rest,
                    accumulate: accumulate || steps > 0,
                    ..whole
                });
            }
        }
    }
}

/// Transposes `words` rows of 32 words in place: 32 rows of 16 words for each 16 of them.
///
/// # Safety
/// All of it must be there, and room for a multiple of 16 rows.
pub(super) unsafe fn transpose(panel: *mut f32, words: usize) {
    for first in (0..words).step_by(TILE) {
        let mut block = [[0.0; PANEL]; TILE];
        // SAFETY: the caller's promise.
        unsafe {
            let (at, count) = (panel.add(first * PANEL), (words - first).min(TILE));
            std::ptr::copy_nonoverlapping(at.cast(), block.as_mut_ptr(), count);
            let turned = std::array::from_fn(|row| block.map(|line| line[row]));
            at.cast::<[[f32; TILE]; PANEL]>().write_unaligned(turned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flex::format::Bf16;
    use crate::flex::panel::{self, Left};
    use crate::simd::{InstructionSet, Kernel, Simd, dispatch_bf16};

    /// Words with bf16 of at most 1, a multiple of 1/128 each.
    fn words(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut half = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (((state >> 24) as f32 - 128.0) / 128.0).to_bits() >> 16
        };
        (0..count).map(|_| f32::from_bits(half() | half() << 16)).collect()
    }

    fn halves(word: f32) -> [f64; 2] {
        let bits = word.to_bits();
        [bits << 16, bits & 0xffff_0000].map(|half| f64::from(f32::from_bits(half)))
    }

    struct Job<'a> {
        left: Left,
        right: &'a [f32],
        words: usize,
        to: &'a mut [f32],
        to_row: usize,
        rows: usize,
        accumulate: bool,
    }

    impl Kernel for Job<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let Job { left, right, words, to, to_row, rows, accumulate } = self;
            // SAFETY: the test made them of the right sizes.
            unsafe {
                let (right, to) = (right.as_ptr(), to.as_mut_ptr());
                panel::multiply::<Bf16, S>(s, left, right, 2 * words, to, to_row, rows, accumulate);
            }
        }
    }

    /// One product by the twin of tiles, by registers and in f64; what lies outside of it stays.
    fn check(rows: usize, depth: usize, columns: bool, accumulate: bool) {
        const UNTOUCHED: f32 = 77.0;
        let to_row = PANEL + 3;
        let panels = depth.div_ceil(TILE);
        let a = words(panels * TILE * if columns { PANEL } else { rows }, 1 + rows as u32);
        let b = words(depth * PANEL, 1000 + depth as u32);
        let mut turned = a.clone();
        // SAFETY: there is room for whole tiles.
        unsafe { transpose(turned.as_mut_ptr(), if columns { depth } else { 0 }) };
        let height = if columns { PANEL } else { rows };
        let lefts = [
            Left::Rows { from: turned.as_ptr(), rows: height },
            match columns {
                true => Left::Columns { from: a.as_ptr() },
                false => Left::Rows { from: a.as_ptr(), rows },
            },
        ];
        let mut start = vec![UNTOUCHED; (rows + 2) * to_row];
        for row in 0..rows {
            start[row * to_row..][..PANEL].fill(if accumulate { 0.5 } else { f32::NAN });
        }
        let (mut tiled, mut plain) = (start.clone(), start);
        let sets = [InstructionSet::Twin, InstructionSet::Portable];
        for ((set, left), to) in sets.into_iter().zip(lefts).zip([&mut tiled, &mut plain]) {
            let (right, words) = (&b, depth);
            dispatch_bf16(set, Job { left, right, words, to, to_row, rows, accumulate });
        }
        let what = format!("{rows} rows, {depth} words, columns {columns}, onto {accumulate}");
        for (i, (&tiled, &plain)) in tiled.iter().zip(&plain).enumerate() {
            let (row, column) = (i / to_row, i % to_row);
            if row >= rows || column >= PANEL {
                assert!(tiled == UNTOUCHED, "{what}: wrote at {row}, {column}");
                continue;
            }
            let mut expected = if accumulate { 0.5 } else { 0.0 };
            for word in 0..depth {
                let a = match columns {
                    true => a[word * PANEL + row],
                    false => a[(word / TILE * rows + row) * TILE + word % TILE],
                };
                let b = b[word * PANEL + column];
                expected += halves(a).iter().zip(halves(b)).map(|(a, b)| a * b).sum::<f64>();
            }
            let bound = 1e-6 * (1.0 + 2.0 * depth as f64);
            assert!((f64::from(tiled) - expected).abs() <= bound, "{what}: {tiled} {expected}");
            assert!((f64::from(plain) - expected).abs() <= bound, "{what}: {plain} {expected}");
        }
    }

    #[test]
    fn tiles_multiply_all_shapes() {
        for accumulate in [false, true] {
            for depth in [1, 2, 3, 15, 16, 17, 31, 33, 49, 255, 256, 257, 300] {
                for rows in (1..=70).step_by(if depth < 20 { 1 } else { 23 }) {
                    check(rows, depth, false, accumulate);
                }
                for rows in (1..=PANEL).step_by(if depth < 20 { 1 } else { 15 }) {
                    check(rows, depth, true, accumulate);
                }
            }
        }
    }
}
