//! Linear systems of symmetric positive definite matrices.

use rayon::prelude::*;

use crate::matrix::Matrix;

/// Right-hand sides that one thread solves at a time.
const COLUMNS: usize = 64;

/// `A = L Lᵀ`; what is above the diagonal stays as it was. `None` where `A` is not positive definite.
fn factor(mut a: Matrix) -> Option<Matrix> {
    for i in 0..a.rows {
        let (before, from_here) = a.values.split_at_mut(i * a.columns);
        let row = &mut from_here[..a.columns];
        for j in 0..i {
            let other = &before[j * a.columns..][..j + 1];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        row[i] = pivot.sqrt();
    }
    Some(a)
}

/// The sum of products, in eight partial sums.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// The solution `X` of `A X = B`, `None` where `A` is not positive definite.
pub(crate) fn solve(a: Matrix, b: &Matrix) -> Option<Matrix> {
    let l = factor(a)?;
    let starts: Vec<usize> = (0..b.columns).step_by(COLUMNS).collect();
    let solved: Vec<Matrix> = starts.par_iter().map(|start| columns(&l, b, *start)).collect();
    let mut x = Matrix::zeros(b.rows, b.columns);
    for (start, part) in starts.into_iter().zip(&solved) {
        for row in 0..b.rows {
            x.row_mut(row)[start..start + part.columns].copy_from_slice(part.row(row));
        }
    }
    Some(x)
}

/// The solution of some right-hand sides, from column `start` on.
fn columns(l: &Matrix, b: &Matrix, start: usize) -> Matrix {
    let width = COLUMNS.min(b.columns - start);
    let mut x = Matrix::zeros(b.rows, width);
    for i in 0..b.rows {
        x.row_mut(i).copy_from_slice(&b.row(i)[start..start + width]);
    }
    for i in 0..x.rows {
        let (before, from_here) = x.values.split_at_mut(i * width);
        let row = &mut from_here[..width];
        for (j, other) in before.chunks_exact(width).enumerate() {
            subtract(row, l.row(i)[j], other);
        }
        row.iter_mut().for_each(|value| *value /= l.row(i)[i]);
    }
    for i in (0..x.rows).rev() {
        let (until_here, after) = x.values.split_at_mut((i + 1) * width);
        let row = &mut until_here[i * width..];
        for (j, other) in after.chunks_exact(width).enumerate() {
            subtract(row, l.row(i + 1 + j)[i], other);
        }
        row.iter_mut().for_each(|value| *value /= l.row(i)[i]);
    }
    x
}

/// `row −= factor · other`.
fn subtract(row: &mut [f64], factor: f64, other: &[f64]) {
    for (value, other) in row.iter_mut().zip(other) {
        *value -= factor * other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solution_solves() {
        let (n, k) = (37, 70);
        let value = |i: usize| ((i * 7919 % 1009) as f64 / 1009.0) - 0.5;
        let m = Matrix { rows: n, columns: n, values: (0..n * n).map(value).collect() };
        let mut a = m.transposed_product(&m);
        (0..n).for_each(|i| a.row_mut(i)[i] += 0.5);
        let b = Matrix { rows: n, columns: k, values: (0..n * k).map(value).collect() };
        let x = solve(a.clone(), &b).unwrap();
        for (found, wanted) in a.product(&x).values.iter().zip(&b.values) {
            assert!((found - wanted).abs() < 1e-11, "{found} {wanted}");
        }
    }

    #[test]
    fn what_is_not_definite_has_none() {
        let a = Matrix { rows: 2, columns: 2, values: vec![1.0, 2.0, 2.0, 1.0] };
        assert_eq!(solve(a, &Matrix::zeros(2, 1)), None);
    }
}
