//! A part of a source.

use std::ops::Range;
use std::sync::Arc;

use crate::decode::options::DecodeOptions;
use crate::error::DataError;
use crate::order::permutation::Permutation;
use crate::order::random::hash_words;
use crate::sources::fingerprint::Fingerprint;
use crate::sources::passed_over::PassedOver;
use crate::sources::source::{Example, Source};
use crate::sources::split::SplitRange;

/// The seed of the shuffle behind every range. Changing it changes what `train[:98%]` means.
const SHUFFLE_SEED: u64 = 0x6d69_7865_7221;

/// The number that a seed of a fraction is hashed with, so that it is the seed of no other shuffle.
const FRACTION: u64 = 0x6672_6163_7469_6f6e;

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

    /// A random part of `source`, by a seed: so many examples as are nearest to the fraction. Smaller
    /// fractions of one seed are parts of larger ones. It takes O(1) memory.
    ///
    /// The fraction 1 gives back the source itself, in its own order.
    ///
    /// # Determinism
    /// A function of the seed, the fraction and the length of the source, the same on every machine.
    ///
    /// # Errors
    /// [`DataError::BadSetting`] for a fraction that is not above 0 and at most 1, and for one that leaves no
    /// example.
    pub fn fraction(
        source: Arc<dyn Source>,
        fraction: f64,
        seed: u64,
    ) -> Result<Arc<dyn Source>, DataError> {
        let refuse = |found, expected: &str| {
            let expected = expected.to_owned();
            Err(DataError::BadSetting { setting: "train_fraction", found, expected })
        };
        if !(fraction > 0.0 && fraction <= 1.0) {
            return refuse(fraction.to_string(), "above 0 and at most 1");
        }
        let len = Self::fraction_len(source.len(), fraction);
        if len == source.len() {
            return Ok(source);
        }
        if len == 0 {
            let found = format!("{fraction} of {} examples", source.len());
            return refuse(found, "at least one of them");
        }
        let seed = hash_words(&[FRACTION, seed]);
        let mut fingerprint = Fingerprint::new();
        fingerprint.number(source.fingerprint()).number(seed).number(len as u64);
        let fingerprint = fingerprint.finish();
        let permutation = Permutation::new(seed, 0, source.len() as u64);
        Ok(Arc::new(Self { source, picked: Picked::Range(permutation, 0..len), fingerprint }))
    }

    /// The number of examples that is nearest to a fraction of `len`.
    pub fn fraction_len(len: usize, fraction: f64) -> usize {
        (len as f64 * fraction).round() as usize
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

    fn fraction(source: &Arc<dyn Source>, fraction: f64, seed: u64) -> Arc<dyn Source> {
        Subset::fraction(Arc::clone(source), fraction, seed).unwrap()
    }

    #[test]
    fn a_fraction_is_a_part_of_every_larger_one_of_its_seed() {
        let source = builtin(1000);
        let [three, ten, thirty] = [0.03, 0.1, 0.3].map(|part| fraction(&source, part, 5));
        assert_eq!([three.len(), ten.len(), thirty.len()], [30, 100, 300]);
        assert_eq!(descriptions(&three), descriptions(&ten)[..30]);
        assert_eq!(descriptions(&ten), descriptions(&thirty)[..100]);
        let mut distinct = descriptions(&thirty);
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 300);
        assert!(Arc::ptr_eq(&source, &fraction(&source, 1.0, 5)));
        // Of a part of the examples, of another seed, and of any example.
        let below = subset(&source, "train[:80%]");
        let of_a_part = fraction(&below, 0.1, 5);
        let inside = descriptions(&below);
        assert!(descriptions(&of_a_part).iter().all(|example| inside.contains(example)));
        assert_eq!(of_a_part.len(), 80);
        let other = fraction(&source, 0.1, 6);
        assert_ne!(descriptions(&other), descriptions(&ten));
        let all = [&three, &ten, &thirty, &other, &of_a_part, &source];
        let distinct: std::collections::HashSet<u64> =
            all.iter().map(|part| part.fingerprint()).collect();
        assert_eq!(distinct.len(), all.len());
        for index in 0..three.len() {
            assert_eq!(three.describe(index), ten.describe(index));
            assert_eq!(three.label(index), ten.label(index));
        }
    }

    #[test]
    fn fractions_are_pinned_and_rounded_to_the_nearest_number() {
        // Changing this breaks resume of existing runs.
        let found = descriptions(&fraction(&builtin(1000), 0.005, 0));
        assert_eq!(
            found,
            [627, 258, 634, 508, 979].map(|index| format!("builtin example {index}"))
        );
        for (len, part, expected) in
            [(100, 0.29, 29), (30, 0.1, 3), (50_000, 0.03, 1500), (3, 0.5, 2), (7, 1.0, 7)]
        {
            assert_eq!(Subset::fraction_len(len, part), expected);
        }
        let refused = |part| Subset::fraction(builtin(20), part, 0).err().unwrap().to_string();
        assert_eq!(
            refused(0.02),
            "found `train_fraction = 0.02 of 20 examples`, expected at least one of them"
        );
        for part in [0.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            assert!(refused(part).ends_with("expected above 0 and at most 1"), "{part}");
        }
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
