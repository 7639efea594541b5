//! The operations that a checkpoint asks of a file system. They go through one trait, so that a test can have any single
//! operation fail.

use std::io::Write;
use std::path::Path;

/// A file that is being written.
pub(crate) trait NewFile: Write {
    /// Waits until everything written is on disk.
    fn sync(&mut self) -> std::io::Result<()>;
}

/// The operations. Errors name no path: whoever asks knows it.
pub(crate) trait Disk: Send {
    /// Makes a directory, and those above it.
    fn create_directory(&self, path: &Path) -> std::io::Result<()>;
    /// Makes or empties a file.
    fn create_file(&self, path: &Path) -> std::io::Result<Box<dyn NewFile>>;
    /// Gives a file or directory another name on the same disk.
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()>;
    /// Removes a directory with all that is in it.
    fn remove_directory(&self, path: &Path) -> std::io::Result<()>;
    /// Makes the names in a directory durable. Only Unix can; elsewhere a rename has to do.
    fn sync_directory(&self, path: &Path) -> std::io::Result<()>;
}

/// The disk of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalDisk;

impl NewFile for std::fs::File {
    fn sync(&mut self) -> std::io::Result<()> {
        self.sync_all()
    }
}

impl Disk for LocalDisk {
    fn create_directory(&self, path: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn create_file(&self, path: &Path) -> std::io::Result<Box<dyn NewFile>> {
        Ok(Box::new(std::fs::File::create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_directory(&self, path: &Path) -> std::io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_directory(&self, path: &Path) -> std::io::Result<()> {
        use std::io::ErrorKind::{InvalidInput, Unsupported};
        if !cfg!(unix) {
            return Ok(());
        }
        match std::fs::File::open(path)?.sync_all() {
            // EINVAL, ENOTSUP, ENOSYS: the file system has no such wait, and keeps names in its own way.
            Err(error) if matches!(error.kind(), InvalidInput | Unsupported) => Ok(()),
            result => result,
        }
    }
}
