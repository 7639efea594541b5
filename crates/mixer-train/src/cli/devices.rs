//! `mixer devices`.

use crate::backend;
use crate::error::TrainError;

pub(super) fn run() -> Result<(), TrainError> {
    let lines: Vec<String> = backend::available()
        .iter()
        .map(|entry| format!("{:<10} {}", entry.name, entry.description))
        .collect();
    super::print(&lines.join("\n"))
}
