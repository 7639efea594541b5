//! The data of a run and how it is prepared.

use std::path::PathBuf;

use mixer_data::{
    EvalResize, EvalTransform, Interpolation, MixPartners, MixSpec, OnCorrupt, RandAugment,
    RandomErasing, TrainCrop, TrainTransform,
};
use mixer_model::weights::Shuffle;
use serde::{Deserialize, Serialize};

use crate::config::data::{
    APPLY_EXIF_ORIENTATION, CROP, DataConfig, DataKind, EVAL_RESIZE, FLIP, INTERPOLATION,
    JPEG_SCALING, MAX_PIXELS, MEAN, ON_CORRUPT, QUEUE_MIB, REPEATS, SHUFFLE, STD, TRAIN,
    TRAIN_EXAMPLES, TRAIN_FRACTION, TRAIN_FRACTION_SEED, VAL_EXAMPLES, default_workers,
};
use crate::error::{TrainError, named_by_key};
use crate::input::preprocessing;
use crate::plan::facts::{DataFacts, InitFacts};
use crate::plan::train::TrainPlan;

/// The data of a run and how it is prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPlan {
    /// Kind of source, where it was named.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<DataKind>,
    /// The folder that the splits lie in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<PathBuf>,
    /// Split to train on; absent for the built-in set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub train: Option<String>,
    /// Split to evaluate on; absent for the built-in set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub val: Option<String>,
    /// Part of the training examples that is trained on.
    #[serde(default = "all")]
    pub train_fraction: f64,
    /// Seed that chooses it; absent where it is all of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub train_fraction_seed: Option<u32>,
    /// Size of the built-in training set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub train_examples: Option<usize>,
    /// Size of the built-in validation set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub val_examples: Option<usize>,
    /// Times that a pass shows every training example.
    pub repeats: u32,
    /// Training crop.
    pub crop: TrainCrop,
    /// Mirroring of every other training picture.
    pub flip: bool,
    /// Random distortions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub randaugment: Option<RandAugment>,
    /// Random rectangles that are covered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub erasing: Option<RandomErasing>,
    /// Mixing of batches.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mix: Option<MixSpec>,
    /// Way of a picture to the network's size in evaluation.
    pub eval_resize: EvalResize,
    /// Filter of every resize.
    pub interpolation: Interpolation,
    /// Mean per colour.
    pub mean: [f32; 3],
    /// Standard deviation per colour.
    pub std: [f32; 3],
    /// Order that the pixels of every picture are put in.
    #[serde(default)]
    pub shuffle: Shuffle,
    /// Turning of pictures as their EXIF data says; absent for the built-in set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub apply_exif_orientation: Option<bool>,
    /// Decoding of JPEGs at a part of their size.
    #[serde(default)]
    pub jpeg_scaling: bool,
    /// Pixels above which a picture is refused; absent for the built-in set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_pixels: Option<u64>,
    /// Fate of unreadable examples.
    pub on_corrupt: OnCorrupt,
    /// Decoding threads.
    pub workers: usize,
    /// Memory for decoded batches that wait, MiB.
    pub queue_mib: usize,
}

/// The fraction of plans that were written before there was one.
fn all() -> f64 {
    TRAIN_FRACTION
}

impl DataPlan {
    /// Resolves the section for a network's image size and a run's batches.
    pub(super) fn resolve(
        config: &DataConfig,
        init: Option<&InitFacts>,
        facts: &DataFacts,
        image_size: usize,
        batches: &TrainPlan,
    ) -> Result<Self, TrainError> {
        let repeats = config.repeats.unwrap_or(REPEATS);
        if repeats as usize > batches.batch_size {
            return Err(TrainError::config(format!(
                "`data.repeats` is {repeats}, expected at most `train.batch_size`, {}: the repeats of an example belong into one update",
                batches.batch_size
            )));
        }
        let inherited = init.and_then(|facts| facts.metadata.preprocessing);
        let inherited_eval = inherited.map(|rule| preprocessing::eval_transform(&rule, image_size));
        let interpolation = config
            .interpolation
            .or(inherited_eval.as_ref().map(|transform| transform.interpolation))
            .unwrap_or(INTERPOLATION);
        let train = train_transform(config, interpolation, image_size);
        train.check().map_err(named_by_key)?;
        let eval = EvalTransform {
            image_size: image_size as u32,
            resize: config
                .eval_resize
                .clone()
                .or(inherited_eval.map(|transform| transform.resize))
                .unwrap_or(EVAL_RESIZE),
            interpolation,
            jpeg_scaling: config
                .jpeg_scaling
                .or(inherited.map(|rule| rule.jpeg_scaling))
                .unwrap_or(JPEG_SCALING),
        };
        eval.check().map_err(named_by_key)?;
        check_effects(config, batches.microbatch_size)?;
        let mean = config.mean.or(inherited.map(|p| p.mean)).unwrap_or(MEAN);
        let std = config.std.or(inherited.map(|p| p.std)).unwrap_or(STD);
        let is_builtin = config.source == Some(DataKind::Builtin);
        let train_fraction = config.train_fraction.unwrap_or(TRAIN_FRACTION);
        let is_part = train_fraction < 1.0;
        if !is_part && config.train_fraction_seed.is_some() {
            return Err(TrainError::no_effect(
                "data.train_fraction_seed",
                "without a `data.train_fraction` below 1",
            ));
        }
        Ok(Self {
            source: config.source,
            path: config.path.clone(),
            train: (!is_builtin).then(|| config.train.clone().unwrap_or_else(|| TRAIN.to_owned())),
            val: (!is_builtin)
                .then(|| config.val.clone().unwrap_or_else(|| facts.val_split.clone())),
            train_fraction,
            train_fraction_seed: is_part
                .then_some(config.train_fraction_seed.unwrap_or(TRAIN_FRACTION_SEED)),
            train_examples: is_builtin.then_some(config.train_examples.unwrap_or(TRAIN_EXAMPLES)),
            val_examples: is_builtin.then_some(config.val_examples.unwrap_or(VAL_EXAMPLES)),
            repeats,
            crop: train.crop,
            flip: train.flip,
            randaugment: train.randaugment,
            erasing: train.erasing,
            mix: config.mix.clone(),
            eval_resize: eval.resize,
            interpolation,
            mean,
            std,
            shuffle: config.shuffle.or(inherited.map(|p| p.shuffle)).unwrap_or(SHUFFLE),
            apply_exif_orientation: (!is_builtin)
                .then_some(config.apply_exif_orientation.unwrap_or(APPLY_EXIF_ORIENTATION)),
            jpeg_scaling: eval.jpeg_scaling,
            max_pixels: (!is_builtin).then_some(config.max_pixels.unwrap_or(MAX_PIXELS)),
            on_corrupt: config.on_corrupt.unwrap_or(ON_CORRUPT),
            workers: config.workers.unwrap_or_else(default_workers),
            queue_mib: config.queue_mib.unwrap_or(QUEUE_MIB),
        })
    }

    /// Memory for decoded batches that wait, bytes.
    #[must_use]
    pub fn queue_bytes(&self) -> usize {
        self.queue_mib.saturating_mul(1 << 20)
    }
}

impl DataPlan {
    /// `true` where a microbatch holds the partner of its first example, which is in another one.
    pub(crate) fn leads_microbatches(&self) -> bool {
        self.mix.as_ref().is_some_and(|mix| mix.partners == MixPartners::Batch)
    }
}

/// Refuses settings that change nothing, or make no sense.
fn check_effects(config: &DataConfig, microbatch_size: usize) -> Result<(), TrainError> {
    if let Some(mix) = &config.mix {
        mix.check().map_err(named_by_key)?;
        let (mixup, cutmix) = (mix.mixup_alpha > 0.0, mix.cutmix_alpha > 0.0);
        if !mixup && !cutmix {
            return Err(TrainError::no_effect(
                "data.mix",
                "unless `mixup_alpha` or `cutmix_alpha` is above 0",
            ));
        }
        if mix.prob == 0.0 {
            return Err(TrainError::no_effect("data.mix", "with a `prob` of 0"));
        }
        if microbatch_size == 1 && mix.partners == MixPartners::Microbatch {
            return Err(TrainError::no_effect(
                "data.mix",
                "with microbatches of 1: partners are in the microbatch, without `partners = \"batch\"`",
            ));
        }
        let is_usual = (mix.switch_prob - 0.5).abs() < f64::EPSILON;
        if mixup != cutmix && !is_usual {
            return Err(TrainError::no_effect(
                "data.mix.switch_prob",
                "unless both alphas are above 0",
            ));
        }
        if mixup && cutmix && mix.switch_prob == 0.0 {
            return Err(TrainError::no_effect(
                "data.mix.cutmix_alpha",
                "with a `switch_prob` of 0",
            ));
        }
        if mixup && cutmix && mix.switch_prob >= 1.0 {
            return Err(TrainError::no_effect("data.mix.mixup_alpha", "with a `switch_prob` of 1"));
        }
    }
    if config.erasing.as_ref().is_some_and(|erasing| erasing.probability == 0.0) {
        return Err(TrainError::no_effect("data.erasing", "with a `probability` of 0"));
    }
    if let Some(RandAugment::Timm { probability, .. }) = config.randaugment
        && probability == 0.0
    {
        return Err(TrainError::no_effect("data.randaugment", "with a `probability` of 0"));
    }
    Ok(())
}

/// Augmentation under a configuration.
pub(crate) fn train_transform(
    data: &DataConfig,
    interpolation: Interpolation,
    image_size: usize,
) -> TrainTransform {
    TrainTransform {
        image_size: image_size as u32,
        crop: data.crop.clone().unwrap_or(CROP),
        flip: data.flip.unwrap_or(FLIP),
        interpolation,
        randaugment: data.randaugment.clone(),
        erasing: data.erasing.clone(),
        jpeg_scaling: data.jpeg_scaling.unwrap_or(JPEG_SCALING),
    }
}
