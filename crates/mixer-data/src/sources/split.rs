//! Names of splits: `train`, `train[:98%]`, `val[1000:]`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::error::DataError;

/// Forms that can be written.
const EXPECTED: &str = "a folder name and optionally a range, as in `train`, `train[:98%]`, `train[1000:]`, or `train[:80% of each class]`";

/// Words behind a range that is taken of each class.
const OF_EACH_CLASS: &str = " of each class";

/// A split as it is written in a config: a folder and a part of its examples.
///
/// The syntax is that of TensorFlow Datasets: `train`, `train[:98%]`, `train[98%:]`,
/// `train[:5000]`, `train[10%:20%]`. A range is taken of the examples in a fixed shuffled order, see
/// [`Subset`](crate::Subset). `train[:80% of each class]` takes it of the examples of each class.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitSpec {
    /// The folder, `train`.
    pub folder: String,
    /// Range of its examples.
    pub range: SplitRange,
}

/// A part of the examples of a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SplitRange {
    /// Its start; the first example by default.
    pub start: Option<SplitBound>,
    /// Its end; behind the last example by default.
    pub end: Option<SplitBound>,
    /// `true` where it is taken of the examples of each class instead of all of them.
    pub of_each_class: bool,
}

/// One end of a [`SplitRange`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SplitBound {
    /// A number of examples.
    Examples(usize),
    /// A fraction of the examples, in `[0, 1]`, written as per cent.
    ///
    /// Held in millionths of the whole, so that boundaries are computed in integers and `[:a%]` and
    /// `[a%:]` meet exactly.
    Millionths(u32),
}

impl SplitBound {
    fn resolve(self, len: usize) -> usize {
        match self {
            Self::Examples(count) => count,
            Self::Millionths(part) => (len as u128 * u128::from(part) / 1_000_000) as usize,
        }
    }

    /// The boundary in a class of `len` examples: at most all of them, and a part of them rounded so that
    /// both sides have one where there are two.
    fn in_class(self, len: usize) -> usize {
        match self {
            Self::Examples(count) => count.min(len),
            Self::Millionths(0) => 0,
            Self::Millionths(1_000_000..) => len,
            Self::Millionths(part) => {
                let rounded = (len as u128 * u128::from(part) + 500_000) / 1_000_000;
                (rounded as usize).min(len.saturating_sub(1)).max(len.min(1))
            }
        }
    }
}

impl SplitRange {
    /// `true` where it takes everything, as a split without brackets does.
    pub fn is_all(&self) -> bool {
        self.start.is_none() && self.end.is_none()
    }

    /// The range of positions that it means for `len` examples; boundaries in per cent round down.
    ///
    /// # Errors
    /// [`DataError::SplitOutOfRange`] when it reaches beyond the data or is empty.
    pub fn resolve(&self, len: usize) -> Result<Range<usize>, DataError> {
        let start = self.start.map_or(0, |bound| bound.resolve(len));
        let end = self.end.map_or(len, |bound| bound.resolve(len));
        let refuse =
            |expected| DataError::SplitOutOfRange { found: self.to_string(), len, expected };
        if end > len || start > len {
            return Err(refuse("boundaries within the data"));
        }
        if start >= end {
            return Err(refuse("at least one example"));
        }
        Ok(start..end)
    }
}

impl SplitRange {
    /// The range of positions in a class of `len` examples; it may be empty.
    pub(crate) fn in_class(&self, len: usize) -> Range<usize> {
        let start = self.start.map_or(0, |bound| bound.in_class(len));
        let end = self.end.map_or(len, |bound| bound.in_class(len));
        start..end
    }
}

impl FromStr for SplitSpec {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let refuse = || DataError::BadSplit { found: text.to_owned(), expected: EXPECTED };
        let (folder, range) = match text.split_once('[') {
            None => (text, SplitRange::default()),
            Some((folder, rest)) => {
                let range = rest.strip_suffix(']').ok_or_else(refuse)?;
                let (range, of_each_class) = match range.strip_suffix(OF_EACH_CLASS) {
                    Some(range) => (range, true),
                    None => (range, false),
                };
                let (start, end) = range.split_once(':').ok_or_else(refuse)?;
                let bound = |text: &str| match text {
                    "" => Ok(None),
                    text => parse_bound(text).map(Some).ok_or_else(refuse),
                };
                let range = SplitRange { start: bound(start)?, end: bound(end)?, of_each_class };
                (folder, range)
            }
        };
        // `.` is the data folder itself; any other name that starts with a dot is hidden.
        let is_name = |name: &str| {
            name == "."
                || !name.is_empty()
                    && !name.starts_with('.')
                    && !name.contains(|c: char| c.is_whitespace() || "[]:/\\%".contains(c))
        };
        if !is_name(folder) {
            return Err(refuse());
        }
        Ok(Self { folder: folder.to_owned(), range })
    }
}

fn parse_bound(text: &str) -> Option<SplitBound> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let Some(percent) = text.strip_suffix('%') else {
        return digits(text).then(|| text.parse().ok().map(SplitBound::Examples))?;
    };
    // Up to four decimals of a per cent are whole millionths.
    let (whole, decimals) = percent.split_once('.').unwrap_or((percent, "0"));
    if !digits(whole) || !digits(decimals) || decimals.len() > 4 {
        return None;
    }
    let part = whole.parse::<u32>().ok()?.checked_mul(10_000)?
        + format!("{decimals:0<4}").parse::<u32>().ok()?;
    (part <= 1_000_000).then_some(SplitBound::Millionths(part))
}

impl fmt::Display for SplitBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Examples(count) => write!(f, "{count}"),
            Self::Millionths(part) => write!(f, "{}%", f64::from(*part) / 10_000.0),
        }
    }
}

impl fmt::Display for SplitRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |bound: Option<SplitBound>| bound.map_or(String::new(), |b| b.to_string());
        let of = if self.of_each_class { OF_EACH_CLASS } else { "" };
        write!(f, "[{}:{}{of}]", bound(self.start), bound(self.end))
    }
}

impl fmt::Display for SplitSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.range.is_all() {
            true => write!(f, "{}", self.folder),
            false => write!(f, "{}{}", self.folder, self.range),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> SplitSpec {
        text.parse().unwrap()
    }

    #[test]
    fn splits_parse_and_print() {
        for text in [
            "train",
            "val",
            "test",
            "train[:98%]",
            "train[98%:]",
            "train[1000:]",
            "train[:5000]",
            "train[10%:20%]",
            "train[99.5%:]",
            ".[:90%]",
            ".[:90% of each class]",
            "train[5: of each class]",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
        let split = parse("my-data_2[5:25%]");
        assert_eq!(split.folder, "my-data_2");
        assert_eq!(split.range.start, Some(SplitBound::Examples(5)));
        assert_eq!(split.range.end, Some(SplitBound::Millionths(250_000)));
        assert_eq!(parse("train[:]").to_string(), "train");
    }

    #[test]
    fn nonsense_is_refused_with_what_is_possible() {
        for text in [
            "",
            "train[",
            "train]",
            "train[5]",
            "train[:5 of each]",
            "train[ of each class]",
            "train[:101%]",
            "train[:-5]",
            "train[a:]",
            "train[:5%%]",
            "train[:1.23456%]",
            "[:5]",
            "..",
            "a/b",
            "train[:5] ",
            "train[+5:]",
            "train[:99999999999999999999999]",
        ] {
            let error = text.parse::<SplitSpec>().unwrap_err();
            assert!(matches!(error, DataError::BadSplit { .. }), "{text}: {error}");
        }
        assert_eq!(
            "train[5]".parse::<SplitSpec>().unwrap_err().to_string(),
            "found split `train[5]`, expected a folder name and optionally a range, as in `train`, \
             `train[:98%]`, `train[1000:]`, or `train[:80% of each class]`"
        );
    }

    #[test]
    fn ranges_beyond_the_data_and_empty_ranges_are_refused() {
        let resolve = |text: &str| parse(text).range.resolve(100);
        assert_eq!(resolve("train[:100]").unwrap(), 0..100);
        for text in ["train[:101]", "train[101:]", "train[50:50]", "train[60:50]", "train[100%:]"] {
            assert!(matches!(resolve(text), Err(DataError::SplitOutOfRange { .. })), "{text}");
        }
        assert_eq!(
            resolve("train[:101]").unwrap_err().to_string(),
            "found split `[:101]` of 100 examples, expected boundaries within the data"
        );
    }

    #[test]
    fn a_part_of_each_class_leaves_some_on_both_sides() {
        let in_class = |text: &str, len| parse(text).range.in_class(len);
        for (len, expected) in [(0, 0..0), (1, 0..1), (2, 0..1), (3, 0..2), (10, 0..8)] {
            assert_eq!(in_class(".[:80% of each class]", len), expected);
            assert_eq!(in_class(".[80%: of each class]", len), expected.end..len);
        }
        assert_eq!(in_class(".[:1% of each class]", 5), 0..1);
        assert_eq!(in_class(".[:99% of each class]", 5), 0..4);
        assert_eq!(in_class(".[:100% of each class]", 5), 0..5);
        assert_eq!(in_class(".[2:4 of each class]", 3), 2..3);
    }

    proptest! {
        #[test]
        fn two_ranges_that_meet_partition_the_data(len in 1usize..5000, part in 0u32..=10_000) {
            let percent = f64::from(part) / 100.0;
            let below = parse(&format!("train[:{percent}%]")).range.resolve(len);
            let above = parse(&format!("train[{percent}%:]")).range.resolve(len);
            match (below, above) {
                (Ok(below), Ok(above)) => {
                    prop_assert_eq!(below.start, 0);
                    prop_assert_eq!(below.end, above.start);
                    prop_assert_eq!(above.end, len);
                }
                // One of them is empty, so the other has everything.
                (Err(_), Ok(all)) | (Ok(all), Err(_)) => prop_assert_eq!(all, 0..len),
                (Err(_), Err(_)) => prop_assert!(false, "both are empty"),
            }
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _outcome = text.parse::<SplitSpec>();
        }
    }
}
