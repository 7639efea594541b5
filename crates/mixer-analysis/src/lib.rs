#![doc = include_str!("../README.md")]

mod cholesky;
pub mod filters;
mod linear_probe;
mod matrix;
mod measures;
mod nearest_neighbours;
mod numpy_random;
mod scored;
mod tally;
mod temperature;

pub use linear_probe::{LinearProbe, ProbeError, few_shot_support};
pub use measures::{CalibrationBin, ClassMeasure, ConfusedPair, Confusion, Measures};
pub use nearest_neighbours::nearest_neighbours;
pub use numpy_random::NumpyRandom;
pub use scored::{Scored, rank};
pub use tally::Tally;
pub use temperature::temperature;
