//! `--assume`: data and weights that are not there, for a configuration that is looked at elsewhere.

use std::str::FromStr;

use mixer_data::Subset;
use mixer_model::{Gelu, Metadata, Variant};

use crate::config::RunConfig;
use crate::config::limits::check_image_size;
use crate::config::model::{GELU, IMAGE_SIZE};
use crate::error::TrainError;
use crate::plan::{DataFacts, InitFacts};

/// The most classes that are assumed: JFT-300M has 18,291, ImageNet-21k 21,843.
const MAX_CLASSES: u64 = 1_000_000;

/// Classes of weights that are assumed without a number: those of ImageNet-21k.
const WEIGHTS_CLASSES: usize = 21_843;

/// Assumed facts: `classes=1000,train=1281167,val=50000`, and for fine-tuning `init=B/16@224`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Assumed {
    classes: Option<u64>,
    train: Option<u64>,
    val: Option<u64>,
    init: Option<(String, usize)>,
    teacher: Option<(String, usize)>,
}

impl FromStr for Assumed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut assumed = Self::default();
        for part in text.split(',') {
            let (key, value) =
                part.split_once('=').ok_or("expected KEY=VALUE, separated by commas")?;
            let number = |most: u64| match value.parse() {
                Ok(number) if (1..=most).contains(&number) => Ok(Some(number)),
                _ => Err(format!("`{key}` is {value}, expected a whole number from 1 to {most}")),
            };
            match key.trim() {
                "classes" => assumed.classes = number(MAX_CLASSES)?,
                "train" => assumed.train = number(u64::from(u32::MAX))?,
                "val" => assumed.val = number(u64::from(u32::MAX))?,
                "init" => assumed.init = Some(weights(key, value)?),
                "teacher" => assumed.teacher = Some(weights(key, value)?),
                other => {
                    return Err(format!(
                        "`{other}` is unknown, expected `classes`, `train`, `val`, `init` or `teacher`"
                    ));
                }
            }
        }
        Ok(assumed)
    }
}

/// `B/16@224`, or `B/16` at the usual size.
fn weights(key: &str, text: &str) -> Result<(String, usize), String> {
    let (variant, size) = match text.split_once('@') {
        Some((variant, size)) => (
            variant,
            size.parse().map_err(|_| {
                format!("`{key}` is at {size}, expected a number of pixels, as `B/16@224`")
            })?,
        ),
        None => (text, IMAGE_SIZE),
    };
    Ok((variant.to_owned(), size))
}

impl Assumed {
    /// The data, where it is assumed.
    pub(super) fn data(&self, config: &RunConfig) -> Result<Option<DataFacts>, TrainError> {
        let (classes, train, val) = match (self.classes, self.train, self.val) {
            (None, None, None) => return Ok(None),
            (Some(classes), Some(train), Some(val)) => (classes, train, val),
            _ => {
                return Err(TrainError::usage("`--assume` has a part of the data, expected all of `classes`, `train` and `val`")
                    .with_hint("write `--assume classes=1000,train=1281167,val=50000`"));
            }
        };
        Ok(Some(DataFacts {
            train_examples: match config.data.train_fraction {
                Some(fraction) => Subset::fraction_len(train as usize, fraction) as u64,
                None => train,
            },
            val_examples: val,
            val_split: config.data.val.clone().unwrap_or_else(|| "val".to_owned()),
            train_fingerprint: "assumed".to_owned(),
            val_fingerprint: "assumed".to_owned(),
            classes: (0..classes).map(|i| format!("class {i}")).collect(),
        }))
    }

    /// The weights, where they are assumed: a variant as it was published, without names of classes.
    pub(super) fn init(&self, config: &RunConfig) -> Result<Option<InitFacts>, TrainError> {
        let gelu = config.model.gelu.unwrap_or(GELU);
        let init = self.init.as_ref();
        init.map(|assumed| published("init", assumed, WEIGHTS_CLASSES, gelu)).transpose()
    }

    /// The teacher, where it is assumed: a variant with the classes of the data.
    pub(super) fn teacher(
        &self,
        config: &RunConfig,
        data: &DataFacts,
    ) -> Result<Option<InitFacts>, TrainError> {
        let Some(assumed) = &self.teacher else { return Ok(None) };
        if config.train.teacher.is_none() {
            let message = "`--assume` has a teacher, but the configuration has no `train.teacher`";
            return Err(TrainError::usage(message));
        }
        published("teacher", assumed, data.classes.len(), GELU).map(Some)
    }
}

/// Weights of a variant without names of classes.
fn published(
    key: &str,
    (variant, image_size): &(String, usize),
    classes: usize,
    gelu: Gelu,
) -> Result<InitFacts, TrainError> {
    check_image_size(&format!("--assume {key}"), *image_size)?;
    let config = Variant::parse(variant)?.config(*image_size, classes, gelu);
    config.validate()?;
    Ok(InitFacts::assumed(config, Metadata::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_assumed_as_a_whole_and_weights_by_variant_and_size() {
        let assumed: Assumed = "classes=2,train=10,val=3,init=S/16@448".parse().unwrap();
        let config = RunConfig::default();
        let data = assumed.data(&config).unwrap().unwrap();
        assert_eq!((data.train_examples, data.val_examples, data.classes.len()), (10, 3, 2));
        let init = assumed.init(&config).unwrap().unwrap();
        assert_eq!((init.config.image_size, init.config.variant_name()), (448, Some("S/16")));
        let part: Assumed = "classes=2".parse().unwrap();
        assert!(part.data(&config).unwrap_err().hint().unwrap().contains("train=1281167"));
        for (text, expected) in [
            ("classes", "KEY=VALUE"),
            ("classes=0", "from 1"),
            ("x=1", "unknown"),
            ("init=B/16@big", "pixels"),
        ] {
            assert!(text.parse::<Assumed>().unwrap_err().contains(expected), "{text}");
        }
    }
}
