//! Paths that a command is going to write to. They are looked at before its work: what could not be written
//! after it is refused in one line.

use std::path::{Path, is_separator};

use crate::disk::atomic;
use crate::error::TrainError;

/// A file that may be there already, and is replaced then.
pub(super) fn file(path: &Path) -> Result<(), TrainError> {
    let ends_as_a_folder = path.to_string_lossy().ends_with(is_separator);
    if path.is_dir() || ends_as_a_folder {
        let message = format!("this is a folder, expected the name of a file: {}", path.display());
        return Err(TrainError::usage(message));
    }
    place(path)
}

/// A file that is not there yet; `option` chooses another one.
pub(super) fn new_file(path: &Path, option: &str) -> Result<(), TrainError> {
    refuse_existing(path, option)?;
    file(path)
}

/// A folder that is not there yet, and is made with those above it; `option` chooses another one.
pub(super) fn new_folder(path: &Path, option: &str) -> Result<(), TrainError> {
    refuse_existing(path, option)?;
    match path.ancestors().skip(1).find(|above| above.exists()) {
        Some(above) if !above.is_dir() => {
            let message = format!("this is a file, expected a folder: {}", above.display());
            Err(TrainError::usage(message))
        }
        Some(above) => writable(&above.join("mixer")),
        None => writable(Path::new("mixer")),
    }
}

fn refuse_existing(path: &Path, option: &str) -> Result<(), TrainError> {
    if !path.exists() {
        return Ok(());
    }
    let kind = if path.is_dir() { "folder" } else { "file" };
    let message = format!("the {kind} exists already: {}", path.display());
    Err(TrainError::usage(message).with_hint(format!("choose another one with `{option}`")))
}

/// The folder that a file is to lie in.
fn place(path: &Path) -> Result<(), TrainError> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            let message = match folder.exists() {
                true => format!("this is a file, expected a folder: {}", folder.display()),
                false => format!("the folder to write into is missing: {}", folder.display()),
            };
            Err(TrainError::usage(message))
        }
        _ => writable(path),
    }
}

/// Writes nothing beside the file, as [`atomic::write`] will write something.
fn writable(path: &Path) -> Result<(), TrainError> {
    atomic::try_beside(path).map_err(|error| {
        let message = format!("nothing can be written there: {error}: {}", path.display());
        TrainError::Io(std::io::Error::new(error.kind(), message))
    })
}
