//! Labels as they are written in files to positions in the class names.
//!
//! Lists, shards and tables spell labels as names or as numbers, and some know the names of the
//! classes while others do not. The rules for that are the same everywhere, and are here.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::error::{DataError, Place};
use crate::sources::letters::{check_letters, twin};
use crate::sources::spelled::spelled;

/// The most classes that labels may number, so that one wild label does not make a million names.
const MAX_CLASSES: i64 = 1 << 20;

/// The largest file of class names, bytes.
const MAX_NAMES_BYTES: u64 = 16 << 20;

/// The letter that some editors put in front of a text.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// The file beside a data set that says which classes its numbers mean: a name per line, from 0 on.
pub(crate) const CLASSES_FILE: &str = "classes.txt";

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

/// Meaning of labels.
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
    reason: Reason,
}

/// The reason for which a label means nothing.
#[derive(Debug)]
enum Reason {
    /// It is not one of these.
    Other(String),
    /// It is a number, and nothing says which of so many known classes has it.
    Unlisted(usize),
}

impl UnknownLabel {
    /// The error, once it is known where the label stands.
    pub(crate) fn at(self, path: &Path, place: Place) -> DataError {
        match self.reason {
            Reason::Other(expected) => {
                DataError::malformed(path, place, format!("label `{}`", self.label), expected)
            }
            Reason::Unlisted(known) => DataError::UnlistedNumber {
                label: self.label.to_string(),
                place,
                known,
                path: path.to_path_buf(),
                list: path.with_file_name(CLASSES_FILE),
            },
        }
    }
}

/// The list that says which class a number means, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassList {
    pub(crate) names: Vec<String>,
    pub(crate) path: PathBuf,
}

impl ClassList {
    /// Reads a list.
    pub(crate) fn read(path: PathBuf) -> Result<Self, DataError> {
        Ok(Self { names: read_class_names(&path)?, path })
    }

    /// The list beside a file, where there is one.
    pub(crate) fn beside(file: &Path) -> Result<Option<Self>, DataError> {
        let path = file.with_file_name(CLASSES_FILE);
        if path.is_file() { Self::read(path).map(Some) } else { Ok(None) }
    }
}

impl Meaning {
    /// Finds out what labels mean.
    ///
    /// A number means a class by way of a list alone: `list`, that of the data set itself, makes a name
    /// of it, and the name is looked up in the `known` classes, those of training or of the weights,
    /// whose order may be another. Without a list a number is a name: data sets that number their
    /// classes without naming them have classes called `0`, `1`, and so on.
    ///
    /// Where no classes are known, they are those of the list. Without one, labels that are all
    /// numbers make as many classes as the largest says, and names make the classes that they name,
    /// sorted.
    pub(crate) fn of(
        labels: &[Label],
        list: Option<&ClassList>,
        known: Option<&[String]>,
    ) -> Result<Self, UnknownLabel> {
        match known.or(list.map(|list| list.names.as_slice())) {
            Some(classes) => Self::in_classes(labels, list, classes),
            None => Self::of_labels(labels),
        }
    }

    /// The positions of labels in `classes`.
    fn in_classes(
        labels: &[Label],
        list: Option<&ClassList>,
        classes: &[String],
    ) -> Result<Self, UnknownLabel> {
        fn positions(names: &[String]) -> HashMap<&str, u32> {
            names.iter().zip(0..).map(|(name, at)| (name.as_str(), at)).collect()
        }
        let known = positions(classes);
        let listed = list.map(|list| positions(&list.names));
        let has_numbers = classes.iter().any(|class| number_in(class).is_some());
        let position = |(id, label): (usize, &Label)| {
            let unknown = |reason| UnknownLabel { id: id as u32, label: label.clone(), reason };
            let own = listed.as_ref().unwrap_or(&known);
            let number = match label {
                Label::Name(_) => None,
                Label::Position(number) => Some(i64::from(*number)),
                Label::Either(text) if own.contains_key(text.as_str()) => None,
                Label::Either(text) => number_in(text),
            };
            let name = match (number, label, list) {
                (Some(number), _, Some(list)) => {
                    let name = usize::try_from(number).ok().and_then(|at| list.names.get(at));
                    let of = list.names.len();
                    name.cloned().ok_or_else(|| {
                        let list = list.path.display();
                        unknown(Reason::Other(format!("one of the {of} classes of {list}")))
                    })?
                }
                (Some(number), _, None) => number.to_string(),
                (None, Label::Name(text) | Label::Either(text), _) => text.clone(),
                (None, Label::Position(_), _) => String::new(),
            };
            known.get(name.as_str()).copied().ok_or_else(|| {
                let count = classes.len();
                if let Some(twin) = twin(&name, classes) {
                    let (name, twin) = (spelled(&name), spelled(twin));
                    return unknown(Reason::Other(format!(
                        "`{twin}`, of the same letters as `{name}` in another form of Unicode"
                    )));
                }
                let named = list.filter(|_| number.is_some());
                unknown(match named {
                    None if number.is_some() && !has_numbers => Reason::Unlisted(count),
                    None => Reason::Other(format!("one of the {count} known classes")),
                    Some(list) => Reason::Other(format!(
                        "one of the {count} known classes, and not `{name}` of {}",
                        list.path.display()
                    )),
                })
            })
        };
        let by_id = labels.iter().enumerate().map(position).collect::<Result<_, _>>()?;
        Ok(Self { class_names: classes.to_vec(), by_id })
    }

    /// The classes that labels make by themselves.
    fn of_labels(labels: &[Label]) -> Result<Self, UnknownLabel> {
        let unknown = |id: usize, expected: String| UnknownLabel {
            id: id as u32,
            label: labels[id].clone(),
            reason: Reason::Other(expected),
        };
        let number = |label: &Label| match label {
            Label::Position(at) => Some(i64::from(*at)),
            Label::Either(text) => number_in(text),
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

/// Labels of a data set that numbers its classes, in bytes.
#[derive(Debug)]
pub(crate) struct Numbered {
    pub(crate) class_names: Vec<String>,
    pub(crate) labels: Vec<u32>,
}

impl Numbered {
    /// Finds out what numbers in rows of `path` mean, by the rules of [`Meaning::of`].
    pub(crate) fn of(
        numbers: &[u8],
        list: Option<&ClassList>,
        known: Option<&[String]>,
        path: &Path,
    ) -> Result<Self, DataError> {
        let mut distinct = DistinctLabels::default();
        let mut id = |&number: &u8| distinct.id(Label::Position(u32::from(number)));
        let ids: Vec<u32> = numbers.iter().map(&mut id).collect();
        let Meaning { class_names, by_id } = Meaning::of(&distinct.into_labels(), list, known)
            .map_err(|unknown| {
                let row = ids.iter().position(|&id| id == unknown.id).unwrap_or_default();
                unknown.at(path, Place::Row(row as u64))
            })?;
        Ok(Self { class_names, labels: ids.into_iter().map(|id| by_id[id as usize]).collect() })
    }
}

/// The whole number that a text is, which some programs write as `3.0`.
pub(crate) fn number_in(text: &str) -> Option<i64> {
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => {
            whole
        }
        _ => text,
    };
    whole.parse().ok()
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
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
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
    check_letters(&names, path)?;
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

    fn list(names: &[&str]) -> ClassList {
        ClassList { names: classes(names), path: "classes.txt".into() }
    }

    #[test]
    fn numbers_are_positions_and_names_are_sorted() {
        let labels = Meaning::of(&either(&["2", "0", "4.0"]), None, None).unwrap();
        assert_eq!(labels.class_names, ["0", "1", "2", "3", "4"]);
        assert_eq!(labels.by_id, [2, 0, 4]);
        let labels = Meaning::of(&either(&["dog", "ant", "7"]), None, None).unwrap();
        assert_eq!(labels.class_names, ["7", "ant", "dog"]);
        assert_eq!(labels.by_id, [2, 1, 0]);
        // As folders of these names would be.
        let labels = Meaning::of(&["2", "10"].map(name), None, None).unwrap();
        assert_eq!(labels.class_names, ["10", "2"]);
    }

    #[test]
    fn a_number_means_the_class_that_its_own_list_names() {
        let own = list(&["dog", "cow", "ant"]);
        let known = classes(&["ant", "bee", "cow", "dog"]);
        let numbers = [0, 1, 2].map(Label::Position);
        let meaning = Meaning::of(&numbers, Some(&own), Some(&known)).unwrap();
        assert_eq!((meaning.class_names.as_slice(), meaning.by_id), (&known[..], vec![3, 2, 0]));
        let meaning = Meaning::of(&numbers, Some(&own), None).unwrap();
        assert_eq!((meaning.class_names, meaning.by_id), (own.names.clone(), vec![0, 1, 2]));
        let mixed = either(&["cow", "0", "bee"]);
        assert_eq!(Meaning::of(&mixed, Some(&own), Some(&known)).unwrap().by_id, [2, 3, 1]);
    }

    #[test]
    fn a_number_without_a_list_is_the_name_of_a_class() {
        // The order of folders that are named after numbers.
        let known = classes(&["0", "1", "10", "2"]);
        let numbers = [2, 10, 1].map(Label::Position);
        assert_eq!(Meaning::of(&numbers, None, Some(&known)).unwrap().by_id, [3, 2, 1]);
        let texts = either(&["2", "10.0", "1"]);
        assert_eq!(Meaning::of(&texts, None, Some(&known)).unwrap().by_id, [3, 2, 1]);
    }

    #[test]
    fn labels_without_a_meaning_are_refused() {
        let classes = classes(&["ant", "bee"]);
        let own = list(&["ant", "cow"]);
        let (known, own) = (Some(classes.as_slice()), Some(&own));
        let either = |text: &str| Label::Either(text.to_owned());
        for (found, list, known, message) in [
            (
                either("cow"),
                None,
                known,
                "found label `cow` in line 7, expected one of the 2 known classes: list",
            ),
            (
                either("1"),
                None,
                known,
                "found label `1` in line 7 and nothing that says which class it means, expected one of the 2 known classes: list",
            ),
            (
                either("1"),
                own,
                known,
                "found label `1` in line 7, expected one of the 2 known classes, and not `cow` of classes.txt: list",
            ),
            (
                Label::Position(2),
                own,
                None,
                "found label `2` in line 7, expected one of the 2 classes of classes.txt: list",
            ),
            (
                either("bee"),
                own,
                None,
                "found label `bee` in line 7, expected one of the 2 known classes: list",
            ),
            (
                either("-1"),
                None,
                None,
                "found label `-1` in line 7, expected a number from 0 to 1048575: list",
            ),
            (
                either("9999999999"),
                None,
                None,
                "found label `9999999999` in line 7, expected a number from 0 to 1048575: list",
            ),
        ] {
            let first = if known.is_some() || list.is_some() { name("ant") } else { either("0") };
            let error = Meaning::of(&[first, found], list, known).unwrap_err();
            assert_eq!(error.id, 1);
            assert_eq!(error.at(Path::new("list"), Place::Line(7)).to_string(), message);
        }
        let error = Meaning::of(&[name("ant"), Label::Position(1)], None, None).unwrap_err();
        assert_eq!(
            error.at(Path::new("list"), Place::File).to_string(),
            "found label `1`, expected the name of a class, like other labels: list"
        );
    }

    #[test]
    fn class_names_are_lines_that_differ() {
        let parse = |text: &str| parse_class_names(text.as_bytes(), Path::new("c"));
        assert_eq!(parse("\u{feff}a b\nc\r\n\n").unwrap(), ["a b", "c"]);
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
