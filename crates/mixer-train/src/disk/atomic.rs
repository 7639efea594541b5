//! Small files that are there whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::disk::operations::{Disk, LocalDisk};

/// The name beside `path` under which it is written first.
pub(crate) fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

/// Writes `bytes` aside, waits until they are on disk, and gives them their name. What was there before
/// is replaced.
///
/// # Errors
/// Whatever the file system says, with the path.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let aside = aside(path);
    let mut file = fs::File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(aside, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            LocalDisk.sync_directory(folder).map_err(|error| {
                let message =
                    format!("failed to sync the directory: {error}: {}", folder.display());
                std::io::Error::new(error.kind(), message)
            })
        }
        _ => Ok(()),
    }
}

/// Makes the file aside that [`write`] would, and removes it: whether there is a place to write to.
///
/// # Errors
/// Whatever the system says, without the path.
pub(crate) fn try_beside(path: &Path) -> std::io::Result<()> {
    let aside = aside(path);
    std::fs::File::create(&aside)?;
    std::fs::remove_file(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        write(&path, b"first").unwrap();
        // What a killed process has left.
        std::fs::write(aside(&path), b"half").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let nowhere = folder.path().join("missing/plan.toml");
        assert!(write(&nowhere, b"").unwrap_err().to_string().contains("missing"));
    }
}
