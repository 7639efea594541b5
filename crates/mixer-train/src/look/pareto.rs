//! Accuracy against compute and against throughput, with the front, and against the size of the training set
//! (Figure 2 of the paper): of runs, and of published models.
//!
//! Runs and published models have figures of their own. Published compute is in days of a TPUv3 core, on ImageNet; a run has its own
//! data, device and floating-point operations.

use mixer_model::count::training_flops;
use serde::Serialize;

use crate::error::TrainError;
use crate::look::run_record::RunRecord;

/// Every number of the published models, with its source; what a source does not give is empty.
const PUBLISHED: &str = include_str!("published.csv");

/// A figure: points, of which some are the front.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its title.
    pub name: String,
    /// Quantity and unit across, on a logarithmic axis.
    pub x: String,
    /// Quantity and unit upwards.
    pub y: String,
    /// The points that lines go through.
    pub joins: Joins,
    /// The points.
    pub points: Vec<Point>,
}

/// The points of a figure that a line joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Joins {
    /// Those of the front.
    Front,
    /// Those of each group, by their mean where several have one x.
    Group,
}

/// A model or a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Points of one group have one colour.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Data, resolution and length of its training.
    pub about: String,
    /// Compute or throughput, positive.
    pub x: f64,
    /// Top-1, %.
    pub y: f64,
    /// Origin of the numbers.
    pub source: String,
    /// `true` where no other point is at least as good in both, and better in one.
    pub is_front: bool,
}

/// The better direction of a figure's x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    Less,
    More,
}

/// Marks the front.
fn with_front(mut points: Vec<Point>, better: Better) -> Vec<Point> {
    let gain = |point: &Point| match better {
        Better::Less => -point.x,
        Better::More => point.x,
    };
    let is_front: Vec<bool> = points
        .iter()
        .map(|point| {
            !points.iter().any(|other| {
                let (x, other_x) = (gain(point), gain(other));
                other_x >= x && other.y >= point.y && (other_x > x || other.y > point.y)
            })
        })
        .collect();
    for (point, is_front) in points.iter_mut().zip(is_front) {
        point.is_front = is_front;
    }
    points
}

/// The figures: of the runs that were evaluated, where there are any, and of published models.
///
/// # Errors
/// [`TrainError::Io`] when the published numbers cannot be read, which a test rules out.
pub fn figures(runs: &[RunRecord]) -> Result<Vec<Figure>, TrainError> {
    let mut figures = Vec::new();
    let of_runs = |x: fn(&RunRecord) -> Option<f64>, better| {
        let points = runs.iter().filter_map(|run| point_of_run(run, x(run)?));
        with_front(points.collect(), better)
    };
    if !runs.is_empty() {
        let (points, unit) = in_round_units(of_runs(operations, Better::Less));
        figures.push(Figure {
            name: "Accuracy against training compute: runs".to_owned(),
            x: format!("training compute, {unit}"),
            y: "best top-1, %".to_owned(),
            joins: Joins::Front,
            points,
        });
        figures.push(Figure {
            name: "Accuracy against throughput: runs".to_owned(),
            x: "images/s in training".to_owned(),
            y: "best top-1, %".to_owned(),
            joins: Joins::Front,
            points: of_runs(RunRecord::images_per_sec, Better::More),
        });
    }
    figures.extend(by_examples(runs));
    figures.push(Figure {
        name: "Accuracy against training compute: published".to_owned(),
        x: "TPUv3-core-days".to_owned(),
        y: "ImageNet top-1, %".to_owned(),
        joins: Joins::Front,
        points: with_front(published("core_days")?, Better::Less),
    });
    figures.push(Figure {
        name: "Accuracy against throughput: published".to_owned(),
        x: "images/s of a TPUv3 core".to_owned(),
        y: "ImageNet top-1, %".to_owned(),
        joins: Joins::Front,
        points: with_front(published("images_per_sec_core")?, Better::More),
    });
    Ok(figures)
}

/// Accuracy against the size of the training set, with a line for each network: of runs that differ in it.
fn by_examples(runs: &[RunRecord]) -> Option<Figure> {
    let examples = |run: &RunRecord| run.plan.facts.train_examples as f64;
    let point = |run: &RunRecord| {
        let point = point_of_run(run, examples(run))?;
        Some(Point { group: run.plan.model.network.to_string(), ..point })
    };
    let points: Vec<Point> = runs.iter().filter_map(point).collect();
    let first = points.first()?.x;
    points.iter().any(|point| point.x != first).then(|| Figure {
        name: "Accuracy against the size of the training set: runs".to_owned(),
        x: "training examples".to_owned(),
        y: "best top-1, %".to_owned(),
        joins: Joins::Group,
        points,
    })
}

/// Floating-point operations of all updates that were done.
fn operations(run: &RunRecord) -> Option<f64> {
    let passes = run.plan.optimizer.sam.map_or(1.0, |sam| sam.passes());
    let images = passes * run.steps() as f64 * run.plan.train.batch_size as f64;
    Some(images * training_flops(&run.plan.model.network) as f64)
}

/// Operations in the unit that gives the largest one few digits.
fn in_round_units(mut points: Vec<Point>) -> (Vec<Point>, &'static str) {
    const UNITS: [(f64, &str); 4] =
        [(1e18, "exaFLOP"), (1e15, "petaFLOP"), (1e12, "teraFLOP"), (1e9, "gigaFLOP")];
    let largest = points.iter().map(|point| point.x).fold(0.0, f64::max);
    let (size, unit) = UNITS.into_iter().find(|(size, _)| largest >= *size).unwrap_or(UNITS[3]);
    for point in &mut points {
        point.x /= size;
    }
    (points, unit)
}

fn point_of_run(run: &RunRecord, x: f64) -> Option<Point> {
    let best = run.best()?;
    (x.is_finite() && x > 0.0).then(|| Point {
        group: run.name.clone(),
        name: run.name.clone(),
        about: format!("{}, {} updates", run.plan.model.network, run.steps()),
        x,
        y: 100.0 * best.top1,
        source: run.path.display().to_string(),
        is_front: false,
    })
}

/// The published models of which the column `x` is known.
fn published(x: &str) -> Result<Vec<Point>, TrainError> {
    let mut lines = PUBLISHED.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let unreadable = || std::io::Error::other("the published numbers cannot be read");
    let column = |name: &str| header.iter().position(|found| *found == name);
    let mut points = Vec::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |name: &str| {
            column(name).and_then(|column| cells.get(column)).copied().ok_or_else(unreadable)
        };
        let number = |name: &str| cell(name)?.parse::<f64>().map_err(|_| unreadable());
        if cell(x)?.is_empty() {
            continue;
        }
        let mut about = cell("trained_on")?.to_owned();
        for (name, unit) in [("image_size", "px"), ("epochs", "epochs")] {
            if !cell(name)?.is_empty() {
                about += &format!(", {} {unit}", cell(name)?);
            }
        }
        points.push(Point {
            group: cell("family")?.to_owned(),
            name: format!("{} {}", cell("family")?, cell("model")?),
            about,
            x: number(x)?,
            y: number("top1")?,
            source: cell("source")?.to_owned(),
            is_front: false,
        });
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, y: f64) -> Point {
        Point {
            group: String::new(),
            name: String::new(),
            about: String::new(),
            x,
            y,
            source: String::new(),
            is_front: false,
        }
    }

    #[test]
    fn the_front_is_what_nothing_beats_in_both() {
        let points = [(1.0, 70.0), (2.0, 70.0), (2.0, 80.0), (3.0, 75.0), (3.0, 90.0), (3.0, 90.0)];
        let front = |better| {
            let points = points.iter().map(|&(x, y)| point(x, y)).collect();
            with_front(points, better).iter().map(|point| point.is_front).collect::<Vec<_>>()
        };
        assert_eq!(front(Better::Less), [true, false, true, false, true, true]);
        assert_eq!(front(Better::More), [false, false, false, false, true, true]);
        assert!(with_front(Vec::new(), Better::Less).is_empty());
    }

    #[test]
    fn compute_is_shown_in_a_unit_of_its_size() {
        let (points, unit) = in_round_units(vec![point(2e15, 1.0), point(3e13, 2.0)]);
        assert_eq!((points[0].x, points[1].x, unit), (2.0, 0.03, "petaFLOP"));
        assert_eq!(in_round_units(vec![point(5.0, 1.0)]).1, "gigaFLOP");
    }

    #[test]
    fn published_numbers_are_read_with_their_sources() {
        let figures = figures(&[]).unwrap();
        assert_eq!(figures.len(), 2);
        let compute = &figures[0].points;
        let rows = PUBLISHED.lines().count() - 1;
        assert_eq!((rows, compute.len(), figures[1].points.len()), (26, 24, 18));
        for figure in &figures {
            for point in &figure.points {
                assert!(point.source.contains("arXiv") && point.source.contains("Table"));
                assert!((60.0..100.0).contains(&point.y) && point.x > 0.0, "{point:?}");
            }
        }
        let mixer = compute.iter().find(|point| point.name == "Mixer H/14" && point.y == 87.94);
        assert_eq!(mixer.unwrap().x, 1010.0);
        let front: Vec<&str> = compute
            .iter()
            .filter(|point| point.is_front)
            .map(|point| point.name.as_str())
            .collect();
        assert!(front.contains(&"NFNet F4+") && !front.contains(&"BiT R152x4"), "{front:?}");
    }
}
