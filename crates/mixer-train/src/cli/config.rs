//! `mixer config check|show|schema`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::train;
use crate::config::RunConfig;
use crate::config::inheritance::in_file_of_key;
use crate::error::TrainError;
use crate::input::dataset::Dataset;
use crate::plan::{RunPlan, Task};
use crate::show::progress::say;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration against itself and its data.
    Check(ConfigArgs),
    /// Print every value that a run of it would use.
    Show(ConfigArgs),
    /// Print the JSON Schema of configurations: every key with its meaning and default.
    Schema,
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
            super::print(&format!("{}: ok", args.config.display()))
        }
        ConfigCommand::Show(args) => super::print(&plan(&args)?.to_toml()?),
        ConfigCommand::Schema => super::print_json(&schemars::schema_for!(RunConfig)),
    }
}

fn plan(args: &ConfigArgs) -> Result<RunPlan, TrainError> {
    let (plan, _) = resolved(args)?;
    for warning in plan.warnings() {
        say(format_args!("warning: {warning}"));
    }
    Ok(plan)
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
