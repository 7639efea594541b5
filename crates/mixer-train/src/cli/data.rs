//! `mixer data inspect|sheet|index|shard|synthesise|verify`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use fs_err as fs;
use mixer_data::{
    DataError, DecodeOptions, IndexState, Inspection, OnCorrupt, PictureFormat, ShardManifest,
    ShardSource, ShardWriterConfig, Source, Synthesis, contact_sheet, inspect, open_split,
    png_bytes, remarks, verify_shards, write_builtin, write_shards,
};

use super::Format;
use super::config::{self, ConfigArgs};
use crate::error::TrainError;
use crate::input::layout::Layout;
use crate::machine::cores;
use crate::show::progress::{Progress, say};
use crate::show::visible::visible;

#[derive(Debug, Subcommand)]
pub(super) enum DataCommand {
    /// Read and decode a whole split: size, classes, sizes of pictures, formats, broken files.
    Inspect {
        #[command(flatten)]
        split: SplitArgs,
        /// Form of the result.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Draw what training sees, after augmentation and mixing: a row for each picture, with several draws of
    /// it.
    Sheet {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        grid: GridArgs,
        /// The PNG file to write; an existing one is refused.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write the built-in pictures as class folders `train/` and `val/`, to try things out and to
    /// measure with.
    Synthesise {
        /// The folder to write into; one that holds something is refused.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Classes, 2 to 10.
        #[arg(long, default_value_t = 10, value_name = "K")]
        classes: usize,
        /// Pictures to train on.
        #[arg(long, default_value_t = 1000, value_name = "N")]
        examples: usize,
        /// Pictures to evaluate on [default: a tenth of `--examples`, at least one of each class].
        #[arg(long, value_name = "N")]
        val_examples: Option<usize>,
        /// Side of the square pictures, px.
        #[arg(long, default_value_t = 224, value_name = "PX")]
        image_size: u32,
        /// Form of the files.
        #[arg(long, value_enum, default_value_t = FileFormat::Jpeg)]
        format: FileFormat,
    },
    /// Make the index of tar shards, or check that it is there.
    Index {
        /// The shards, `data/train-{000..127}.tar` or `data/train-*.tar`.
        pattern: PathBuf,
    },
    /// Write a split as tar shards; what a stopped process has finished is kept.
    Shard {
        #[command(flatten)]
        split: SplitArgs,
        /// The folder to write into.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Start of the file names [default: the name of the split, as far as it is a word].
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Pictures per shard, at most.
        #[arg(long, default_value_t = 1000, value_name = "N")]
        examples_per_shard: u64,
        /// Shrink pictures whose shorter side is longer, px. They are stored as JPEG.
        #[arg(long, value_name = "PX")]
        max_short_side: Option<u32>,
        /// Store every picture as JPEG of this quality, 1 to 100.
        #[arg(long, value_name = "Q")]
        jpeg_quality: Option<u8>,
        /// Leave out up to so many pictures that cannot be read.
        #[arg(long, default_value_t = 0, value_name = "N")]
        skip_at_most: u64,
    },
    /// Compare shards with the checksums of their manifest.
    Verify {
        /// `train.manifest.json` beside the shards.
        manifest: PathBuf,
    },
}

/// The grid that is drawn.
#[derive(Debug, Clone, Args)]
pub(super) struct GridArgs {
    /// Pictures, one in a row.
    #[arg(long, visible_alias = "rows", default_value_t = 4, value_name = "N")]
    pictures: usize,
    /// Draws of each picture, beside one another.
    #[arg(long, visible_alias = "columns", default_value_t = 8, value_name = "M")]
    draws: usize,
}

/// A split on disk.
#[derive(Debug, Clone, Args)]
pub(super) struct SplitArgs {
    /// The folder that the split lies in.
    data: PathBuf,
    /// A folder, list, or pattern of shards, with an optional range: `train`, `train.csv`,
    /// `train-*.tar[:1%]`, or `.` for class folders without splits [default: what `mixer init` would train on].
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
}

impl SplitArgs {
    fn name(&self) -> String {
        let found = || Layout::of(&self.data).map_or_else(|_| "train".to_owned(), |it| it.train);
        self.split.clone().unwrap_or_else(found)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn Source>, TrainError> {
        Ok(open_split(None, &self.data, name, None, &DecodeOptions::default())?)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FileFormat {
    Jpeg,
    Png,
}

impl From<FileFormat> for PictureFormat {
    fn from(format: FileFormat) -> Self {
        match format {
            FileFormat::Jpeg => Self::Jpeg,
            FileFormat::Png => Self::Png,
        }
    }
}

pub(super) fn run(command: DataCommand) -> Result<(), TrainError> {
    match command {
        DataCommand::Inspect { split, format } => print_inspection(&split, format),
        DataCommand::Sheet { config, grid, out } => sheet(&config, &grid, &out),
        DataCommand::Synthesise { out, classes, examples, val_examples, image_size, format } => {
            if out.exists() && fs::read_dir(&out)?.next().is_some() {
                let message = format!("the folder holds something already: {}", out.display());
                return Err(TrainError::usage(message).with_hint("choose another one with `--out`"));
            }
            let synthesis = Synthesis {
                num_classes: classes,
                num_train: examples,
                num_val: val_examples.unwrap_or((examples / 10).max(classes)),
                image_size,
                format: format.into(),
            };
            let total = synthesis.num_train.saturating_add(synthesis.num_val) as u64;
            let mut progress = Progress::new("example", total, 0);
            write_builtin(&out, &synthesis, cores(), |done| progress.update(done))
                .map_err(named_by_option)?;
            progress.finish();
            super::print(&format!(
                "train    {}\nval      {}\nclasses  {classes}",
                synthesis.num_train, synthesis.num_val
            ))
        }
        DataCommand::Index { pattern } => {
            let source = ShardSource::open(&pattern, None, DecodeOptions::default())?;
            match source.index_state() {
                IndexState::Read(path) => say(format_args!("read {}", path.display())),
                IndexState::Made { path, reason: None } => {
                    say(format_args!("made {}", path.display()));
                }
                IndexState::Made { path, reason: Some(reason) } => {
                    say(format_args!("made {} again: {reason}", path.display()));
                }
                IndexState::Unwritten { error } => {
                    say(format_args!("warning: the index cannot be kept: {error}"));
                }
            }
            super::print(&format!(
                "examples  {}\nclasses   {}",
                source.len(),
                source.class_names().len()
            ))
        }
        DataCommand::Shard {
            split,
            out,
            name,
            examples_per_shard,
            max_short_side,
            jpeg_quality,
            skip_at_most,
        } => {
            let split_name = split.name();
            let source = split.open(&split_name)?;
            let word = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            // Class folders without splits are what there is to train on.
            let default = || match split_name
                .chars()
                .take_while(word)
                .collect::<String>()
                .trim_end_matches('-')
            {
                "" => "train".to_owned(),
                name => name.to_owned(),
            };
            let config = ShardWriterConfig {
                examples_per_shard,
                max_short_side,
                jpeg_quality,
                ..ShardWriterConfig::new(name.unwrap_or_else(default))
            };
            let on_corrupt = match skip_at_most {
                0 => OnCorrupt::Stop,
                at_most => OnCorrupt::Skip { at_most },
            };
            let mut progress = Progress::new("example", source.len() as u64, 0);
            let manifest = write_shards(&*source, &out, &config, on_corrupt, cores(), |done| {
                progress.update(done);
            })?;
            progress.finish();
            for skipped in &manifest.skipped {
                say(format_args!("warning: left out: {}", skipped.reason));
            }
            summary(&manifest)
        }
        DataCommand::Verify { manifest } => {
            let total = ShardManifest::read(&manifest)?.shards.len() as u64;
            let mut progress = Progress::new("shard", total, 0);
            let manifest = verify_shards(&manifest, |done| progress.update(done))?;
            progress.finish();
            summary(&manifest)
        }
    }
}

/// A setting of `mixer-data` under the name that the command line has for it.
fn named_by_option(error: DataError) -> TrainError {
    match error {
        DataError::BadSetting { setting, found, expected } => {
            let option = setting.replace('_', "-");
            TrainError::usage(format!("`--{option}` is {found}, expected {expected}"))
        }
        error => error.into(),
    }
}

fn print_inspection(split: &SplitArgs, format: Format) -> Result<(), TrainError> {
    let name = split.name();
    let source = &*split.open(&name)?;
    for remark in remarks(source, &name) {
        say(format_args!("warning: {remark}"));
    }
    let mut progress = Progress::new("example", source.len() as u64, 0);
    let found = inspect(source, cores(), |done| progress.update(done as u64));
    progress.finish();
    match format {
        Format::Json => super::print_json(&found),
        Format::Table => super::print(&table(&found)),
    }
}

fn sheet(args: &ConfigArgs, grid: &GridArgs, out: &Path) -> Result<(), TrainError> {
    super::target::new_file(out, "--out")?;
    let (plan, dataset) = config::resolved(args)?;
    let GridArgs { pictures, draws } = *grid;
    let transform = plan.train_transform();
    let network = &plan.model.network;
    let order = plan.data.shuffle.raster(network.image_size, network.patch_size);
    let shuffle = |picture: &mut [u8]| {
        let own = picture.to_vec();
        let (from, to) = (own.as_chunks::<3>().0, picture.as_chunks_mut::<3>().0);
        to.iter_mut().zip(order.iter().flatten()).for_each(|(to, at)| *to = from[*at]);
    };
    let picture = contact_sheet(
        dataset.train,
        transform,
        plan.data.mix.as_ref(),
        plan.seed,
        (pictures, draws),
        plan.data.on_corrupt,
        shuffle,
    )?;
    fs::write(out, png_bytes(&picture)?)?;
    say(format_args!(
        "{draws} draws of {pictures} pictures, {}x{} px in all",
        picture.width, picture.height
    ));
    Ok(())
}

fn summary(manifest: &ShardManifest) -> Result<(), TrainError> {
    let (mut examples, mut bytes) = (0, 0);
    for shard in &manifest.shards {
        examples += shard.num_examples;
        bytes += shard.bytes;
    }
    super::print(&format!(
        "shards    {}\nexamples  {examples}\nMB        {:.1}\npattern   {}",
        manifest.shards.len(),
        bytes as f64 / 1e6,
        manifest.pattern()
    ))
}

/// The classes with the fewest and the most examples tell an unbalanced set.
fn table(found: &Inspection) -> String {
    let fewest = found.class_counts.iter().min().copied().unwrap_or_default();
    let most = found.class_counts.iter().max().copied().unwrap_or_default();
    let formats: Vec<String> =
        found.formats.iter().map(|(format, count)| format!("{count} {format}")).collect();
    let mut lines = vec![
        format!("examples    {}", found.num_examples),
        format!("MB          {:.1}", found.total_bytes as f64 / 1e6),
        format!("classes     {}, of {fewest} to {most} examples", found.class_names.len()),
        format!("formats     {}", formats.join(", ")),
        "px           min    5 %  median   95 %    max".to_owned(),
    ];
    for (name, q) in
        [("width", found.width), ("height", found.height), ("short side", found.short_side)]
    {
        lines.push(format!(
            "{name:10} {:5}  {:5}   {:5}  {:5}  {:5}",
            q.min, q.p5, q.median, q.p95, q.max
        ));
    }
    if found.num_turned > 0 {
        let rule = "turned by EXIF only with `data.apply_exif_orientation`";
        lines.push(format!("orientation {} {rule}", found.num_turned));
    }
    lines.push(format!("broken      {}", found.num_broken));
    lines.extend(
        found.broken.iter().take(20).map(|broken| format!("  {}", visible(&broken.reason))),
    );
    lines.join("\n")
}
