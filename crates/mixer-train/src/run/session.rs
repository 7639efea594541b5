//! A run from a configuration on: opened, started or continued, and trained to its end. What is opened comes
//! in one order: weights, data, plan, run directory.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::ValueEnum;
use mixer_model::{Weights, init};

use crate::config::train::RANK_TIMEOUT_SECS;
use crate::device::DeviceEntry;
use crate::disk::checkpoint::{self, Checkpoint};
use crate::disk::environment::Environment;
use crate::disk::run_dir::RunDir;
use crate::error::{CheckpointFault, TrainError};
use crate::group::tree::possible_ranks;
use crate::group::{self, Alone, Group, is_first, verdict, watchdog};
use crate::input::dataset::Dataset;
use crate::input::loading::Loading;
use crate::plan::{InitFacts, RunPlan, Task};
use crate::run::alike;
use crate::run::divergence::Divergence;
use crate::run::found_run::FoundRun;
#[cfg(feature = "cuda")]
use crate::run::gpus;
use crate::run::interrupt;
use crate::run::job::{Job, Start};
use crate::run::parcel;
use crate::run::recipe::Recipe;
use crate::run::replay::{self, Replay};
use crate::run::time_limit::TimeLimit;
use crate::run::trainer::{self, Outcome};
use crate::show::progress::say;
use crate::update::teacher::Teacher;

/// Fate of a run that the directory holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Resume {
    /// Continue it, or start it.
    #[default]
    Auto,
    /// Refuse.
    Never,
    /// Continue it, and refuse when there is no checkpoint.
    Must,
}

/// The circumstances of a run. No result depends on them.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the run.
    pub run_dir: PathBuf,
    /// Device to compute on.
    pub device: DeviceEntry,
    /// Fate of a run that is there.
    pub resume: Resume,
    /// Leave to make a run longer that is there.
    pub extend: bool,
    /// Time by which the process has to be over.
    pub time_limit: Option<TimeLimit>,
    /// The processes that train together.
    pub group: Rc<dyn Group>,
}

impl Options {
    /// A run in `run_dir` on `device`, started or continued, without a limit.
    #[must_use]
    pub fn new(run_dir: impl Into<PathBuf>, device: DeviceEntry) -> Self {
        let run_dir = run_dir.into();
        let group = Rc::new(Alone);
        Self { run_dir, device, resume: Resume::Auto, extend: false, time_limit: None, group }
    }
}

/// A run that is opened: its directory is locked, and everything that can be refused was accepted.
pub struct Session {
    job: Job,
    /// Weights of a fine-tuning that begins.
    initial: Option<Weights>,
    checkpoint: Option<(PathBuf, Checkpoint)>,
    time_limit: Option<TimeLimit>,
    /// Keeps other runs out; with the first process.
    _lock: Option<std::fs::File>,
}

/// The parts of a run that are opened before its directory is made.
struct Opened {
    plan: RunPlan,
    dataset: Dataset,
    initial: Option<Weights>,
    teacher: Option<Teacher>,
    checkpoint: Option<(PathBuf, Checkpoint)>,
}

impl Session {
    /// Opens a run: continues the one that the directory holds, or starts it. Of several processes the first
    /// one decides, and the others open the data for its plan.
    ///
    /// # Errors
    /// Whatever the configuration, the data, the weights, the device or the run directory refuse;
    /// [`TrainError::Ranks`] where the processes are not alike.
    pub fn open(recipe: &Recipe, task: Task, options: Options) -> Result<Self, TrainError> {
        let group = Rc::clone(&options.group);
        if group.size() == 1 {
            return Self::open_first(recipe, task, options);
        }
        let limit = recipe.config.train.rank_timeout_secs.unwrap_or(RANK_TIMEOUT_SECS).max(1);
        // The others a little later: the first one knows for whom all wait.
        let later = if is_first(&*group) { 0 } else { 2 };
        watchdog::watch(group::name(&*group), Duration::from_secs(limit.saturating_add(later)));
        alike::check(&*group, recipe, task, &options.device)?;
        let first = is_first(&*group);
        let opened = first.then(|| Self::open_first(recipe, task, options.clone())).transpose();
        let opened = verdict::all(&*group, opened)?;
        let plan = opened.as_ref().map(|opened| opened.job.plan.to_toml()).transpose()?;
        let plan = group.broadcast(plan.unwrap_or_default().into_bytes());
        let plan = String::from_utf8_lossy(&plan);
        let plan = RunPlan::from_toml(&plan, || Ok(recipe.config.clone()))
            .map_err(|reason| TrainError::config(format!("the plan of rank 0: {reason}")));
        let plan = verdict::all(&*group, plan)?;
        verdict::all(&*group, check_device(&options.device, &plan))?;
        // On each machine one before the others, so that it writes what they read, such as indices of shards.
        let mut dataset = None;
        for is_turn_of_firsts in [true, false] {
            let is_turn = (group.local().rank == 0) == is_turn_of_firsts;
            let opens =
                (is_turn && !first).then(|| same_data(recipe, &plan, OF_RANK_0)).transpose();
            dataset = verdict::all(&*group, opens)?.or(dataset);
        }
        // A run that has come to its end needs none.
        let is_taught = opened.as_ref().is_some_and(|opened| opened.job.teacher.is_some());
        let is_taught = group.broadcast(vec![u8::from(is_taught)]) == [1];
        let teacher =
            (!first && is_taught).then(|| same_teacher(recipe, &plan, &options.device, OF_RANK_0));
        let teacher = verdict::all(&*group, teacher.transpose())?.flatten();
        let Some(dataset) = dataset else {
            return opened.ok_or_else(|| TrainError::ranks("rank 0 has opened no run"));
        };
        let Options { run_dir, device, time_limit, .. } = options;
        let (run_dir, loading) = (RunDir::new(run_dir), Loading::of(&recipe.config.data));
        let job = Job { plan, dataset, run_dir, device, loading, group, teacher };
        Ok(Self { job, initial: None, checkpoint: None, time_limit, _lock: None })
    }

    /// Opens a run as the one process, or the first of several.
    fn open_first(recipe: &Recipe, task: Task, options: Options) -> Result<Self, TrainError> {
        interrupt::listen();
        interrupt::nothing_to_save();
        refuse_init_in_pretraining(recipe, task)?;
        let Options { run_dir, device, resume, extend, time_limit, group } = options;
        let run_dir = RunDir::new(run_dir);
        // Asked once: another process may start the same run while this one opens its data.
        let lock = if run_dir.exists() {
            if resume == Resume::Never {
                return Err(TrainError::run_dir(
                    "the directory holds a run already",
                    run_dir.path(),
                )
                .with_hint("`--resume auto` continues it; `--run-dir` starts another"));
            }
            let lock = run_dir.lock()?;
            checkpoint::recover(&run_dir.checkpoints())?;
            Some(lock)
        } else {
            None
        };
        let found = if lock.is_some() { FoundRun::with_updates(&run_dir)? } else { None };
        if found.is_none() && (resume == Resume::Must || extend) {
            let message = "there is no checkpoint to continue from";
            let hint = if extend {
                "without `--extend` the run starts"
            } else {
                "`--resume auto` starts the run"
            };
            return Err(TrainError::run_dir(message, run_dir.path()).with_hint(hint));
        }
        let is_new = found.is_none();
        let opened = match &found {
            Some(found) => {
                let recipe = recipe.shared_as(&found.plan);
                Opened::of_run(&recipe, task, &device, found, extend, group.size())?
            }
            None => {
                let opened = Opened::new_run(&recipe.shared_by(group.size())?, task, &device)?;
                check_share(&opened.plan, group.size())?;
                opened
            }
        };
        let Opened { plan, dataset, initial, teacher, checkpoint } = opened;
        let lock = match lock {
            Some(lock) => {
                if is_new {
                    say("no update of the run in this directory was saved: it starts over");
                    let environment = Environment::current(&device.name, group.size());
                    run_dir.start_over(&recipe.text, &plan, &environment)?;
                }
                lock
            }
            None => {
                let environment = Environment::current(&device.name, group.size());
                run_dir.create(&recipe.text, &plan, &environment)?
            }
        };
        let loading = Loading::of(&recipe.config.data);
        let job = Job { plan, dataset, run_dir, device, loading, group, teacher };
        Ok(Self { job, initial, checkpoint, time_limit, _lock: Some(lock) })
    }

    /// The parts of the run.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The checkpoint that it goes on from, and the updates before it; none at its start.
    #[must_use]
    pub fn continues_from(&self) -> Option<(&Path, u64)> {
        self.checkpoint.as_ref().map(|(path, checkpoint)| (path.as_path(), checkpoint.state.step))
    }

    /// Trains to the end.
    ///
    /// # Errors
    /// Those of [`trainer::train`].
    pub fn train(self) -> Result<Outcome, TrainError> {
        let (job, group) = (&self.job, &*self.job.group);
        let own = is_first(group).then(|| start(&job.plan, self.initial, self.checkpoint));
        let own = verdict::all(group, own.transpose())?;
        let start = parcel::share(group, own, &job.plan.model.network)?;
        #[cfg(feature = "cuda")]
        if group.size() > 1 {
            gpus::join(group, &job.device)?;
        }
        trainer::train(job, start, self.time_limit)
    }

    /// Does the update again that was not finite and is described in `file`. Nothing in the run directory is
    /// touched.
    ///
    /// # Errors
    /// Those of [`replay::replay`], and whatever opening the run refuses.
    pub fn replay(
        recipe: &Recipe,
        task: Task,
        options: Options,
        file: &Path,
    ) -> Result<Replay, TrainError> {
        interrupt::listen();
        interrupt::nothing_to_save();
        refuse_init_in_pretraining(recipe, task)?;
        let divergence = Divergence::read(file)?;
        let Options { run_dir, device, .. } = options;
        let run_dir = RunDir::new(run_dir);
        if !run_dir.exists() {
            let message = "there is no run to replay an update of";
            return Err(TrainError::run_dir(message, run_dir.path())
                .with_hint("name the directory of the run with `--run-dir`"));
        }
        let found = FoundRun::read(&run_dir)?;
        let named = found.start_of(recipe, |recipe| Ok(InitFacts::of(&recipe.read_init()?)))?;
        let plan = found.continued_by(recipe, task, named.as_ref(), false)?.plan;
        let dataset = same_data(recipe, &plan, OF_BEFORE)?;
        check_device(&device, &plan)?;
        let teacher = same_teacher(recipe, &plan, &device, OF_BEFORE)?;
        // Its name alone, so that a file from elsewhere leads nowhere else.
        let beside = divergence.state.as_deref().and_then(Path::file_name);
        let checkpoint = match beside.map(|name| file.with_file_name(name)) {
            Some(path) => Some((path.clone(), Checkpoint::read(&path)?)),
            None => checkpoint::list(&run_dir.checkpoints())?
                .into_iter()
                .filter(|path| {
                    checkpoint::step_of(path).is_some_and(|step| step <= divergence.step)
                })
                .find_map(|path| Checkpoint::read(&path).ok().map(|read| (path, read))),
        };
        let initial = if checkpoint.is_none() { recipe.initial(task)? } else { None };
        let from = checkpoint.as_ref().map_or(0, |(_, checkpoint)| checkpoint.state.step);
        say(format_args!("replaying update {} from step {from}", divergence.step));
        let start = start(&plan, initial, checkpoint)?;
        let loading = Loading::of(&recipe.config.data);
        let group = Rc::new(Alone);
        let job = Job { plan, dataset, run_dir, device, loading, group, teacher };
        replay::replay(&job, divergence, start)
    }
}

impl Opened {
    /// The run that the directory holds, which is locked. Nothing is written before all is accepted.
    fn of_run(
        recipe: &Recipe,
        task: Task,
        device: &DeviceEntry,
        found: &FoundRun<'_>,
        extend: bool,
        ranks: usize,
    ) -> Result<Self, TrainError> {
        let run_dir = found.run_dir;
        let named = found.start_of(recipe, |recipe| Ok(InitFacts::of(&recipe.read_init()?)))?;
        let continued = found.continued_by(recipe, task, named.as_ref(), extend)?;
        let dataset = same_data(recipe, &continued.plan, OF_BEFORE)?;
        check_device(device, &continued.plan)?;
        check_share(&continued.plan, ranks)?;
        let newest = checkpoint::newest(&run_dir.checkpoints(), |error| {
            say(format_args!("warning: {error}; trying the one before"));
        })?;
        let Some((path, checkpoint)) = newest else {
            return Err(TrainError::checkpoint(
                CheckpointFault::CannotContinue,
                "none of the checkpoints can be read",
                run_dir.checkpoints(),
            ));
        };
        let (changes, is_longer) = (continued.changes.clone(), continued.longer_than.is_some());
        let plan = continued.after(checkpoint.state.step)?;
        plan.schedule.check_rewarming()?;
        // A run that has come to its end needs it no more.
        let is_done = checkpoint.state.step >= plan.train.steps;
        let teacher = if is_done { None } else { same_teacher(recipe, &plan, device, OF_BEFORE)? };
        for change in &changes {
            say(change);
        }
        run_dir.remove_leftovers()?;
        if is_longer {
            // Before the plan says so: a run of the new length has no last weights yet.
            run_dir.reopen()?;
        }
        run_dir.write_plan(&recipe.text, &plan)?;
        Ok(Self { plan, dataset, initial: None, teacher, checkpoint: Some((path, checkpoint)) })
    }

    fn new_run(recipe: &Recipe, task: Task, device: &DeviceEntry) -> Result<Self, TrainError> {
        let initial = recipe.initial(task)?;
        let (plan, dataset) = recipe.resolve(task, initial.as_ref())?;
        plan.schedule.check_rewarming().map_err(|error| recipe.in_file(error))?;
        check_device(device, &plan)?;
        let teacher = recipe.read_teacher()?;
        let plan = recipe.taught(plan, teacher.as_ref().map(InitFacts::of).as_ref())?;
        let teacher = teacher.map(|weights| plan.open_teacher(weights, device)).transpose()?;
        Ok(Self { plan, dataset, initial, teacher: teacher.flatten(), checkpoint: None })
    }
}

/// Refuses precisions that a device does not compute in.
fn check_device(device: &DeviceEntry, plan: &RunPlan) -> Result<(), TrainError> {
    let of_teacher = plan.train.teacher.as_ref().and_then(|teacher| teacher.precision);
    let precisions = [Some(plan.train.precision), of_teacher];
    precisions.into_iter().flatten().try_for_each(|precision| device.check(precision))?;
    device.check_first_moment(plan.optimizer.first_moment_dtype)
}

/// Refuses a number of processes that cannot share an update evenly, or not with the bits of one.
fn check_share(plan: &RunPlan, ranks: usize) -> Result<(), TrainError> {
    let (batch, microbatch) = (plan.train.batch_size, plan.train.microbatch_size);
    let possible = possible_ranks(batch / microbatch);
    if possible.contains(&ranks) {
        return Ok(());
    }
    let possible: Vec<String> = possible.iter().map(usize::to_string).collect();
    let message = format!(
        "{ranks} processes cannot share the {} microbatches of an update (`train.batch_size` {batch}, \
         `train.microbatch_size` {microbatch}), expected {}",
        batch / microbatch,
        possible.join(", ")
    );
    Err(TrainError::config(message).with_hint(
        "each process computes a power of two of them, so that every number of processes has the same bits",
    ))
}

/// A pre-training has no weights to start from.
fn refuse_init_in_pretraining(recipe: &Recipe, task: Task) -> Result<(), TrainError> {
    let init = &recipe.config.init;
    if task == Task::Pretrain && (init.weights.is_some() || init.head.is_some()) {
        let error = TrainError::config("`init` has no meaning in pre-training")
            .with_hint("use `mixer finetune` to start from given weights");
        return Err(recipe.in_file(error));
    }
    Ok(())
}

/// The state that a run begins with: its checkpoint, the weights that it was given, or fresh ones.
fn start(
    plan: &RunPlan,
    initial: Option<Weights>,
    checkpoint: Option<(PathBuf, Checkpoint)>,
) -> Result<Start, TrainError> {
    if let Some((path, checkpoint)) = checkpoint {
        return Ok(Start::Checkpoint(path, Box::new(checkpoint)));
    }
    let Some(weights) = initial else {
        return Ok(Start::Weights(Box::new(init::weights(
            &plan.model.network,
            plan.seed,
            plan.model.head_bias.unwrap_or_default(),
        )?)));
    };
    let mut weights = weights.resized(plan.model.network.image_size)?;
    weights.config.gelu = plan.model.network.gelu;
    if plan.init.as_ref().is_some_and(|init| init.resets_head()) {
        weights = weights.with_fresh_head(
            plan.model.network.num_classes,
            plan.model.head_bias.unwrap_or_default(),
        );
    }
    Ok(Start::Weights(Box::new(weights)))
}

/// Data that a process has to find again: who has found it, and advice where it is not the same.
type Known = (&'static str, &'static str);

const OF_BEFORE: Known =
    ("the run was started with", "restore the data, or start another run with `--run-dir`");
const OF_RANK_0: Known =
    ("rank 0 has found", "the data has to be the same for all processes, under the same name");

/// The data of a run that is known already, opened and compared.
fn same_data(recipe: &Recipe, plan: &RunPlan, (who, hint): Known) -> Result<Dataset, TrainError> {
    let dataset = Dataset::open(&recipe.config.data, plan.model.network.image_size)?;
    let (planned, found) = (&plan.facts, dataset.facts());
    let message = if planned.classes != found.classes {
        format!("the classes are not those that {who}")
    } else if (planned.train_examples, planned.val_examples)
        != (found.train_examples, found.val_examples)
    {
        format!(
            "found {} training and {} validation examples, {who} {} and {}",
            found.train_examples, found.val_examples, planned.train_examples, planned.val_examples
        )
    } else if *planned != found {
        format!("the names of the data files are not those that {who}")
    } else {
        return Ok(dataset);
    };
    Err(TrainError::data_mismatch(message).with_hint(hint))
}

/// The teacher of a run that is known already, opened and compared; none of a run without.
fn same_teacher(
    recipe: &Recipe,
    plan: &RunPlan,
    device: &DeviceEntry,
    (who, _): Known,
) -> Result<Option<Teacher>, TrainError> {
    let (Some(known), Some(weights)) = (&plan.teacher, recipe.read_teacher()?) else {
        return Ok(None);
    };
    let found = InitFacts::of(&weights);
    if (&known.sha256, &known.config) != (&found.sha256, &found.config) {
        let hash = |facts: &InitFacts| {
            facts.sha256.as_ref().map_or(String::new(), |hash| hash.chars().take(12).collect())
        };
        let path = recipe.config.train.teacher.as_ref().map(|teacher| teacher.weights.display());
        let message = format!(
            "the teacher has SHA-256 {}…, {who} one with {}…: {}",
            hash(&found),
            hash(known),
            path.map_or(String::new(), |path| path.to_string())
        );
        return Err(TrainError::data_mismatch(message)
            .with_hint("name the same weights with `train.teacher.weights`, wherever they are"));
    }
    plan.open_teacher(weights, device)
}
