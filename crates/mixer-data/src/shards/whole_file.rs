//! Files that are there whole or not at all.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use fs_err as fs;

/// Writes a file beside `path`, waits until it is on disk, and gives it its name. What was there before is
/// replaced; where it fails, nothing is left.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<fs::File>) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = fs::File::create(&temporary).and_then(|file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        // The error that matters is the first one.
        drop(fs::remove_file(&temporary));
    }
    written
}
