//! ImageNet's reassessed labels: several for a picture, or none.
//!
//! # Source
//! "Are we done with ImageNet?" (Beyer et al. 2020), `google-research/reassessed-imagenet`.

use std::path::{Path, PathBuf};

use fs_err as fs;
use mixer_data::Source;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::look::details::Detailed;

/// The text before the number of a picture in its name.
const PREFIX: &str = "ILSVRC2012_val_";

/// Accuracy by the reassessed labels; its JSON form is part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Real {
    /// Pictures that have labels.
    pub n: u64,
    /// Fraction of them whose prediction is one of their labels.
    pub top1: f64,
}

/// The labels of the examples of a source.
#[derive(Debug, Clone)]
pub struct RealLabels {
    file: PathBuf,
    /// Outputs that are right, for each example.
    of_example: Vec<Vec<usize>>,
}

impl RealLabels {
    /// Reads `real.json`: a list of classes for each picture of ImageNet's validation set. A picture is known
    /// by its name, `ILSVRC2012_val_00000001.JPEG`.
    ///
    /// # Errors
    /// [`TrainError::DataMismatch`] for a file that cannot be read, of another form or length, for classes that
    /// are no outputs, and pictures of other names.
    pub fn read(file: &Path, source: &dyn Source, num_classes: usize) -> Result<Self, TrainError> {
        let bytes = fs::read(file).map_err(|error| TrainError::data_mismatch(error.to_string()))?;
        let mismatch =
            |message: String| TrainError::data_mismatch(format!("{message}: {}", file.display()));
        let labels: Vec<Vec<usize>> = serde_json::from_slice(&bytes)
            .map_err(|error| mismatch(format!("not a list of lists of classes: {error}")))?;
        let of = |index: usize| {
            let name = source.describe(index);
            let number = number_of(&name).ok_or_else(|| {
                TrainError::data_mismatch(format!(
                    "no picture of ImageNet's validation set, as `{PREFIX}00000001.JPEG` is: {name}"
                ))
                .with_hint("`--real` compares pictures by their names: evaluate the original files")
            })?;
            let labels = labels.get(number.wrapping_sub(1)).ok_or_else(|| {
                let len = labels.len();
                mismatch(format!("{len} pictures have labels, there is a picture number {number}"))
            })?;
            match labels.iter().find(|label| **label >= num_classes) {
                Some(label) => Err(mismatch(format!(
                    "picture {number} has the label {label}, the weights have outputs 0 to {}",
                    num_classes - 1
                ))),
                None => Ok(labels.clone()),
            }
        };
        let of_example = (0..source.len()).map(of).collect::<Result<_, _>>()?;
        Ok(Self { file: file.to_owned(), of_example })
    }

    /// The accuracy of answers. A picture without labels counts for nothing.
    ///
    /// # Errors
    /// [`TrainError::DataMismatch`] where no picture has a label.
    pub fn compared(&self, found: &Detailed) -> Result<Real, TrainError> {
        let (mut n, mut right) = (0u64, 0u64);
        for row in &found.rows {
            let labels = &self.of_example[row.index];
            n += u64::from(!labels.is_empty());
            right += u64::from(labels.contains(&found.outputs[row.scored.prediction]));
        }
        if n == 0 {
            let message = format!("no picture has a label: {}", self.file.display());
            return Err(TrainError::data_mismatch(message));
        }
        Ok(Real { n, top1: right as f64 / n as f64 })
    }
}

/// The number in the name of a picture of ImageNet's validation set.
fn number_of(name: &str) -> Option<usize> {
    let (_, rest) = name.rsplit_once(PREFIX)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_numbers() {
        for (name, number) in [
            ("val/n01440764/ILSVRC2012_val_00000293.JPEG", Some(293)),
            ("val-000.tar: ILSVRC2012_val_00000001_n01751748.jpg", Some(1)),
            ("val/cat.jpg", None),
            ("val/n01440764/000293.png", None),
            ("val/ILSVRC2012_val_.JPEG", None),
        ] {
            assert_eq!(number_of(name), number, "{name}");
        }
    }
}
