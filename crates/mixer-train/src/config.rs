//! A run's configuration, exactly as it was typed: TOML plus `--set` overrides. Nothing is looked up
//! and no default is chosen here; that is `crate::plan`.
//!
//! Each section has a file with its keys: type, default as a constant, range, meaning, and whether it may
//! change when a run is continued. `run_config.rs` is all of them; `text.rs` reads TOML and explains what is wrong with it, `inheritance.rs`
//! puts together what one file takes from another, and `schema.rs` is all that is known of the keys at once:
//! JSON Schema, documentation, the check of the ranges.

pub mod data;
pub(crate) mod inheritance;
pub mod init;
pub mod limits;
pub mod model;
pub mod optimizer;
pub(crate) mod run_config;
pub mod schedule;
pub mod schema;
mod text;
pub mod train;

pub use crate::config::data::{DataConfig, DataKind};
pub use crate::config::init::{HeadInit, InitConfig};
pub use crate::config::model::ModelConfig;
pub use crate::config::optimizer::{OptimizerConfig, OptimizerKind};
pub use crate::config::run_config::{RunConfig, SEED};
pub use crate::config::schedule::ScheduleConfig;
pub(crate) use crate::config::text::text_of_override;
pub use crate::config::train::TrainConfig;
