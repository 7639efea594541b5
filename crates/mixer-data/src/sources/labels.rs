//! Labels as they are written in files to positions in the class names.
//!
//! Lists, shards and tables spell labels as names or as numbers, and some know the names of the
//! classes while others do not. The rules for that are the same everywhere, and are here.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::path::Path;

use fs_err as fs;

use crate::error::{DataError, Place};

/// The most classes that labels may number, so that one wild label does not make a million names.
const MAX_CLASSES: i64 = 1 << 20;

/// The largest file of class names, bytes.
const MAX_NAMES_BYTES: u64 = 16 << 20;

/// A label as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Label {
    /// The name of a class, even if it looks like a number.
    Name(String),
    /// The position of a class.
    Position(u32),
    /// A text that does not tell: the name of a class if there is one, or else a position.
    Either(String),
}

impl Label {
    /// A number, if it can be the position of a class.
    pub(crate) fn position(number: i64) -> Option<Self> {
        (0..MAX_CLASSES).contains(&number).then_some(Self::Position(number as u32))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Either(text) => {
                text.chars().take(80).try_for_each(|letter| f.write_char(letter))
            }
            Self::Position(number) => write!(f, "{number}"),
        }
    }
}

/// Collects different labels and numbers them in the order of their appearance.
#[derive(Default)]
pub(crate) struct DistinctLabels {
    ids: HashMap<Label, u32>,
    labels: Vec<Label>,
}

impl DistinctLabels {
    /// The number of a label, which may be new.
    pub(crate) fn id(&mut self, label: Label) -> u32 {
        if let Some(&id) = self.ids.get(&label) {
            return id;
        }
        let id = self.labels.len() as u32;
        self.labels.push(label.clone());
        self.ids.insert(label, id);
        id
    }

    /// The labels by their numbers.
    pub(crate) fn into_labels(self) -> Vec<Label> {
        self.labels
    }
}

/// What labels mean.
#[derive(Debug)]
pub(crate) struct Meaning {
    pub(crate) class_names: Vec<String>,
    /// Position of each collected label in `class_names`.
    pub(crate) by_id: Vec<u32>,
}

/// A label that means nothing.
#[derive(Debug)]
pub(crate) struct UnknownLabel {
    pub(crate) id: u32,
    label: Label,
    expected: String,
}

impl UnknownLabel {
    /// The error, once it is known where the label stands.
    pub(crate) fn at(self, path: &Path, place: Place) -> DataError {
        DataError::malformed(path, place, format!("label `{}`", self.label), self.expected)
    }
}

impl Meaning {
    /// Finds out what labels mean.
    ///
    /// With `classes`, a label is one of their names or a position in them. Without, labels that
    /// are all positions make as many classes as the largest says, which are then named after their
    /// numbers; names make the classes that they name, sorted.
    pub(crate) fn of(labels: &[Label], classes: Option<&[String]>) -> Result<Self, UnknownLabel> {
        let unknown = |id: usize, expected: String| UnknownLabel {
            id: id as u32,
            label: labels[id].clone(),
            expected,
        };
        if let Some(classes) = classes {
            let positions: HashMap<&str, u32> =
                classes.iter().zip(0..).map(|(name, at)| (name.as_str(), at)).collect();
            let below = |at: &u32| (*at as usize) < classes.len();
            let by_name = |text: &String| positions.get(text.as_str()).copied();
            let position = |(id, label): (usize, &Label)| {
                let (position, expected) = match label {
                    Label::Name(text) => (by_name(text), "known classes"),
                    Label::Position(at) => (Some(*at).filter(below), "positions of classes"),
                    Label::Either(text) => {
                        let number = || text.parse().ok().filter(below);
                        (by_name(text).or_else(number), "known classes or a number below")
                    }
                };
                position
                    .ok_or_else(|| unknown(id, format!("one of the {} {expected}", classes.len())))
            };
            let by_id = labels.iter().enumerate().map(position).collect::<Result<_, _>>()?;
            return Ok(Self { class_names: classes.to_vec(), by_id });
        }
        let number = |label: &Label| match label {
            Label::Position(at) => Some(i64::from(*at)),
            Label::Either(text) => text.parse().ok(),
            Label::Name(_) => None,
        };
        if let Some(numbers) = labels.iter().map(number).collect::<Option<Vec<i64>>>() {
            if let Some(id) = numbers.iter().position(|at| !(0..MAX_CLASSES).contains(at)) {
                return Err(unknown(id, format!("a number from 0 to {}", MAX_CLASSES - 1)));
            }
            let count = numbers.iter().max().map_or(0, |&largest| largest + 1);
            return Ok(Self {
                class_names: (0..count).map(|at| at.to_string()).collect(),
                by_id: numbers.iter().map(|&at| at as u32).collect(),
            });
        }
        let mut names = Vec::with_capacity(labels.len());
        for (id, label) in labels.iter().enumerate() {
            match label {
                Label::Name(text) | Label::Either(text) => names.push(text),
                Label::Position(_) => {
                    return Err(unknown(id, "the name of a class, like other labels".to_owned()));
                }
            }
        }
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_unstable_by_key(|&id| names[id]);
        let mut by_id = vec![0; names.len()];
        for (&id, at) in order.iter().zip(0..) {
            by_id[id] = at;
        }
        Ok(Self { class_names: order.iter().map(|&id| names[id].clone()).collect(), by_id })
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

    fn either(texts: &[&str]) -> Vec<Label> {
        texts.iter().map(|text| Label::Either((*text).to_owned())).collect()
    }

    fn name(text: &str) -> Label {
        Label::Name(text.to_owned())
    }

    fn classes(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn numbers_are_positions_and_names_are_sorted() {
        let labels = Meaning::of(&either(&["2", "0", "4"]), None).unwrap();
        assert_eq!(labels.class_names, ["0", "1", "2", "3", "4"]);
        assert_eq!(labels.by_id, [2, 0, 4]);
        let labels = Meaning::of(&either(&["dog", "ant", "7"]), None).unwrap();
        assert_eq!(labels.class_names, ["7", "ant", "dog"]);
        assert_eq!(labels.by_id, [2, 1, 0]);
        // As folders of these names would be.
        let labels = Meaning::of(&["2", "10"].map(name), None).unwrap();
        assert_eq!(labels.class_names, ["10", "2"]);
    }

    #[test]
    fn known_classes_are_met_as_labels_are_meant() {
        let classes = classes(&["1", "cat", "0"]);
        let by_id = |labels: &[Label]| Meaning::of(labels, Some(&classes)).unwrap().by_id;
        assert_eq!(by_id(&either(&["cat", "0", "1", "2"])), [1, 2, 0, 2]);
        assert_eq!(by_id(&["cat", "0", "1"].map(name)), [1, 2, 0]);
        assert_eq!(by_id(&[0, 1, 2].map(Label::Position)), [0, 1, 2]);
    }

    #[test]
    fn labels_without_a_meaning_are_refused() {
        let classes = classes(&["ant", "bee"]);
        let known = Some(classes.as_slice());
        let either = |text: &str| Label::Either(text.to_owned());
        for (found, classes, message) in [
            (
                either("cow"),
                known,
                "found label `cow` in line 7, expected one of the 2 known classes or a number below: list",
            ),
            (
                either("2"),
                known,
                "found label `2` in line 7, expected one of the 2 known classes or a number below: list",
            ),
            (
                name("1"),
                known,
                "found label `1` in line 7, expected one of the 2 known classes: list",
            ),
            (
                Label::Position(2),
                known,
                "found label `2` in line 7, expected one of the 2 positions of classes: list",
            ),
            (
                either("-1"),
                None,
                "found label `-1` in line 7, expected a number from 0 to 1048575: list",
            ),
            (
                either("9999999999"),
                None,
                "found label `9999999999` in line 7, expected a number from 0 to 1048575: list",
            ),
        ] {
            let error = Meaning::of(&[either("0"), found], classes).unwrap_err();
            assert_eq!(error.id, 1);
            assert_eq!(error.at(Path::new("list"), Place::Line(7)).to_string(), message);
        }
        let error = Meaning::of(&[name("ant"), Label::Position(1)], None).unwrap_err();
        assert_eq!(
            error.at(Path::new("list"), Place::File).to_string(),
            "found label `1`, expected the name of a class, like other labels: list"
        );
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
