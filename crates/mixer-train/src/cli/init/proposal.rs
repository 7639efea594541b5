//! A configuration for a folder of pictures: the one that `mixer init` writes.

use std::path::Path;
use std::sync::Arc;

use mixer_data::{
    DataError, DecodeOptions, Inspection, Source, SourceKind, SplitBound, SplitRange, Subset,
    inspect, open_split,
};
use mixer_model::count;

use crate::error::TrainError;
use crate::input::dataset::Dataset;
use crate::input::layout::Layout;
use crate::machine::cores;
use crate::plan::{InitFacts, RunPlan, Task};
use crate::run::recipe::Recipe;

/// Pictures of each split that are decoded to see how large they are.
const LOOKED_AT: usize = 1000;

/// Operations per second of training that two CPU cores are reckoned to do: a little below what small networks
/// reach on the processors of docs/benchmarks.md.
const CPU_FLOP_PER_SEC: f64 = 1e11;

/// Time that a training of a small set may take on two CPU cores, seconds.
const CPU_BUDGET_SECS: f64 = 600.0;

/// The fewest passes over the data from which anything is learnt.
const MIN_EPOCHS: f64 = 10.0;

/// The most passes over the data: few pictures are known by heart before.
const MAX_EPOCHS: f64 = 60.0;

/// Evaluations of a training of many passes.
const EVALUATIONS: f64 = 20.0;

/// Bytes of pictures per second that two CPU cores are reckoned to decode.
const CPU_BYTES_PER_SEC: f64 = 1.5e8;

/// Examples from which on a network that a CPU trains in minutes would waste them.
const MANY: usize = 200_000;

/// Examples below which they are few to learn from scratch.
const FEW: usize = 2000;

/// A configuration that trains on a folder of pictures.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// The configuration, in TOML.
    pub(crate) text: String,
    /// The task that it is for.
    pub(crate) task: Task,
    /// Facts that somebody who trains with it should know.
    pub(crate) notes: Vec<String>,
}

/// A folder, looked at.
struct Found {
    train: Arc<dyn Source>,
    val: Arc<dyn Source>,
    train_split: String,
    val_split: String,
    is_held_back: bool,
    kind: SourceKind,
    /// A part of the training examples.
    part: Inspection,
    /// The first reason why a picture cannot be read.
    first_broken: Option<String>,
    /// A split to evaluate on whose pictures have no classes.
    unlabelled: Option<String>,
    /// The most pictures of a split that cannot be read, guessed from the part that was looked at.
    broken: u64,
}

/// The parts of a configuration that depend on what is found.
struct Choice {
    /// The section that comes first, with its name.
    network: String,
    /// The lines of the training crop; absent where the default will do.
    crop: Option<String>,
    optimizer: String,
    warmup_steps: u64,
    train: String,
}

impl Proposal {
    /// Looks at a folder and proposes a configuration: one that fine-tunes the weights, where some are given
    /// under the name that they have, else one that trains from scratch. `progress` is told how many pictures
    /// of how many were looked at.
    ///
    /// # Errors
    /// Whatever opening the data refuses, and [`TrainError::DataMismatch`] when no picture can be read.
    pub(crate) fn of(
        folder: &Path,
        init: Option<(&Path, &InitFacts)>,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self, TrainError> {
        let found = Found::in_folder(folder, progress)?;
        let (task, choice) = match init {
            None => (Task::Pretrain, found.training()),
            Some((weights, _)) => (Task::Finetune, found.fine_tuning(weights)),
        };
        let body = found.text(folder, &choice);
        let plan = |text: &str| -> Result<RunPlan, TrainError> {
            let dataset = Dataset {
                train: Arc::clone(&found.train),
                val: Arc::clone(&found.val),
                train_split: found.train_split.clone(),
                val_split: found.val_split.clone(),
            };
            Recipe::parse(text)?.plan(task, init.map(|(_, facts)| facts), dataset.facts())
        };
        let plan = plan(&body)?;
        let text = found.heading(&plan) + &body;
        Ok(Self { text, task, notes: found.notes(task) })
    }
}

impl Found {
    fn in_folder(folder: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Self, TrainError> {
        let Layout { train: train_split, val } = Layout::of(folder)?;
        let kind = SourceKind::of(folder, &train_split);
        let options = DecodeOptions::default();
        let open = |split: &str, classes: Option<&[String]>| {
            open_split(Some(kind), folder, split, classes, &options)
        };
        let all = open(&train_split, None)?;
        all.check_for_training()?;
        // A `test/` without labels is common: it is there to be predicted.
        let is_unlabelled = |val: &String| {
            let opened = open(val, Some(all.class_names()));
            matches!(opened, Err(DataError::NoClassFolders { .. } | DataError::NoExamples { .. }))
        };
        let unlabelled = val.clone().filter(is_unlabelled);
        let val = val.filter(|_| unlabelled.is_none());
        let (train_split, val_split, is_held_back) = match val {
            Some(val) => (train_split, val, false),
            None => {
                let percent = match all.len() {
                    0..1000 => 80,
                    1000..100_000 => 90,
                    _ => 98,
                };
                let range = |range: &str| format!("{train_split}[{range} of each class]");
                let (below, above) =
                    (range(&format!(":{percent}%")), range(&format!("{percent}%:")));
                (below, above, true)
            }
        };
        let train = if is_held_back { open(&train_split, None)? } else { all };
        let val = match open(&val_split, Some(train.class_names())) {
            Err(_) if is_held_back && train.len() == train.class_names().len() => {
                let message = format!(
                    "no class has a second picture, and none can be held back to measure on: {}",
                    folder.display()
                );
                return Err(TrainError::data_mismatch(message).with_hint(
                    "add pictures, or a folder `val/` of the same classes beside `train/`",
                ));
            }
            val => val?,
        };
        let total = (train.len().min(LOOKED_AT) + val.len().min(LOOKED_AT)) as u64;
        let part = look(&train, |done| progress(done, total))?;
        let before = part.num_examples as u64;
        let val_part = look(&val, |done| progress(before + done, total))?;
        let guess = |part: &Inspection, source: &Arc<dyn Source>| match part.num_broken {
            broken if part.num_examples == source.len() => broken,
            broken => 2 * broken * source.len() as u64 / part.num_examples.max(1) as u64,
        };
        let broken = guess(&part, &train).max(guess(&val_part, &val));
        let mut listed = part.broken.iter().chain(&val_part.broken);
        let first_broken = listed.next().map(|broken| broken.reason.clone());
        if part.num_broken == part.num_examples as u64 {
            let reason = first_broken.unwrap_or_default();
            let message =
                format!("none of {} pictures can be read; the first: {reason}", part.num_examples);
            return Err(TrainError::data_mismatch(message));
        }
        Ok(Self {
            train,
            val,
            train_split,
            val_split,
            is_held_back,
            kind,
            part,
            first_broken,
            broken,
            unlabelled,
        })
    }

    /// Side of a small network's input, and that of its patches: of small pictures their own, in patches of 4 px,
    /// else 64 px in patches of 8.
    fn sizes(&self) -> (u32, u32) {
        match self.part.short_side.median {
            side @ 0..=40 => ((side + 2).max(8) / 4 * 4, 4),
            _ => (64, 8),
        }
    }

    /// Examples per update: a power of two, with at least eight updates to a pass where there are so many.
    fn batch_size(&self, at_most: usize) -> usize {
        let eighth = (self.train.len() / 8).max(1);
        (1 << eighth.ilog2()).clamp(4, at_most)
    }

    fn training(&self) -> Choice {
        let n = self.train.len();
        let (image_size, patch_size) = self.sizes();
        let is_small = patch_size == 4;
        if n >= MANY {
            let network = if is_small {
                format!(
                    "image_size = {image_size}\npatch_size = {patch_size}\nhidden_dim = 256\nnum_blocks = 8"
                )
            } else {
                "variant = \"S/16\"\nimage_size = 224".to_owned()
            };
            return Choice {
                network: format!("[model]\n{network}"),
                crop: Some(self.crop(is_small)),
                optimizer: "learning_rate = 0.001\nweight_decay = 0.1".to_owned(),
                warmup_steps: 2000,
                train: "batch_size = 512\nepochs = 30\nlabel_smoothing = 0.1\n\
                        # precision = \"bf16\"         # on a GPU: twice as fast and more"
                    .to_owned(),
            };
        }
        let (hidden_dim, num_blocks) = if n < 20_000 { (64, 4) } else { (96, 4) };
        let tokens = u64::from(image_size / patch_size).pow(2);
        // Products of a block: S·C·(2·D_S + 2·D_C) with D_S = C/2 and D_C = 4C.
        let products = num_blocks * tokens * hidden_dim * 9 * hidden_dim;
        let per_epoch = 6.0 * products as f64 * n as f64;
        let epochs = CPU_BUDGET_SECS * CPU_FLOP_PER_SEC / per_epoch;
        let epochs = epochs.clamp(MIN_EPOCHS, MAX_EPOCHS).floor();
        let batch_size = self.batch_size(128);
        let steps = epochs as u64 * n as u64 / batch_size as u64;
        let mut train =
            format!("batch_size = {batch_size}\nepochs = {epochs}\nlabel_smoothing = 0.1");
        if epochs > EVALUATIONS {
            train += &format!("\neval_every_steps = {}", (steps as f64 / EVALUATIONS).ceil());
        }
        Choice {
            network: format!(
                "[model]\n\
                 image_size = {image_size:<18}# pictures are brought to this size, px\n\
                 patch_size = {patch_size}\nhidden_dim = {hidden_dim}\nnum_blocks = {num_blocks}"
            ),
            crop: Some(self.crop(is_small)),
            optimizer: "learning_rate = 0.002\nweight_decay = 0.05".to_owned(),
            warmup_steps: warmup(steps),
            train,
        }
    }

    fn fine_tuning(&self, weights: &Path) -> Choice {
        let n = self.train.len();
        let epochs = (20_000 / n.max(1)).clamp(2, 20);
        let batch_size = self.batch_size(64);
        let weights = toml::Value::from(weights.display().to_string());
        Choice {
            network: format!("[init]\nweights = {weights}"),
            crop: None,
            optimizer:
                "learning_rate = 0.01           # or try several: --sweep lr=0.003,0.01,0.03"
                    .to_owned(),
            warmup_steps: warmup((epochs * n / batch_size) as u64),
            train: format!("batch_size = {batch_size}\nepochs = {epochs}"),
        }
    }

    /// The lines of a training crop, with what goes with it.
    fn crop(&self, is_small: bool) -> String {
        let crop = if is_small {
            let pixels = (self.sizes().0 / 8).max(1);
            format!("crop = {{ pad = {{ pixels = {pixels} }} }}\neval_resize = \"squash\"")
        } else {
            "crop = { inception = { area = [0.35, 1.0], aspect = [0.75, 1.3333] } }".to_owned()
        };
        let flip = if self.kind == SourceKind::Idx {
            "flip = false"
        } else {
            "flip = true                    # false where left and right mean something"
        };
        format!("{crop}\n{flip}")
    }

    /// The configuration without the comment that it begins with.
    fn text(&self, folder: &Path, choice: &Choice) -> String {
        let Choice { network, crop, optimizer, warmup_steps, train } = choice;
        let quoted = |value: &str| toml::Value::from(value);
        let mut data = vec![
            format!("path = {}", quoted(&folder.display().to_string())),
            format!("train = {}", quoted(&self.train_split)),
        ];
        let val = format!("val = {}", quoted(&self.val_split));
        let held_back = if self.is_held_back { "# held back from training" } else { "" };
        data.push(format!("{val:<31}{held_back}").trim_end().to_owned());
        data.extend(crop.clone());
        if self.broken > 0 {
            data.push("# Some pictures cannot be read, and are passed over.".to_owned());
            data.push(format!("on_corrupt = {{ skip = {{ at_most = {} }} }}", self.broken));
        }
        let data = data.join("\n");
        let schedule = match warmup_steps {
            0 => String::new(),
            steps => format!("\n[schedule]\nwarmup_steps = {steps}\n"),
        };
        format!(
            "\n{network}\n\n[data]\n{data}\n\n[optimizer]\n{optimizer}\n{schedule}\n[train]\n{train}\n"
        )
    }

    /// The comment that the configuration begins with.
    fn heading(&self, plan: &RunPlan) -> String {
        let network = &plan.model.network;
        let images = plan.train.steps * plan.train.batch_size as u64;
        // Forwards and twice as much backwards, two operations for a product and its sum.
        let flop = 6.0 * count::macs(network) as f64 * images as f64;
        let per_image = self.part.total_bytes as f64 / self.part.num_examples.max(1) as f64;
        let decoding = per_image * images as f64 / CPU_BYTES_PER_SEC;
        let length = about(flop / CPU_FLOP_PER_SEC + decoding);
        [
            format!(
                "# {} training and {} validation examples of {} classes,",
                self.train.len(),
                self.val.len(),
                self.train.class_names().len()
            ),
            format!("# shorter side {} px in the median.", self.part.short_side.median),
            format!(
                "# {} parameters; {length} on two CPU cores, on a GPU far less.",
                count::num_params(network)
            ),
        ]
        .join("\n")
            + "\n"
    }

    fn notes(&self, task: Task) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(split) = &self.unlabelled {
            notes.push(format!(
                "note: the pictures of `{split}` have no classes; others are held back"
            ));
        }
        let num_classes = self.train.class_names().len();
        let mut has_example = vec![false; num_classes];
        for index in 0..self.train.len() {
            if let Some(has) = has_example.get_mut(self.train.label(index) as usize) {
                *has = true;
            }
        }
        let missing = has_example.iter().filter(|has| !**has).count();
        if missing > 0 {
            notes.push(format!(
                "warning: {missing} of {num_classes} classes have no picture in `{}`: they cannot be learnt",
                self.train_split
            ));
        }
        if let Some(reason) = &self.first_broken {
            notes.push(format!("warning: some pictures cannot be read; the first: {reason}"));
        }
        if task == Task::Pretrain && self.train.len() < FEW {
            notes.push(format!(
                "note: {} pictures are few to learn from: `--init WEIGHTS` reaches far more",
                self.train.len()
            ));
        }
        notes
    }
}

/// Updates of warm-up of a run of `steps`.
fn warmup(steps: u64) -> u64 {
    (steps / 20).min(500)
}

/// Looks at a part of a source.
fn look(source: &Arc<dyn Source>, mut progress: impl FnMut(u64)) -> Result<Inspection, TrainError> {
    let end = Some(SplitBound::Examples(source.len().min(LOOKED_AT)));
    let part = Subset::of(Arc::clone(source), &SplitRange { end, ..SplitRange::default() })?;
    Ok(inspect(&*part, cores(), |done| progress(done as u64)))
}

/// A length of time, roughly.
fn about(seconds: f64) -> String {
    let of = |number: f64, unit: &str| {
        let plural = if number == 1.0 { "" } else { "s" };
        format!("about {number} {unit}{plural}")
    };
    match seconds {
        s if s < 90.0 => of(1.0, "minute"),
        s if s < 5400.0 => of((s / 60.0).round(), "minute"),
        s if s < 172_800.0 => of((s / 3600.0).round(), "hour"),
        s => of((s / 86_400.0).round(), "day"),
    }
}
