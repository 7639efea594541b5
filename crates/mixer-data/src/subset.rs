//! A part of a source.

use std::ops::Range;
use std::sync::Arc;

use crate::error::DataError;
use crate::fingerprint::Fingerprint;
use crate::permutation::Permutation;
use crate::rgb_image::RgbImage;
use crate::source::Source;
use crate::split::SplitRange;

/// The seed of the shuffle behind every subset. Changing it changes what `train[:98%]` means.
const SHUFFLE_SEED: u64 = 0x6d69_7865_7221;

/// A range of the examples of a source, taken in a fixed shuffled order.
///
/// Folders are sorted by class, so the last 2 % of one would be a single class. A subset therefore
/// takes its range of [`Permutation`] number 0 of a fixed seed: the same examples on every machine
/// and in every run, and two ranges that meet partition the source exactly. It takes O(1) memory.
pub struct Subset {
    source: Arc<dyn Source>,
    permutation: Permutation,
    range: Range<usize>,
}

impl Subset {
    /// The part of `source` that `range` names.
    ///
    /// A range over everything gives back the source itself, in its own order.
    ///
    /// # Errors
    /// [`DataError::SplitOutOfRange`] when the range reaches beyond the data or is empty.
    pub fn of(source: Arc<dyn Source>, range: &SplitRange) -> Result<Arc<dyn Source>, DataError> {
        if range.is_all() {
            return Ok(source);
        }
        let range = range.resolve(source.len())?;
        Ok(Arc::new(Self {
            permutation: Permutation::new(SHUFFLE_SEED, 0, source.len() as u64),
            source,
            range,
        }))
    }

    /// The index in the whole source.
    fn inner(&self, index: usize) -> usize {
        assert!(
            index < self.range.len(),
            "example {index} of {}",
            self.range.len()
        );
        self.permutation.get((self.range.start + index) as u64) as usize
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn class_names(&self) -> &[String] {
        self.source.class_names()
    }

    fn label(&self, index: usize) -> u32 {
        self.source.label(self.inner(index))
    }

    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        self.source.image(self.inner(index))
    }

    fn describe(&self, index: usize) -> String {
        self.source.describe(self.inner(index))
    }

    fn fingerprint(&self) -> u64 {
        Fingerprint::new()
            .number(self.source.fingerprint())
            .number(self.range.start as u64)
            .number(self.range.end as u64)
            .finish()
    }
}
