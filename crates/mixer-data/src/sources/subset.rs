//! A part of a source.

use std::ops::Range;
use std::sync::Arc;

use crate::decode::options::DecodeOptions;
use crate::error::DataError;
use crate::order::permutation::Permutation;
use crate::sources::fingerprint::Fingerprint;
use crate::sources::passed_over::PassedOver;
use crate::sources::source::{Example, Source};
use crate::sources::split::SplitRange;

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
        assert!(index < self.range.len(), "example {index} of {}", self.range.len());
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

    fn read(&self, index: usize) -> Result<Example, DataError> {
        self.source.read(self.inner(index))
    }

    fn decode_options(&self) -> DecodeOptions {
        self.source.decode_options()
    }

    fn describe(&self, index: usize) -> String {
        self.source.describe(self.inner(index))
    }

    fn passed_over(&self) -> PassedOver {
        self.source.passed_over()
    }

    fn check_for_training(&self) -> Result<(), DataError> {
        self.source.check_for_training()
    }

    fn fingerprint(&self) -> u64 {
        Fingerprint::new()
            .number(self.source.fingerprint())
            .number(self.range.start as u64)
            .number(self.range.end as u64)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::builtin::{BuiltinKind, BuiltinSource, BuiltinSplit};
    use crate::sources::split::SplitSpec;

    fn builtin(len: usize) -> Arc<dyn Source> {
        let source = BuiltinSource::new(BuiltinKind::Shapes, BuiltinSplit::Train, len, 8, 0);
        Arc::new(source.unwrap())
    }

    fn subset(source: &Arc<dyn Source>, split: &str) -> Arc<dyn Source> {
        let split: SplitSpec = split.parse().unwrap();
        Subset::of(Arc::clone(source), &split.range).unwrap()
    }

    fn descriptions(source: &Arc<dyn Source>) -> Vec<String> {
        (0..source.len()).map(|index| source.describe(index)).collect()
    }

    #[test]
    fn two_halves_share_nothing_and_miss_nothing() {
        let source = builtin(1003);
        let below = subset(&source, "train[:98%]");
        let above = subset(&source, "train[98%:]");
        assert_eq!((below.len(), above.len()), (982, 21));
        let mut together = [descriptions(&below), descriptions(&above)].concat();
        let mut expected = descriptions(&source);
        together.sort_unstable();
        expected.sort_unstable();
        assert_eq!(together, expected);
    }

    #[test]
    fn labels_and_images_follow_the_example() {
        let source = builtin(50);
        let part = subset(&source, "train[10:20]");
        for index in 0..part.len() {
            let description = part.describe(index);
            let whole = (0..50).find(|&i| source.describe(i) == description).unwrap();
            assert_eq!(part.label(index), source.label(whole));
            assert_eq!(part.image(index).unwrap(), source.image(whole).unwrap());
        }
    }

    #[test]
    fn a_split_without_a_range_is_the_source_itself() {
        let source = builtin(20);
        assert!(Arc::ptr_eq(&source, &subset(&source, "train")));
    }

    #[test]
    fn fingerprints_tell_subsets_apart() {
        let source = builtin(100);
        let first = subset(&source, "train[:50%]");
        let second = subset(&source, "train[50%:]");
        assert_ne!(first.fingerprint(), second.fingerprint());
        assert_ne!(first.fingerprint(), source.fingerprint());
        assert_eq!(first.fingerprint(), subset(&source, "train[:50]").fingerprint());
    }

    #[test]
    fn membership_is_pinned() {
        // Changing this changes what `train[:98%]` means, and breaks resume of existing runs.
        let part = subset(&builtin(1000), "train[:5]");
        let found = descriptions(&part);
        let expected = [106, 563, 299, 289, 300].map(|index| format!("builtin example {index}"));
        assert_eq!(found, expected);
    }
}
