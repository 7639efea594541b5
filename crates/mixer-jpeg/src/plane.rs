//! Samples of one row of MCUs, and the one row above it that they are mixed with.

use std::ops::Range;

use crate::pixels::{Kernels, Target, store};
use crate::portable::flat_sample;
use crate::scan::Block;

/// Samples beside each row that are not the plane's: the triangle filter looks one to either side.
const MARGIN: usize = 1;

/// Part of a component that is decoded, and the place of its samples.
///
/// Of rows there are those of one row of MCUs, behind one that is carried over from the row before.
#[derive(Clone, Debug)]
pub(crate) struct Plane {
    /// Blocks of an MCU in a row and in a column.
    pub(crate) blocks_across: usize,
    pub(crate) blocks_down: usize,
    /// Samples on a side of a block.
    pub(crate) side: usize,
    /// Wanted blocks, counted from the left and the top of the picture.
    pub(crate) columns: Range<usize>,
    pub(crate) rows: Range<usize>,
    /// Size of the whole component, samples.
    width: usize,
    height: usize,
    /// Start of the carried row in the shared buffer, margin included.
    start: usize,
    stride: usize,
}

impl Plane {
    /// A plane for the samples `columns` × `rows` of a component of `width` × `height`.
    ///
    /// It begins at the end of `samples`, which grows.
    pub(crate) fn new(
        (blocks_across, blocks_down): (usize, usize),
        side: usize,
        (width, height): (usize, usize),
        columns: Range<usize>,
        rows: Range<usize>,
        samples: &mut Vec<u8>,
    ) -> Self {
        let blocks = |range: Range<usize>| range.start / side..range.end.div_ceil(side);
        let columns = blocks(columns);
        let stride = columns.len() * side + 2 * MARGIN;
        let start = samples.len();
        samples.resize(start + (1 + blocks_down * side) * stride, 0);
        let rows = blocks(rows);
        Self { blocks_across, blocks_down, side, columns, rows, width, height, start, stride }
    }

    /// Rows of MCUs that hold wanted blocks.
    pub(crate) fn mcu_rows(&self) -> Range<usize> {
        self.rows.start / self.blocks_down..self.rows.end.div_ceil(self.blocks_down)
    }

    /// Columns of MCUs that hold wanted blocks.
    pub(crate) fn mcu_columns(&self) -> Range<usize> {
        self.columns.start / self.blocks_across..self.columns.end.div_ceil(self.blocks_across)
    }

    /// Keeps the last row of samples of the row of MCUs before.
    pub(crate) fn carry(&self, samples: &mut [u8]) {
        let last = self.start + self.blocks_down * self.side * self.stride;
        samples.copy_within(last..last + self.stride, self.start);
    }

    /// Place of a wanted block of a row of MCUs.
    #[inline(always)]
    pub(crate) fn target(&self, block_row_in_mcu: usize, column: usize) -> Target {
        let row = 1 + block_row_in_mcu * self.side;
        let at = MARGIN + (column - self.columns.start) * self.side;
        Target { offset: self.start + row * self.stride + at, stride: self.stride }
    }

    /// Repeats the outermost samples of a component where a filter would look beyond them.
    pub(crate) fn extend_edges(&self, samples: &mut [u8]) {
        let rows = &mut samples[self.start..][..(1 + self.blocks_down * self.side) * self.stride];
        let width = self.width - self.columns.start * self.side;
        for row in rows.chunks_exact_mut(self.stride).skip(1) {
            if self.columns.start == 0 {
                row[0] = row[MARGIN];
            }
            // What is behind the width in its last block is padding of the encoder.
            if let Some(&[last]) = row.get(MARGIN + width - 1..MARGIN + width)
                && let Some(beyond) = row.get_mut(MARGIN + width)
            {
                *beyond = last;
            }
        }
    }

    /// Samples of a row of the picture, on the row of MCUs that it is in or the next. Rows below the
    /// picture are its last.
    #[inline(always)]
    pub(crate) fn row<'a>(
        &self,
        samples: &'a [u8],
        mcu_row: usize,
        row: usize,
        columns: Range<usize>,
    ) -> &'a [u8] {
        let row = self.row_with_neighbours(samples, mcu_row, row, columns);
        &row[MARGIN..row.len() - MARGIN]
    }

    /// [`Plane::row`] with one sample more on either side.
    #[inline(always)]
    pub(crate) fn row_with_neighbours<'a>(
        &self,
        samples: &'a [u8],
        mcu_row: usize,
        row: usize,
        columns: Range<usize>,
    ) -> &'a [u8] {
        let first = mcu_row * self.blocks_down * self.side;
        let row = row.min(self.height - 1) + 1 - first;
        let start = self.start + row * self.stride + columns.start - self.columns.start * self.side;
        &samples[start..start + columns.len() + 2 * MARGIN]
    }
}

/// Blocks of a component that wait for a second one to be transformed with.
pub(crate) struct Pending {
    /// Samples on a side that the transform makes.
    side: usize,
    blocks: [Block; 2],
    targets: [Target; 2],
    count: usize,
}

impl Pending {
    /// None, of a component whose blocks become `side` × `side` samples.
    pub(crate) fn new(side: usize) -> Self {
        Self { side, blocks: [[0; 64]; 2], targets: [Target::default(); 2], count: 0 }
    }

    /// Place for the next block's coefficients.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> &mut Block {
        &mut self.blocks[self.count & 1]
    }

    /// Takes what was put into [`Pending::next`].
    #[inline(always)]
    pub(crate) fn push<K: Kernels>(&mut self, kernels: K, target: Target, samples: &mut [u8]) {
        self.targets[self.count & 1] = target;
        self.count += 1;
        if self.count == 2 {
            self.count = 0;
            kernels.transform_pair(&self.blocks, self.side, samples, self.targets);
        }
    }

    /// Transforms a block that waits alone.
    pub(crate) fn finish<K: Kernels>(&mut self, kernels: K, samples: &mut [u8]) {
        if self.count == 1 {
            self.count = 0;
            // The pair is the block twice, in the same place.
            self.blocks[1] = self.blocks[0];
            self.targets[1] = self.targets[0];
            kernels.transform_pair(&self.blocks, self.side, samples, self.targets);
        }
    }
}

/// Fills a block that has no AC coefficients.
#[inline(always)]
pub(crate) fn fill_flat(dc: i16, side: usize, target: Target, samples: &mut [u8]) {
    let sample = flat_sample(dc);
    match side {
        8 => store([[sample; 8]; 8], target, samples),
        4 => store([[sample; 4]; 4], target, samples),
        2 => store([[sample; 2]; 2], target, samples),
        _ => samples[target.offset] = sample,
    }
}
