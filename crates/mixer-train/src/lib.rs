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
//! Data flows one way; [`device`] is the only file of this crate that names a backend, [`input`] the
//! only room where examples become tensors.

pub mod bench;
pub mod classifier;
pub mod cli;
pub mod config;
pub mod device;
pub mod disk;
pub mod error;
pub mod halt;
pub mod input;
#[doc(hidden)]
pub mod internals;
pub mod plan;
pub mod run;
pub mod show;
pub mod update;

pub use error::{TrainError, exit_code};
