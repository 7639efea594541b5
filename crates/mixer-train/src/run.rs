//! A run from its start to its end: the loop of [`trainer`], evaluations, everything that stops it before
//! its time, and what is done about updates that are not finite.

pub mod divergence;
pub mod early_stopping;
pub mod evaluation;
pub mod interrupt;
pub mod on_divergence;
pub mod outliers;
pub mod replay;
pub mod stop;
pub mod time_limit;
pub mod trainer;
