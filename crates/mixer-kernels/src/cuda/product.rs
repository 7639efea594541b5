//! Matrix products: their operands and what is done to their sums.

use cudarc::cublaslt::sys;

use crate::spec::Precision;

use super::address::Address;

/// A row-major matrix, or one per example.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub(super) address: Address,
    /// Elements from one row to the next.
    pub(super) ld: usize,
    /// Elements from one example's to the next.
    pub(super) stride: usize,
    /// Its transpose is meant.
    pub(super) transposed: bool,
}

impl Matrix {
    pub(super) fn new(address: Address, ld: usize) -> Self {
        Self { address, ld, stride: 0, transposed: false }
    }

    pub(super) fn batched(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub(super) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }
}

/// The work on a product's sums before they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Epilogue {
    /// Nothing.
    None,
    /// A vector is added to every row.
    Bias,
    /// As `Bias`, then GELU in its tanh form.
    BiasGelu,
    /// As `BiasGelu`, and the values before GELU are written too.
    BiasGeluKeeping,
    /// GELU in its tanh form.
    Gelu,
    /// As `Gelu`, and the values before it are written too.
    GeluKeeping,
    /// The sums are multiplied by the slope of GELU's tanh form at the values that were kept.
    GeluSlope,
    /// As `GeluSlope`, and the sums of the columns of the result are written too.
    GeluSlopeSums,
    /// The sums of the columns of `b` are written too.
    ColumnSums,
}

impl Epilogue {
    pub(super) fn has_bias(self) -> bool {
        matches!(
            self,
            Epilogue::Bias
                | Epilogue::BiasGelu
                | Epilogue::BiasGeluKeeping
                | Epilogue::GeluSlopeSums
                | Epilogue::ColumnSums
        )
    }

    pub(super) fn has_kept(self) -> bool {
        matches!(
            self,
            Epilogue::BiasGeluKeeping
                | Epilogue::GeluKeeping
                | Epilogue::GeluSlope
                | Epilogue::GeluSlopeSums
        )
    }
}

/// `out = a · b (+ add)`, row-major: `[m, k] · [k, n]`, for each of `batch` examples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) batch: usize,
    pub(super) a: Matrix,
    pub(super) b: Matrix,
    pub(super) out: Matrix,
    pub(super) add: Option<Matrix>,
    /// The type of `a` and `b`.
    pub(super) element: Precision,
    /// The type of `out` and `add`: the same, or f32.
    pub(super) element_out: Precision,
    pub(super) epilogue: Epilogue,
    /// The vector that the epilogue adds or writes, in the type of `out`.
    pub(super) bias: Option<Address>,
    /// The matrix that the epilogue keeps values in or finds them in, with the rows of `out`.
    pub(super) kept: Option<Address>,
    /// Elements from one example's kept values to the next.
    pub(super) kept_stride: usize,
}

impl Product {
    pub(super) fn new(
        dims: (usize, usize, usize),
        a: Matrix,
        b: Matrix,
        out: Matrix,
        element: Precision,
    ) -> Self {
        Self {
            m: dims.0,
            n: dims.1,
            k: dims.2,
            batch: 1,
            a,
            b,
            out,
            add: None,
            element,
            element_out: element,
            epilogue: Epilogue::None,
            bias: None,
            kept: None,
            kept_stride: 0,
        }
    }

    pub(super) fn key(&self) -> ProductKey {
        let matrix = |m: &Matrix| (m.ld, m.stride, m.transposed);
        ProductKey {
            dims: [self.m, self.n, self.k, self.batch],
            matrices: [matrix(&self.a), matrix(&self.b), matrix(&self.out)],
            adds: self.add.is_some(),
            types: (self.element, self.element_out),
            epilogue: self.epilogue,
        }
    }
}

/// A product to be timed: `[m, k] · [k, n]`, `count` of them.
#[derive(Debug, Clone, Copy)]
pub struct CudaProduct {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
    /// Number of such products.
    pub count: usize,
    /// The left operand is kept transposed.
    pub left_transposed: bool,
    /// The right operand is kept transposed.
    pub right_transposed: bool,
    /// All have the same left operand.
    pub left_shared: bool,
    /// The result is f32 whatever the operands are.
    pub wide_result: bool,
}

/// The properties of a product that decide how fast it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ProductKey {
    dims: [usize; 4],
    matrices: [(usize, usize, bool); 3],
    adds: bool,
    types: (Precision, Precision),
    epilogue: Epilogue,
}

/// A way of the library's to do a product.
pub(super) type Algorithm = sys::cublasLtMatmulAlgo_t;

/// The fastest way to do a product, and its time, ms: 0 where only one was there to choose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuned {
    pub(super) algorithm: Algorithm,
    pub(super) milliseconds: f32,
}
