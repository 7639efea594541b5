//! A run's configuration, exactly as it was typed: TOML plus `--set` overrides. Nothing is looked up
//! and no default is chosen here; that is `crate::plan`.
//!
//! Each section has a file with its keys: type, default as a constant, range, meaning, and whether it may
//! change when a run is continued. `text.rs` reads TOML and explains what is wrong with it, `inheritance.rs`
//! puts together what one file takes from another, and `schema.rs` is all that is known of the keys at once:
//! JSON Schema, documentation, the check of the ranges.

pub mod data;
pub(crate) mod inheritance;
pub mod init;
pub mod limits;
pub mod model;
pub mod optimizer;
pub mod schedule;
pub mod schema;
mod text;
pub mod train;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::config::data::{DataConfig, DataKind};
use crate::config::inheritance::Chain;
pub use crate::config::init::{HeadInit, InitConfig};
pub use crate::config::model::ModelConfig;
pub use crate::config::optimizer::{OptimizerConfig, OptimizerKind};
pub use crate::config::schedule::ScheduleConfig;
pub(crate) use crate::config::text::{
    INVALID, deserialise, displaced, read_text, shortened, text_of_override,
};
pub use crate::config::train::TrainConfig;
use crate::error::TrainError;

/// Seed of everything random.
pub const SEED: u64 = 0;

/// A pre-training run or a fine-tuning job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Another configuration file that this one builds upon, relative to the folder of this one.
    ///
    /// Its keys count where this file has none, see above.
    #[schemars(extend("x-unit" = "path", "x-resume" = "free"))]
    pub extends: Option<PathBuf>,
    /// Seed of everything random: initial weights, order, augmentation, stochastic depth.
    ///
    /// The built-in pictures and the parts of a split do not depend on it.
    #[schemars(extend("default" = SEED))]
    pub seed: Option<u64>,
    /// The network.
    pub model: ModelConfig,
    /// The start of a fine-tuning.
    pub init: InitConfig,
    /// Pictures and their preparation.
    pub data: DataConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The learning rate over the run.
    pub schedule: ScheduleConfig,
    /// Batches, length, loss, intervals.
    pub train: TrainConfig,
}

impl RunConfig {
    /// Reads a configuration with all that it extends, and applies `KEY=VALUE` overrides. Also returns
    /// the text that was parsed: the file, or what it and its parents make together, with the overrides
    /// in it.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a file that cannot be read, TOML that cannot be parsed, an unknown
    /// key (with the nearest one) or a wrong type, with line and column, and for a chain of files that
    /// has no end.
    pub fn read(path: &Path, overrides: &[String]) -> Result<(RunConfig, String), TrainError> {
        let chain = Chain::read(path)?;
        let text = chain.text();
        let alone = chain
            .check()
            .and_then(|()| RunConfig::parse(&text, &[]).map_err(|error| error.in_file(path)));
        match (overrides, alone) {
            ([], alone) => alone,
            // The files are sound, so the error is in the overrides, which have no file.
            (_, Ok(_)) => RunConfig::parse(&text, overrides),
            // An override may repair what is wrong with the files.
            (_, Err(error)) => RunConfig::parse(&text, overrides).map_err(|_| error),
        }
    }
}
