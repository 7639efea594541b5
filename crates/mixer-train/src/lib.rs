//! Pre-trains, fine-tunes and evaluates MLP-Mixers.
//!
//! ```text
//! TOML ─► RunConfig ─► RunPlan ─► Trainer ─► run directory
//!       (as typed)   (resolved)     │
//!                                   ├ Loader ─► Normaliser ─► Mixer ─► Loss ─► Optimizer
//!                                   ├ Evaluator
//!                                   └ Checkpoint
//! ```
//!
//! Data flows one way; [`backend`] is the only file of this crate that names a backend, [`input`] the
//! only one where examples become tensors.

pub mod backend;
mod background_writer;
mod batch_gradient;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod config;
mod console;
pub mod dataset;
mod disk;
pub mod divergence;
pub mod drop_path;
pub mod early_stopping;
pub mod error;
pub mod evaluation;
mod inheritance;
pub mod input;
#[doc(hidden)]
pub mod internals;
pub mod interrupt;
pub mod loss;
pub mod loss_scale;
pub mod metrics;
pub mod optimizer;
pub mod outliers;
pub mod parameter_rates;
pub mod plan;
pub mod precision;
pub mod progress;
pub mod replay;
pub mod retention;
pub mod run_dir;
pub mod schedule;
pub mod time_limit;
pub mod trainer;
mod uploads;

pub use error::{TrainError, exit_code};
