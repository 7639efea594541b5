//! `mixer devices`.

use clap::Args;
use serde::Serialize;

use super::Format;
use crate::device;
use crate::error::TrainError;
use crate::group;

#[derive(Debug, Clone, Args)]
pub(super) struct DevicesArgs {
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// One device; the JSON form is part of the interface.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    description: String,
    /// `true` for the one that `auto` takes.
    auto: bool,
    /// `true` for a program on the CPU that plays a GPU.
    software: bool,
    /// Reason for which it is refused, where it is.
    refused: Option<&'static str>,
}

pub(super) fn run(args: &DevicesArgs) -> Result<(), TrainError> {
    let entries = device::available();
    let auto = device::best(&entries).map(|entry| entry.name.clone());
    let row = |entry: device::DeviceEntry| Row {
        auto: auto.as_ref() == Some(&entry.name),
        software: entry.is_software_gpu,
        refused: entry.flaw,
        name: entry.name,
        description: entry.description,
    };
    let rows: Vec<Row> = entries.into_iter().map(row).collect();
    if args.format == Format::Json {
        return super::print_json(&rows);
    }
    let line = |row: &Row| {
        let software = if row.software { ", a program on the CPU" } else { "" };
        let auto = if row.auto { "; `auto` takes it" } else { "" };
        let refused = row.refused.map_or(String::new(), |flaw| format!("; refused: {flaw}"));
        format!("{:<10} {}{software}{auto}{refused}", row.name, row.description)
    };
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    #[cfg(feature = "flex")]
    lines.push(format!("vector instructions: {}", mixer_kernels::instruction_set().name()));
    lines.push(match group::library() {
        Some(library) => format!("several processes: {library}"),
        None => "several processes: not compiled in (`--features mpi`)".to_owned(),
    });
    super::print(&lines.join("\n"))
}
