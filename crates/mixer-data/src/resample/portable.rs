//! The passes of a resize in plain Rust: what they are.

use crate::resample::passes::{COLOURS, Columns, FRACTION_BITS, Passes, ROWS};

/// Columns that the vertical pass works on at once, so that their sums stay in registers.
const BLOCK: usize = 32;

/// Plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Passes for Portable {
    fn vertical(self, source: &[u8], stride: usize, weights: &[i16], bits: u32, out: &mut [i16]) {
        let shift = bits - FRACTION_BITS;
        for (block, out) in out.chunks_mut(BLOCK).enumerate() {
            let mut sums = [1i32 << (shift - 1); BLOCK];
            for (row, &weight) in weights.iter().enumerate() {
                let pixels = &source[row * stride + block * BLOCK..][..out.len()];
                for (sum, &pixel) in sums.iter_mut().zip(pixels) {
                    *sum = sum.wrapping_add(i32::from(weight) * i32::from(pixel));
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = (sum >> shift).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
            }
        }
    }

    fn horizontal(self, source: &[i16], columns: &Columns<'_>, out: &mut [u8]) {
        let (source_stride, out_stride) = (source.len() / ROWS, out.len() / ROWS);
        let taps = columns.weights.taps();
        let shift = columns.weights.bits() + FRACTION_BITS;
        for (source, out) in
            source.chunks_exact(source_stride).zip(out.chunks_exact_mut(out_stride))
        {
            let results = out.as_chunks_mut::<COLOURS>().0.iter_mut();
            let windows = columns.offsets.iter().zip(columns.weights.values().chunks_exact(taps));
            for (result, (&offset, weights)) in results.zip(windows) {
                let mut sums = [1i32 << (shift - 1); COLOURS];
                let pixels = source[offset as usize..].as_chunks::<COLOURS>().0;
                for (pixel, &weight) in pixels.iter().zip(weights) {
                    for (sum, &value) in sums.iter_mut().zip(pixel) {
                        *sum = sum.wrapping_add(i32::from(weight).wrapping_mul(i32::from(value)));
                    }
                }
                *result = sums.map(|sum| (sum >> shift).clamp(0, 255) as u8);
            }
        }
    }
}
