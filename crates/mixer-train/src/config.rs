//! A run's configuration, exactly as it was typed: TOML plus `--set` overrides. Nothing is looked up
//! and no default is chosen here; that is [`crate::plan`]. What one file takes from another is put
//! together in `inheritance.rs`.

pub(crate) mod inheritance;

use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err::File;
use mixer_data::{
    EvalResize, Interpolation, MixSpec, OnCorrupt, RandAugment, RandomErasing, SourceKind,
    TrainCrop,
};
use mixer_model::Gelu;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::inheritance::Chain;
use crate::error::TrainError;
use crate::run::early_stopping::EarlyStopping;
use crate::run::on_divergence::OnDivergence;
use crate::update::drop_path::DropPathScaling;
use crate::update::loss::Loss;
use crate::update::loss_scale::LossScaling;
use crate::update::schedule::Decay;
use mixer_model::Precision;

/// A pre-training run or a fine-tuning job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Another configuration file that this one builds upon, relative to the folder of this one: its
    /// keys count where this file has none.
    pub extends: Option<PathBuf>,
    /// Seed of everything random: initial weights, order, augmentation, stochastic depth. Default 0.
    pub seed: Option<u64>,
    /// The network.
    pub model: ModelConfig,
    /// Where fine-tuning starts.
    pub init: InitConfig,
    /// The data.
    pub data: DataConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The learning rate over the run.
    pub schedule: ScheduleConfig,
    /// Batches, length, loss, and how often to evaluate and save.
    pub train: TrainConfig,
}

/// The network: a variant of the paper, or its dimensions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// `S/32`, `S/16`, `S/8`, `B/32`, `B/16`, `L/32`, `L/16`, `H/14`, or such a letter with another
    /// patch side. Excludes the dimensions below.
    pub variant: Option<String>,
    /// Side of the square input, px. Default 224; in fine-tuning, that of the weights.
    pub image_size: Option<usize>,
    /// Side of a patch, px; divides `image_size`.
    pub patch_size: Option<usize>,
    /// Channels of a token.
    pub hidden_dim: Option<usize>,
    /// Number of blocks.
    pub num_blocks: Option<usize>,
    /// Hidden width of the token-mixing MLP. Default `hidden_dim / 2`, as in every paper variant.
    pub tokens_mlp_dim: Option<usize>,
    /// Hidden width of the channel-mixing MLP. Default `4 · hidden_dim`, as in every paper variant.
    pub channels_mlp_dim: Option<usize>,
    /// Form of GELU: `tanh` (official code) or `erf` (timm). Default `tanh`; in fine-tuning, that of
    /// the weights.
    pub gelu: Option<Gelu>,
    /// Stochastic depth: probability of dropping a branch of the last block, linear from 0 at the
    /// first. Default 0.
    pub drop_path_rate: Option<f64>,
    /// Whether kept branches are divided by their probability (`keep`, timm) or not (`none`, the
    /// paper's code). Default `none`.
    pub drop_path_scaling: Option<DropPathScaling>,
    /// Initial bias of the head. Default 0; `-6.9` (about `-ln 1000`) goes with `loss = "sigmoid"`.
    pub head_bias: Option<f32>,
}

/// Where fine-tuning starts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InitConfig {
    /// A run directory, or a `.safetensors`, `.npz` or `.pth` file. `--init` overrides it.
    pub weights: Option<PathBuf>,
    /// What happens to the head. Default `auto`.
    pub head: Option<HeadInit>,
}

/// What fine-tuning does to the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadInit {
    /// Reset when the class names differ, or their number where the weights have no names.
    Auto,
    /// Reset to zeros.
    Reset,
    /// Keep; an error when the number of classes differs.
    Keep,
}

/// Where examples come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// A folder of class folders for each split.
    Folder,
    /// A file with paths and labels, or a flat folder and a file with labels.
    List,
    /// Tar shards named as those of WebDataset.
    Shards,
    /// Parquet files of Hugging Face.
    Parquet,
    /// The binary version of CIFAR-10 or CIFAR-100.
    Cifar,
    /// The IDX files of MNIST.
    Idx,
    /// Ten procedural shapes and textures; needs no files.
    Builtin,
}

impl DataKind {
    /// How it lies on disk; `None` for what does not.
    #[must_use]
    pub fn on_disk(self) -> Option<SourceKind> {
        match self {
            DataKind::Folder => Some(SourceKind::Folder),
            DataKind::List => Some(SourceKind::List),
            DataKind::Shards => Some(SourceKind::Shards),
            DataKind::Parquet => Some(SourceKind::Parquet),
            DataKind::Cifar => Some(SourceKind::Cifar),
            DataKind::Idx => Some(SourceKind::Idx),
            DataKind::Builtin => None,
        }
    }
}

/// The data and how it is prepared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Kind of source. Default: what the names of the splits and the files say.
    pub source: Option<DataKind>,
    /// The folder that the splits lie in.
    pub path: Option<PathBuf>,
    /// Split to train on, below `path`: a folder (`.` is `path` itself), a list `train.csv`, shards
    /// `train-{000..127}.tar` or `train-*.parquet`, with an optional range: `train[:98%]`. Default
    /// `train`.
    pub train: Option<String>,
    /// Split to evaluate on. Default `val`, or `test` where there is no `val`.
    pub val: Option<String>,
    /// Size of the built-in training set. Default 20000.
    pub train_examples: Option<usize>,
    /// Size of the built-in validation set. Default 2000.
    pub val_examples: Option<usize>,
    /// How often a pass shows every training example, each time augmented anew (repeated
    /// augmentation, Hoffer et al. 2019). The repeats of an example meet in one update. A pass is as
    /// many times longer. At most `train.batch_size`. Default 1.
    pub repeats: Option<u32>,
    /// Training crop: `"none"`, `{ pad = { pixels = 4 } }` or
    /// `{ inception = { area = [0.05, 1.0], aspect = [0.75, 1.3333] } }`. Default inception with these
    /// values (Szegedy et al. 2015, the paper's choice).
    pub crop: Option<TrainCrop>,
    /// Mirror every other training picture. Default true.
    pub flip: Option<bool>,
    /// Random distortions after mirroring (Cubuk et al. 2019):
    /// `{ flavour = "big_vision", layers = 2, magnitude = 15 }` is the paper's, `flavour = "timm"`
    /// timm's. Default none.
    pub randaugment: Option<RandAugment>,
    /// Random rectangles that are covered (Zhong et al. 2017): `{ probability = 0.25 }`. Default none.
    pub erasing: Option<RandomErasing>,
    /// Mixup and CutMix: `{ mixup_alpha = 0.5 }` is the paper's. Default none.
    pub mix: Option<MixSpec>,
    /// Evaluation: `"squash"` or `{ resmall_crop = { fraction = 0.875 } }`, the default; in
    /// fine-tuning, that of the weights.
    pub eval_resize: Option<EvalResize>,
    /// Filter of every resize, antialiased. Default `bilinear`; in fine-tuning, that of the weights.
    pub interpolation: Option<Interpolation>,
    /// Mean per colour of pixels in [0, 1]. Default 0.5 each; in fine-tuning, that of the weights.
    pub mean: Option<[f32; 3]>,
    /// Standard deviation per colour of pixels in [0, 1]. Default 0.5 each; in fine-tuning, that of
    /// the weights.
    pub std: Option<[f32; 3]>,
    /// Turn pictures as their EXIF data says. Default false, as every peer.
    pub apply_exif_orientation: Option<bool>,
    /// Refuse pictures with more pixels. Default 64 million.
    pub max_pixels: Option<u64>,
    /// What to do about a file that cannot be read: `"stop"`, the default, or
    /// `{ skip = { at_most = 10 } }`.
    pub on_corrupt: Option<OnCorrupt>,
    /// Decoding threads. Default: the cores, at most 16. Changes no result.
    pub workers: Option<usize>,
    /// Memory for decoded batches that wait, MiB. Default 256. Changes no result.
    pub queue_mib: Option<usize>,
}

/// Which optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay on kernels.
    Adamw,
    /// Gradient descent with momentum.
    Sgd,
}

/// The optimizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Default `adamw` in pre-training, `sgd` in fine-tuning (the paper's choices).
    pub kind: Option<OptimizerKind>,
    /// Highest learning rate. Default 0.001 for AdamW, 0.03 for SGD.
    pub learning_rate: Option<f64>,
    /// Decoupled decay, multiplied by the learning rate, on kernels only. Default 0.1 for AdamW, 0 for
    /// SGD.
    pub weight_decay: Option<f64>,
    /// SGD only. Default 0.9.
    pub momentum: Option<f64>,
    /// AdamW only. Default 0.9.
    pub beta1: Option<f64>,
    /// AdamW only. Default 0.999.
    pub beta2: Option<f64>,
    /// AdamW only. Default 1e-8.
    pub epsilon: Option<f64>,
}

/// The learning rate over the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// `cosine`, `linear` or `constant`. Default `cosine`.
    pub decay: Option<Decay>,
    /// Updates of linear warm-up from 0. Default 0.
    pub warmup_steps: Option<u64>,
    /// Linear only: the last rate as a fraction of the highest. Default 0.
    pub linear_end: Option<f64>,
}

/// Batches, length, loss, and how often to evaluate and save.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Examples per update. Default 512, the paper's in fine-tuning.
    pub batch_size: Option<usize>,
    /// Examples per forward and backward pass; divides `batch_size`, gradients are averaged. Default
    /// `batch_size`.
    pub microbatch_size: Option<usize>,
    /// Length in passes over the data. Either this or `steps`.
    pub epochs: Option<f64>,
    /// Length in updates. Either this or `epochs`.
    pub steps: Option<u64>,
    /// `softmax` or `sigmoid`. Default `softmax`.
    pub loss: Option<Loss>,
    /// Label smoothing in [0, 1). Default 0.
    pub label_smoothing: Option<f32>,
    /// Largest norm of the whole gradient; 0 never clips. Default 1.
    pub clip_norm: Option<f64>,
    /// Parameters that are not trained: names in weights files, or beginnings of them up to a dot, as
    /// `["stem", "blocks.0", "blocks.1.mlp_tokens"]`. Default: none.
    pub freeze: Option<Vec<String>>,
    /// Layer-wise decay of the learning rate, in (0, 1]: the rate of the head is that of the schedule,
    /// that of the last block `layer_decay` times it, and so on down to the stem. Default 1.
    pub layer_decay: Option<f64>,
    /// Decay per update of an exponential moving average of the weights, for example 0.9999: it is
    /// evaluated too, and is what the weights files then hold. Default: none is kept.
    pub ema_decay: Option<f64>,
    /// In how many blocks, from the first on, the backward pass computes the hidden units of channel
    /// mixing again instead of finding them kept: less memory, some 13 % more time for all of them.
    /// Default 0.
    pub recompute_blocks: Option<usize>,
    /// `f32`, `bf16` or `f16`: what the operands of the blocks' products are rounded to. Default `f32`.
    pub precision: Option<Precision>,
    /// Loss scaling: `{ initial = 65536, growth_every_steps = 2000 }`, which is the default with `f16`;
    /// none otherwise.
    pub loss_scale: Option<LossScaling>,
    /// Updates between lines of metrics. Default 10.
    pub log_every_steps: Option<u64>,
    /// Updates between evaluations. Default one epoch.
    pub eval_every_steps: Option<u64>,
    /// Ends the run when top-1 has not improved by more than `min_delta` (a fraction, default 0) in so
    /// many evaluations: `{ patience = 5, min_delta = 0.001 }`. Default: runs to its end.
    pub early_stopping: Option<EarlyStopping>,
    /// Examples per batch of evaluation. Default `microbatch_size`.
    pub eval_batch_size: Option<usize>,
    /// Updates between checkpoints. Default as evaluations.
    pub checkpoint_every_steps: Option<u64>,
    /// The newest checkpoints, so many, are kept. Default 2.
    pub keep_checkpoints: Option<usize>,
    /// Checkpoints whose update is a multiple of this are kept for good; itself a multiple of
    /// `checkpoint_every_steps`. Default: none.
    pub keep_checkpoint_every_steps: Option<u64>,
    /// Keep the checkpoint of the best evaluation too, and write one when there is none due. Default
    /// false.
    pub keep_best_checkpoint: Option<bool>,
    /// What to do about an update whose loss or gradient norm is not finite: `"stop"`, the default, or
    /// `{ skip = { at_most = 3 } }`, which goes on with the next batch. May be changed when a run is
    /// continued.
    pub on_divergence: Option<OnDivergence>,
    /// Report losses and gradient norms that lie so many standard deviations above the mean of the last
    /// 100 updates; 0 reports none. Default 6.
    pub outlier_z_score: Option<f64>,
}

impl RunConfig {
    /// Reads a configuration with all that it extends, and applies `KEY=VALUE` overrides. Also returns
    /// the text that was parsed: the file, or what it and its parents make together, with the overrides
    /// in it.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a file that cannot be read, TOML that cannot be parsed, an unknown
    /// key (with the nearest one) or a wrong type, with line and column, and for a chain of files that
    /// has no end.
    pub fn read(path: &Path, overrides: &[String]) -> Result<(RunConfig, String), TrainError> {
        let chain = Chain::read(path)?;
        let text = chain.text();
        let alone = chain
            .check()
            .and_then(|()| RunConfig::parse(&text, &[]).map_err(|error| error.in_file(path)));
        match (overrides, alone) {
            ([], alone) => alone,
            // The files are sound, so the error is in the overrides, which have no file.
            (_, Ok(_)) => RunConfig::parse(&text, overrides),
            // An override may repair what is wrong with the files.
            (_, Err(error)) => RunConfig::parse(&text, overrides).map_err(|_| error),
        }
    }

    /// Parses a configuration from text. See [`RunConfig::read`].
    ///
    /// # Errors
    /// As [`RunConfig::read`], [`TrainError::Usage`] for an override that is no `KEY=VALUE`, and
    /// [`TrainError::Config`] for `extends`, which has a meaning in files alone.
    pub fn parse(text: &str, overrides: &[String]) -> Result<(RunConfig, String), TrainError> {
        if overrides.is_empty() {
            return Ok((deserialise(text, INVALID)?.without_parent()?, text.to_owned()));
        }
        let mut document: toml_edit::DocumentMut =
            text.parse().map_err(|error: toml_edit::TomlError| {
                TrainError::config(format!(
                    "{INVALID}\n{}",
                    shortened(&in_plain_words(&error.to_string()))
                ))
            })?;
        for entry in overrides {
            apply_override(&mut document, entry)?;
        }
        let text = document.to_string();
        let sets = shortened(&overrides.join(" --set "));
        let what = format!("invalid configuration with `--set {sets}`");
        Ok((deserialise(&text, &what)?.without_parent()?, text))
    }
}

/// Largest configuration file. The longest of ours has 2 kB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Longest line of a message, characters. That with all keys of a section has 500.
const MAX_LINE_CHARS: usize = 600;

/// Most parts of the key of an override. `data.eval_resize.resmall_crop.fraction` has 4.
const MAX_KEY_PARTS: usize = 16;

/// Longest unknown key for which a similar one is looked for: the time grows with the product of lengths.
const MAX_COMPARED_BYTES: usize = 64;

/// Reads a configuration file. A device or a pipe is read no further than the longest file.
///
/// # Errors
/// When it cannot be read, is too long or no UTF-8; the message names the path.
pub(crate) fn read_text(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    let what = if bytes.len() as u64 > MAX_FILE_BYTES {
        format!("more than {MAX_FILE_BYTES} bytes, expected a configuration")
    } else {
        match String::from_utf8(bytes) {
            Ok(text) => return Ok(text),
            Err(error) => format!("no UTF-8 ({})", error.utf8_error()),
        }
    };
    let message = format!("`{}`: {what}", path.display());
    Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message))
}

/// The lines of a message, cut where they are too long to be read: an excerpt has whole lines of the file.
pub(crate) fn shortened(text: &str) -> String {
    let shorten = |line: &str| match line.char_indices().nth(MAX_LINE_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    };
    text.lines().map(shorten).collect::<Vec<_>>().join("\n")
}

/// What is wrong when a file is.
pub(crate) const INVALID: &str = "invalid configuration";

/// `what` is wrong when the text is: the first line of the error.
pub(crate) fn deserialise(text: &str, what: &str) -> Result<RunConfig, TrainError> {
    toml::from_str(text).map_err(|error| {
        let rendered = in_plain_words(error.to_string().trim_end());
        let error = TrainError::config(format!("{what}\n{}", shortened(&rendered)));
        if let Some(key) = nearest_key(&rendered) {
            return error.with_hint(format!("did you mean `{key}`?"));
        }
        if rendered.contains("invalid type: string") && rendered.contains("number") {
            return error.with_hint("numbers are written without quotes: `10`, `0.01` or `1e-3`");
        }
        error
    })
}

/// Serde names what it expected by Rust's types, which mean nothing to who writes TOML.
fn in_plain_words(rendered: &str) -> String {
    let rendered = rendered.trim_end();
    if rendered == "recursion limit" {
        return "keys or values nest too deeply, expected at most 80 levels".to_owned();
    }
    let Some((place, expected)) = rendered.rsplit_once(", expected ") else {
        return rendered.to_owned();
    };
    let plain = match expected {
        "usize" | "u64" | "u32" => "a whole number, at least 0",
        "f64" | "f32" => "a number",
        _ if expected.starts_with("struct ") => "a table",
        "a boolean" => "true or false",
        "a sequence" => "a list in brackets",
        "path string" => "a path in quotes",
        _ => expected,
    };
    format!("{place}, expected {plain}")
}

/// Sets `a.b.c=value` in a document. The value is TOML; a bare word is a string.
fn apply_override(document: &mut toml_edit::DocumentMut, entry: &str) -> Result<(), TrainError> {
    let malformed = |why: &str| {
        TrainError::usage(format!("`--set {}`: {why}", shortened(entry)))
            .with_hint("write `--set optimizer.learning_rate=0.01`")
    };
    let (path, value) = entry.split_once('=').ok_or_else(|| malformed("expected KEY=VALUE"))?;
    let value = value.trim();
    let value: toml_edit::Value = value.parse().unwrap_or_else(|_| value.into());
    let keys: Vec<&str> = path.trim().split('.').collect();
    if keys.len() > MAX_KEY_PARTS {
        return Err(malformed(&format!("a key of {} parts", keys.len())));
    }
    let displaced = displaced(&keys);
    let Some((last, parents)) = keys.split_last().filter(|_| keys.iter().all(|k| !k.is_empty()))
    else {
        return Err(malformed("a part of the key is empty"));
    };
    let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
    for key in parents {
        let item = table.entry(key).or_insert_with(toml_edit::table);
        if !item.is_table_like() {
            // `crop = "none"` gives way to `crop.pad.pixels=4`.
            *item = toml_edit::Item::Value(toml_edit::InlineTable::new().into());
        }
        table = item.as_table_like_mut().ok_or_else(|| malformed("not a table"))?;
    }
    if let Some(displaced) = displaced {
        table.remove(displaced);
    }
    table.insert(last, toml_edit::Item::Value(value));
    Ok(())
}

/// The key beside this one that loses its effect when this one is set: the length is one or the other.
pub(crate) fn displaced(keys: &[&str]) -> Option<&'static str> {
    match keys {
        ["train", "steps"] => Some("epochs"),
        ["train", "epochs"] => Some("steps"),
        _ => None,
    }
}

/// The expected key nearest to the unknown one that serde's message names.
fn nearest_key(message: &str) -> Option<String> {
    let rest =
        message.split("unknown field `").nth(1).or(message.split("unknown variant `").nth(1))?;
    let (unknown, rest) = rest.split_once('`')?;
    if unknown.len() > MAX_COMPARED_BYTES {
        return None;
    }
    let expected = rest.split_once("expected")?.1;
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|key| (strsim::damerau_levenshtein(unknown, key), key))
        .min()
        .filter(|(distance, key)| *distance <= key.len() / 2 + 1)
        .map(|(_, key)| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_names_its_place_and_the_nearest_key() {
        let error = RunConfig::parse("[train]\nbatch_sise = 3\n", &[]).unwrap_err();
        assert!(error.to_string().contains("line 2, column 1"), "{error}");
        assert_eq!(error.hint().as_deref(), Some("did you mean `batch_size`?"));
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn a_wrong_type_names_its_place() {
        let error = RunConfig::parse("[train]\nbatch_size = \"many\"\n", &[]).unwrap_err();
        assert!(error.to_string().contains("line 2, column 14"), "{error}");
        assert!(error.to_string().contains("expected a whole number"), "{error}");
    }

    #[test]
    fn overrides_make_tables_replace_values_and_take_bare_words() {
        let text = "[data]\ncrop = \"none\"\n";
        let set = |entry: &str| RunConfig::parse(text, &[entry.to_owned()]);
        assert_eq!(set("seed=7").unwrap().0.seed, Some(7));
        assert_eq!(set("model.variant=B/16").unwrap().0.model.variant.as_deref(), Some("B/16"));
        assert_eq!(
            set("data.crop.pad.pixels=4").unwrap().0.data.crop,
            Some(TrainCrop::Pad { pixels: 4 })
        );
        let skip = set("data.on_corrupt.skip.at_most=3").unwrap();
        assert_eq!(skip.0.data.on_corrupt, Some(OnCorrupt::Skip { at_most: 3 }));
        assert_eq!(RunConfig::parse(&skip.1, &[]).unwrap().0, skip.0);
        assert!(set("seed").is_err() && set("a..b=1").is_err());
        assert!(set("train.bathc_size=1").unwrap_err().hint().unwrap().contains("batch_size"));
    }
}
