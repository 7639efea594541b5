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
///
/// A range of each class is taken of the examples of the class in that order, which takes four bytes for
/// each of its examples. Two that meet at a part of the class both have some of it, where it has two.
pub struct Subset {
    source: Arc<dyn Source>,
    picked: Picked,
    fingerprint: u64,
}

/// The examples of a subset.
enum Picked {
    /// A range of all.
    Range(Permutation, Range<usize>),
    /// These.
    Listed(Vec<u32>),
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
        let permutation = Permutation::new(SHUFFLE_SEED, 0, source.len() as u64);
        let mut fingerprint = Fingerprint::new();
        fingerprint.number(source.fingerprint());
        let picked = match range.of_each_class {
            true => {
                fingerprint.string(&range.to_string());
                Picked::Listed(of_each_class(&*source, &permutation, range)?)
            }
            false => {
                let range = range.resolve(source.len())?;
                fingerprint.number(range.start as u64).number(range.end as u64);
                Picked::Range(permutation, range)
            }
        };
        Ok(Arc::new(Self { source, picked, fingerprint: fingerprint.finish() }))
    }

    /// The index in the whole source.
    fn inner(&self, index: usize) -> usize {
        assert!(index < self.len(), "example {index} of {}", self.len());
        match &self.picked {
            Picked::Range(permutation, range) => {
                permutation.get((range.start + index) as u64) as usize
            }
            Picked::Listed(indices) => indices[index] as usize,
        }
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        match &self.picked {
            Picked::Range(_, range) => range.len(),
            Picked::Listed(indices) => indices.len(),
        }
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
        self.fingerprint
    }
}

/// The examples that a range takes of each class, in the shuffled order of all.
fn of_each_class(
    source: &dyn Source,
    permutation: &Permutation,
    range: &SplitRange,
) -> Result<Vec<u32>, DataError> {
    let len = source.len();
    let refuse = |expected| DataError::SplitOutOfRange { found: range.to_string(), len, expected };
    let most = u32::try_from(len).map_err(|_| refuse("a set of at most 2^32 examples"))?;
    let mut sizes = vec![0; source.class_names().len()];
    (0..len).for_each(|index| sizes[source.label(index) as usize] += 1);
    let ranges: Vec<Range<usize>> = sizes.iter().map(|&size| range.in_class(size)).collect();
    let mut met = vec![0; sizes.len()];
    let is_picked = |&index: &u32| {
        let class = source.label(index as usize) as usize;
        met[class] += 1;
        ranges[class].contains(&(met[class] - 1))
    };
    let shuffled = (0..u64::from(most)).map(|position| permutation.get(position) as u32);
    let picked: Vec<u32> = shuffled.filter(is_picked).collect();
    if picked.is_empty() { Err(refuse("at least one example")) } else { Ok(picked) }
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
    fn a_range_of_each_class_has_every_class_in_both_parts() {
        // Of two examples of a class, one in five classes has both in `[:50%]` of all.
        let source = builtin(20);
        let counts = |part: &Arc<dyn Source>| {
            let mut counts = [0; 10];
            (0..part.len()).for_each(|index| counts[part.label(index) as usize] += 1);
            counts
        };
        let [below, above] = ["[:80% of each class]", "[80%: of each class]"]
            .map(|range| subset(&source, &format!("train{range}")));
        assert_eq!((counts(&below), counts(&above)), ([1; 10], [1; 10]));
        let mut together = [descriptions(&below), descriptions(&above)].concat();
        let mut expected = descriptions(&source);
        together.sort_unstable();
        expected.sort_unstable();
        assert_eq!(together, expected);
        assert_ne!(counts(&subset(&source, "train[:50%]")), [1; 10]);
        assert_eq!(counts(&subset(&builtin(55), "train[:3 of each class]")), [3; 10]);
        assert_ne!(below.fingerprint(), subset(&source, "train[:50% of each class]").fingerprint());
        let found = descriptions(&subset(&builtin(1000), "train[:1 of each class]"));
        assert_eq!(found[..3], [106, 563, 299].map(|index| format!("builtin example {index}")));
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
