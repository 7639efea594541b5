//! The nearest neighbours of a picture, by the angle between features.

use rayon::prelude::*;

use crate::linear_probe::largest;
use crate::matrix::Matrix;

/// Test examples whose angles with all others are held at once.
const PIECE: usize = 64;

/// The classes that the `k` nearest of `train` vote for, for each row of `test`.
///
/// Features are `[N, D]`, row after row; near is what has a large cosine, and of equals the first. A vote
/// counts `exp(cosine / temperature)`, or 1 where `temperature` is `None`; of classes with equal votes the
/// first wins.
///
/// # Source
/// `facebookresearch/dino@04c0ad9`, `eval_knn.py`, whose temperature is 0.07.
#[must_use]
pub fn nearest_neighbours(
    train: (&[f32], &[u32]),
    test: &[f32],
    num_classes: usize,
    k: usize,
    temperature: Option<f64>,
) -> Vec<usize> {
    let (features, labels) = train;
    let Some(dim) = features.len().checked_div(labels.len()).filter(|dim| *dim > 0) else {
        return Vec::new();
    };
    let train = normalised(features, dim);
    let vote = |cosines: &[f64]| {
        let mut order: Vec<usize> = (0..cosines.len()).collect();
        let by_angle = |a: &usize, b: &usize| cosines[*b].total_cmp(&cosines[*a]).then(a.cmp(b));
        let k = k.min(order.len());
        if k < order.len() {
            order.select_nth_unstable_by(k, by_angle);
            order.truncate(k);
        }
        order.sort_unstable_by(by_angle);
        let mut votes = vec![0.0; num_classes];
        for example in order {
            let weight =
                temperature.map_or(1.0, |temperature| (cosines[example] / temperature).exp());
            votes[labels[example] as usize] += weight;
        }
        largest(&votes)
    };
    let pieces: Vec<Vec<usize>> = test
        .par_chunks(PIECE * dim)
        .map(|piece| {
            let cosines = normalised(piece, dim).product_transposed(&train);
            (0..cosines.rows).map(|row| vote(cosines.row(row))).collect()
        })
        .collect();
    pieces.concat()
}

/// Rows of length 1; a row of zeros stays one.
fn normalised(features: &[f32], dim: usize) -> Matrix {
    let mut x = Matrix::zeros(features.len() / dim, dim);
    for (to, from) in x.values.chunks_exact_mut(dim).zip(features.chunks_exact(dim)) {
        let norm = from.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let norm = if norm > 0.0 { norm } else { 1.0 };
        to.iter_mut().zip(from).for_each(|(to, &x)| *to = f64::from(x) / norm);
    }
    x
}
