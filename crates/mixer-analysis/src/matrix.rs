//! Products of matrices in `f64`, in an order that threads do not change.

/// A matrix, row after row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<f64>,
}

impl Matrix {
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    pub(crate) fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..][..self.columns]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.values[row * self.columns..][..self.columns]
    }

    /// Row and column strides.
    fn strides(&self) -> (isize, isize) {
        (self.columns as isize, 1)
    }

    /// `A B`.
    pub(crate) fn product(&self, other: &Self) -> Self {
        product((self, self.strides(), self.rows), (other, other.strides(), other.columns))
    }

    /// `Aᵀ B`.
    pub(crate) fn transposed_product(&self, other: &Self) -> Self {
        let (row, column) = self.strides();
        product((self, (column, row), self.columns), (other, other.strides(), other.columns))
    }

    /// `A Bᵀ`.
    pub(crate) fn product_transposed(&self, other: &Self) -> Self {
        let (row, column) = other.strides();
        product((self, self.strides(), self.rows), (other, (column, row), other.rows))
    }
}

/// One side of a product: the matrix, its strides as it is read, and its outer length.
type Side<'a> = (&'a Matrix, (isize, isize), usize);

fn product(a: Side<'_>, b: Side<'_>) -> Matrix {
    let ((a, a_strides, rows), (b, b_strides, columns)) = (a, b);
    let depth = a.values.len().checked_div(rows).unwrap_or(0);
    assert_eq!(depth * columns, b.values.len(), "the inner lengths of a product are equal");
    let mut c = Matrix::zeros(rows, columns);
    // SAFETY: each pointer with its strides stays within its matrix: their lengths were compared.
    unsafe {
        matrixmultiply::dgemm(
            rows,
            depth,
            columns,
            1.0,
            a.values.as_ptr(),
            a_strides.0,
            a_strides.1,
            b.values.as_ptr(),
            b_strides.0,
            b_strides.1,
            0.0,
            c.values.as_mut_ptr(),
            columns as isize,
            1,
        );
    }
    c
}
