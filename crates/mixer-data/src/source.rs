//! What the loader needs to know of a data set.

use crate::error::DataError;
use crate::rgb_image::RgbImage;

/// An indexed collection of labelled images.
///
/// Indices run over `0..len()`. Methods that take an index may panic beyond that.
pub trait Source: Send + Sync {
    /// The number of examples, `n`.
    fn len(&self) -> usize;

    /// Whether there is no example.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The classes; a label is a position in this slice.
    fn class_names(&self) -> &[String];

    /// The label of an example.
    fn label(&self, index: usize) -> u32;

    /// Reads and decodes (or draws) an example.
    ///
    /// # Errors
    /// When the file cannot be read or is not a picture.
    fn image(&self, index: usize) -> Result<RgbImage, DataError>;

    /// Names an example for messages: its path, or `builtin example 17`.
    fn describe(&self, index: usize) -> String;

    /// A number that changes when the examples, their order or their labels change.
    ///
    /// It is the same on every machine and does not depend on where the data lies: a hash of
    /// relative paths and labels, or of the parameters of a procedural set. File contents do not
    /// enter. A resumed run compares it to notice changed data.
    fn fingerprint(&self) -> u64;
}
