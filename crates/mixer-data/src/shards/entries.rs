//! Places of examples: in memory, or in the file of an index, which is looked into and not read. So that of
//! hundreds of millions is open at once, takes no memory, and is in that of the system once for all processes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{DataError, Place};
use crate::sources::read_at::ReadAt;

/// Bytes of an entry in the file.
pub(crate) const ENTRY_BYTES: usize = 12;

/// Entries of a piece, which has a checksum of its own.
pub(crate) const PIECE: usize = 1 << 14;

/// Place of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Offset of the picture in its shard, in blocks of 512 bytes.
    pub(crate) block: u32,
    /// Bytes of the picture.
    pub(crate) size: u32,
    /// Position of the label among those of the index.
    pub(crate) label: u32,
}

impl Entry {
    /// The entry as the file has it.
    pub(crate) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        for (to, number) in bytes.chunks_exact_mut(4).zip([self.block, self.size, self.label]) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: [u8; ENTRY_BYTES]) -> Self {
        let [block, size, label] = [0, 4, 8]
            .map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        Self { block, size, label }
    }
}

/// The places of all examples.
#[derive(Debug)]
pub(crate) enum Entries {
    /// In memory.
    Listed(Vec<Entry>),
    /// In a file.
    Filed(FiledEntries),
}

/// Places in the file of an index.
pub(crate) struct FiledEntries {
    file: Box<dyn ReadAt>,
    path: PathBuf,
    /// Offset of the first one.
    start: u64,
    len: usize,
    /// CRC-32 of each piece, and `true` once it was found to be right.
    checksums: Vec<(u32, AtomicBool)>,
}

impl fmt::Debug for FiledEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FiledEntries").field("path", &self.path).field("len", &self.len).finish()
    }
}

impl FiledEntries {
    /// `len` entries of a file from `start` on. `checksums` are those of the pieces.
    pub(crate) fn new(
        file: Box<dyn ReadAt>,
        path: &Path,
        start: u64,
        len: usize,
        checksums: Vec<u32>,
    ) -> Self {
        let checksums = checksums.into_iter().map(|sum| (sum, AtomicBool::new(false))).collect();
        Self { file, path: path.to_owned(), start, len, checksums }
    }

    fn get(&self, index: usize) -> Result<Entry, DataError> {
        self.check(index / PIECE)?;
        let mut bytes = [0; ENTRY_BYTES];
        let offset = self.start + (index * ENTRY_BYTES) as u64;
        self.file.read_exact_at(&mut bytes, offset).map_err(DataError::io)?;
        Ok(Entry::from_bytes(bytes))
    }

    /// Reads a piece when it is first looked into, and compares its checksum.
    fn check(&self, piece: usize) -> Result<(), DataError> {
        let end_of_file = || {
            let expected = "more of an index";
            DataError::malformed(
                &self.path,
                Place::Byte(self.start),
                "the end of the file",
                expected,
            )
        };
        let Some((expected, is_right)) = self.checksums.get(piece) else {
            return Err(end_of_file());
        };
        if is_right.load(Ordering::Relaxed) {
            return Ok(());
        }
        let first = piece * PIECE;
        let mut bytes = vec![0; self.len.saturating_sub(first).min(PIECE) * ENTRY_BYTES];
        let offset = self.start + (first * ENTRY_BYTES) as u64;
        self.file.read_exact_at(&mut bytes, offset).map_err(DataError::io)?;
        if crc32fast::hash(&bytes) != *expected {
            let (found, expected) = ("a wrong checksum", "that of the content");
            return Err(DataError::malformed(&self.path, Place::Byte(offset), found, expected));
        }
        is_right.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Entries {
    /// Number of examples.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Listed(entries) => entries.len(),
            Self::Filed(entries) => entries.len,
        }
    }

    /// The place of an example below [`Entries::len`].
    ///
    /// # Errors
    /// When the file cannot be read, or does not have what was written to it.
    pub(crate) fn get(&self, index: usize) -> Result<Entry, DataError> {
        match self {
            Self::Listed(entries) => Ok(entries[index]),
            Self::Filed(entries) => entries.get(index),
        }
    }

    /// CRC-32 of each piece.
    ///
    /// # Errors
    /// As of [`Entries::get`].
    pub(crate) fn checksums(&self) -> Result<Vec<u32>, DataError> {
        let piece = |first: usize| {
            let mut crc = crc32fast::Hasher::new();
            for index in first..(first + PIECE).min(self.len()) {
                crc.update(&self.get(index)?.to_bytes());
            }
            Ok(crc.finalize())
        };
        (0..self.len()).step_by(PIECE).map(piece).collect()
    }
}
