//! `mixer config check|show|schema|docs`.

mod assume;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use self::assume::Assumed;
use super::train;
use crate::config::inheritance::in_file_of_key;
use crate::config::model::IMAGE_SIZE;
use crate::config::{RunConfig, schema};
use crate::error::TrainError;
use crate::input::dataset::Dataset;
use crate::plan::shown::Origins;
use crate::plan::{InitFacts, RunPlan, Task};
use crate::show::progress::say;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration against itself and its data.
    Check(AssumingArgs),
    /// Print every value that a run of it would use and where it comes from, as a configuration.
    Show(AssumingArgs),
    /// Print the JSON Schema of configurations: every key with its meaning, range and default.
    Schema,
    /// Print docs/configuration.md: the same in Markdown.
    Docs,
}

#[derive(Debug, Args)]
pub(super) struct AssumingArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Assume data or weights instead of reading them: `classes=1000,train=1281167,val=50000`, and for
    /// fine-tuning `init=B/16@224`.
    #[arg(long, value_name = "FACTS")]
    assume: Option<Assumed>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct ConfigArgs {
    /// The TOML configuration.
    pub(super) config: PathBuf,
    /// Override a key; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
    /// Fine-tune these weights instead of `init.weights`.
    #[arg(long, value_name = "WEIGHTS")]
    pub(super) init: Option<PathBuf>,
}

pub(super) fn run(command: ConfigCommand) -> Result<(), TrainError> {
    match command {
        ConfigCommand::Check(args) => {
            plan(&args)?;
            super::print(&format!("{}: ok", args.config.config.display()))
        }
        ConfigCommand::Show(args) => {
            let (plan, origins) = plan(&args)?;
            super::print(&plan.shown(&args.config.config, &origins)?)
        }
        ConfigCommand::Schema => super::print_json(schema::schema()),
        ConfigCommand::Docs => super::print(schema::markdown().trim_end()),
    }
}

fn plan(args: &AssumingArgs) -> Result<(RunPlan, Origins), TrainError> {
    let ConfigArgs { config: path, overrides, init } = &args.config;
    let overrides = train::with_init(overrides, init.as_deref());
    let (config, _) = RunConfig::read(path, &overrides)?;
    let assumed = args.assume.clone().unwrap_or_default();
    let plan = assumed_plan(&config, &assumed).map_err(|error| in_file_of_key(error, path))?;
    for warning in plan.warnings() {
        say(format_args!("warning: {warning}"));
    }
    Ok((plan, Origins::read(path, &overrides, config)?))
}

/// The plan for what is assumed, and for what is there of the rest.
fn assumed_plan(config: &RunConfig, assumed: &Assumed) -> Result<RunPlan, TrainError> {
    let init = match (assumed.init(config)?, &config.init.weights) {
        (Some(assumed), _) => Some(assumed),
        (None, Some(_)) => {
            let weights = train::read_init(config)?;
            Some(InitFacts { config: weights.config, metadata: weights.metadata })
        }
        (None, None) => None,
    };
    let task = if init.is_some() { Task::Finetune } else { Task::Pretrain };
    let facts = match assumed.data(config)? {
        Some(facts) => facts,
        None => {
            let from = init.as_ref().map(|init| init.config.image_size);
            let image_size = config.model.image_size.or(from).unwrap_or(IMAGE_SIZE);
            Dataset::open(&config.data, image_size)?.facts()
        }
    };
    RunPlan::resolve(config, task, init.as_ref(), facts)
}

/// The plan of a configuration, and its data. One that names weights is a fine-tuning job.
pub(super) fn resolved(args: &ConfigArgs) -> Result<(RunPlan, Dataset), TrainError> {
    let overrides = train::with_init(&args.overrides, args.init.as_deref());
    let (config, _) = RunConfig::read(&args.config, &overrides)?;
    resolved_config(&config, &args.config)
}

/// The same of a configuration that was read from `path`.
pub(super) fn resolved_config(
    config: &RunConfig,
    path: &Path,
) -> Result<(RunPlan, Dataset), TrainError> {
    let (task, initial) = match config.init.weights {
        Some(_) => (Task::Finetune, Some(train::read_init(config)?)),
        None => (Task::Pretrain, None),
    };
    train::resolve(config, task, initial.as_ref()).map_err(|error| in_file_of_key(error, path))
}
