//! What fuzz targets and measurements reach of the inside. Not part of the interface.
//!
//! Each function takes bytes that may be anything, and must neither panic nor allocate more than
//! they justify.

use std::path::Path;

use crate::error::DataError;
use crate::shard_index::{ShardIndex, scan_shard};

/// Walks over a tar shard and looks for examples.
pub fn tar(bytes: &[u8]) -> bool {
    scan_shard(bytes, Path::new("fuzz")).is_ok()
}

/// Reads the index of shards.
pub fn shard_index(bytes: &[u8]) -> bool {
    ShardIndex::parse(bytes, bytes.len() as u64, Path::new("fuzz")).is_ok()
}

/// Reads a list, labels and synsets.
pub fn list(bytes: &[u8]) -> bool {
    crate::list::parse_any(bytes, Path::new("fuzz"))
}

/// Writes an index of examples that do not exist.
///
/// # Errors
/// When the file cannot be written.
pub fn write_synthetic_index(
    path: &Path,
    num_entries: u32,
    num_shards: u32,
    num_labels: u32,
) -> Result<(), DataError> {
    ShardIndex::synthetic(num_entries, num_shards, num_labels).write(path)
}

/// An index in memory.
pub struct OpenIndex(ShardIndex);

/// Reads an index file.
///
/// # Errors
/// When it cannot be read.
pub fn open_index(path: &Path) -> Result<OpenIndex, DataError> {
    ShardIndex::read(path).map(OpenIndex)
}

impl OpenIndex {
    /// The number of examples.
    pub fn num_entries(&self) -> usize {
        self.0.entries.len()
    }

    /// Shard, block and size of an example.
    pub fn locate(&self, index: usize) -> (usize, u32, u32) {
        let entry = self.0.entries[index];
        (self.0.shard_of(index), entry.block, entry.size)
    }
}
