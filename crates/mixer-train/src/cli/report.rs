//! `mixer report`, and `mixer runs`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Format, target};
use crate::disk::atomic;
use crate::disk::tensorboard::{EventFile, scalars};
use crate::error::TrainError;
use crate::look::pareto::figures;
use crate::look::report::report;
use crate::look::run_record::{Evaluated, RunRecord, RunState, differences, percent};
use crate::show::progress::say;

#[derive(Debug, Clone, Args)]
pub(super) struct ReportArgs {
    /// Run directories.
    #[arg(required_unless_present = "figure", value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page to write; an earlier one is replaced.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Put a figure on top of the page: `pareto` is accuracy against compute and throughput, with the front,
    /// of the runs and of published models.
    #[arg(long, value_enum, value_name = "pareto", conflicts_with_all = ["tensorboard", "csv"])]
    figure: Option<FigureArg>,
    /// Instead of the page, write the event files of TensorBoard again, a folder for each run.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "csv"])]
    tensorboard: Option<PathBuf>,
    /// Instead of the page, write the metrics of one run as a table: a row for each step.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    csv: Option<PathBuf>,
    /// Leave out the pictures of the weights.
    #[arg(long)]
    no_pictures: bool,
}

/// A figure that is not of every page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FigureArg {
    /// Accuracy against cost.
    Pareto,
}

pub(super) fn run(args: &ReportArgs) -> Result<(), TrainError> {
    let mut runs: Vec<RunRecord> = Vec::new();
    for path in &args.runs {
        let mut run = RunRecord::read(path)?;
        if runs.iter().any(|other| other.name == run.name) {
            run.name = path.display().to_string();
        }
        runs.push(run);
    }
    for run in &runs {
        if run.is_cut && run.state() != RunState::Running {
            say(format_args!(
                "note: the last line of the metrics is cut off and left out: {}",
                run.path.display()
            ));
        }
        if run.metrics.is_empty() {
            say(format_args!("note: there are no metrics yet: {}", run.path.display()));
        } else if run.state() == RunState::Running {
            say(format_args!(
                "note: it is still running, at step {} of {}: {}",
                run.steps(),
                run.plan.train.steps,
                run.path.display()
            ));
        }
    }
    if let Some(folder) = &args.tensorboard {
        return tensorboard(&runs, folder);
    }
    if let Some(file) = &args.csv {
        let [run] = runs.as_slice() else {
            return Err(TrainError::usage(format!("`--csv` takes one run, found {}", runs.len())));
        };
        target::file(file)?;
        atomic::write(file, csv(run).as_bytes())?;
        return super::print(&file.display().to_string());
    }
    target::file(&args.out)?;
    let figures = match args.figure {
        Some(FigureArg::Pareto) => {
            for run in runs.iter().filter(|run| run.best().is_none()) {
                let path = run.path.display();
                say(format_args!("note: not in the figure, as it has no evaluation yet: {path}"));
            }
            figures(&runs)?
        }
        None => Vec::new(),
    };
    let page = report(&runs, &figures, !args.no_pictures)?;
    atomic::write(&args.out, page.as_bytes())?;
    super::print(&args.out.display().to_string())
}

fn tensorboard(runs: &[RunRecord], folder: &Path) -> Result<(), TrainError> {
    target::new_folder(folder, "--tensorboard")?;
    for run in runs {
        let name: String =
            run.name.chars().map(|c| if std::path::is_separator(c) { '_' } else { c }).collect();
        let mut events = EventFile::new(folder.join(name), 0);
        events.introduce(&run.plan)?;
        for metric in &run.metrics {
            events.metric(metric)?;
        }
    }
    super::print(&folder.display().to_string())
}

/// A row for each step, a column for each curve.
fn csv(run: &RunRecord) -> String {
    let lines: Vec<_> = run.metrics.iter().filter_map(scalars).collect();
    let mut columns: Vec<&str> = Vec::new();
    for (_, _, values) in &lines {
        for (tag, _) in values {
            if !columns.contains(&tag.as_str()) {
                columns.push(tag);
            }
        }
    }
    let mut rows: std::collections::BTreeMap<u64, Vec<String>> = Default::default();
    for (step, _, values) in &lines {
        let row = rows.entry(*step).or_insert_with(|| vec![String::new(); columns.len()]);
        for (tag, value) in values {
            if let Some(column) = columns.iter().position(|column| column == tag) {
                row[column] = value.to_string();
            }
        }
    }
    let mut text = format!("step,{}\n", columns.join(","));
    for (step, row) in rows {
        text += &format!("{step},{}\n", row.join(","));
    }
    text
}

#[derive(Debug, Clone, Args)]
pub(super) struct RunsArgs {
    /// The folder whose runs are listed, at any depth.
    #[arg(default_value = "runs", value_name = "DIR")]
    folder: PathBuf,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// A run in the JSON.
#[derive(Debug, Serialize)]
struct Line {
    path: PathBuf,
    state: RunState,
    step: u64,
    steps: u64,
    best: Option<Evaluated>,
    last: Option<Evaluated>,
    seconds: Option<f64>,
    images_per_sec: Option<f64>,
    device: Option<String>,
    differs: std::collections::BTreeMap<String, Option<String>>,
}

/// The most keys of a run in the table: more belong to runs of different kinds.
const MOST_KEYS: usize = 8;

pub(super) fn list(args: &RunsArgs) -> Result<(), TrainError> {
    if !args.folder.is_dir() {
        let found = if args.folder.exists() {
            "this is a file, expected a folder"
        } else {
            "no such folder"
        };
        let message = format!("{found}: {}", args.folder.display());
        return Err(TrainError::usage(message).with_hint("name the folder that holds the runs"));
    }
    let runs = RunRecord::below(&args.folder, |error| say(format_args!("warning: {error}")))?;
    let differences = differences(&runs);
    if args.format == Format::Json {
        let lines = runs.iter().enumerate().map(|(i, run)| Line {
            path: run.path.clone(),
            state: run.state(),
            step: run.steps(),
            steps: run.plan.train.steps,
            best: run.best(),
            last: run.evaluations().next_back(),
            seconds: run.seconds(),
            images_per_sec: run.images_per_sec(),
            device: run.environment.as_ref().map(|environment| environment.device.clone()),
            differs: differences
                .iter()
                .map(|(key, values)| (key.clone(), values[i].clone()))
                .collect(),
        });
        return super::print_json(&lines.collect::<Vec<_>>());
    }
    if runs.is_empty() {
        return super::print(&format!("no runs: {}", args.folder.display()));
    }
    let mut text = String::new();
    for (i, run) in runs.iter().enumerate() {
        let best = run.best().map_or_else(
            || if run.metrics.is_empty() { "no metrics" } else { "not evaluated yet" }.to_owned(),
            |best| format!("best {} % at step {}", percent(best.top1, best.n), best.step),
        );
        let hours = run.seconds().map_or(String::new(), |seconds| {
            let seconds = std::time::Duration::from_secs(seconds as u64);
            format!(", {}", humantime::format_duration(seconds))
        });
        let device =
            run.environment.as_ref().map_or(String::new(), |found| format!(" on {}", found.device));
        text += &format!(
            "{}\n  {}, step {} of {}, {best}{hours}{device}\n",
            run.path.display(),
            run.state().name(),
            run.steps(),
            run.plan.train.steps
        );
        let set: Vec<String> = differences
            .iter()
            .filter_map(|(key, values)| values[i].as_ref().map(|value| format!("{key} = {value}")))
            .collect();
        let more = match set.len().saturating_sub(MOST_KEYS) {
            0 => String::new(),
            more => format!(", … and {more} more (`--format json` has all)"),
        };
        if !set.is_empty() {
            text += &format!("  {}{more}\n", set[..set.len().min(MOST_KEYS)].join(", "));
        }
    }
    super::print(&text)
}
