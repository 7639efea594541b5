//! `--sweep`: the same training with several values of a key, one after another, each in a run directory of
//! its own, and a comparison at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;

use super::train::{self, FinetuneArgs};
use crate::config::DataConfig;
use crate::disk::atomic;
use crate::disk::metrics::{self, Metric};
use crate::disk::run_dir::{RunDir, SWEEP_REPORT};
use crate::error::TrainError;
use crate::input::dataset::Dataset;
use crate::plan::{DataFacts, InitFacts, Task};
use crate::run::evaluation::Evaluation;
use crate::run::found_run::FoundRun;
use crate::run::session::{Options, Recipe, Resume};
use crate::run::trainer::Ended;
use crate::show::progress::say;

/// The most runs of one command: more are a mistake.
const MAX_MEMBERS: usize = 1000;

/// A key and its values, `lr=0.003,0.01`.
#[derive(Debug, Clone, PartialEq)]
struct Axis {
    /// The key as it was typed, which names the directories.
    name: String,
    /// The key with dots.
    key: String,
    /// The values as TOML.
    values: Vec<String>,
}

/// A run of the sweep.
struct Member {
    /// Its name, and that of its directory.
    name: String,
    /// The configuration of the command with its own settings.
    recipe: Recipe,
    run_dir: RunDir,
    /// Keys in which it differs.
    settings: BTreeMap<String, toml::Value>,
}

/// `sweep.json`.
#[derive(Debug, Serialize)]
struct Report {
    /// The name of the member with the highest top-1; the first one of equals.
    winner: Option<String>,
    members: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    settings: BTreeMap<String, toml::Value>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Measured>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// It has not come to its end yet.
    Pending,
    Finished,
    Diverged,
}

/// An evaluation and its update.
#[derive(Debug, Clone, Copy, Serialize)]
struct Measured {
    step: u64,
    #[serde(flatten)]
    evaluation: Evaluation,
}

pub(super) fn run(args: &FinetuneArgs, task: Task) -> Result<(), TrainError> {
    let limit = args.train.time_limit();
    if args.train.replay.is_some() {
        return Err(TrainError::usage("`--replay` has no meaning with `--sweep`")
            .with_hint("replay an update of one member: `--run-dir` and the settings of it"));
    }
    if args.train.resume == Resume::Must {
        return Err(TrainError::usage("`--resume must` has no meaning with `--sweep`")
            .with_hint("`--resume auto` continues a sweep; finished members are not run again"));
    }
    if args.train.extend {
        return Err(TrainError::usage("`--extend` has no meaning with `--sweep`")
            .with_hint("make one member longer: `--run-dir` and the settings of it"));
    }
    let directory = args.train.run_directory();
    let members = members(args, &axes(&args.sweep.entries)?, &directory)?;
    refuse_other_runs(&directory, &members, args.train.resume)?;
    check(&members, task)?;
    fs::create_dir_all(&directory)?;
    let mut diverged: BTreeMap<&str, TrainError> = BTreeMap::new();
    for (number, member) in members.iter().enumerate() {
        if member.is_finished() {
            say(format_args!("{}: already done", member.name));
            continue;
        }
        say(format_args!("{} ({} of {})", member.name, number + 1, members.len()));
        let options = args.train.options(limit)?;
        let options = Options { run_dir: member.run_dir.path().to_owned(), ..options };
        match train::train(&member.recipe, task, options) {
            // There is no time for the others either.
            Ok(Ended::TimeLimit(_)) => {
                return report(&members, &diverged)?.write(&directory);
            }
            Ok(_) => {}
            // What a sweep is there to find out; the others may do better.
            Err(error @ (TrainError::Diverged { .. } | TrainError::DivergedAfter { .. })) => {
                say(format_args!("warning: {}: {error}", member.name));
                diverged.insert(&member.name, error);
            }
            Err(error) => return Err(error),
        }
        report(&members, &diverged)?.write(&directory)?;
    }
    let report = report(&members, &diverged)?;
    report.write(&directory)?;
    let Some(winner) = &report.winner else {
        let error = diverged.pop_last().map(|(_, error)| error);
        return Err(error.unwrap_or_else(|| {
            TrainError::run_dir("no member of the sweep has an evaluation", directory)
        }));
    };
    super::print(&report.table())?;
    let best = RunDir::new(directory.join(winner)).best();
    say(format_args!("the weights of {winner} are in {}", best.display()));
    Ok(())
}

/// The keys and values of the command line.
fn axes(entries: &[String]) -> Result<Vec<Axis>, TrainError> {
    let mut axes: Vec<Axis> = Vec::new();
    for entry in entries {
        let malformed = |why: &str| {
            TrainError::usage(format!("`--sweep {entry}`: {why}"))
                .with_hint("write `--sweep lr=0.003,0.01,0.03`")
        };
        let (name, values) =
            entry.split_once('=').ok_or_else(|| malformed("expected KEY=VALUE,VALUE,…"))?;
        let name = name.trim();
        let key = match name {
            "lr" => "optimizer.learning_rate",
            key => key,
        };
        let values = split_values(values);
        if name.is_empty() || values.iter().any(String::is_empty) {
            return Err(malformed("the key or a value is empty"));
        }
        if axes.iter().any(|axis| axis.key == key) {
            return Err(malformed("the key is there twice"));
        }
        axes.push(Axis { name: name.to_owned(), key: key.to_owned(), values });
    }
    Ok(axes)
}

/// Cuts at commas that lie outside brackets and quotes.
fn split_values(text: &str) -> Vec<String> {
    let (mut values, mut depth, mut quote) = (vec![String::new()], 0_usize, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                values.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = values.last_mut() {
            last.push(c);
        }
    }
    values.iter().map(|value| value.trim().to_owned()).collect()
}

/// All combinations; the first key varies slowest.
fn combinations(axes: &[Axis]) -> Vec<Vec<(&Axis, &str)>> {
    let mut all = vec![Vec::new()];
    for axis in axes {
        let longer = |start: &Vec<(_, _)>, value| {
            start.iter().copied().chain([(axis, value)]).collect::<Vec<(&Axis, &str)>>()
        };
        all = all
            .iter()
            .flat_map(|start| axis.values.iter().map(move |value| longer(start, value.as_str())))
            .collect();
    }
    all
}

/// A name that a directory can have on any system.
fn directory_name(settings: &[(&Axis, &str)]) -> String {
    let parts: Vec<String> =
        settings.iter().map(|(axis, value)| format!("{}={value}", axis.name)).collect();
    let plain = |c: char| match c {
        ' ' | '"' | '\'' | '{' | '}' | '[' | ']' => None,
        c if c.is_ascii_alphanumeric() || "._-+=,".contains(c) => Some(c),
        _ => Some('_'),
    };
    parts.join(",").chars().filter_map(plain).collect()
}

fn members(
    args: &FinetuneArgs,
    axes: &[Axis],
    directory: &Path,
) -> Result<Vec<Member>, TrainError> {
    let num_members = axes.iter().fold(1_usize, |n, axis| n.saturating_mul(axis.values.len()));
    if num_members > MAX_MEMBERS {
        return Err(TrainError::usage(format!(
            "the sweep has {num_members} runs, expected at most {MAX_MEMBERS}"
        )));
    }
    let mut members: Vec<Member> = Vec::new();
    for settings in combinations(axes) {
        let name = directory_name(&settings);
        if members.iter().any(|member| member.name == name) {
            return Err(TrainError::usage(format!("two runs of the sweep are `{name}`"))
                .with_hint("give every value once"));
        }
        let run_dir = RunDir::new(directory.join(&name));
        let mut args = args.clone();
        let own = settings.iter().map(|(axis, value)| format!("{}={value}", axis.key));
        args.train.overrides.extend(own);
        let recipe = args.recipe()?;
        let settings = settings.iter().map(|(axis, value)| (axis.key.clone(), typed(value)));
        let settings = settings.collect();
        members.push(Member { name, recipe, run_dir, settings });
    }
    Ok(members)
}

/// A value as `--set` takes it: TOML, or a bare word.
fn typed(value: &str) -> toml::Value {
    let table: Option<toml::Table> = toml::from_str(&format!("value = {value}")).ok();
    table
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()))
}

/// A directory that is a run cannot be a sweep.
fn refuse_other_runs(
    directory: &Path,
    members: &[Member],
    resume: Resume,
) -> Result<(), TrainError> {
    let refused =
        |message: &str, hint: &str| TrainError::run_dir(message, directory).with_hint(hint);
    if RunDir::new(directory).exists() {
        return Err(refused(
            "the directory holds a run, expected a sweep or nothing",
            "choose another one with `--run-dir`",
        ));
    }
    if directory.exists() && !directory.is_dir() {
        return Err(refused(
            "found a file, expected the directory of a sweep or nothing",
            "choose another one with `--run-dir`",
        ));
    }
    if resume == Resume::Never && members.iter().any(|member| member.run_dir.exists()) {
        return Err(refused(
            "the directory holds this sweep already",
            "`--resume auto` continues it; `--run-dir` starts another",
        ));
    }
    Ok(())
}

/// Refuses before the first update what a later member would refuse after hours.
fn check(members: &[Member], task: Task) -> Result<(), TrainError> {
    // Opened once where the members agree on them.
    let mut weights: Option<(Option<PathBuf>, Option<mixer_model::Gelu>, InitFacts)> = None;
    let mut read = |recipe: &Recipe| match &weights {
        Some((path, gelu, init))
            if *path == recipe.config.init.weights && *gelu == recipe.config.model.gelu =>
        {
            Ok::<InitFacts, TrainError>(init.clone())
        }
        _ => {
            let init = InitFacts::of(&recipe.read_init()?);
            let config = &recipe.config;
            weights = Some((config.init.weights.clone(), config.model.gelu, init.clone()));
            Ok(init)
        }
    };
    let mut data: Option<(DataConfig, usize, DataFacts)> = None;
    for Member { recipe, run_dir, .. } in members {
        let config = &recipe.config;
        if let Some(found) = FoundRun::with_updates(run_dir)? {
            let start = found.start_of(recipe, &mut read)?;
            found.continued_by(recipe, task, start.as_ref(), false)?;
            continue;
        }
        let init = match task {
            Task::Pretrain => None,
            Task::Finetune => Some(read(recipe)?),
        };
        let image_size = recipe.image_size(init.as_ref());
        let facts = match data.take() {
            Some((known, size, facts)) if known == config.data && size == image_size => facts,
            _ => Dataset::open(&config.data, image_size)?.facts(),
        };
        recipe.plan(task, init.as_ref(), facts.clone())?;
        data = Some((config.data.clone(), image_size, facts));
    }
    Ok(())
}

impl Member {
    /// `true` where it came to its end: these weights are the last that a run writes.
    fn is_finished(&self) -> bool {
        self.run_dir.exists() && self.run_dir.last().exists()
    }

    /// The best evaluation, the first one of equals, and the last one. Where a moving average was
    /// evaluated, it is what counts.
    fn measured(&self) -> Result<Option<(Measured, Measured)>, TrainError> {
        let evaluations: Vec<(bool, Measured)> = metrics::read(&self.run_dir.metrics())?
            .into_iter()
            .filter_map(|metric| match metric {
                // What the start could do already is no result.
                Metric::Eval { step, weights, loss, top1, top5, n, .. } if step > 0 => {
                    let evaluation = Evaluation { loss, top1, top5, n };
                    Some((weights.is_some(), Measured { step, evaluation }))
                }
                _ => None,
            })
            .collect();
        let averaged = evaluations.iter().any(|(averaged, _)| *averaged);
        let counting: Vec<Measured> = evaluations
            .into_iter()
            .filter(|(own, _)| *own == averaged)
            .map(|(_, measured)| measured)
            .collect();
        let best = counting.iter().copied().reduce(|best, other| {
            if other.evaluation.top1 > best.evaluation.top1 { other } else { best }
        });
        Ok(best.zip(counting.last().copied()))
    }
}

/// Reads the directories of the members.
fn report(members: &[Member], diverged: &BTreeMap<&str, TrainError>) -> Result<Report, TrainError> {
    let mut lines = Vec::with_capacity(members.len());
    for member in members {
        let (status, measured) = if member.is_finished() {
            (Status::Finished, member.measured()?)
        } else if diverged.contains_key(member.name.as_str()) {
            (Status::Diverged, None)
        } else {
            (Status::Pending, None)
        };
        let (best, last) = measured.unzip();
        let (name, settings) = (member.name.clone(), member.settings.clone());
        lines.push(Line { name, settings, status, best, last });
    }
    let top1 = |line: &Line| line.best.map(|best| best.evaluation.top1);
    let winner = lines
        .iter()
        .filter(|line| line.best.is_some())
        .reduce(|best, other| if top1(other) > top1(best) { other } else { best });
    Ok(Report { winner: winner.map(|line| line.name.clone()), members: lines })
}

impl Report {
    /// Writes it so that it is there whole or not at all.
    fn write(&self, directory: &Path) -> Result<(), TrainError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?;
        Ok(atomic::write(&directory.join(SWEEP_REPORT), &bytes)?)
    }

    /// One line per member.
    fn table(&self) -> String {
        let width = self.members.iter().map(|line| line.name.len()).max().unwrap_or(0).max(6);
        let mut lines =
            vec![format!("{:width$}  best top-1  at step  last top-1  last loss", "member")];
        for Line { name, status, best, last, .. } in &self.members {
            lines.push(match (best, last) {
                (Some(best), Some(last)) => {
                    let mark = if self.winner.as_ref() == Some(name) { "  winner" } else { "" };
                    format!(
                        "{name:width$}    {:6.2} %  {:7}    {:6.2} %  {:9.4}{mark}",
                        100.0 * best.evaluation.top1,
                        best.step,
                        100.0 * last.evaluation.top1,
                        last.evaluation.loss,
                    )
                }
                _ if *status == Status::Diverged => format!("{name:width$}    diverged"),
                _ => format!("{name:width$}    not finished"),
            });
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(entries: &[&str]) -> Result<Vec<Axis>, TrainError> {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        axes(&entries)
    }

    fn names(entries: &[&str]) -> Vec<String> {
        let axes = parsed(entries).unwrap();
        combinations(&axes).iter().map(|settings| directory_name(settings)).collect()
    }

    #[test]
    fn one_key_makes_a_list_and_several_make_a_grid() {
        assert_eq!(names(&["lr=0.003,0.01"]), ["lr=0.003", "lr=0.01"]);
        assert_eq!(
            names(&["lr=0.1, 0.2", "seed=1,2"]),
            ["lr=0.1,seed=1", "lr=0.1,seed=2", "lr=0.2,seed=1", "lr=0.2,seed=2"]
        );
        assert_eq!(parsed(&["lr=1"]).unwrap()[0].key, "optimizer.learning_rate");
    }

    #[test]
    fn commas_within_a_value_do_not_cut_it() {
        assert_eq!(
            split_values(r#"{ a = [1, 2], b = 3 },"x,y",none"#),
            ["{ a = [1, 2], b = 3 }", "\"x,y\"", "none"]
        );
        assert_eq!(
            names(&[r#"model.variant=B/16,"L/16""#]),
            ["model.variant=B_16", "model.variant=L_16"]
        );
    }

    #[test]
    fn what_is_no_key_with_values_is_a_usage_error() {
        for entries in [&["lr"][..], &["=1"], &["lr=1,,2"], &["lr="], &["lr=1", "lr=2"]] {
            let error = parsed(entries).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.hint().unwrap().contains("--sweep lr=0.003"), "{error}");
        }
        let twice = ["lr=1", "optimizer.learning_rate=2"];
        assert!(parsed(&twice).unwrap_err().to_string().contains("there twice"));
    }

    #[test]
    fn values_keep_their_type_in_the_report() {
        assert_eq!(typed("0.01"), toml::Value::Float(0.01));
        assert_eq!(typed("3"), toml::Value::Integer(3));
        assert_eq!(typed("B/16"), toml::Value::String("B/16".to_owned()));
        assert_eq!(typed("\"none\""), toml::Value::String("none".to_owned()));
    }
}
