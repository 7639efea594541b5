//! The operations on samples that exist twice: portable, and in vector instructions.

use crate::portable::{self, Rounding};
use crate::scan::Block;

/// Place for the samples of a block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Target {
    /// Of the first sample.
    pub(crate) offset: usize,
    /// From a row to the next.
    pub(crate) stride: usize,
}

/// One implementation of the operations. All give the same bits.
pub(crate) trait Kernels: Copy {
    /// Runs a loop that calls the operations, compiled for the same processor as they are.
    ///
    /// That holds for what is inlined into `work`, so that its functions are `inline(always)`.
    fn run<T>(self, work: impl FnOnce() -> T) -> T;

    /// The samples of two blocks, `side` × `side` of each: 8, 4 or 2.
    ///
    /// # Panics
    /// When a target is not inside `samples`.
    fn transform_pair(
        self,
        blocks: &[Block; 2],
        side: usize,
        samples: &mut [u8],
        targets: [Target; 2],
    );

    /// See [`portable::upsample`].
    ///
    /// # Panics
    /// When the lengths do not belong together.
    fn upsample(self, near: &[u8], far: &[u8], rounding: Rounding, out: &mut [u8]);

    /// See [`portable::colour`].
    ///
    /// # Panics
    /// When the lengths do not belong together.
    fn colour(self, luma: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]);
}

/// Puts the samples of a block into their place.
#[inline(always)]
pub(crate) fn store<const SIDE: usize>(
    block: [[u8; SIDE]; SIDE],
    Target { offset, stride }: Target,
    samples: &mut [u8],
) {
    // The only check: all rows lie in here.
    let span = &mut samples[offset..][..(SIDE - 1) * stride + SIDE];
    for (y, row) in block.iter().enumerate() {
        span[y * stride..][..SIDE].copy_from_slice(row);
    }
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Kernels for Portable {
    #[inline(always)]
    fn run<T>(self, work: impl FnOnce() -> T) -> T {
        work()
    }

    fn transform_pair(
        self,
        blocks: &[Block; 2],
        side: usize,
        samples: &mut [u8],
        targets: [Target; 2],
    ) {
        for (block, target) in blocks.iter().zip(targets) {
            match side {
                8 => store(portable::transform(block), target, samples),
                4 => store(portable::transform_half(block), target, samples),
                _ => store(portable::transform_quarter(block), target, samples),
            }
        }
    }

    fn upsample(self, near: &[u8], far: &[u8], rounding: Rounding, out: &mut [u8]) {
        portable::upsample(near, far, rounding, out);
    }

    fn colour(self, luma: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
        portable::colour(luma, cb, cr, out);
    }
}

/// Makes no samples and no pixels: what is left of decoding is reading codes.
#[derive(Clone, Copy)]
pub(crate) struct CodesOnly<K>(pub(crate) K);

impl<K: Kernels> Kernels for CodesOnly<K> {
    #[inline(always)]
    fn run<T>(self, work: impl FnOnce() -> T) -> T {
        self.0.run(work)
    }

    #[inline(always)]
    fn transform_pair(
        self,
        blocks: &[Block; 2],
        _side: usize,
        _samples: &mut [u8],
        _targets: [Target; 2],
    ) {
        // Or the compiler would not store coefficients that nobody reads.
        std::hint::black_box(blocks);
    }

    #[inline(always)]
    fn upsample(self, _near: &[u8], _far: &[u8], _rounding: Rounding, _out: &mut [u8]) {}

    #[inline(always)]
    fn colour(self, _luma: &[u8], _cb: &[u8], _cr: &[u8], _out: &mut [u8]) {}
}
