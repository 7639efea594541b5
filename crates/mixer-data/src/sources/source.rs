//! Facts about a data set that the loader needs to know.

use crate::decode::options::DecodeOptions;
use crate::decode::picture::decode;
use crate::decode::rgb_image::RgbImage;
use crate::error::DataError;
use crate::sources::passed_over::PassedOver;

/// An example as its source holds it.
///
/// Sources do not decode: what decodes can then look at the encoded bytes, and need not decode all
/// of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Example {
    /// The bytes of a picture file, whatever its format.
    Encoded(Vec<u8>),
    /// A picture of a source that has pixels and no files.
    Pixels(RgbImage),
}

/// An indexed collection of labelled images.
///
/// Indices run over `0..len()`. Methods that take an index may panic beyond that.
pub trait Source: Send + Sync {
    /// The number of examples, `n`.
    fn len(&self) -> usize;

    /// `true` where there is no example.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The classes; a label is a position in this slice.
    fn class_names(&self) -> &[String];

    /// The label of an example.
    fn label(&self, index: usize) -> u32;

    /// Reads (or draws) an example, and decodes nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, index: usize) -> Result<Example, DataError>;

    /// Files or members that lie where the examples do and are none; nothing where somebody named every file.
    fn passed_over(&self) -> PassedOver {
        PassedOver::default()
    }

    /// Refuses a source that can be looked at and evaluated on, but not trained on.
    ///
    /// # Errors
    /// When it has a single class, or, where somebody made a place for each class, one without an example.
    fn check_for_training(&self) -> Result<(), DataError> {
        match self.class_names() {
            [class] => {
                let path = self.describe(0).into();
                Err(DataError::SingleClass { class: class.clone(), path })
            }
            _ => Ok(()),
        }
    }

    /// Options with which the examples of this source are decoded.
    fn decode_options(&self) -> DecodeOptions {
        DecodeOptions::default()
    }

    /// Reads and decodes an example.
    ///
    /// # Errors
    /// When it cannot be read or is not a picture.
    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        match self.read(index)? {
            Example::Pixels(image) => Ok(image),
            Example::Encoded(bytes) => decode(&bytes, &self.decode_options())
                .map_err(|reason| DataError::BadExample { example: self.describe(index), reason }),
        }
    }

    /// Names an example for messages: its path, or `builtin example 17`.
    fn describe(&self, index: usize) -> String;

    /// A number that changes when the examples, their order or their labels change.
    ///
    /// It is the same on every machine and does not depend on where the data lies: a hash of
    /// relative paths and labels, or of the parameters of a procedural set. File contents do not
    /// enter. A resumed run compares it to notice changed data.
    fn fingerprint(&self) -> u64;
}
