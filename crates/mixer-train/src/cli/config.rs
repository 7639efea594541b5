//! `mixer config check|show|schema|docs`.

mod assume;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use self::assume::Assumed;
use super::{suggested, train};
use crate::config::schema;
use crate::error::TrainError;
use crate::input::dataset::Dataset;
use crate::plan::shown::Origins;
use crate::plan::{InitFacts, RunPlan, Task};
use crate::run::recipe::Recipe;
use crate::show::progress::say;
use crate::show::visible::visible;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration against itself and its data.
    Check(AssumingArgs),
    /// Print every value that a run of it would use and where it comes from, as a configuration.
    Show {
        #[command(flatten)]
        config: AssumingArgs,
        /// Form of the result: TOML with the origin of each value, or JSON without.
        #[arg(long, value_enum, default_value_t)]
        format: ShownFormat,
    },
    /// Print the JSON Schema of configurations: every key with its meaning, range and default.
    Schema,
    /// Print docs/configuration.md: the same in Markdown.
    Docs,
}

/// Form of a configuration that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum ShownFormat {
    /// As it is typed.
    #[default]
    Toml,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct AssumingArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Assume data or weights instead of reading them: `classes=1000,train=1281167,val=50000`, and for
    /// fine-tuning `init=B/16@224`, for distillation `teacher=B/16@224`.
    #[arg(long, value_name = "FACTS")]
    assume: Option<Assumed>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct ConfigArgs {
    /// The TOML configuration.
    pub(super) config: PathBuf,
    /// Override a key; may be repeated.
    #[arg(
        long = "set",
        value_name = "KEY=VALUE",
        value_parser = suggested::setting(),
        hide_possible_values = true
    )]
    pub(super) overrides: Vec<String>,
    /// Fine-tune these weights instead of `init.weights`.
    #[arg(long, value_name = "WEIGHTS")]
    pub(super) init: Option<PathBuf>,
}

pub(super) fn run(command: ConfigCommand) -> Result<(), TrainError> {
    match command {
        ConfigCommand::Check(args) => {
            plan(&args)?;
            let file = args.config.config.display().to_string();
            super::print(&format!("{}: ok", visible(&file)))
        }
        ConfigCommand::Show { config: args, format } => {
            let (plan, origins) = plan(&args)?;
            let text = plan.shown(&args.config.config, &origins)?;
            match format {
                ShownFormat::Toml => super::print(&text),
                // Of the text, whose numbers are the shortest that mean the values.
                ShownFormat::Json => {
                    let table: Result<toml::Table, _> = text.parse();
                    super::print_json(&table.map_err(std::io::Error::other)?)
                }
            }
        }
        ConfigCommand::Schema => super::print_json(schema::schema()),
        ConfigCommand::Docs => super::print(schema::markdown().trim_end()),
    }
}

fn plan(args: &AssumingArgs) -> Result<(RunPlan, Origins), TrainError> {
    let ConfigArgs { config: path, overrides, init } = &args.config;
    let overrides = train::with_init(overrides, init.as_deref());
    let recipe = Recipe::read(path, &overrides)?;
    let (plan, remarks) = assumed_plan(&recipe, &args.assume.clone().unwrap_or_default())
        .map_err(|error| recipe.in_file(error))?;
    for warning in plan.warnings().into_iter().chain(remarks) {
        say(format_args!("warning: {warning}"));
    }
    Ok((plan, Origins::read(path, &overrides, recipe.config)?))
}

/// The plan for what is assumed, and for what is there of the rest; and remarks on data that are there.
fn assumed_plan(recipe: &Recipe, assumed: &Assumed) -> Result<(RunPlan, Vec<String>), TrainError> {
    let config = &recipe.config;
    let init = match assumed.init(config)? {
        Some(assumed) => Some(assumed),
        None if recipe.task() == Task::Finetune => Some(InitFacts::of(&recipe.read_init()?)),
        None => None,
    };
    let task = if init.is_some() { Task::Finetune } else { Task::Pretrain };
    let (facts, remarks) = match assumed.data(config)? {
        Some(facts) => (facts, Vec::new()),
        None => {
            let dataset = Dataset::open(&config.data, recipe.image_size(init.as_ref()))?;
            (dataset.facts(), dataset.remarks())
        }
    };
    let teacher = match assumed.teacher(config, &facts)? {
        Some(assumed) => Some(assumed),
        None => recipe.read_teacher()?.as_ref().map(InitFacts::of),
    };
    let plan = recipe.plan(task, init.as_ref(), facts)?;
    Ok((recipe.taught(plan, teacher.as_ref())?, remarks))
}

/// The plan of a configuration, and its data. One that names weights is a fine-tuning job.
pub(super) fn resolved(args: &ConfigArgs) -> Result<(RunPlan, Dataset), TrainError> {
    let overrides = train::with_init(&args.overrides, args.init.as_deref());
    Recipe::read(&args.config, &overrides)?.resolve_by_itself()
}
