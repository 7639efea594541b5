//! Threads and memory that reading data takes. No result depends on them.

use mixer_data::{LoaderConfig, OnCorrupt};

use crate::config::DataConfig;
use crate::config::data::{QUEUE_MIB, default_workers};

/// The part of the machine that reads data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loading {
    /// Decoding threads; 0 decodes where batches are taken.
    pub workers: usize,
    /// Memory for decoded batches, bytes.
    pub queue_bytes: usize,
}

impl Default for Loading {
    /// A thread for every core, up to sixteen.
    fn default() -> Self {
        Self::of(&DataConfig::default())
    }
}

impl Loading {
    /// As a configuration says, else the defaults.
    #[must_use]
    pub fn of(config: &DataConfig) -> Self {
        let workers = config.workers.unwrap_or_else(default_workers);
        let queue_bytes = config.queue_mib.unwrap_or(QUEUE_MIB).saturating_mul(1 << 20);
        Self { workers, queue_bytes }
    }

    /// A loader's configuration with these threads and this memory.
    #[must_use]
    pub fn loader(
        self,
        batch_size: usize,
        patch_size: usize,
        on_corrupt: OnCorrupt,
    ) -> LoaderConfig {
        let Self { workers, queue_bytes } = self;
        LoaderConfig { batch_size, patch_size, workers, queue_bytes, on_corrupt }
    }
}
