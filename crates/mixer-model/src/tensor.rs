//! A tensor in host memory: what files are read into, and what parameters are made from.

use std::fmt;

use rayon::prelude::*;

/// A dense tensor in host memory, in C order.
#[derive(Clone, PartialEq)]
pub struct HostTensor {
    /// Sizes of the axes, outermost first.
    pub shape: Vec<usize>,
    /// Values, as many as the product of `shape`.
    pub data: Vec<f32>,
}

impl fmt::Debug for HostTensor {
    /// The shape only: the values of a layer are not for reading.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostTensor{:?}", self.shape)
    }
}

impl HostTensor {
    /// A tensor with one value everywhere.
    #[must_use]
    pub fn filled(shape: &[usize], value: f32) -> Self {
        Self { shape: shape.to_vec(), data: vec![value; shape.iter().product()] }
    }

    /// Reorders the axes: axis `k` of the result is axis `axes[k]` of `self`.
    ///
    /// # Panics
    /// When `axes` is no permutation of the axes.
    #[must_use]
    pub fn permuted(&self, axes: &[usize]) -> Self {
        assert_eq!(axes.len(), self.shape.len(), "one entry per axis");
        let rank = self.shape.len();
        let mut strides = vec![1; rank];
        for axis in (0..rank.saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * self.shape[axis + 1];
        }
        let shape: Vec<usize> = axes.iter().map(|&axis| self.shape[axis]).collect();
        let steps: Vec<usize> = axes.iter().map(|&axis| strides[axis]).collect();
        if rank < 2 || self.data.is_empty() {
            return Self { shape, data: self.data.clone() };
        }
        if let ([1, 0], &[rows, columns]) = (axes, &self.shape[..]) {
            return Self { shape, data: transposed(&self.data, rows, columns) };
        }
        let mut data = Vec::with_capacity(self.data.len());
        let mut index = vec![0; rank];
        let (inner, step) = (shape[rank - 1], steps[rank - 1]);
        let mut source = 0;
        loop {
            data.extend((0..inner).map(|i| self.data[source + i * step]));
            // Counts up the outer axes, like an odometer.
            let mut axis = rank - 1;
            loop {
                if axis == 0 {
                    return Self { shape, data };
                }
                axis -= 1;
                index[axis] += 1;
                source += steps[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                source -= steps[axis] * shape[axis];
                index[axis] = 0;
            }
        }
    }
}

/// A matrix `[rows, columns]` as `[columns, rows]`, in squares that fit a cache.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const SIDE: usize = 32;
    let mut result = vec![0.0; values.len()];
    result.par_chunks_mut(SIDE * rows).enumerate().for_each(|(strip, result)| {
        let (left, width) = (strip * SIDE, result.len() / rows);
        // Rows of many matrices begin at the same place in a cache: only in a copy do 32 of them fit one.
        let mut square = [[0.0; SIDE]; SIDE];
        for top in (0..rows).step_by(SIDE) {
            let height = SIDE.min(rows - top);
            for (row, to) in square[..height].iter_mut().enumerate() {
                let from = (top + row) * columns + left;
                to[..width].copy_from_slice(&values[from..from + width]);
            }
            for (column, to) in result.chunks_exact_mut(rows).enumerate() {
                for (to, from) in to[top..top + height].iter_mut().zip(&square) {
                    *to = from[column];
                }
            }
        }
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permuting_axes_moves_every_value() {
        let tensor =
            HostTensor { shape: vec![2, 3, 4, 5], data: (0..120).map(|i| i as f32).collect() };
        let axes = [3, 2, 0, 1];
        let moved = tensor.permuted(&axes);
        assert_eq!(moved.shape, [5, 4, 2, 3]);
        for a in 0..2 {
            for b in 0..3 {
                for c in 0..4 {
                    for d in 0..5 {
                        let value = tensor.data[((a * 3 + b) * 4 + c) * 5 + d];
                        assert_eq!(moved.data[((d * 4 + c) * 2 + a) * 3 + b], value);
                    }
                }
            }
        }
        assert_eq!(moved.permuted(&[2, 3, 1, 0]), tensor);
        let (rows, columns) = (70, 33);
        let data = (0..rows * columns).map(|i| i as f32).collect();
        let matrix = HostTensor { shape: vec![rows, columns], data };
        let turned = matrix.permuted(&[1, 0]);
        assert_eq!(turned.shape, [columns, rows]);
        for row in 0..rows {
            for column in 0..columns {
                assert_eq!(turned.data[column * rows + row], matrix.data[row * columns + column]);
            }
        }
    }
}
