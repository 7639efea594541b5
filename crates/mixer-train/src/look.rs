//! The room of what is looked at when training is over: features and how good they are, pictures of what a
//! network has learned, runs side by side.
//!
//! Everything here reads weights, data or run directories, and changes none of them. The arithmetic is in
//! `mixer_analysis`.

pub mod attribution;
mod curves;
pub mod details;
pub mod features;
pub mod model_card;
pub mod pareto;
pub mod probe;
pub mod real_labels;
pub mod report;
pub mod run_record;
pub mod saved_evaluation;
