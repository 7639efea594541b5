//! From a path to bytes: the one place where picture files are opened.

use std::fs::FileType;
use std::io::Read;
use std::path::Path;

use fs_err as fs;

use crate::decode::error::DecodeError;
use crate::decode::options::{DecodeOptions, MAX_FILE_BYTES};
use crate::decode::picture::decode;
use crate::decode::rgb_image::RgbImage;
use crate::error::DataError;

/// Reads a picture file.
///
/// # Errors
/// [`DataError::Io`] when it cannot be read, [`DataError::BadExample`] with the path when it has
/// more than 64 MiB, or is no file with contents of its own: opening a named pipe waits for somebody to
/// write to it, and a device may have no end.
pub fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let bad = |reason| DataError::BadExample { example: path.display().to_string(), reason };
    // That of the file that a symbolic link leads to.
    let metadata = std::fs::metadata(path).map_err(|error| {
        let message = format!("failed to open file `{}`: {error}", path.display());
        DataError::io(std::io::Error::new(error.kind(), message))
    })?;
    if !metadata.is_file() {
        return Err(bad(DecodeError::NotAFile { found: kind(metadata.file_type()) }));
    }
    let file = fs::File::open(path).map_err(DataError::io)?;
    let mut bytes = Vec::with_capacity(metadata.len().min(MAX_FILE_BYTES) as usize);
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(DataError::io)?;
    let found = metadata.len().max(bytes.len() as u64);
    if found > MAX_FILE_BYTES {
        return Err(bad(DecodeError::FileTooLarge { found, expected: MAX_FILE_BYTES }));
    }
    Ok(bytes)
}

/// Reads a picture from a stream, which errors call `name`.
///
/// # Errors
/// [`DataError::Io`] when it cannot be read, [`DataError::BadExample`] when it has more than 64 MiB.
pub fn read_stream(name: &str, stream: impl Read) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    let found = stream.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(DataError::io)?;
    if found as u64 > MAX_FILE_BYTES {
        let reason = DecodeError::FileTooLarge { found: found as u64, expected: MAX_FILE_BYTES };
        return Err(DataError::BadExample { example: name.to_owned(), reason });
    }
    Ok(bytes)
}

/// Kind of a thing in a file system that is no regular file.
fn kind(file_type: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if file_type.is_fifo() {
            return "a named pipe";
        }
        if file_type.is_socket() {
            return "a socket";
        }
        if file_type.is_char_device() || file_type.is_block_device() {
            return "a device";
        }
    }
    if file_type.is_dir() { "a folder" } else { "something else" }
}

/// Reads and decodes a picture file.
///
/// # Errors
/// As [`read_file`], and [`DataError::BadExample`] with the path when it is no picture.
pub fn read_image(path: &Path, options: &DecodeOptions) -> Result<RgbImage, DataError> {
    decode(&read_file(path)?, options)
        .map_err(|reason| DataError::BadExample { example: path.display().to_string(), reason })
}
