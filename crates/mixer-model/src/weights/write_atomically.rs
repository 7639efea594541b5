//! Writing a file whole or not at all.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err as fs;

/// Writes a file that appears whole or not at all, even when the machine loses power: aside, synced,
/// renamed, and the directory synced.
pub(super) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<fs::File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let (file, aside) = create_beside(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = write(&mut out)
        .and_then(|()| out.flush())
        .and_then(|()| out.get_ref().sync_all())
        .and_then(|()| fs::rename(&aside, path));
    if let Err(error) = written {
        // The first error is the one to report; a leftover file does no harm.
        drop(fs::remove_file(&aside));
        return Err(error);
    }
    if cfg!(unix) {
        sync_directory(directory(path))?;
    }
    Ok(())
}

/// Waits until the names in a directory are on disk. A file system that has no such wait (EINVAL, ENOTSUP,
/// ENOSYS) keeps them in its own way, which is no failure.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    use std::io::ErrorKind::{InvalidInput, Unsupported};
    match fs::File::open(path)?.sync_all() {
        Err(error) if matches!(error.kind(), InvalidInput | Unsupported) => Ok(()),
        result => result,
    }
}

/// Creates a file of a new name in the directory of `path`: a rename is atomic only within one.
fn create_beside(path: &Path) -> std::io::Result<(fs::File, PathBuf)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    loop {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let aside = directory(path).join(format!(".{name}.{}-{count}.tmp", std::process::id()));
        match fs::OpenOptions::new().write(true).create_new(true).open(&aside) {
            Ok(file) => return Ok((file, aside)),
            // Left behind by a killed process that had our id.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
