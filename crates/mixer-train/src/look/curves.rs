//! The curves of runs, as their report holds them: of a long one, the extremes and the mean of every piece.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::disk::metrics::Metric;
use crate::disk::tensorboard::scalars;
use crate::look::run_record::RunRecord;

/// Pieces of a curve, each of which keeps two points.
const PIECES: usize = 500;

/// A quantity of all runs.
#[derive(Debug, Serialize)]
pub(crate) struct Chart {
    name: String,
    series: Vec<Series>,
}

/// That of one run.
#[derive(Debug, Serialize)]
struct Series {
    run: usize,
    /// `true` where nothing is to be smoothed: evaluations are few.
    is_smooth: bool,
    points: Vec<Point>,
    /// Of a long curve, the mean of each piece: what is smoothed. Extremes would be smoothed to their middle.
    means: Option<Vec<Point>>,
}

/// Step, value, hours. What is no number is `null`.
type Point = (u64, Option<f64>, Option<f64>);

/// The quantities that the runs have: evaluations first, speed last.
pub(crate) fn charts(runs: &[RunRecord]) -> Vec<Chart> {
    let mut charts: BTreeMap<(usize, String), Vec<Series>> = BTreeMap::new();
    for (run, record) in runs.iter().enumerate() {
        let mut curves: BTreeMap<String, Vec<Point>> = BTreeMap::new();
        for metric in &record.metrics {
            let seconds = match metric {
                Metric::Train { elapsed_secs, .. } | Metric::Eval { elapsed_secs, .. } => {
                    *elapsed_secs
                }
                _ => None,
            };
            let Some((step, _, values)) = scalars(metric) else { continue };
            for (tag, value) in values {
                if tag != "train/epoch" {
                    let value = value.is_finite().then(|| shortened(value));
                    let point = (step, value, seconds.map(|seconds| shortened(seconds / 3600.0)));
                    curves.entry(tag).or_default().push(point);
                }
            }
        }
        for (tag, points) in curves {
            // Evaluations first, speed last; what is noisy is smoothed.
            let place = ["train/", "speed/"].iter().position(|of| tag.starts_with(of));
            let is_smooth = place.is_none() || tag == "train/learning_rate";
            let means = (points.len() > 2 * PIECES).then(|| pieces(&points).map(mean).collect());
            let series = Series { run, is_smooth, points: thinned(points), means };
            charts.entry((place.map_or(0, |place| place + 1), tag)).or_default().push(series);
        }
    }
    charts.into_iter().map(|((_, name), series)| Chart { name, series }).collect()
}

/// A long curve in [`PIECES`] pieces.
fn pieces(points: &[Point]) -> impl Iterator<Item = &[Point]> {
    points.chunks(points.len().div_ceil(PIECES))
}

/// The mean of the numbers of a piece, at its middle.
fn mean(piece: &[Point]) -> Point {
    let (step, _, hours) = piece[piece.len() / 2];
    let (sum, n) = piece
        .iter()
        .filter_map(|point| point.1)
        .fold((0.0, 0_u32), |(sum, n), value| (sum + value, n + 1));
    (step, (n > 0).then(|| shortened(sum / f64::from(n))), hours)
}

/// Seven digits, which is what f32 has: the page is half as large. `mixer report --csv` has all.
fn shortened(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

/// The points with the smallest and the largest value of every piece, in their order.
fn thinned(points: Vec<Point>) -> Vec<Point> {
    if points.len() <= 2 * PIECES {
        return points;
    }
    let mut kept = Vec::with_capacity(2 * PIECES + 2);
    for piece in pieces(&points) {
        let order = |a: &usize, b: &usize| {
            let value = |i: usize| piece[i].1.unwrap_or(f64::INFINITY);
            value(*a).total_cmp(&value(*b))
        };
        let (Some(least), Some(most)) =
            ((0..piece.len()).min_by(order), (0..piece.len()).max_by(order))
        else {
            continue;
        };
        kept.push(piece[least.min(most)]);
        if least != most {
            kept.push(piece[least.max(most)]);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_seven_digits() {
        for (value, expected) in
            [(1.0 / 3.0, 0.333_333_3), (0.0, 0.0), (-12_345_678.9, -1.234_568e7)]
        {
            assert_eq!(shortened(value), expected);
        }
    }

    #[test]
    fn long_curves_keep_their_extremes() {
        let point = |step: u64| (step, Some((step % 97) as f64), None);
        let kept = thinned((0..100_000).map(point).collect());
        assert!(kept.len() <= 2 * PIECES + 2);
        assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(kept.iter().any(|point| point.1 == Some(96.0)));
        assert_eq!(thinned((0..9).map(point).collect()).len(), 9);
        // The level that is smoothed is that of all points, not of the extremes.
        let skewed =
            |step: u64| (step, Some(if step.is_multiple_of(10) { 100.0 } else { 1.0 }), None);
        let points: Vec<Point> = (0..100_000).map(skewed).collect();
        let means: Vec<Point> = pieces(&points).map(mean).collect();
        assert_eq!(means.len(), PIECES);
        assert!(means.iter().all(|point| point.1 == Some(10.9)), "{means:?}");
        assert_eq!(mean(&[(3, None, None)]), (3, None, None));
    }
}
