//! Opens the data that a configuration names.

use std::path::Path;
use std::sync::Arc;

use mixer_data::{
    BuiltinKind, BuiltinSource, BuiltinSplit, DataError, DecodeOptions, FolderSource, Source,
    SplitSpec, Subset,
};

use crate::config::{DataConfig, DataKind};
use crate::error::TrainError;
use crate::plan::check_image_size;

/// The two halves of a run's data.
#[derive(Clone)]
pub struct Dataset {
    /// To train on.
    pub train: Arc<dyn Source>,
    /// To evaluate on.
    pub val: Arc<dyn Source>,
    /// Name of the split that is evaluated.
    pub val_split: String,
}

impl Dataset {
    /// Opens both splits at the network's `image_size` (which only the built-in set is drawn at).
    ///
    /// # Errors
    /// [`TrainError`] when the configuration makes no sense or the data cannot be read.
    pub fn open(config: &DataConfig, image_size: usize) -> Result<Dataset, TrainError> {
        match config.source.unwrap_or(DataKind::Folder) {
            DataKind::Builtin => {
                for (key, set) in [
                    ("data.path", config.path.is_some()),
                    ("data.train", config.train.is_some()),
                    ("data.val", config.val.is_some()),
                    ("data.apply_exif_orientation", config.apply_exif_orientation.is_some()),
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
                Ok(Dataset {
                    train: builtin(BuiltinSplit::Train, config.train_examples.unwrap_or(20_000))?,
                    val: builtin(BuiltinSplit::Val, config.val_examples.unwrap_or(2000))?,
                    val_split: "val".to_owned(),
                })
            }
            DataKind::Folder => {
                for (key, set) in [
                    ("data.train_examples", config.train_examples.is_some()),
                    ("data.val_examples", config.val_examples.is_some()),
                ] {
                    if set {
                        return Err(TrainError::config(format!(
                            "`{key}` has no meaning with `data.source = \"folder\"`"
                        )));
                    }
                }
                let root = config.path.as_deref().ok_or_else(|| {
                    TrainError::config("`data.path` is missing")
                        .with_hint("set it to the folder above `train/` and `val/`, or use `data.source = \"builtin\"`")
                })?;
                let options = decode_options(config);
                let train =
                    open_split(root, config.train.as_deref().unwrap_or("train"), None, &options)?;
                let default = default_val_split(root);
                let val_split = config.val.as_deref().unwrap_or(default);
                let val = open_split(root, val_split, Some(train.class_names()), &options)
                    .map_err(|error| no_val_folder(error, config))?;
                Ok(Dataset { train, val, val_split: val_split.to_owned() })
            }
        }
    }
}

/// Many data sets come without a validation set: then the advice is how to take one.
fn no_val_folder(error: TrainError, config: &DataConfig) -> TrainError {
    match error {
        TrainError::Data(DataError::NoSuchDirectory { .. }) if config.val.is_none() => {
            let train = config.train.as_deref().unwrap_or("train");
            let folder = train.split('[').next().unwrap_or(train);
            TrainError::DataMismatch {
                message: error.to_string(),
                hint: Some(format!(
                    "where there is no `val/`, hold pictures back: `data.train = \"{folder}[:90%]\"` and `data.val = \"{folder}[90%:]\"`"
                )),
            }
        }
        error => error,
    }
}

/// How pictures are decoded under a configuration.
#[must_use]
pub fn decode_options(config: &DataConfig) -> DecodeOptions {
    let default = DecodeOptions::default();
    DecodeOptions {
        apply_orientation: config.apply_exif_orientation.unwrap_or(default.apply_orientation),
        max_pixels: config.max_pixels.unwrap_or(default.max_pixels),
    }
}

/// `val`, or `test` where there is no `val`.
#[must_use]
pub fn default_val_split(root: &Path) -> &'static str {
    if !root.join("val").is_dir() && root.join("test").is_dir() { "test" } else { "val" }
}

/// Opens one split of a folder, `train[:98%]`; `.` is the folder itself. `classes` are those of
/// training, where there are some.
///
/// # Errors
/// [`TrainError::Data`] when the split does not parse or its folder cannot be read.
pub fn open_split(
    root: &Path,
    split: &str,
    classes: Option<&[String]>,
    options: &DecodeOptions,
) -> Result<Arc<dyn Source>, TrainError> {
    let spec: SplitSpec = split.parse()?;
    let folder = root.join(&spec.folder);
    let source = match classes {
        Some(classes) => FolderSource::open_with_classes(&folder, classes, options.clone())?,
        None => FolderSource::open(&folder, options.clone())?,
    };
    Ok(Subset::of(Arc::new(source), &spec.range)?)
}
