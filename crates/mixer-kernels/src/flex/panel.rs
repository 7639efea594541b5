//! Products of matrices in panels, and copies of matrices into panels: [`Format`] says what a panel is.

#![expect(
    clippy::too_many_arguments,
    reason = "a product has two operands, a result and their sizes"
)]

use std::marker::PhantomData;

use rayon::prelude::*;

use super::buffer::{Floats, Scratch};
use super::format::{Format, PANEL, padded};
use super::tiled;
use crate::pool::LINE;
use crate::simd::{InstructionSet, Kernel, Simd, dispatch_to};

/// The left operand of a product, in panels.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left {
    /// The matrix itself from a row on, in the form of rows; its panels have `rows` of them.
    Rows { from: *const f32, rows: usize },
    /// Its transpose: `from` is one panel in the form of pairs, whose columns from 0 on become rows.
    Columns { from: *const f32 },
}

/// `to = left · right`, or `to += left · right`.
///
/// `right` is one panel of `depth` rows in the form of pairs; `to` has `rows` rows of 32 floats,
/// `to_row` floats apart.
/// The additions of each element happen in the order of `depth`, whatever the tiling; a processor's own
/// tiles of bf16 sum 32 of depth by themselves first: see [`crate::simd::tiles::Tiles`].
///
/// # Safety
/// All of it must be there.
#[inline(always)]
pub(super) unsafe fn multiply<F: Format, S: Simd>(
    s: S,
    left: Left,
    right: *const f32,
    depth: usize,
    to: *mut f32,
    to_row: usize,
    rows: usize,
    accumulate: bool,
) {
    let format = PhantomData::<F>;
    // Apart, so that the tiles of all shapes are compiled once and not for every product that there is.
    s.run(Product { format, left, right, depth, to, to_row, rows, accumulate });
}

/// A call of [`multiply`].
struct Product<F> {
    format: PhantomData<F>,
    left: Left,
    right: *const f32,
    depth: usize,
    to: *mut f32,
    to_row: usize,
    rows: usize,
    accumulate: bool,
}

impl<F: Format> Kernel for Product<F> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { left, right, depth, to, to_row, rows, accumulate, .. } = self;
        let (tiles, words) = (rows.div_ceil(S::TILE_ROWS), depth.div_ceil(F::PER_WORD));
        if let Some(tiles) = F::tiles(s) {
            let Left::Rows { from, rows: height } = left else {
                unreachable!("`columns` gives rows where there are tiles")
            };
            // SAFETY: the promise to `multiply`.
            return unsafe {
                tiled::multiply(tiles, from, height, right, words, to, to_row, rows, accumulate)
            };
        }
        let width = S::TILE_WIDTH * S::LANES;
        // A block of the right operand stays in the first-level cache while every row passes by.
        for block in (0..words).step_by(S::DEPTH) {
            let depth = S::DEPTH.min(words - block);
            let accumulate = accumulate || block > 0;
            // Behind it lies what a product of rows takes next, as a rule: each tile asks for its part.
            let mut ahead = right.wrapping_add((block + depth) * PANEL);
            let lines = match left {
                Left::Rows { .. } if S::PREFETCHES => {
                    (depth * PANEL / LINE).div_ceil(tiles * PANEL / width)
                }
                _ => 0,
            };
            for column in (0..PANEL).step_by(width) {
                let mut row = 0;
                for tile in 0..tiles {
                    // Tiles as equal as they can be: a last one of two rows would be mostly overhead.
                    let count = (rows - row).div_ceil(tiles - tile);
                    for _ in 0..lines {
                        s.prefetch(ahead);
                        ahead = ahead.wrapping_add(LINE);
                    }
                    // SAFETY: the promise to `multiply`, part by part; a block begins with a panel.
                    unsafe {
                        let right = right.add(block * PANEL + column);
                        let to = to.add(row * to_row + column);
                        match left {
                            Left::Rows { from, rows } => {
                                let from = from.add(block * rows + row * F::ROW);
                                let stride = rows * F::ROW;
                                tile_of::<F, S, false>(
                                    s, from, stride, right, depth, to, to_row, count, accumulate,
                                );
                            }
                            Left::Columns { from } => {
                                let from = from.add(block * PANEL + row);
                                tile_of::<F, S, true>(
                                    s, from, 0, right, depth, to, to_row, count, accumulate,
                                );
                            }
                        }
                    }
                    row += count;
                }
            }
        }
    }
}

/// The left operand whose rows are the columns of a panel that [`turn`] or [`turn_panels`] has seen.
#[inline(always)]
pub(super) fn columns<F: Format, S: Simd>(s: S, from: *const f32) -> Left {
    match F::tiles(s) {
        Some(_) => Left::Rows { from, rows: PANEL },
        None => Left::Columns { from },
    }
}

/// Makes a panel in the form of pairs one for [`columns`], in place: where a processor multiplies tiles,
/// it is transposed.
///
/// # Safety
/// All of it must be there, and room for whole 32 rows.
#[inline(always)]
unsafe fn turn<F: Format, S: Simd>(s: S, panel: *mut f32, words: usize) {
    if F::tiles(s).is_some() {
        // SAFETY: the caller's promise.
        unsafe { tiled::transpose(panel, words) };
    }
}

/// Makes `count` panels of `rows` rows in the form of pairs, `stride` words apart, ones for [`columns`].
///
/// # Safety
/// All of them must be there, and room for whole 32 rows.
pub(super) unsafe fn turn_panels<F: Format>(
    set: InstructionSet,
    panels: Floats,
    count: usize,
    stride: usize,
    rows: usize,
) {
    if F::CONVERTS {
        (0..count).into_par_iter().for_each(|panel| {
            // SAFETY: the caller's promise; each job has a panel of its own.
            let panel = unsafe { panels.at(panel * stride) };
            let (format, words) = (PhantomData::<F>, rows.div_ceil(F::PER_WORD));
            F::dispatch(set, TurnJob { format, panel, words });
        });
    }
}

/// [`turn`], as a kernel.
struct TurnJob<F> {
    format: PhantomData<F>,
    panel: *mut f32,
    words: usize,
}

impl<F: Format> Kernel for TurnJob<F> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `turn_panels` has such a panel.
        unsafe { turn::<F, S>(s, self.panel, self.words) };
    }
}

/// Picks the tile of `count` rows, `depth` words deep.
#[inline(always)]
unsafe fn tile_of<F: Format, S: Simd, const TRANSPOSED: bool>(
    s: S,
    left: *const f32,
    panel_stride: usize,
    right: *const f32,
    depth: usize,
    to: *mut f32,
    to_row: usize,
    count: usize,
    accumulate: bool,
) {
    macro_rules! pick {
        ($width:literal: $($rows:literal),*) => {
            match count {
                // Constant, so that only the tiles of this width and height are compiled.
                // SAFETY: the caller's promise.
                $($rows if const { $rows <= S::TILE_ROWS } => unsafe {
                    tile::<F, S, $rows, $width, TRANSPOSED>(
                        s, left, panel_stride, right, depth, to, to_row, accumulate,
                    );
                },)*
                _ => unreachable!("no tile has {count} rows"),
            }
        };
    }
    match S::TILE_WIDTH {
        4 => pick!(4: 1, 2, 3),
        _ => pick!(2: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14),
    }
}

/// One tile in registers: `ROWS` rows, `WIDTH` registers wide.
#[inline(always)]
unsafe fn tile<
    F: Format,
    S: Simd,
    const ROWS: usize,
    const WIDTH: usize,
    const TRANSPOSED: bool,
>(
    s: S,
    mut left: *const f32,
    panel_stride: usize,
    mut right: *const f32,
    depth: usize,
    to: *mut f32,
    to_row: usize,
    accumulate: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[s.splat(0.0); WIDTH]; ROWS];
        if accumulate {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = s.load(to.add(row * to_row + i * S::LANES));
                }
            }
        }
        let mut remaining = depth;
        while remaining > 0 {
            // The transposed operand is one panel down to its end; the other changes panels.
            let run = if TRANSPOSED { remaining } else { remaining.min(F::ROW) };
            let mut from = left;
            for _ in 0..run {
                let a =
                    |row: usize| s.splat(*from.add(if TRANSPOSED { row } else { row * F::ROW }));
                // The smaller side waits in registers, the other passes through one.
                if ROWS < WIDTH {
                    let mut waiting = [s.splat(0.0); ROWS];
                    for (row, waiting) in waiting.iter_mut().enumerate() {
                        *waiting = a(row);
                    }
                    for i in 0..WIDTH {
                        let b = s.load(right.add(i * S::LANES));
                        for (sums, &a) in sums.iter_mut().zip(&waiting) {
                            sums[i] = F::multiply_add(s, a, b, sums[i]);
                        }
                    }
                } else {
                    let mut waiting = [s.splat(0.0); WIDTH];
                    for (i, waiting) in waiting.iter_mut().enumerate() {
                        *waiting = s.load(right.add(i * S::LANES));
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let a = a(row);
                        for (sum, &b) in sums.iter_mut().zip(&waiting) {
                            *sum = F::multiply_add(s, a, b, *sum);
                        }
                    }
                }
                from = from.add(if TRANSPOSED { PANEL } else { 1 });
                right = right.add(PANEL);
            }
            remaining -= run;
            left = left.wrapping_add(panel_stride);
        }
        for (row, sums) in sums.iter().enumerate() {
            for (i, &sum) in sums.iter().enumerate() {
                s.store(to.add(row * to_row + i * S::LANES), sum);
            }
        }
    }
}

/// A matrix in memory, whichever of its axes its rows there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    /// Rows and columns.
    dims: [usize; 2],
    /// Floats from a row in memory to the next.
    stride: usize,
    /// `true` where the rows in memory are the matrix' columns.
    by_columns: bool,
}

impl<'a> Matrix<'a> {
    /// A matrix of so many rows and columns, row by row.
    pub(super) fn new(values: &'a [f32], dims: [usize; 2]) -> Self {
        Self { values, dims, stride: dims[1], by_columns: false }
    }

    /// Its transpose, which is the same memory.
    pub(super) fn transposed(self) -> Self {
        let [rows, columns] = self.dims;
        Self { dims: [columns, rows], by_columns: !self.by_columns, ..self }
    }

    /// Some of its rows.
    pub(super) fn rows(self, first: usize, count: usize) -> Self {
        let start = if self.by_columns { first } else { first * self.stride };
        Self { values: &self.values[start..], dims: [count, self.dims[1]], ..self }
    }

    /// Panel `panel` of it, which has room at `to`.
    fn copy(self, panel: usize, to: *mut f32) -> CopyJob {
        let Self { values, dims: [rows, columns], stride, by_columns } = self;
        let first = panel * PANEL;
        let count = (columns - first).min(PANEL);
        let from = values[if by_columns { first * stride } else { first }..].as_ptr();
        CopyJob { from, stride, rows, count, by_columns, to }
    }
}

/// A copy of one panel: so many rows of 32, of which `count` are there and the others zeros.
struct CopyJob {
    from: *const f32,
    stride: usize,
    rows: usize,
    count: usize,
    by_columns: bool,
    to: *mut f32,
}

impl Kernel for CopyJob {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { from, stride, rows, count, by_columns, to } = self;
        // SAFETY: `pack_panel` has room for the panel, and the matrix has it elsewhere.
        unsafe {
            if by_columns {
                copy_columns(s, from, stride, [rows, count], to);
            } else {
                copy_rows(from, stride, [rows, count], to);
            }
        }
    }
}

/// Copies `count` values from each of so many rows in memory to rows of 32, filled up with zeros.
///
/// # Safety
/// All of it must be there.
#[inline(always)]
unsafe fn copy_rows(from: *const f32, stride: usize, [rows, count]: [usize; 2], to: *mut f32) {
    for row in 0..rows {
        // SAFETY: the caller's promise; the two matrices are distinct.
        unsafe {
            let (from, to) = (from.add(row * stride), to.add(row * PANEL));
            if count == PANEL {
                // Of a size that is known, and so without a call for every row.
                to.cast::<[f32; PANEL]>()
                    .write_unaligned(from.cast::<[f32; PANEL]>().read_unaligned());
            } else {
                std::ptr::copy_nonoverlapping(from, to, count);
                to.add(count).write_bytes(0, PANEL - count);
            }
        }
    }
}

/// Copies the first values of `count` rows in memory to columns: so many rows of 32, filled up with zeros.
///
/// # Safety
/// All of it must be there.
#[inline(always)]
unsafe fn copy_columns<S: Simd>(
    s: S,
    from: *const f32,
    stride: usize,
    [rows, count]: [usize; 2],
    to: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for start in (0..rows).step_by(LINE) {
            for lane in 0..count {
                let from = from.add(lane * stride);
                // Of so many rows at once the processor foresees none.
                s.prefetch(from.wrapping_add(start + 2 * LINE));
                for row in start..(start + LINE).min(rows) {
                    *to.add(row * PANEL + lane) = *from.add(row);
                }
            }
        }
        if count < PANEL {
            for row in 0..rows {
                to.add(row * PANEL + count).write_bytes(0, PANEL - count);
            }
        }
    }
}

/// The forms of a panel: see [`Format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Rows,
    Pairs,
    /// Pairs as [`columns`] takes them.
    Columns,
}

/// A matrix in panels; rows beyond it, up to whole 32, are zero.
pub(super) fn packed<F: Format>(set: InstructionSet, matrix: Matrix<'_>, form: Form) -> Scratch {
    let [height, width] = matrix.dims;
    let depth = padded(height);
    let mut scratch = Scratch::take(depth * padded(width) / F::PER_WORD);
    let to = scratch.floats();
    (0..padded(width) / PANEL).into_par_iter().for_each(|panel| {
        // SAFETY: each job writes its own panel.
        unsafe { pack_panel::<F>(set, matrix, form, panel, to.at(panel * depth * F::ROW)) };
    });
    scratch
}

/// Panel `panel` of what [`packed`] makes of a matrix.
///
/// # Safety
/// `to` must have room for it: rows filled up to whole 32.
pub(super) unsafe fn pack_panel<F: Format>(
    set: InstructionSet,
    matrix: Matrix<'_>,
    form: Form,
    panel: usize,
    to: *mut f32,
) {
    let [height, _] = matrix.dims;
    let depth = padded(height);
    let mut unconverted = F::CONVERTS.then(|| Scratch::take(depth * PANEL));
    // SAFETY: the caller's promise; the matrix has that panel.
    unsafe {
        let floats = unconverted.as_mut().map_or(to, |scratch| scratch.floats().at(0));
        dispatch_to(set, matrix.copy(panel, floats));
        floats.add(height * PANEL).write_bytes(0, (depth - height) * PANEL);
        if F::CONVERTS {
            let (from, format) = (floats.cast_const(), PhantomData::<F>);
            F::dispatch(set, ConvertJob { format, from, rows: depth, form, to });
        }
    }
}

/// The conversion of one panel of f32.
struct ConvertJob<F> {
    format: PhantomData<F>,
    from: *const f32,
    rows: usize,
    form: Form,
    to: *mut f32,
}

impl<F: Format> Kernel for ConvertJob<F> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `pack_panel` has room for both.
        unsafe {
            match self.form {
                Form::Rows => F::write_rows(s, self.from, self.rows, self.to),
                Form::Pairs => F::write_pairs(s, self.from, self.rows, self.to),
                Form::Columns => {
                    F::write_pairs(s, self.from, self.rows, self.to);
                    turn::<F, S>(s, self.to, self.rows / F::PER_WORD);
                }
            }
        }
    }
}

/// A vector filled up with zeros.
pub(super) fn padded_vector(values: &[f32]) -> Scratch {
    let mut scratch = Scratch::zeroed(padded(values.len()));
    // SAFETY: there is room for the values.
    unsafe {
        std::ptr::copy_nonoverlapping(values.as_ptr(), scratch.floats().at(0), values.len());
    }
    scratch
}
