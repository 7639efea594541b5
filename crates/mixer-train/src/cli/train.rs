//! `mixer pretrain` and `mixer finetune`.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use mixer_model::count;

use super::{DeviceArg, init, suggested, sweep};
use crate::config::DataKind;
use crate::error::TrainError;
use crate::group::{Alone, Group, verdict};
use crate::plan::Task;
use crate::run::divergence::Values;
use crate::run::interrupt;
use crate::run::job::Job;
use crate::run::recipe::Recipe;
use crate::run::session::{Options, Resume, Session};
use crate::run::time_limit::{self, TimeLimit};
use crate::run::trainer::{Ended, Outcome};
use crate::show::progress::say;
use crate::show::shell;

#[derive(Debug, Clone, Args)]
pub(super) struct TrainArgs {
    /// The TOML configuration; `mixer config schema` describes every key.
    pub(super) config: PathBuf,
    /// Directory of the run [default: runs/ and the configuration's name].
    #[arg(long, value_name = "DIR")]
    pub(super) run_dir: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    /// Override a key of the configuration; may be repeated.
    #[arg(
        long = "set",
        value_name = "KEY=VALUE",
        value_parser = suggested::setting(),
        hide_possible_values = true
    )]
    pub(super) overrides: Vec<String>,
    /// End the run so early that it is over, checkpoint and all, when this time has passed since the
    /// command was started, as `3h50m` or `90s`; the exit code is 0, and the same command continues it.
    #[arg(long, value_name = "TIME", value_parser = time_limit::parse)]
    pub(super) max_time: Option<Duration>,
    /// Do an update that was not finite again, and report which examples and parameters it came from:
    /// the file that the run named when it stopped. Nothing is trained.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["max_time", "resume"])]
    pub(super) replay: Option<PathBuf>,
    /// Fate of a run that the directory holds already.
    #[arg(long, value_enum, default_value_t)]
    pub(super) resume: Resume,
    /// Go on with the run that is there for a larger `train.epochs` or `train.steps`: weights, moments and
    /// position continue, the learning rate follows the new length (or `schedule.rewarm_steps`).
    #[arg(long, conflicts_with = "replay")]
    pub(super) extend: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct FinetuneArgs {
    #[command(flatten)]
    pub(super) train: TrainArgs,
    /// Start from these weights instead of `init.weights`.
    #[arg(long, value_name = "WEIGHTS")]
    init: Option<PathBuf>,
    #[command(flatten)]
    pub(super) sweep: SweepArg,
}

#[derive(Debug, Clone, Args)]
pub(super) struct PretrainArgs {
    #[command(flatten)]
    train: TrainArgs,
    #[command(flatten)]
    sweep: SweepArg,
}

/// Several runs in the place of one.
#[derive(Debug, Clone, Args)]
pub(super) struct SweepArg {
    /// Train once with each value, in RUN_DIR/KEY=VALUE, and compare; `lr` is short for
    /// `optimizer.learning_rate`. Repeated, all combinations.
    #[arg(
        long = "sweep",
        value_name = "KEY=VALUE,…",
        value_parser = suggested::setting(),
        hide_possible_values = true
    )]
    pub(super) entries: Vec<String>,
}

pub(super) fn pretrain(args: &PretrainArgs, group: &Rc<dyn Group>) -> Result<(), TrainError> {
    let PretrainArgs { train, sweep } = args.clone();
    train_as(&FinetuneArgs { train, init: None, sweep }, Task::Pretrain, group)
}

pub(super) fn finetune(args: &FinetuneArgs, group: &Rc<dyn Group>) -> Result<(), TrainError> {
    train_as(args, Task::Finetune, group)
}

fn train_as(args: &FinetuneArgs, task: Task, group: &Rc<dyn Group>) -> Result<(), TrainError> {
    let alone = if args.train.config.is_dir() {
        Some("a folder in the place of the configuration")
    } else if !args.sweep.entries.is_empty() {
        Some("`--sweep`")
    } else if args.train.replay.is_some() {
        Some("`--replay`")
    } else {
        None
    };
    if let Some(what) = alone.filter(|_| group.size() > 1) {
        let message = format!("{what} is for one process, {} were started", group.size());
        return Err(TrainError::usage(message).with_hint("start it without the launcher"));
    }
    if args.train.config.is_dir() {
        return init::propose(&args.train.config, args.init.as_deref());
    }
    if !args.sweep.entries.is_empty() {
        return sweep::run(args, task);
    }
    // A file or a device that one of them has not, is said by it before the others wait.
    let own = args.recipe().and_then(|recipe| {
        let options = args.train.options_in(args.train.time_limit(), Rc::clone(group))?;
        Ok((recipe, options))
    });
    let (recipe, options) = verdict::all(&**group, own)?;
    match &args.train.replay {
        Some(file) => replay(&recipe, task, options, file),
        None => {
            let session = open(&recipe, task, options)?;
            let next = next_commands(&session);
            if !matches!(train_to_end(session)?, Ended::TimeLimit(_)) {
                next.iter().for_each(say);
            }
            Ok(())
        }
    }
}

/// The weights of a run, and the commands that evaluate them, look at the run and predict with it. What is
/// printed works when it is typed where the run was started.
fn next_commands(session: &Session) -> [String; 4] {
    let Job { plan, dataset, run_dir, .. } = session.job();
    let (program, run) = (shell::program(), shell::word(run_dir.path()));
    let predict = |pictures: &Path| format!("{program} predict {run} {}", shell::word(pictures));
    let picture = dataset.val.describe(0);
    let predict = if Path::new(&picture).is_file() {
        predict(Path::new(&picture))
    } else if plan.data.source == Some(DataKind::Builtin) {
        let shapes = Path::new("shapes/val");
        if shapes.is_dir() {
            predict(shapes)
        } else {
            let names = (1..).map(|n| if n == 1 { "shapes".into() } else { format!("shapes_{n}") });
            let folder = names.map(PathBuf::from).find(|name| !name.exists()).unwrap_or_default();
            format!(
                "{program} data synthesise --out {} --image-size {} && {}",
                shell::word(&folder),
                plan.model.network.image_size,
                predict(&folder.join("val"))
            )
        }
    } else {
        // The pictures are inside of other files.
        format!("with pictures or folders behind it: {program} predict {run}")
    };
    [
        format!("weights   {}", run_dir.best().display()),
        format!("evaluate  {program} evaluate {run} --details"),
        format!("look      {program} report {run} --out report.html"),
        format!("predict   {predict}"),
    ]
}

impl TrainArgs {
    /// Time by which the command that has just been started has to be over.
    pub(super) fn time_limit(&self) -> Option<TimeLimit> {
        self.max_time.and_then(|length| TimeLimit::after(Instant::now(), length))
    }

    /// Directory of the run.
    pub(super) fn run_directory(&self) -> PathBuf {
        match &self.run_dir {
            Some(path) => path.clone(),
            None => Path::new("runs").join(self.config.file_stem().unwrap_or_default()),
        }
    }

    /// Directory and device of the run; listens to signals before the device is opened.
    pub(super) fn options(&self, time_limit: Option<TimeLimit>) -> Result<Options, TrainError> {
        self.options_in(time_limit, Rc::new(Alone))
    }

    /// The same for one of several processes.
    fn options_in(
        &self,
        time_limit: Option<TimeLimit>,
        group: Rc<dyn Group>,
    ) -> Result<Options, TrainError> {
        interrupt::listen();
        let device = self.device.open_as(group.local())?;
        let options = Options::new(self.run_directory(), device);
        let Self { resume, extend, .. } = *self;
        Ok(Options { resume, extend, time_limit, group, ..options })
    }
}

impl FinetuneArgs {
    /// The configuration with its overrides, `--init` as one of them.
    pub(super) fn recipe(&self) -> Result<Recipe, TrainError> {
        let overrides = with_init(&self.train.overrides, self.init.as_deref());
        Recipe::read(&self.train.config, &overrides)
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

/// Trains, from the start or from where the run was stopped, and says how it went.
pub(super) fn train(recipe: &Recipe, task: Task, options: Options) -> Result<Ended, TrainError> {
    train_to_end(open(recipe, task, options)?)
}

fn open(recipe: &Recipe, task: Task, options: Options) -> Result<Session, TrainError> {
    let session = Session::open(recipe, task, options)?;
    let Job { plan, dataset, .. } = session.job();
    for warning in plan.warnings().into_iter().chain(dataset.remarks()) {
        say(format_args!("warning: {warning}"));
    }
    announce(&session);
    Ok(session)
}

fn train_to_end(session: Session) -> Result<Ended, TrainError> {
    let total = session.job().plan.train.steps;
    let patience = session.job().plan.train.early_stopping.map(|rule| rule.patience);
    let outcome = session.train()?;
    summarise(&outcome, total, patience);
    Ok(outcome.ended)
}

/// Says how a run ended.
fn summarise(outcome: &Outcome, total: u64, patience: Option<u64>) {
    let step = outcome.step;
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
    match (&outcome.ended, patience) {
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
        (Ended::StoppedEarly, Some(patience)) => say(format_args!(
            "stopped early at step {step} of {total}: top-1 has not improved in {patience} evaluations"
        )),
        _ => {}
    }
    if let Some((step, best)) = outcome.best {
        // Without an evaluation nothing was left to do.
        let done = match outcome.last {
            Some(_) => format!("done in {seconds:.0} s"),
            None => "already done".to_owned(),
        };
        say(format_args!("{done}: best top-1 {:.2} % at step {step}", 100.0 * best.top1));
    }
}

/// Does an update that was not finite again, and prints what it came from.
fn replay(recipe: &Recipe, task: Task, options: Options, file: &Path) -> Result<(), TrainError> {
    let replay = Session::replay(recipe, task, options, file)?;
    let divergence = &replay.divergence;
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

/// Says what is trained, on what and where.
fn announce(session: &Session) {
    let Job { plan, run_dir, device, .. } = session.job();
    say(format_args!("{} on {}", plan.model.network, device.name));
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
    if let Some((path, step)) = session.continues_from() {
        say(format_args!("continuing at step {step} from {}", path.display()));
    }
}
