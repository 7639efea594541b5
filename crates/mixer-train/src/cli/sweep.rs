//! `--sweep`: the same training with several values of a key, one after another, each in a run directory of
//! its own, and a comparison at the end.

mod axis;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;

use self::axis::{Axis, axes, combinations, directory_name, holds, typed};
use self::report::{Line, Report, Status, measured};
use super::train::{self, FinetuneArgs};
use crate::config::{DataConfig, schema};
use crate::disk::run_dir::RunDir;
use crate::error::TrainError;
use crate::input::dataset::Dataset;
use crate::plan::{DataFacts, InitFacts, Task};
use crate::run::found_run::FoundRun;
use crate::run::recipe::Recipe;
use crate::run::session::{Options, Resume};
use crate::run::trainer::Ended;
use crate::show::progress::say;
use crate::show::shell;

/// The most runs of one command: more are a mistake.
const MAX_MEMBERS: usize = 1000;

/// The way out where the members of a directory are others.
const OTHER_SWEEP: &str = "choose another directory for this sweep with `--run-dir`, or the configuration and \
                           weights that its members were made with";

/// A run of the sweep.
struct Member {
    /// Its name, and that of its directory.
    name: String,
    task: Task,
    /// The configuration of the command with its own settings.
    recipe: Recipe,
    run_dir: RunDir,
    /// Keys in which it differs.
    settings: BTreeMap<String, toml::Value>,
    /// Status that is known of it without its directory.
    status: Status,
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
    let mut members = members(args, task, &axes(&args.sweep.entries)?, &directory)?;
    refuse_other_runs(&directory, &members, args.train.resume)?;
    let earlier = earlier_members(args, task, &directory, &mut members)?;
    check(&earlier)?;
    check(&members)?;
    fs::create_dir_all(&directory)?;
    let report = |diverged: &BTreeMap<&str, TrainError>| -> Result<Report, TrainError> {
        let lines = earlier.iter().chain(&members).map(|member| member.line(diverged));
        Ok(Report::of(lines.collect::<Result<_, _>>()?))
    };
    let mut diverged: BTreeMap<&str, TrainError> = BTreeMap::new();
    report(&diverged)?.write(&directory)?;
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
            Ok(Ended::TimeLimit(_)) => return report(&diverged)?.write(&directory),
            Ok(_) => {}
            // What a sweep is there to find out; the others may do better.
            Err(error @ (TrainError::Diverged { .. } | TrainError::DivergedAfter { .. })) => {
                say(format_args!("warning: {}: {error}", member.name));
                diverged.insert(&member.name, error);
            }
            Err(error) => return Err(error.of_member(&member.name)),
        }
        report(&diverged)?.write(&directory)?;
    }
    let report = report(&diverged)?;
    let Some(winner) = &report.winner else {
        let error = diverged.pop_last().map(|(member, error)| error.of_member(member));
        return Err(error.unwrap_or_else(|| {
            TrainError::run_dir("no member of the sweep has an evaluation", directory)
        }));
    };
    super::print(&report.table())?;
    let winner = RunDir::new(directory.join(winner));
    // The directory of a sweep stands for its winner.
    let (program, sweep) = (shell::program(), shell::word(&directory));
    say(format_args!("weights   {}", winner.best().display()));
    say(format_args!("compare   {program} runs {sweep}"));
    say(format_args!("evaluate  {program} evaluate {sweep} --details"));
    let winner = shell::word(winner.path());
    say(format_args!("look      {program} report {winner} --out report.html"));
    say(format_args!("predict   with pictures or folders behind it: {program} predict {sweep}"));
    Ok(())
}

fn members(
    args: &FinetuneArgs,
    task: Task,
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
        let own = settings.iter().map(|(axis, value)| format!("{}={value}", axis.key)).collect();
        let settings = settings.iter().map(|(axis, value)| (axis.key.clone(), typed(value)));
        members.push(Member::new((args, task), directory, name, own, settings.collect())?);
    }
    Ok(members)
}

/// The members that the directory had so far and this command has not. Where it has one of them under another
/// spelling of its values, it gets the old name.
fn earlier_members(
    args: &FinetuneArgs,
    task: Task,
    directory: &Path,
    members: &mut [Member],
) -> Result<Vec<Member>, TrainError> {
    let mut earlier = Vec::new();
    for Line { name, settings, status, .. } in Report::members_of(directory) {
        let is_same = |member: &&mut Member| {
            member.settings.len() == settings.len()
                && settings.iter().all(|(key, value)| {
                    member.settings.get(key).is_some_and(|found| holds(found, value))
                })
        };
        if let Some(member) = members.iter_mut().find(is_same) {
            member.run_dir = RunDir::new(directory.join(&name));
            member.name = name;
        } else if Path::new(&name).file_name() == Some(name.as_ref())
            && directory.join(&name).is_dir()
        {
            let own = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let member = Member::new((args, task), directory, name, own, settings)?;
            earlier.push(Member { status, ..member });
        }
    }
    Ok(earlier)
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
fn check(members: &[Member]) -> Result<(), TrainError> {
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
    members.iter().try_for_each(|member| {
        member.check(&mut read, &mut data).map_err(|error| error.of_member(&member.name))
    })
}

impl Member {
    /// The configuration of the command with settings of its own, which all have their effect.
    fn new(
        (args, task): (&FinetuneArgs, Task),
        directory: &Path,
        name: String,
        overrides: Vec<String>,
        settings: BTreeMap<String, toml::Value>,
    ) -> Result<Self, TrainError> {
        let mut args = args.clone();
        args.train.overrides.extend(overrides);
        let recipe = args.recipe().map_err(|error| error.of_member(&name))?;
        let config = schema::table(&recipe.config)?;
        for (key, wanted) in &settings {
            let mut parts = key.split('.');
            let first = parts.next().and_then(|part| config.get(part));
            let found = parts.fold(first, |found, part| found?.as_table()?.get(part));
            if !found.is_some_and(|found| holds(found, wanted)) {
                let found = found.map_or_else(|| "not set".to_owned(), schema::shown);
                let wanted = schema::shown(wanted);
                let message = format!("`{key}` is {found} and not {wanted}");
                return Err(TrainError::usage(message)
                    .with_hint(
                        "another key of the sweep, `--set` or `--init` takes its place: name one of them",
                    )
                    .of_member(&name));
            }
        }
        let run_dir = RunDir::new(directory.join(&name));
        Ok(Self { name, task, recipe, run_dir, settings, status: Status::Pending })
    }

    /// Refuses what a run of it would refuse. `data` is what was opened last.
    fn check(
        &self,
        mut read: impl FnMut(&Recipe) -> Result<InitFacts, TrainError>,
        data: &mut Option<(DataConfig, usize, DataFacts)>,
    ) -> Result<(), TrainError> {
        let Self { recipe, run_dir, task, .. } = self;
        let config = &recipe.config;
        let found = match self.is_finished() {
            true => Some(FoundRun::read(run_dir)?),
            false => FoundRun::with_updates(run_dir)?,
        };
        if let Some(found) = found {
            let start = found.start_of(recipe, &mut read)?;
            let continued = found.continued_by(recipe, *task, start.as_ref(), false);
            return continued.map(drop).map_err(|error| match error {
                TrainError::RunDir { .. } => error.with_hint(OTHER_SWEEP),
                error => error,
            });
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
        let plan = recipe.plan(*task, init.as_ref(), facts.clone())?;
        recipe.taught(plan, recipe.read_teacher()?.as_ref().map(InitFacts::of).as_ref())?;
        *data = Some((config.data.clone(), image_size, facts));
        Ok(())
    }

    /// `true` where it came to its end: these weights are the last that a run writes.
    fn is_finished(&self) -> bool {
        self.run_dir.exists() && self.run_dir.last().exists()
    }

    /// Line of its result.
    fn line(&self, diverged: &BTreeMap<&str, TrainError>) -> Result<Line, TrainError> {
        let (status, measured) = if self.is_finished() {
            (Status::Finished, measured(&self.run_dir)?)
        } else if diverged.contains_key(self.name.as_str()) {
            (Status::Diverged, None)
        } else {
            (self.status, None)
        };
        let (best, last) = measured.unzip();
        Ok(Line { name: self.name.clone(), settings: self.settings.clone(), status, best, last })
    }
}
