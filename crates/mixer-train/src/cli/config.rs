//! `mixer config check|show|schema`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::train;
use crate::config::RunConfig;
use crate::error::TrainError;
use crate::input::dataset::Dataset;
use crate::plan::RunPlan;
use crate::run::session::Recipe;
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
    let recipe = Recipe::read(&args.config, &overrides)?;
    recipe.resolve_by_itself()
}
