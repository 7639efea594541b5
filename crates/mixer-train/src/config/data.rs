//! `[data]`: pictures and their preparation.

use std::path::PathBuf;

use mixer_data::{
    EvalResize, Interpolation, MixSpec, OnCorrupt, RandAugment, RandomErasing, SourceKind,
    TrainCrop,
};
use mixer_model::weights::Shuffle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::limits::MAX_WORKERS;
use crate::machine::cores;

/// Split to train on.
pub const TRAIN: &str = "train";

/// Part of the training examples that is trained on.
pub const TRAIN_FRACTION: f64 = 1.0;

/// Seed that chooses it.
pub const TRAIN_FRACTION_SEED: u32 = 0;

/// Size of the built-in training set.
pub const TRAIN_EXAMPLES: usize = 20_000;

/// Size of the built-in validation set.
pub const VAL_EXAMPLES: usize = 2000;

/// Times that a pass shows every training example.
pub const REPEATS: u32 = 1;

/// Training crop, the paper's choice (Szegedy et al. 2015).
pub const CROP: TrainCrop = TrainCrop::Inception { area: (0.05, 1.0), aspect: (0.75, 4.0 / 3.0) };

/// Mirroring of every other training picture.
pub const FLIP: bool = true;

/// Preparation for evaluation.
pub const EVAL_RESIZE: EvalResize = EvalResize::ResmallCrop { fraction: 0.875 };

/// Filter of every resize.
pub const INTERPOLATION: Interpolation = Interpolation::Bilinear;

/// Mean per colour of pixels in [0, 1].
pub const MEAN: [f32; 3] = [0.5; 3];

/// Standard deviation per colour of pixels in [0, 1].
pub const STD: [f32; 3] = [0.5; 3];

/// The least standard deviation that can be meant.
pub const MIN_STD: f64 = 0.001;

/// Order that the pixels of every picture are put in.
pub const SHUFFLE: Shuffle = Shuffle::None;

/// Turning of pictures as their EXIF data says.
pub const APPLY_EXIF_ORIENTATION: bool = false;

/// Decoding of JPEGs at a part of their size.
pub const JPEG_SCALING: bool = false;

/// Pixels above which a picture is refused.
pub const MAX_PIXELS: u64 = 64_000_000;

/// Fate of files that cannot be read.
pub const ON_CORRUPT: OnCorrupt = OnCorrupt::Stop;

/// The most decoding threads that are chosen without a word.
pub const WORKERS_AT_MOST: usize = 16;

/// Memory for decoded batches that wait, MiB.
pub const QUEUE_MIB: usize = 256;

/// Layout of data on disk, and the set that needs no disk.
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
    /// The layout as the data crate knows it; `None` for what is not on disk.
    #[must_use]
    pub fn on_disk(self) -> Option<SourceKind> {
        match self {
            Self::Folder => Some(SourceKind::Folder),
            Self::List => Some(SourceKind::List),
            Self::Shards => Some(SourceKind::Shards),
            Self::Parquet => Some(SourceKind::Parquet),
            Self::Cifar => Some(SourceKind::Cifar),
            Self::Idx => Some(SourceKind::Idx),
            Self::Builtin => None,
        }
    }
}

/// Decoding threads where none are set: the cores, up to a limit.
#[must_use]
pub fn default_workers() -> usize {
    cores().min(WORKERS_AT_MOST)
}

/// Pictures and their preparation.
///
/// Fine-tuning takes `mean`, `std`, `eval_resize`, `interpolation` and `shuffle` from the weights where the
/// configuration has none. Weights of other programs carry no preprocessing; `mixer evaluate` and `mixer
/// predict` then use timm's for Google's Mixer weights, which is mean and std 0.5, shorter side ÷ 0.875,
/// centre crop, bicubic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Layout of the data on disk.
    ///
    /// See [datasets/README.md](../datasets/README.md). `builtin`: ten procedural shapes and textures, drawn
    /// at `model.image_size`; needs no files.
    #[schemars(extend("x-default" = "what the names of the splits and the files say", "x-resume" = "free"))]
    pub source: Option<DataKind>,
    /// The folder that the splits lie in; needed, but an error for `builtin`.
    #[schemars(extend("x-unit" = "path", "x-resume" = "free"))]
    pub path: Option<PathBuf>,
    /// Split to train on, below `path`, with an optional range: `train[:98%]`, `train[:80% of each class]`.
    ///
    /// A folder (`.` is `path` itself), a list (`train.csv`), tar shards (`train-{000..127}.tar`,
    /// `train-*.tar`), Parquet files (`train-*.parquet`), or `train` of CIFAR and IDX files. An error for
    /// `builtin`.
    #[schemars(extend("x-unit" = "split", "default" = TRAIN))]
    pub train: Option<String>,
    /// Split to evaluate on; an error for `builtin`.
    #[schemars(extend("x-unit" = "split", "x-default" = "`val`, or `test` where there is no `val`", "x-from" = "data"))]
    pub val: Option<String>,
    /// Part of the training examples that is trained on, chosen at random.
    ///
    /// It is taken of what `train` names, whatever the source; 0.03 is a part of 0.1, and this of 0.3. Epochs
    /// are passes over the part: for the paper's comparison of data sizes, give each part as many
    /// `train.steps`.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1, "default" = TRAIN_FRACTION))]
    pub train_fraction: Option<f64>,
    /// Seed that chooses the part, so that it is the same for every `seed`; only for a part.
    #[schemars(extend("default" = TRAIN_FRACTION_SEED))]
    pub train_fraction_seed: Option<u32>,
    /// Size of the built-in training set; only for `builtin`.
    #[schemars(extend("x-unit" = "examples", "minimum" = 1, "default" = TRAIN_EXAMPLES))]
    pub train_examples: Option<usize>,
    /// Size of the built-in validation set; only for `builtin`.
    #[schemars(extend("x-unit" = "examples", "minimum" = 1, "default" = VAL_EXAMPLES))]
    pub val_examples: Option<usize>,
    /// Repeated augmentation: times that a pass shows every training example, each time augmented anew.
    ///
    /// Hoffer et al. 2019. The repeats of an example meet in one update (as far as the ends of passes allow),
    /// `batch_size / repeats` examples apart, so that mixup does not mix a picture with itself. A pass has as
    /// many times more updates, so that `train.epochs` means as many times more work, and so does the default
    /// of `eval_every_steps`. timm's `--aug-repeats N` instead keeps the length of an epoch and shows a part
    /// of 1/N of the examples in it. At most `train.batch_size`.
    #[schemars(extend("x-unit" = "times", "minimum" = 1, "default" = REPEATS))]
    pub repeats: Option<u32>,
    /// Training crop: `"none"`, `{ pad = … }` or `{ inception = … }`.
    ///
    /// `"none"`: the whole picture, squashed to a square. `{ pad = { pixels = 4 } }`: squash to `image_size`,
    /// surround with black, cut a random window; `pixels` at most `image_size`. `{ inception = { area = [0.05,
    /// 1.0], aspect = [0.75, 1.3333] } }`: a random rectangle (Szegedy et al. 2015, the paper's choice);
    /// `area` is a part of the picture's, `aspect` width ÷ height.
    #[schemars(extend("default" = CROP))]
    pub crop: Option<TrainCrop>,
    /// Mirroring of every other training picture, at random.
    #[schemars(extend("default" = FLIP))]
    pub flip: Option<bool>,
    /// Random distortions after mirroring, of one of three flavours: RandAugment (Cubuk et al. 2019) or AutoAugment (2018).
    ///
    /// `{ flavour = "big_vision", layers = 2, magnitude = 15 }` is the paper's: magnitude 0 to 20 on a scale
    /// of 10, not clamped; its shifts (10 px per unit) and covered squares (up to 8 px per unit) are for
    /// pictures of 224 px, and leave nothing of small ones. `{ flavour = "timm", layers = 2, magnitude = 9,
    /// magnitude_std = 0.5, increasing = true }` is timm's `rand-m9-n2-mstd0.5-inc1`; further keys
    /// `probability` (0.5), `magnitude_max` (10), `fill` ([128, 128, 128]). `{ flavour = "autoaugment", policy =
    /// "cifar10" }` is torchvision's AutoAugment, one of 25 pairs of distortions for a picture; further policies
    /// `"imagenet"` and `"svhn"`, further key `fill` ([0, 0, 0]).
    #[schemars(extend("x-default" = "none"))]
    pub randaugment: Option<RandAugment>,
    /// Random rectangles that are covered at the end (Zhong et al. 2017), `{ probability = 0.25 }`.
    ///
    /// The rule is timm's. Further keys `area` (part of the picture), `aspect`, `fill` (`"mean"`, `"pixel"`,
    /// `"colour"`), `count`, `mean` and `std` of the colours that it draws.
    #[schemars(extend("x-default" = "none"))]
    pub erasing: Option<RandomErasing>,
    /// Mixup and CutMix, one draw for an update, `{ mixup_alpha = 0.5 }`.
    ///
    /// That is the paper's. Further keys `cutmix_alpha` (0), `switch_prob` (0.5, of CutMix where both are on),
    /// `prob` (1), `flavour`: `"big_vision"` (partner is the example before, share at least one half) or
    /// `"timm"` (partner counted from the end, share as drawn), `partners`: `"microbatch"` or `"batch"`, as in the
    /// paper: then nothing depends on how a batch is cut, for one more decoded example in each microbatch.
    #[schemars(extend("x-default" = "none"))]
    pub mix: Option<MixSpec>,
    /// Preparation for evaluation: `"squash"` or `{ resmall_crop = … }`.
    ///
    /// `{ resmall_crop = { fraction = 0.875 } }`: shorter side to `image_size / fraction`, then the centre.
    /// `"squash"`: the whole picture to `image_size × image_size`; a picture that has this size already is not
    /// touched.
    #[schemars(extend("default" = EVAL_RESIZE, "x-from" = "preprocessing"))]
    pub eval_resize: Option<EvalResize>,
    /// Filter of every resize, antialiased.
    ///
    /// `area`: the mean of the pixels below each pixel of the result, Pillow's `BOX` (and `box` in weights
    /// files, as in timm); where it enlarges, it repeats pixels.
    #[schemars(extend("default" = INTERPOLATION, "x-from" = "preprocessing"))]
    pub interpolation: Option<Interpolation>,
    /// Mean per colour (red, green, blue) of pixels in [0, 1], subtracted.
    #[schemars(extend("x-unit" = "three numbers", "default" = MEAN, "x-from" = "preprocessing"))]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation per colour of pixels in [0, 1], divided by.
    #[schemars(extend("x-unit" = "three numbers", "minimum" = MIN_STD, "default" = STD, "x-from" = "preprocessing"))]
    pub std: Option<[f32; 3]>,
    /// Shuffling of every picture by one order, as the last step: `"none"`, `{ patches = … }` or
    /// `{ pixels = … }`.
    ///
    /// The paper's Figure 4. `{ patches = { seed = 0 } }`: the patches of a picture in a random order, and the
    /// pixels of every patch in another; an MLP-Mixer learns as well. `{ pixels = { seed = 0 } }`: all pixels in
    /// a random order; it learns less well. The three colours of a pixel stay together. It is written into
    /// weights files, and everything that reads pictures for them follows it; they keep their resolution.
    #[schemars(extend("default" = SHUFFLE, "x-from" = "preprocessing"))]
    pub shuffle: Option<Shuffle>,
    /// Turning of pictures as their EXIF data says.
    ///
    /// Without it they are read as they are stored, as torchvision, timm and TensorFlow read them; OpenCV, and
    /// with it mmcv, turns them. `mixer data inspect` counts those that ask for it. It is written into weights
    /// files, and `mixer evaluate` and `mixer predict` follow it.
    #[schemars(extend("default" = APPLY_EXIF_ORIENTATION))]
    pub apply_exif_orientation: Option<bool>,
    /// Decoding of JPEGs at a half, a quarter or an eighth of their size, where that leaves at least as many
    /// pixels as the network sees.
    ///
    /// Quicker for photographs that are much larger than `model.image_size`: a crop of at least twice that is
    /// decoded at half of its size, by a smaller inverse transform, as `Image.draft` of Pillow does. The pixels
    /// are a little different. It is written into weights files, and everything that reads pictures for them
    /// follows it. Pictures that are turned, and those of other formats, are decoded in full.
    #[schemars(extend("default" = JPEG_SCALING, "x-from" = "preprocessing"))]
    pub jpeg_scaling: Option<bool>,
    /// Pixels above which a picture is refused.
    #[schemars(extend("x-unit" = "pixels", "default" = MAX_PIXELS))]
    pub max_pixels: Option<u64>,
    /// Fate of a file that cannot be read: `"stop"` or `{ skip = { at_most = 10 } }`.
    ///
    /// `skip` passes over so many different files before it is an error after all. In training the next
    /// readable example of the epoch takes its place, and a line is written to `metrics.jsonl`; in evaluation
    /// it is left out and `n` is smaller.
    #[schemars(extend("default" = ON_CORRUPT, "x-resume" = "free"))]
    pub on_corrupt: Option<OnCorrupt>,
    /// Decoding threads, which change no result; 0 decodes between the updates.
    #[schemars(extend("x-unit" = "threads", "minimum" = 0, "maximum" = MAX_WORKERS, "x-default" = "the cores, at most 16", "x-from" = "this machine", "x-resume" = "free"))]
    pub workers: Option<usize>,
    /// Memory for decoded batches that wait, which changes no result.
    ///
    /// There is always room for two batches, and never for more than 64.
    #[schemars(extend("x-unit" = "MiB", "minimum" = 0, "default" = QUEUE_MIB, "x-resume" = "free"))]
    pub queue_mib: Option<usize>,
}
