//! The layout of matrices inside an operation, and the storage of their elements.
//!
//! A matrix `[rows, columns]` is cut into panels of 32 columns, each stored row by row:
//! `[columns / 32][rows][32]`, the last panel filled up with zeros. In f32 one such buffer serves as
//! left operand, as transposed left operand and as right operand of a product, so that activations
//! are never packed or transposed for one, and a tile of the result is a contiguous piece of memory
//! that the next loop finds in the nearest cache.
//!
//! All memory is counted in words of 32 bits. A panel has two forms, which are one and the same for
//! f32: *rows*, in which neighbours in a row share a word, for a left operand; and *pairs*, in which
//! neighbours in a column do, for a right operand or a transposed left one. So a product's inner
//! loop always reads one word of the left operand and two registers of the right one.

use super::activation::{Activation, CoarseErf, CoarseTanh, Erf, Tanh};
use crate::simd::tiles::{NoTiles, Tiles};
use crate::simd::{InstructionSet, Kernel, Simd, dispatch_bf16, dispatch_to};

/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// `columns` filled up to whole panels.
pub(super) const fn padded(columns: usize) -> usize {
    columns.next_multiple_of(PANEL)
}

/// A way to store elements.
pub(super) trait Format: Copy + Send + Sync {
    /// Elements in a word.
    const PER_WORD: usize;
    /// Words of a panel's row.
    const ROW: usize = PANEL / Self::PER_WORD;
    /// True where panels of f32 have to be converted before they can be multiplied.
    const CONVERTS: bool = Self::PER_WORD > 1;

    /// The two forms of GELU, as exact as what the format stores.
    const ERF: Self::Erf;
    /// As above.
    const TANH: Self::Tanh;
    /// The type of [`Format::ERF`].
    type Erf: Activation;
    /// The type of [`Format::TANH`].
    type Tanh: Activation;

    /// Registers for whole tiles of the format, where a processor has any.
    #[inline(always)]
    fn tiles<S: Simd>(_: S) -> Option<impl Tiles> {
        None::<NoTiles>
    }

    /// Adds the product of two words, element by element, to `sum`.
    fn multiply_add<S: Simd>(s: S, a: S::V, b: S::V, sum: S::V) -> S::V;

    /// Converts `rows` rows of a panel of f32 to the form of rows.
    ///
    /// # Safety
    /// All of it must be there; the two may not overlap.
    unsafe fn write_rows<S: Simd>(s: S, from: *const f32, rows: usize, to: *mut f32);

    /// Converts `rows` rows of a panel of f32 to the form of pairs; a last row without its
    /// neighbour gets zeros for one.
    ///
    /// # Safety
    /// All of it must be there; the two may not overlap.
    unsafe fn write_pairs<S: Simd>(s: S, from: *const f32, rows: usize, to: *mut f32);

    /// Writes two registers of neighbouring columns in the form of rows.
    ///
    /// # Safety
    /// All of it must be there.
    unsafe fn store_row<S: Simd>(s: S, to: *mut f32, columns: [S::V; 2]);

    /// [`Format::store_row`] past the caches, for what is read much later; on whole cache lines.
    ///
    /// # Safety
    /// All of it must be there.
    unsafe fn stream_row<S: Simd>(s: S, to: *mut f32, columns: [S::V; 2]);

    /// Reads what [`Format::store_row`] wrote.
    ///
    /// # Safety
    /// All of it must be there.
    unsafe fn load_row<S: Simd>(s: S, from: *const f32) -> [S::V; 2];

    /// Writes one register of columns of two neighbouring rows in the form of pairs; the second row
    /// may be missing.
    ///
    /// # Safety
    /// All of it must be there.
    unsafe fn store_pair<S: Simd>(s: S, to: *mut f32, first: S::V, second: Option<S::V>);

    /// Runs a kernel that uses the format.
    fn dispatch(set: InstructionSet, kernel: impl Kernel);
}

/// f32 as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct F32;

/// bf16, two to a word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bf16;

impl Format for F32 {
    const PER_WORD: usize = 1;
    const ERF: Erf = Erf;
    const TANH: Tanh = Tanh;
    type Erf = Erf;
    type Tanh = Tanh;

    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, a: S::V, b: S::V, sum: S::V) -> S::V {
        s.mul_add(a, b, sum)
    }

    #[inline(always)]
    unsafe fn write_rows<S: Simd>(_: S, from: *const f32, rows: usize, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, to, rows * PANEL) };
    }

    #[inline(always)]
    unsafe fn write_pairs<S: Simd>(_: S, from: *const f32, rows: usize, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, to, rows * PANEL) };
    }

    #[inline(always)]
    unsafe fn store_row<S: Simd>(s: S, to: *mut f32, [first, second]: [S::V; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            s.store(to, first);
            s.store(to.add(S::LANES), second);
        }
    }

    #[inline(always)]
    unsafe fn stream_row<S: Simd>(s: S, to: *mut f32, [first, second]: [S::V; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            s.stream(to, first);
            s.stream(to.add(S::LANES), second);
        }
    }

    #[inline(always)]
    unsafe fn load_row<S: Simd>(s: S, from: *const f32) -> [S::V; 2] {
        // SAFETY: the caller's promise.
        unsafe { [s.load(from), s.load(from.add(S::LANES))] }
    }

    #[inline(always)]
    unsafe fn store_pair<S: Simd>(s: S, to: *mut f32, first: S::V, second: Option<S::V>) {
        // SAFETY: the caller's promise.
        unsafe {
            s.store(to, first);
            if let Some(second) = second {
                s.store(to.add(PANEL), second);
            }
        }
    }

    fn dispatch(set: InstructionSet, kernel: impl Kernel) {
        dispatch_to(set, kernel);
    }
}

impl Format for Bf16 {
    const PER_WORD: usize = 2;
    const ERF: CoarseErf = CoarseErf;
    const TANH: CoarseTanh = CoarseTanh;
    type Erf = CoarseErf;
    type Tanh = CoarseTanh;

    #[inline(always)]
    fn tiles<S: Simd>(s: S) -> Option<impl Tiles> {
        s.tiles()
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, a: S::V, b: S::V, sum: S::V) -> S::V {
        s.dot_pairs(a, b, sum)
    }

    #[inline(always)]
    unsafe fn write_rows<S: Simd>(s: S, from: *const f32, rows: usize, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            for i in (0..rows * PANEL).step_by(2 * S::LANES) {
                let columns = [s.load(from.add(i)), s.load(from.add(i + S::LANES))];
                Self::store_row(s, to.add(i / 2), columns);
            }
        }
    }

    #[inline(always)]
    unsafe fn write_pairs<S: Simd>(s: S, from: *const f32, rows: usize, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            for row in (0..rows).step_by(2) {
                let (from, to) = (from.add(row * PANEL), to.add(row / 2 * PANEL));
                for lane in (0..PANEL).step_by(S::LANES) {
                    let second =
                        if row + 1 < rows { s.load(from.add(PANEL + lane)) } else { s.splat(0.0) };
                    s.store(to.add(lane), s.narrow_pairs(s.load(from.add(lane)), second));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store_row<S: Simd>(s: S, to: *mut f32, [first, second]: [S::V; 2]) {
        // SAFETY: the caller's promise.
        unsafe { s.store(to, s.narrow(first, second)) };
    }

    #[inline(always)]
    unsafe fn stream_row<S: Simd>(s: S, to: *mut f32, [first, second]: [S::V; 2]) {
        // SAFETY: the caller's promise.
        unsafe { s.stream(to, s.narrow(first, second)) };
    }

    #[inline(always)]
    unsafe fn load_row<S: Simd>(s: S, from: *const f32) -> [S::V; 2] {
        // SAFETY: the caller's promise.
        unsafe { s.widen(s.load(from)) }
    }

    #[inline(always)]
    unsafe fn store_pair<S: Simd>(s: S, to: *mut f32, first: S::V, second: Option<S::V>) {
        // SAFETY: the caller's promise.
        unsafe { s.store(to, s.narrow_pairs(first, second.unwrap_or(s.splat(0.0)))) };
    }

    fn dispatch(set: InstructionSet, kernel: impl Kernel) {
        dispatch_bf16(set, kernel);
    }
}
