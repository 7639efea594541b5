//! `mixer init`, and what `mixer pretrain` and `mixer finetune` say to a folder.

mod proposal;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use self::proposal::Proposal;
use crate::disk::run_dir;
use crate::error::TrainError;
use crate::plan::InitFacts;
use crate::show::progress::{Progress, say};
use crate::show::shell;

#[derive(Debug, Clone, Args)]
pub(super) struct InitArgs {
    /// The folder: `train/` and `val/` (or `test/`), class folders, tar shards, Parquet files or a list.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,
    /// Fine-tune these weights, which reaches more than training from scratch.
    #[arg(long, value_name = "WEIGHTS")]
    init: Option<PathBuf>,
}

pub(super) fn run(args: &InitArgs) -> Result<(), TrainError> {
    if !args.folder.is_dir() {
        let message = format!("found no folder: {}", args.folder.display());
        return Err(TrainError::usage(message)
            .with_hint("name the folder that holds the pictures, or that of `train/` and `val/`"));
    }
    propose(&args.folder, args.init.as_deref())
}

/// Prints the configuration that trains on a folder, and how to use it.
pub(super) fn propose(folder: &Path, init: Option<&Path>) -> Result<(), TrainError> {
    let facts = init.map(|path| run_dir::read_weights(path, None)).transpose()?;
    let facts = facts.as_ref().map(InitFacts::of);
    let mut bar: Option<Progress> = None;
    let proposal = Proposal::of(folder, init.zip(facts.as_ref()), |done, total| {
        bar.get_or_insert_with(|| Progress::new("picture", total, 0)).update(done);
    })?;
    if let Some(bar) = bar {
        bar.finish();
    }
    super::print(&proposal.text)?;
    for note in &proposal.notes {
        say(note);
    }
    let command = proposal.task.command();
    // In a redirection the file has a name already.
    if std::io::stdout().is_terminal() {
        let name = folder.canonicalize().ok();
        let name = name.as_deref().and_then(Path::file_name).unwrap_or("pictures".as_ref());
        let file = shell::word(&Path::new(name).with_added_extension("toml"));
        let init = init.map_or(String::new(), |path| format!(" --init {}", shell::word(path)));
        let program = shell::program();
        say(format_args!("save it    {program} init {}{init} > {file}", shell::word(folder)));
        say(format_args!("train      {program} {command} {file}"));
    } else {
        say(format_args!("train with `mixer {command}` and the file that this is written to"));
    }
    Ok(())
}
