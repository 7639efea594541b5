//! `mixer devices`.

use crate::device;
use crate::error::TrainError;

pub(super) fn run() -> Result<(), TrainError> {
    let lines: Vec<String> = device::available()
        .iter()
        .map(|entry| {
            let software = if entry.is_software_gpu { ", a program on the CPU" } else { "" };
            let refused = entry.flaw.map_or(String::new(), |flaw| format!("; refused: {flaw}"));
            format!("{:<10} {}{software}{refused}", entry.name, entry.description)
        })
        .collect();
    super::print(&lines.join("\n"))
}
