//! Pre-training or fine-tuning.

use serde::{Deserialize, Serialize};

/// Purpose of a run; it decides a few defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// From freshly initialised weights.
    Pretrain,
    /// From given weights.
    Finetune,
}

impl Task {
    /// The command that does it.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Task::Pretrain => "pretrain",
            Task::Finetune => "finetune",
        }
    }
}
