//! The configuration of a run: its sections, each in a file of its own.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::data::DataConfig;
use crate::config::init::InitConfig;
use crate::config::model::ModelConfig;
use crate::config::optimizer::OptimizerConfig;
use crate::config::schedule::ScheduleConfig;
use crate::config::train::TrainConfig;

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
