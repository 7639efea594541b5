//! Opens the data that a configuration names.

use std::path::Path;
use std::sync::Arc;

use mixer_data::{
    BuiltinKind, BuiltinSource, BuiltinSplit, DataError, DecodeOptions, Source, SourceKind, Subset,
    open_split, remarks,
};

use crate::config::data::{TRAIN, TRAIN_EXAMPLES, TRAIN_FRACTION_SEED, VAL_EXAMPLES};
use crate::config::limits::check_image_size;
use crate::config::{DataConfig, DataKind};
use crate::error::{TrainError, named_by_key};
use crate::plan::facts::DataFacts;

/// The two halves of a run's data.
#[derive(Clone)]
pub struct Dataset {
    /// To train on.
    pub train: Arc<dyn Source>,
    /// To evaluate on.
    pub val: Arc<dyn Source>,
    /// Name of the split to train on, with the part of it that is.
    pub train_split: String,
    /// Name of the split that is evaluated.
    pub val_split: String,
}

impl Dataset {
    /// Counts, names, and the hashes that a run which is continued compares.
    #[must_use]
    pub fn facts(&self) -> DataFacts {
        let fingerprint = |source: &dyn Source| format!("{:016x}", source.fingerprint());
        DataFacts {
            train_examples: self.train.len() as u64,
            val_examples: self.val.len() as u64,
            val_split: self.val_split.clone(),
            train_fingerprint: fingerprint(&*self.train),
            val_fingerprint: fingerprint(&*self.val),
            classes: self.train.class_names().to_vec(),
        }
    }

    /// Remarks on data that can be used: what was passed over, and classes without an example.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut found = remarks(&*self.train, &self.train_split);
        for remark in remarks(&*self.val, &self.val_split) {
            // Two ranges of one folder have a remark in common.
            if !found.contains(&remark) {
                found.push(remark);
            }
        }
        found
    }

    /// Opens both splits at the network's `image_size` (which only the built-in set is drawn at).
    ///
    /// # Errors
    /// [`TrainError`] when the configuration makes no sense or the data cannot be read.
    pub fn open(config: &DataConfig, image_size: usize) -> Result<Self, TrainError> {
        let opened = match config.source {
            Some(DataKind::Builtin) => {
                for (key, set) in [
                    ("data.path", config.path.is_some()),
                    ("data.train", config.train.is_some()),
                    ("data.val", config.val.is_some()),
                    ("data.apply_exif_orientation", config.apply_exif_orientation.is_some()),
                    ("data.jpeg_scaling", config.jpeg_scaling == Some(true)),
                    ("data.max_pixels", config.max_pixels.is_some()),
                ] {
                    if set {
                        return Err(TrainError::config(format!(
                            "`{key}` has no meaning with `data.source = \"builtin\"`"
                        )));
                    }
                }
                for (key, len) in [
                    ("data.train_examples", config.train_examples),
                    ("data.val_examples", config.val_examples),
                ] {
                    if len == Some(0) {
                        return Err(TrainError::config(format!(
                            "`{key}` is 0, expected at least 1"
                        )));
                    }
                }
                check_image_size("model.image_size", image_size)?;
                let builtin = |split, len| -> Result<Arc<dyn Source>, TrainError> {
                    let kind = BuiltinKind::Shapes;
                    Ok(Arc::new(BuiltinSource::new(kind, split, len, image_size as u32, 0)?))
                };
                Self {
                    train: builtin(
                        BuiltinSplit::Train,
                        config.train_examples.unwrap_or(TRAIN_EXAMPLES),
                    )?,
                    val: builtin(BuiltinSplit::Val, config.val_examples.unwrap_or(VAL_EXAMPLES))?,
                    train_split: TRAIN.to_owned(),
                    val_split: "val".to_owned(),
                }
            }
            kind => {
                let kind = kind.and_then(DataKind::on_disk);
                for (key, set) in [
                    ("data.train_examples", config.train_examples.is_some()),
                    ("data.val_examples", config.val_examples.is_some()),
                ] {
                    if set {
                        return Err(TrainError::config(format!(
                            "`{key}` has no meaning without `data.source = \"builtin\"`"
                        )));
                    }
                }
                let root = config.path.as_deref().ok_or_else(|| {
                    TrainError::config("`data.path` is missing")
                        .with_hint("set it to the folder above `train/` and `val/`, or use `data.source = \"builtin\"`")
                })?;
                let options = decode_options(config);
                let train_split = config.train.as_deref().unwrap_or(TRAIN);
                let train = open_split(kind, root, train_split, None, &options)?;
                train.check_for_training()?;
                let val_split = config.val.as_deref().unwrap_or(default_val_split(root, kind));
                let val = open_split(kind, root, val_split, Some(train.class_names()), &options)
                    .map_err(|error| no_val_folder(error.into(), config))?;
                let [train_split, val_split] = [train_split, val_split].map(str::to_owned);
                Self { train, val, train_split, val_split }
            }
        };
        opened.with_fraction(config)
    }

    /// The same with the part of the training examples that the configuration asks for.
    fn with_fraction(mut self, config: &DataConfig) -> Result<Self, TrainError> {
        let Some(fraction) = config.train_fraction else { return Ok(self) };
        let whole = self.train.len();
        let seed = config.train_fraction_seed.unwrap_or(TRAIN_FRACTION_SEED);
        self.train = Subset::fraction(self.train, fraction, seed.into()).map_err(named_by_key)?;
        if self.train.len() < whole {
            self.train_split = format!("{}[{fraction} of it]", self.train_split);
        }
        Ok(self)
    }
}

/// Many data sets come without a validation set: then the advice is how to take one.
fn no_val_folder(error: TrainError, config: &DataConfig) -> TrainError {
    match error {
        TrainError::Data(DataError::NoSuchDirectory { .. }) if config.val.is_none() => {
            let train = config.train.as_deref().unwrap_or(TRAIN);
            let folder = train.split('[').next().unwrap_or(train);
            TrainError::DataMismatch {
                message: error.to_string(),
                hint: Some(format!(
                    "where there is no `val/`, hold pictures back: `data.train = \"{folder}[:90% of each class]\"` and `data.val = \"{folder}[90%: of each class]\"`"
                )),
            }
        }
        error => error,
    }
}

/// Decoding of pictures under a configuration.
#[must_use]
pub fn decode_options(config: &DataConfig) -> DecodeOptions {
    let default = DecodeOptions::default();
    DecodeOptions {
        apply_orientation: config.apply_exif_orientation.unwrap_or(default.apply_orientation),
        max_pixels: config.max_pixels.unwrap_or(default.max_pixels),
    }
}

/// `val`, or `test` where there is no `val` or the kind of source never has one.
#[must_use]
pub fn default_val_split(root: &Path, kind: Option<SourceKind>) -> &'static str {
    let kind = kind.unwrap_or_else(|| SourceKind::of(root, "val"));
    let has_test = match kind {
        SourceKind::Cifar | SourceKind::Idx => true,
        _ => !root.join("val").is_dir() && root.join("test").is_dir(),
    };
    if has_test { "test" } else { "val" }
}
