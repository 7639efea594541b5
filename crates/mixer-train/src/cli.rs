//! The command line: what each command takes. What it does is in the file of its name.

mod bench;
mod completions;
mod config;
mod data;
mod details;
mod devices;
mod evaluate;
mod features;
mod init;
mod memory_args;
mod predict;
mod probe;
mod report;
mod suggested;
mod summary;
mod sweep;
mod target;
mod train;
mod visualise;
mod weights;

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use mixer_model::{Gelu, Precision};

use crate::classifier::Classifier;
use crate::config::limits::MAX_WORKERS;
use crate::device::{self, DeviceEntry};
use crate::error::{TrainError, exit_code};
use crate::group::{self, Alone, Group, Place};
use crate::machine::{cores, machine_cores, share_machine};
use crate::run::interrupt;
use crate::show::console;
use crate::show::progress::{self, say, say_in_any_case, say_lines};
use crate::show::visible::{visible, visible_json, visible_lines};

/// Pre-train, fine-tune, evaluate and ship MLP-Mixer image classifiers.
#[derive(Debug, Parser)]
#[command(name = "mixer", version = VERSION.as_str(), arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads to compute with on a CPU [default: the cores]. Results do not depend on it.
    #[arg(long, global = true, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// The version, and the MPI that the binary was built with.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mpi = group::library().map_or(String::new(), |library| format!(" ({library})"));
    format!("{}{mpi}", env!("CARGO_PKG_VERSION"))
});

const EXIT_CODES: &str = "\
Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 unexpected, 2 usage or an environment variable, 3 config or \
run directory, 4 data, 5 weights, checkpoint or another file, 6 diverged, 7 device or vector instructions, 8 the processes of a run differ or one does not come, 130 interrupted with a \
checkpoint written.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a Mixer from scratch.
    ///
    /// Reads a TOML configuration, resolves it against the data and trains into a run directory. The
    /// same command again continues where the run stopped. With `--sweep` it is done with several values of
    /// a key, and a table compares the results. A folder of pictures in the place of the configuration is
    /// answered with one that trains on it, as by `mixer init`.
    #[command(after_help = "Example: mixer pretrain configs/quickstart.toml --set train.epochs=2")]
    Pretrain(train::PretrainArgs),
    /// Fine-tune given weights, at any resolution and on any classes.
    ///
    /// Token mixing is expanded when the configuration's `model.image_size` differs from the weights':
    /// exactly for a multiple, by interpolation otherwise. The head is reset when the classes differ.
    /// With `--sweep` it is done with several values of a key, and a table compares the results.
    #[command(
        after_help = "Example: mixer finetune configs/finetune/cifar10_64px.toml --init runs/cifar10_mixer"
    )]
    Finetune(train::FinetuneArgs),
    /// Write the configuration that trains on a folder of pictures.
    ///
    /// Looks at the pictures, and chooses splits, sizes, network, batch and length: for a small folder what a
    /// CPU trains in minutes. `mixer pretrain DIR` prints the same.
    #[command(
        after_help = "Example: mixer init photos > photos.toml && mixer pretrain photos.toml"
    )]
    Init(init::InitArgs),
    /// Measure loss and accuracy on a split of a folder.
    Evaluate(evaluate::EvaluateArgs),
    /// Classify pictures.
    Predict(predict::PredictArgs),
    /// Measure how good the features are: few-shot linear probe, nearest neighbours.
    #[command(
        after_help = "Example: mixer probe runs/in21k --train pets/train --test pets/test --shots 5"
    )]
    Probe(probe::ProbeArgs),
    /// Write the features of pictures: what the network makes of them before its head.
    #[command(after_help = "Example: mixer features runs/in21k pets/train --out pets_train.npy")]
    Features(features::FeaturesArgs),
    /// Write a page about runs: curves, what differs, results, pictures. It opens from disk.
    #[command(after_help = "Example: mixer report runs/a runs/b --out comparison.html")]
    Report(report::ReportArgs),
    /// List the runs below a folder: how far they have come, and in which keys they differ.
    Runs(report::RunsArgs),
    /// Draw what weights look for, and which patches a prediction rests on.
    #[command(
        after_help = "Example: mixer visualise runs/pets --out pictures --pictures cat.jpg dog.jpg"
    )]
    Visualise(visualise::VisualiseArgs),
    /// Measure the speed of training, of inference or of reading data here.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Parameters, products and memory of an architecture.
    Summary(summary::SummaryArgs),
    /// Look into, convert or resize weights files.
    #[command(subcommand)]
    Weights(weights::WeightsCommand),
    /// Look at data, draw what training sees of it, and write it as shards.
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Check and explain configurations.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// List the devices that this binary can use here.
    Devices(devices::DevicesArgs),
    /// Print a shell completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// The device to compute on.
#[derive(Debug, Clone, Args)]
struct DeviceArg {
    /// auto, cpu, flex, ndarray, vulkan[:N], wgpu[:N] or cuda[:N]; see `mixer devices`.
    #[arg(
        long,
        default_value = "auto",
        value_name = "DEV",
        value_parser = suggested::device(),
        hide_possible_values = true
    )]
    device: String,
}

impl DeviceArg {
    /// Opens it, and says on stderr what somebody who expects a GPU should know.
    fn open(&self) -> Result<DeviceEntry, TrainError> {
        self.open_as(Alone.local())
    }

    /// Opens that of a process: where it has no number and there are several, that of its place on the
    /// machine.
    fn open_as(&self, place: Place) -> Result<DeviceEntry, TrainError> {
        start_threads(if place.size > 1 { cores() } else { 0 })?;
        let entry = device::open_as(&self.device, place)?;
        if let Some(note) = device::note(&self.device, &entry) {
            say(format!("note: {note}"));
        }
        Ok(entry)
    }
}

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// A value of an argument, its name, and its line in `--help`.
type Named<T> = (T, &'static str, &'static str);

/// Takes one of a few values by its name.
fn one_of<T: Copy + Send + Sync + 'static>(
    values: &'static [Named<T>],
) -> impl TypedValueParser<Value = T> {
    let names = values.iter().map(|(_, name, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(names).try_map(|found| {
        let value = values.iter().find(|(_, name, _)| *name == found);
        value.map(|(value, ..)| *value).ok_or("no such value")
    })
}

/// Takes a form of GELU.
fn gelu() -> impl TypedValueParser<Value = Gelu> {
    one_of(&[
        (Gelu::Tanh, "tanh", "The official JAX code's"),
        (Gelu::Erf, "erf", "PyTorch's default, and timm's"),
    ])
}

/// Takes a precision.
fn precision() -> impl TypedValueParser<Value = Precision> {
    one_of(&[
        (Precision::F32, "f32", "Not rounded"),
        (Precision::Bf16, "bf16", "For GPUs, and CPUs that multiply it (AVX512-BF16)"),
        (Precision::F16, "f16", "With loss scaling: for GPUs that have no bf16"),
    ])
}

/// Preprocessing on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum PreprocessArg {
    /// Shorter side ÷ 0.875, then a centre crop.
    ResmallCrop,
    /// Straight to the model's size.
    Squash,
}

/// The weights of a command that reads some.
#[derive(Debug, Clone, Args)]
struct WeightsArg {
    /// A run directory, that of a sweep (its winner), or a .safetensors, .npz or .pth file.
    #[arg(value_name = "WEIGHTS")]
    weights: PathBuf,
    /// Override the form of GELU [default: the file's; tanh for .npz, erf for timm's files].
    #[arg(long, value_parser = gelu())]
    gelu: Option<Gelu>,
    /// Class names in the order of the outputs, a line each [default: the file's]. With `evaluate`, `present`
    /// compares only the classes that occur (ImageNet-A and -R have 200 of the 1000).
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
}

impl WeightsArg {
    fn read(&self) -> Result<mixer_model::Weights, TrainError> {
        let mut weights = crate::disk::run_dir::read_weights(&self.weights, self.gelu)?;
        if self.gelu.is_some() && !weights.config.has_tokens() {
            let network = &weights.config;
            return Err(TrainError::usage(format!(
                "`--gelu`, but the weights are {network}, with ReLU"
            )));
        }
        if let Some(file) = &self.classes {
            let names = class_names(file)?;
            let expected = weights.config.num_classes;
            if names.len() != expected {
                let message = format!(
                    "{} class names, the weights have {expected} classes: {}",
                    names.len(),
                    file.display()
                );
                return Err(TrainError::usage(message).with_hint(
                    "`--classes` takes a name for each output, in their order, a line each",
                ));
            }
            weights.metadata.classes = Some(names);
        }
        Ok(weights)
    }
}

/// Reads the class names of `--classes`, a line each; an empty last line is none.
fn class_names(file: &Path) -> Result<Vec<String>, TrainError> {
    let text =
        fs_err::read_to_string(file).map_err(|error| TrainError::usage(error.to_string()))?;
    let text = text.trim_start_matches('\u{feff}').trim_end();
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    for (line, name) in names.iter().enumerate() {
        let message = if name.is_empty() {
            format!("line {} is empty, expected a class name: {}", line + 1, file.display())
        } else if let Some(first) =
            names.iter().position(|found| found == name).filter(|n| *n < line)
        {
            format!(
                "lines {} and {} are the same class name `{}`: {}",
                first + 1,
                line + 1,
                name.escape_debug(),
                file.display()
            )
        } else {
            continue;
        };
        return Err(TrainError::usage(message));
    }
    Ok(names)
}

/// The weights of a command that computes with some, and how.
#[derive(Debug, Clone, Args)]
struct ClassifierArgs {
    #[command(flatten)]
    weights: WeightsArg,
    /// Preparation of pictures [default: as the weights say, else resmall-crop].
    #[arg(long, value_enum)]
    preprocess: Option<PreprocessArg>,
    /// Precision that the operands of the blocks' products are rounded to.
    #[arg(long, value_parser = precision(), default_value_t = Precision::F32)]
    precision: Precision,
}

impl ClassifierArgs {
    /// The argument that names the weights.
    fn weights(&self) -> &Path {
        &self.weights.weights
    }

    fn read(&self) -> Result<mixer_model::Weights, TrainError> {
        self.weights.read()
    }

    fn open(&self, device: &DeviceEntry) -> Result<Classifier, TrainError> {
        use mixer_model::weights::ResizeRule;
        let weights = self.read()?;
        let mut rule = weights.metadata.preprocessing.unwrap_or_default();
        match self.preprocess {
            None => {}
            Some(PreprocessArg::Squash) => rule.resize = ResizeRule::Squash,
            Some(PreprocessArg::ResmallCrop) => {
                rule.resize = ResizeRule::ResmallCrop { fraction: 0.875 }
            }
        }
        Classifier::new(weights, device)?.with_preprocessing(rule).with_precision(self.precision)
    }
}

/// The commands with their arguments, for what reads them: completions, and whoever checks a command.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        if mixer_data::panics_are_caught() {
            return;
        }
        say_lines(format_args!("error: unexpected: {info}"));
        say("hint: this is a bug in mixer; please report it with the command that you ran");
    }));
    interrupt::ignore_size_limit();
    let code = run_command_line();
    // Unless nobody reads them.
    progress::flush(Duration::from_secs(2));
    ExitCode::from(code)
}

fn run_command_line() -> u8 {
    let result = match Cli::try_parse() {
        Ok(cli) => match environment_can_be_followed().and_then(|()| join(&cli.command)) {
            Ok(group) if group.size() > 1 => return run_together(cli, &group),
            joined => std::panic::catch_unwind(AssertUnwindSafe(|| {
                use_threads(cli.threads)?;
                run(cli.command, &joined?)
            })),
        },
        Err(error) => {
            // Help and version are no errors: clap prints them to stdout and says so in its code.
            let code = if error.use_stderr() { exit_code::USAGE } else { exit_code::OK };
            drop(error.print());
            return code;
        }
    };
    match result {
        Ok(Ok(())) => exit_code::OK,
        Ok(Err(error)) if is_closed_pipe(&error) => exit_code::OK,
        Ok(Err(error)) => {
            say_lines(told(&error, None));
            error.exit_code()
        }
        Err(_) => exit_code::UNEXPECTED,
    }
}

/// An error and its advice, as lines; of several processes, that of the one of this name.
fn told(error: &TrainError, who: Option<&str>) -> String {
    let who = who.map_or(String::new(), |who| format!("{who}: "));
    let message = match error {
        // It shows a piece of the file.
        TrainError::Config { .. } => visible_lines(&error.to_string()).into_owned(),
        error => visible(&error.to_string()).into_owned(),
    };
    let hint = error.hint().map_or(String::new(), |hint| format!("\nhint: {}", visible(&hint)));
    format!("error: {who}{message}{hint}")
}

/// Refuses values of `MIXER_SIMD` and `MIXER_CUDA` that cannot be followed.
fn environment_can_be_followed() -> Result<(), TrainError> {
    #[cfg(feature = "flex")]
    if let Err(error) = mixer_kernels::wanted_instruction_set() {
        let message = error.to_string();
        let hint = Some("`unset MIXER_SIMD` takes the best that the processor has".to_owned());
        return Err(match error {
            mixer_kernels::InstructionSetError::Unknown(_) => TrainError::Usage { message, hint },
            mixer_kernels::InstructionSetError::Missing(_) => TrainError::Device { message, hint },
        });
    }
    #[cfg(feature = "cuda")]
    if let Err(value) = mixer_kernels::cuda_kernels_are_ours() {
        let message = format!("environment variable MIXER_CUDA is `{value}`, expected `burn`");
        return Err(
            TrainError::usage(message).with_hint("`unset MIXER_CUDA` takes the kernels by hand")
        );
    }
    Ok(())
}

/// The processes that a command runs in: training may have several.
fn join(command: &Command) -> Result<Rc<dyn Group>, TrainError> {
    match command {
        Command::Pretrain(_) | Command::Finetune(_) => group::join(),
        _ => group::refuse_several().map(|()| Rc::new(Alone) as Rc<dyn Group>),
    }
}

/// Time that a process which has come to its end waits for the others to come to theirs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a command as one of several processes, and ends together with them. One that cannot, because the
/// others do not come to their end, ends all.
fn run_together(cli: Cli, group: &Rc<dyn Group>) -> u8 {
    interrupt::one_of_several();
    share_machine(group.local().size);
    if group.rank() > 0 {
        console::hush();
    } else {
        warn_of_binding(group.local().size);
    }
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
        use_threads(cli.threads)?;
        run(cli.command, group)
    }));
    let Ok(result) = result else {
        say_in_any_case(format_args!("error: {} has panicked", group::name(&**group)));
        progress::flush(Duration::from_secs(1));
        group.abort(exit_code::UNEXPECTED);
    };
    let code = result.as_ref().map_or_else(TrainError::exit_code, |()| exit_code::OK);
    // What all have met, one tells; and who has failed by himself, tells who he is.
    let is_mine =
        |error: &TrainError| group.rank() == 0 || !matches!(error, TrainError::Interrupted { .. });
    let error = result
        .as_ref()
        .err()
        .filter(|error| !matches!(error, TrainError::Elsewhere { .. }) && is_mine(error));
    let own = error.map(ToString::to_string).unwrap_or_default();
    let mut words = group.leave(own.as_bytes(), PATIENCE);
    let is_told = words.as_ref().is_some_and(|words| {
        words.iter().take(group.rank()).any(|word| word.as_slice() == own.as_bytes())
    });
    if let Some(error) = error.filter(|_| !is_told) {
        let who = (group.rank() > 0).then(|| group::name(&**group));
        say_in_any_case(told(error, who.as_deref()));
    }
    // Once more, when everything is said: a launcher ends the others as soon as one has exited.
    if words.is_some() {
        progress::flush(Duration::from_secs(1));
        words = group.leave(&[], PATIENCE);
    }
    if words.is_none() {
        progress::flush(Duration::from_secs(1));
        group.abort(code);
    }
    code
}

/// Says where a launcher has bound this process to fewer cores than its share of the machine.
fn warn_of_binding(processes: usize) {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let share = machine_cores().map_or(1, |cores| (cores / processes).max(1));
    if allowed < share {
        say(format_args!(
            "warning: the launcher has bound this process to {allowed} cores, its share of the machine is \
             {share}: `mpirun --bind-to none`, `srun --cpus-per-task={share}`"
        ));
    }
}

/// Makes the pool of threads that the CPU backends share, of as many as were asked for.
fn use_threads(threads: Option<NonZeroUsize>) -> Result<(), TrainError> {
    let Some(threads) = threads.map(NonZeroUsize::get) else { return Ok(()) };
    if threads > MAX_WORKERS {
        let message = format!("`--threads` is {threads}, expected at most {MAX_WORKERS}");
        return Err(TrainError::usage(message));
    }
    start_threads(threads)
}

/// Starts that pool, where there is none yet: it would start by itself, and panic where it cannot. 0 means as
/// many threads as there are cores.
fn start_threads(threads: usize) -> Result<(), TrainError> {
    use std::error::Error;
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        // Without a source, the error is that there is one already.
        Err(error) if error.source().is_some() => {
            Err(TrainError::Thread { source: std::io::Error::other(error) })
        }
        _ => Ok(()),
    }
}

fn run(command: Command, group: &Rc<dyn Group>) -> Result<(), TrainError> {
    match command {
        Command::Pretrain(args) => train::pretrain(&args, group),
        Command::Finetune(args) => train::finetune(&args, group),
        Command::Init(args) => init::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Features(args) => features::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Runs(args) => report::list(&args),
        Command::Visualise(args) => visualise::run(&args),
        Command::Bench(command) => bench::run(&command),
        Command::Summary(args) => summary::run(&args),
        Command::Weights(command) => weights::run(command),
        Command::Data(command) => data::run(command),
        Command::Config(command) => config::run(command),
        Command::Devices(args) => devices::run(&args),
        Command::Completions { shell } => completions::run(shell, &mut self::command()),
    }
}

/// `mixer … | head` closes stdout early, which is no failure.
fn is_closed_pipe(error: &TrainError) -> bool {
    matches!(error, TrainError::Io(source) if source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Writes a text for people to stdout, and ends its last line.
fn print(text: &str) -> Result<(), TrainError> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    print_exactly(&format!("{}{end}", visible_lines(text)))
}

/// Writes data to stdout. A terminal obeys nothing that is in it.
fn print_exactly(text: &str) -> Result<(), TrainError> {
    let mut stdout = std::io::stdout().lock();
    let text = if stdout.is_terminal() { visible_lines(text) } else { text.into() };
    let written = stdout.write_all(text.as_bytes());
    written.and_then(|()| stdout.flush()).map_err(|error| {
        let message = format!("cannot write to stdout: {error}");
        TrainError::Io(std::io::Error::new(error.kind(), message))
    })
}

/// Writes a value to stdout as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), TrainError> {
    print(&json(value)?)
}

/// A value as JSON over several lines.
fn json(value: &impl serde::Serialize) -> Result<String, TrainError> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::other)?;
    Ok(visible_json(&text).into_owned())
}
