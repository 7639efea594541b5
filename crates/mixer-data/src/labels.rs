//! Labels as they are written in files to positions in the class names.
//!
//! Lists, shards and tables spell labels as names or as numbers, and some know the names of the
//! classes while others do not. The rules for that are the same everywhere, and are here.

use std::collections::HashMap;
use std::path::Path;

use fs_err as fs;

use crate::error::{DataError, Place};

/// The most classes that labels may number, so that one wild label does not make a million names.
const MAX_CLASSES: i64 = 1 << 20;

/// The largest file of class names, bytes.
const MAX_NAMES_BYTES: u64 = 16 << 20;

/// Collects different labels and numbers them in the order of their appearance.
#[derive(Default)]
pub(crate) struct LabelTexts {
    ids: HashMap<String, u32>,
    texts: Vec<String>,
}

impl LabelTexts {
    /// The number of a label, which may be new.
    pub(crate) fn id(&mut self, text: &str) -> u32 {
        if let Some(&id) = self.ids.get(text) {
            return id;
        }
        let id = self.texts.len() as u32;
        self.ids.insert(text.to_owned(), id);
        self.texts.push(text.to_owned());
        id
    }

    /// The labels by their numbers.
    pub(crate) fn into_texts(self) -> Vec<String> {
        self.texts
    }
}

/// What labels mean.
#[derive(Debug)]
pub(crate) struct Labels {
    pub(crate) class_names: Vec<String>,
    /// Position of each collected label in `class_names`.
    pub(crate) by_id: Vec<u32>,
}

/// A label that means nothing.
#[derive(Debug)]
pub(crate) struct UnknownLabel {
    pub(crate) id: u32,
    text: String,
    expected: String,
}

impl UnknownLabel {
    /// The error, once it is known where the label stands.
    pub(crate) fn at(self, path: &Path, place: Place) -> DataError {
        DataError::malformed(path, place, format!("label `{}`", self.text), self.expected)
    }
}

impl Labels {
    /// Finds out what labels mean.
    ///
    /// With `classes`, a label is one of their names, or else its position. Without, labels that
    /// are all whole numbers are positions in as many classes as the largest says, which are then
    /// named after their numbers; any others are names, sorted.
    pub(crate) fn resolve(
        texts: &[String],
        classes: Option<&[String]>,
    ) -> Result<Self, UnknownLabel> {
        let unknown = |id: usize, expected: String| UnknownLabel {
            id: id as u32,
            text: texts[id].chars().take(80).collect(),
            expected,
        };
        if let Some(classes) = classes {
            let positions: HashMap<&str, u32> =
                classes.iter().zip(0..).map(|(name, at)| (name.as_str(), at)).collect();
            let position = |(id, text): (usize, &String)| {
                let number = || text.parse().ok().filter(|&at: &u32| (at as usize) < classes.len());
                positions.get(text.as_str()).copied().or_else(number).ok_or_else(|| {
                    let count = classes.len();
                    unknown(id, format!("one of the {count} known classes or a number below"))
                })
            };
            let by_id = texts.iter().enumerate().map(position).collect::<Result<_, _>>()?;
            return Ok(Self { class_names: classes.to_vec(), by_id });
        }
        if let Some(numbers) =
            texts.iter().map(|text| text.parse().ok()).collect::<Option<Vec<i64>>>()
        {
            if let Some(id) = numbers.iter().position(|at| !(0..MAX_CLASSES).contains(at)) {
                return Err(unknown(id, format!("a number from 0 to {}", MAX_CLASSES - 1)));
            }
            let count = numbers.iter().max().map_or(0, |&largest| largest + 1);
            return Ok(Self {
                class_names: (0..count).map(|at| at.to_string()).collect(),
                by_id: numbers.iter().map(|&at| at as u32).collect(),
            });
        }
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_unstable_by_key(|&id| &texts[id]);
        let mut by_id = vec![0; texts.len()];
        for (&id, at) in order.iter().zip(0..) {
            by_id[id] = at;
        }
        Ok(Self { class_names: order.iter().map(|&id| texts[id].clone()).collect(), by_id })
    }
}

/// Reads a file with one class name per line, in the order of the labels.
///
/// Empty lines at the end do not count.
///
/// # Errors
/// When it cannot be read, is no text, names fewer than two classes, or one of them twice.
pub fn read_class_names(path: &Path) -> Result<Vec<String>, DataError> {
    let found = fs::metadata(path).map_err(DataError::io)?.len();
    if found > MAX_NAMES_BYTES {
        let expected = format!("at most {MAX_NAMES_BYTES} bytes of class names");
        return Err(DataError::malformed(path, Place::File, format!("{found} bytes"), expected));
    }
    parse_class_names(&fs::read(path).map_err(DataError::io)?, path)
}

/// The names in the bytes of such a file.
pub(crate) fn parse_class_names(bytes: &[u8], path: &Path) -> Result<Vec<String>, DataError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let place = Place::Byte(error.valid_up_to() as u64);
        DataError::malformed(path, place, "what is no text", "class names in UTF-8")
    })?;
    let mut seen = HashMap::new();
    let mut names = Vec::new();
    for (name, line) in text.trim_end().lines().map(str::trim_end).zip(1..) {
        if name.is_empty() {
            let place = Place::Line(line);
            return Err(DataError::malformed(path, place, "an empty line", "a class name"));
        }
        if let Some(first) = seen.insert(name, line) {
            let found = format!("class `{name}` of line {first} again");
            let place = Place::Line(line);
            return Err(DataError::malformed(path, place, found, "different class names"));
        }
        names.push(name.to_owned());
    }
    if names.len() < 2 {
        let found = format!("{} class names", names.len());
        return Err(DataError::malformed(path, Place::File, found, "at least 2, one per line"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn numbers_are_positions_and_names_are_sorted() {
        let labels = Labels::resolve(&texts(&["2", "0", "4"]), None).unwrap();
        assert_eq!(labels.class_names, ["0", "1", "2", "3", "4"]);
        assert_eq!(labels.by_id, [2, 0, 4]);
        let labels = Labels::resolve(&texts(&["dog", "ant", "7"]), None).unwrap();
        assert_eq!(labels.class_names, ["7", "ant", "dog"]);
        assert_eq!(labels.by_id, [2, 1, 0]);
    }

    #[test]
    fn known_classes_are_met_by_name_before_they_are_met_by_number() {
        let classes = texts(&["1", "cat", "0"]);
        let labels = Labels::resolve(&texts(&["cat", "0", "1"]), Some(&classes)).unwrap();
        assert_eq!(labels.by_id, [1, 2, 0]);
        let labels = Labels::resolve(&texts(&["2"]), Some(&classes)).unwrap();
        assert_eq!(labels.by_id, [2]);
    }

    #[test]
    fn labels_without_a_meaning_are_refused() {
        let classes = texts(&["ant", "bee"]);
        let known = Some(classes.as_slice());
        for (found, classes, message) in [
            (
                "cow",
                known,
                "found label `cow` in line 7, expected one of the 2 known classes or a number below: list",
            ),
            (
                "2",
                known,
                "found label `2` in line 7, expected one of the 2 known classes or a number below: list",
            ),
            ("-1", None, "found label `-1` in line 7, expected a number from 0 to 1048575: list"),
            (
                "9999999999",
                None,
                "found label `9999999999` in line 7, expected a number from 0 to 1048575: list",
            ),
        ] {
            let error = Labels::resolve(&texts(&["0", found]), classes).unwrap_err();
            assert_eq!(error.id, 1);
            assert_eq!(error.at(Path::new("list"), Place::Line(7)).to_string(), message);
        }
    }

    #[test]
    fn class_names_are_lines_that_differ() {
        let parse = |text: &str| parse_class_names(text.as_bytes(), Path::new("c"));
        assert_eq!(parse("a b\nc\r\n\n").unwrap(), ["a b", "c"]);
        for (text, message) in [
            ("a\n\nb", "found an empty line in line 2, expected a class name: c"),
            (
                "a\nb\na",
                "found class `a` of line 1 again in line 3, expected different class names: c",
            ),
            ("a\n", "found 1 class names, expected at least 2, one per line: c"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
        let error = parse_class_names(b"a\n\xff", Path::new("c")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "found what is no text at byte 2, expected class names in UTF-8: c"
        );
    }
}
