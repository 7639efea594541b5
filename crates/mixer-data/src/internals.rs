//! Parts of the inside that fuzz targets and measurements reach. Not part of the interface.
//!
//! Each function takes bytes that may be anything, and must neither panic nor allocate more than
//! they justify.

use std::path::Path;

use crate::error::DataError;
use crate::shards::shard_index::{ShardIndex, scan_shard};

/// Walks over a tar shard and looks for examples.
pub fn tar(bytes: &[u8]) -> bool {
    scan_shard(bytes, Path::new("fuzz")).is_ok()
}

/// Reads the index of shards.
pub fn shard_index(bytes: &[u8]) -> bool {
    let index = ShardIndex::open(Box::new(bytes.to_vec()), Path::new("fuzz"));
    index.is_ok_and(|index| (0..index.entries.len()).all(|at| index.entry(at).is_ok()))
}

/// Reads a list, labels and synsets.
pub fn list(bytes: &[u8]) -> bool {
    crate::sources::list::parse_any(bytes, Path::new("fuzz"))
}

/// Reads a file of CIFAR-10 and of CIFAR-100.
pub fn cifar(bytes: &[u8]) -> bool {
    let read = |label_bytes, classes| {
        crate::sources::cifar::read_labels(bytes, Path::new("fuzz"), label_bytes, classes).is_ok()
    };
    read(1, 10) | read(2, 100)
}

/// Reads a file of pictures and a file of labels, packed and not.
pub fn idx(bytes: &[u8]) -> bool {
    crate::sources::idx::parse_any(bytes, Path::new("fuzz"))
}

/// Reads all labels and pictures of a Parquet file, and says how many.
///
/// # Errors
/// When something in it is broken.
#[cfg(feature = "parquet")]
pub fn read_parquet(bytes: Vec<u8>) -> Result<usize, DataError> {
    let table = crate::sources::parquet::Table::open(bytes, Path::new("fuzz"))?;
    let mut rows = 0;
    for group in 0..table.num_groups() {
        let labels = table.labels(group)?;
        for row in 0..labels.len().min(64) {
            let (page, _) = table.page_of(group, row)?;
            table.unpack(group, page)?;
        }
        rows += labels.len();
    }
    Ok(rows)
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

/// An index that is open.
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
    ///
    /// # Errors
    /// When the index cannot be read or is damaged there.
    pub fn locate(&self, index: usize) -> Result<(usize, u32, u32), DataError> {
        let entry = self.0.entry(index)?;
        Ok((self.0.shard_of(index), entry.block, entry.size))
    }
}
