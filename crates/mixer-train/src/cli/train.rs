//! `mixer pretrain` and `mixer finetune`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use mixer_model::{Weights, count, init};

use super::{DeviceArg, sweep};
use crate::config::RunConfig;
use crate::config::inheritance::in_file_of_key;
use crate::device::DeviceEntry;
use crate::disk::checkpoint::{self, Checkpoint};
use crate::disk::run_dir::{self, Environment, RunDir};
use crate::error::{CANNOT_CONTINUE, TrainError};
use crate::input::dataset::{self, Dataset};
use crate::plan::{DataFacts, InitFacts, RunPlan, Task};
use crate::run::divergence::{Divergence, Values};
use crate::run::interrupt;
use crate::run::time_limit::{self, TimeLimit};
use crate::run::trainer::{Ended, Outcome, Trainer};
use crate::show::progress::say;

#[derive(Debug, Clone, Args)]
pub(super) struct TrainArgs {
    /// The TOML configuration; `mixer config schema` describes every key.
    pub(super) config: PathBuf,
    /// Where the run is kept [default: runs/ and the configuration's name].
    #[arg(long, value_name = "DIR")]
    pub(super) run_dir: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    /// Override a key of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
    /// End the run so early that it is over, checkpoint and all, when this time has passed since the
    /// command was started, as `3h50m` or `90s`; the exit code is 0, and the same command continues it.
    #[arg(long, value_name = "TIME", value_parser = time_limit::parse)]
    pub(super) max_time: Option<Duration>,
    /// Do an update that was not finite again, and report which examples and parameters it came from:
    /// the file that the run named when it stopped. Nothing is trained.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["max_time", "resume"])]
    pub(super) replay: Option<PathBuf>,
    /// What to do when the run directory holds this run already.
    #[arg(long, value_enum, default_value_t = Resume::Auto)]
    pub(super) resume: Resume,
}

#[derive(Debug, Clone, Args)]
pub(super) struct FinetuneArgs {
    #[command(flatten)]
    pub(super) train: TrainArgs,
    /// Start from these weights instead of `init.weights`.
    #[arg(long, value_name = "WEIGHTS")]
    init: Option<PathBuf>,
    /// Fine-tune once with each value, in RUN_DIR/KEY=VALUE, and compare; `lr` is short for
    /// `optimizer.learning_rate`. Repeated, all combinations.
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(super) sweep: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Resume {
    /// Continue it, or start it.
    Auto,
    /// Refuse.
    Never,
    /// Continue it, and refuse when there is no checkpoint.
    Must,
}

pub(super) fn pretrain(args: TrainArgs) -> Result<(), TrainError> {
    let (config, text) = RunConfig::read(&args.config, &args.overrides)?;
    if config.init.weights.is_some() || config.init.head.is_some() {
        let error = TrainError::config("`init` has no meaning in pre-training")
            .with_hint("use `mixer finetune` to start from given weights");
        return Err(in_file_of_key(error, &args.config));
    }
    let limit = time_limit(&args);
    train(&args, config, &text, Task::Pretrain, limit).map(drop)
}

pub(super) fn finetune(args: FinetuneArgs) -> Result<(), TrainError> {
    if !args.sweep.is_empty() {
        return sweep::run(&args);
    }
    let (config, text) = finetune_config(&args)?;
    let limit = time_limit(&args.train);
    train(&args.train, config, &text, Task::Finetune, limit).map(drop)
}

/// When the command that has just been started has to be over.
pub(super) fn time_limit(args: &TrainArgs) -> Option<TimeLimit> {
    args.max_time.and_then(|length| TimeLimit::after(Instant::now(), length))
}

/// The configuration of a fine-tuning, and its text.
pub(super) fn finetune_config(args: &FinetuneArgs) -> Result<(RunConfig, String), TrainError> {
    let overrides = with_init(&args.train.overrides, args.init.as_deref());
    RunConfig::read(&args.train.config, &overrides)
}

/// Where the run is kept.
pub(super) fn run_directory(args: &TrainArgs) -> PathBuf {
    match &args.run_dir {
        Some(path) => path.clone(),
        None => Path::new("runs").join(args.config.file_stem().unwrap_or_default()),
    }
}

/// The overrides with `--init` as one of them.
pub(super) fn with_init(overrides: &[String], init: Option<&Path>) -> Vec<String> {
    let mut overrides = overrides.to_vec();
    if let Some(weights) = init {
        let quoted = toml::Value::from(weights.display().to_string());
        overrides.push(format!("init.weights={quoted}"));
    }
    overrides
}

/// Trains in the run directory of the arguments, from the start or from where it was stopped.
pub(super) fn train(
    args: &TrainArgs,
    config: RunConfig,
    text: &str,
    task: Task,
    time_limit: Option<TimeLimit>,
) -> Result<Ended, TrainError> {
    interrupt::listen();
    interrupt::nothing_to_save();
    let device = args.device.open()?;
    let run_dir = RunDir::new(run_directory(args));
    if run_dir.exists() && args.resume == Resume::Never {
        return Err(TrainError::RunDir {
            message: "the directory holds a run already".to_owned(),
            hint: Some("`--resume auto` continues it; `--run-dir` starts another".to_owned()),
            path: run_dir.path().to_owned(),
        });
    }
    if let Some(file) = &args.replay {
        return replay(&config, task, file, run_dir, device).map(|()| Ended::Finished);
    }
    // Asked once: another process may start the same run while this one opens its data.
    let lock = if run_dir.exists() { Some(run_dir.lock()?) } else { None };
    let (plan, dataset, initial, checkpoint) = if lock.is_some() {
        let plan = run_dir.resume(task, &config)?;
        let dataset = Dataset::open(&config.data, plan.model.network.image_size)?;
        same_data(&plan.facts, &dataset.facts())?;
        run_dir.remove_leftovers()?;
        run_dir.write_plan(&plan)?;
        let checkpoint = checkpoint::newest(&run_dir.checkpoints(), |error| {
            say(format_args!("warning: {error}; trying the one before"));
        })?;
        if checkpoint.is_none() && !checkpoint::list(&run_dir.checkpoints())?.is_empty() {
            return Err(TrainError::Checkpoint {
                action: CANNOT_CONTINUE,
                reason: "none of the checkpoints can be read".to_owned(),
                path: run_dir.checkpoints(),
            });
        }
        // Without a checkpoint the run starts again, from the same weights.
        let initial = match (&checkpoint, task) {
            (None, Task::Finetune) => Some(read_init(&config)?),
            _ => None,
        };
        (plan, dataset, initial, checkpoint)
    } else {
        let initial = match task {
            Task::Pretrain => None,
            Task::Finetune => Some(read_init(&config)?),
        };
        let (plan, dataset) = resolve(&config, task, initial.as_ref())
            .map_err(|error| in_file_of_key(error, &args.config))?;
        (plan, dataset, initial, None)
    };
    plan.train.precision.check(&device)?;
    if checkpoint.is_none() && args.resume == Resume::Must {
        return Err(TrainError::RunDir {
            message: "there is no checkpoint to continue from".to_owned(),
            hint: Some("`--resume auto` starts the run".to_owned()),
            path: run_dir.path().to_owned(),
        });
    }
    for warning in plan.warnings() {
        say(format_args!("warning: {warning}"));
    }
    let lock = match lock {
        Some(lock) => lock,
        None => run_dir.create(text, &plan, &Environment::current(&device.name))?,
    };
    announce(
        &plan,
        &run_dir,
        &device.name,
        checkpoint.as_ref().map(|(path, c)| (path, c.state.step)),
    );
    let trainer = Trainer {
        workers: dataset::workers(&config.data),
        queue_bytes: dataset::queue_bytes(&config.data),
        dataset,
        run_dir: run_dir.clone(),
        device,
        plan,
        time_limit,
    };
    let start = || starting_weights(&trainer.plan, initial);
    let outcome = trainer.run(start, checkpoint)?;
    drop(lock);
    summarise(&outcome, &trainer);
    Ok(outcome.ended)
}

/// Says how a run ended.
fn summarise(outcome: &Outcome, trainer: &Trainer) {
    let (step, total) = (outcome.step, trainer.plan.train.steps);
    let seconds = outcome.elapsed.as_secs_f64();
    if outcome.checkpoints > 0 {
        let waited = outcome.saving.as_secs_f64();
        let plural = if outcome.checkpoints == 1 { "" } else { "s" };
        say(format_args!(
            "{} checkpoint{plural} written; training stood still for {waited:.2} s ({:.2} %)",
            outcome.checkpoints,
            100.0 * waited / seconds.max(1e-9)
        ));
    }
    match (&outcome.ended, trainer.plan.train.early_stopping) {
        (Ended::TimeLimit(path), _) => {
            let saved = match path {
                Some(path) => format!("checkpoint written: {}", path.display()),
                None => "there is no checkpoint yet".to_owned(),
            };
            say(format_args!(
                "unfinished: the time limit ends the run at step {step} of {total}; {saved}"
            ));
            say("run the same command again to continue");
            return;
        }
        (Ended::StoppedEarly, Some(rule)) => say(format_args!(
            "stopped early at step {step} of {total}: top-1 has not improved in {} evaluations",
            rule.patience
        )),
        _ => {}
    }
    if let Some((step, best)) = outcome.best {
        // Without an evaluation nothing was left to do.
        let done = match outcome.last {
            Some(_) => format!("done in {seconds:.0} s"),
            None => "already done".to_owned(),
        };
        say(format_args!(
            "{done}: best top-1 {:.2} % at step {step}; weights in {}",
            100.0 * best.top1,
            trainer.run_dir.best().display()
        ));
    }
}

/// Does an update that was not finite again, and prints what it came from.
fn replay(
    config: &RunConfig,
    task: Task,
    file: &Path,
    run_dir: RunDir,
    device: DeviceEntry,
) -> Result<(), TrainError> {
    let divergence = Divergence::read(file)?;
    if !run_dir.exists() {
        return Err(TrainError::RunDir {
            message: "there is no run to replay an update of".to_owned(),
            hint: Some("name the directory of the run with `--run-dir`".to_owned()),
            path: run_dir.path().to_owned(),
        });
    }
    let plan = run_dir.resume(task, config)?;
    let dataset = Dataset::open(&config.data, plan.model.network.image_size)?;
    same_data(&plan.facts, &dataset.facts())?;
    plan.train.precision.check(&device)?;
    // Its name alone, so that a file from elsewhere leads nowhere else.
    let beside = divergence.state.as_deref().and_then(Path::file_name);
    let checkpoint = match beside.map(|name| file.with_file_name(name)) {
        Some(path) => Some(Checkpoint::read(&path)?),
        None => checkpoint::list(&run_dir.checkpoints())?
            .iter()
            .filter(|path| checkpoint::step_of(path).is_some_and(|step| step <= divergence.step))
            .find_map(|path| Checkpoint::read(path).ok()),
    };
    let initial = match (&checkpoint, task) {
        (None, Task::Finetune) => Some(read_init(config)?),
        _ => None,
    };
    let trainer = Trainer {
        workers: dataset::workers(&config.data),
        queue_bytes: dataset::queue_bytes(&config.data),
        dataset,
        run_dir,
        device,
        plan,
        time_limit: None,
    };
    let start = || starting_weights(&trainer.plan, initial);
    let from = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.state.step);
    say(format_args!("replaying update {} from step {from}", divergence.step));
    let replay = trainer.replay(&divergence, start, checkpoint)?;
    say(format_args!(
        "in the run, {} was {} at this update",
        divergence.quantity, divergence.value
    ));
    if let Some(Values { step, loss, grad_norm }) = divergence.last_finite {
        say(format_args!("finite last at step {step}: loss {loss}, gradient norm {grad_norm}"));
    }
    if !replay.is_same_batch {
        say("warning: the batch does not hold the examples that the file names");
    }
    super::print(&replay.report())
}

/// Opens the data and resolves a new run.
pub(super) fn resolve(
    config: &RunConfig,
    task: Task,
    initial: Option<&Weights>,
) -> Result<(RunPlan, Dataset), TrainError> {
    let facts = initial.map(|weights| InitFacts {
        config: weights.config.clone(),
        metadata: weights.metadata.clone(),
    });
    let image_size = config
        .model
        .image_size
        .or(facts.as_ref().map(|facts| facts.config.image_size))
        .unwrap_or(224);
    let dataset = Dataset::open(&config.data, image_size)?;
    let plan = RunPlan::resolve(config, task, facts.as_ref(), dataset.facts())?;
    Ok((plan, dataset))
}

/// Reads the weights that fine-tuning starts from.
pub(super) fn read_init(config: &RunConfig) -> Result<Weights, TrainError> {
    let path = config.init.weights.as_deref().ok_or_else(|| {
        TrainError::config("`init.weights` is missing").with_hint(
            "name the weights with `--init`, or use `mixer pretrain` to start from scratch",
        )
    })?;
    run_dir::read_weights(path, config.model.gelu)
}

/// The weights of update 0.
fn starting_weights(plan: &RunPlan, initial: Option<Weights>) -> Result<Weights, TrainError> {
    let Some(weights) = initial else {
        return Ok(init::weights(
            &plan.model.network,
            plan.seed,
            plan.model.head_bias.unwrap_or_default(),
        )?);
    };
    let mut weights = weights.resized(plan.model.network.image_size)?;
    weights.config.gelu = plan.model.network.gelu;
    if plan.init.as_ref().is_some_and(|init| init.resets_head()) {
        weights = weights.with_fresh_head(
            plan.model.network.num_classes,
            plan.model.head_bias.unwrap_or_default(),
        );
    }
    Ok(weights)
}

fn same_data(planned: &DataFacts, found: &DataFacts) -> Result<(), TrainError> {
    let message = if planned.classes != found.classes {
        "the classes are not those that the run was started with".to_owned()
    } else if (planned.train_examples, planned.val_examples)
        != (found.train_examples, found.val_examples)
    {
        format!(
            "found {} training and {} validation examples, the run was started with {} and {}",
            found.train_examples, found.val_examples, planned.train_examples, planned.val_examples
        )
    } else if planned != found {
        "the names of the data files are not those that the run was started with".to_owned()
    } else {
        return Ok(());
    };
    Err(TrainError::DataMismatch {
        message,
        hint: Some("restore the data, or start another run with `--run-dir`".to_owned()),
    })
}

fn announce(plan: &RunPlan, run_dir: &RunDir, device: &str, resumed: Option<(&PathBuf, u64)>) {
    say(format_args!("{} on {device}", plan.model.network));
    if let Some(init) = &plan.init {
        let head = if init.resets_head() { "reset" } else { "kept" };
        say(format_args!(
            "from weights at {} px: token mixing {}, head {head}",
            init.from.config.image_size,
            init.resolution(&plan.model.network)
        ));
    }
    say(format_args!(
        "{} training and {} validation examples, {} updates of {} ({:.1} epochs)",
        plan.facts.train_examples,
        plan.facts.val_examples,
        plan.train.steps,
        plan.train.batch_size,
        plan.train.steps as f64 / plan.steps_per_epoch()
    ));
    if !plan.train.freeze.is_empty()
        && let Ok(rates) = plan.parameter_rates()
    {
        say(format_args!(
            "{} of {} parameters are trained",
            rates.num_trained(&plan.model.network),
            count::num_params(&plan.model.network)
        ));
    }
    say(format_args!("run directory {}", run_dir.path().display()));
    if let Some((path, step)) = resumed {
        say(format_args!("continuing at step {step} from {}", path.display()));
    }
}
