//! The columns of a list, as its first line says: a header, or the first example already.

use std::path::Path;

use csv::StringRecord;

use crate::error::{DataError, Place};

/// Separators of columns, in the order in which a first line is searched for them.
const SEPARATORS: [(u8, &str); 5] =
    [(b'\t', "tabs"), (b',', "commas"), (b';', "semicolons"), (b'|', "bars"), (b' ', "spaces")];

/// Words for the column of paths, those that are surer first.
const PATH_WORDS: &[&str] = &[
    "path",
    "file_path",
    "filepath",
    "image_path",
    "img_path",
    "file",
    "filename",
    "file_name",
    "image",
    "image_name",
    "img",
    "img_name",
    "picture",
    "photo",
    "image_id",
    "img_id",
    "id",
    "name",
];

/// Words for the column of labels.
const LABEL_WORDS: &[&str] = &[
    "label",
    "labels",
    "class",
    "class_name",
    "classname",
    "category",
    "category_name",
    "target",
    "class_id",
    "label_id",
    "label_name",
    "species",
    "breed",
    "y",
];

/// A header of the list that Kaggle ships with the pictures of ILSVRC.
const KAGGLE_HEADER: [&str; 2] = ["ImageId", "PredictionString"];

/// Places of the path and the label in a line.
pub(crate) struct Columns {
    pub(crate) path: usize,
    pub(crate) label: usize,
    /// The number of columns.
    pub(crate) count: usize,
    /// `true` where the first line is a header and no example.
    pub(crate) has_header: bool,
    /// `true` for the list of Kaggle, which leaves out endings of paths and adds boxes to labels.
    pub(crate) is_kaggle: bool,
}

/// Separator of the columns of a list that starts with `start`, if there is one.
pub(crate) fn separator(start: &[u8]) -> Option<u8> {
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
    SEPARATORS.iter().map(|(byte, _)| *byte).find(|byte| line.contains(byte))
}

/// The name of a separator, for messages.
pub(crate) fn name_of(separator: u8) -> &'static str {
    SEPARATORS.iter().find(|(byte, _)| *byte == separator).map_or("something", |(_, name)| name)
}

impl Columns {
    /// Reads the first line, with the second one beside it, of a list at `path`; `is_file` says whether a
    /// path of it leads to a file.
    ///
    /// A first line is a header when its words are known and where its path would stand is no file. What
    /// may be one or not is refused: taken for an example, a header makes a class of its own.
    pub(crate) fn of(
        first: &StringRecord,
        second: Option<&StringRecord>,
        separator: u8,
        is_file: impl Fn(&str) -> bool,
        path: &Path,
    ) -> Result<Self, DataError> {
        let count = first.len();
        let refuse = |found: String, expected: &str| {
            let line = first.position().map_or(1, csv::Position::line);
            Err(DataError::malformed(path, Place::Line(line), found, expected))
        };
        let columns = |path: usize, label: usize, has_header: bool| {
            Ok(Self { path, label, count, has_header, is_kaggle: false })
        };
        if first.iter().eq(KAGGLE_HEADER) {
            return Ok(Self { path: 0, label: 1, count, has_header: true, is_kaggle: true });
        }
        let words: Vec<String> = first.iter().map(word).collect();
        let known = |known: &[&str]| -> Vec<usize> {
            let mut found: Vec<(usize, usize)> = Vec::new();
            for (at, word) in words.iter().enumerate() {
                found.extend(known.iter().position(|known| known == word).map(|rank| (rank, at)));
            }
            found.sort_unstable();
            found.into_iter().map(|(_, at)| at).collect()
        };
        let (paths, labels) = (known(PATH_WORDS), known(LABEL_WORDS));
        match (paths.first(), labels.as_slice(), count) {
            (Some(&path), _, _) if is_file(&first[path]) => {}
            (Some(&path), &[label], _) => return columns(path, label, true),
            (Some(&path), &[label, ..], _) if words[label] == "label" => {
                return columns(path, label, true);
            }
            (Some(_), &[one, other, ..], _) => {
                let found =
                    format!("two columns for labels, `{}` and `{}`", &first[one], &first[other]);
                return refuse(found, "one called `label`");
            }
            // One known word of two, beside one that is no path.
            (Some(&path), [], 2) if !looks_like_path(&first[1 - path]) => {
                return columns(path, 1 - path, true);
            }
            (None, &[label], 2) if !looks_like_path(&first[1 - label]) => {
                return columns(1 - label, label, true);
            }
            _ => {}
        }
        if count != 2 {
            let found =
                format!("{count} columns separated by {} without a header", name_of(separator));
            return refuse(found, "a path and a label, or a header with `path` and `label`");
        }
        if !is_file(&first[0]) && second.is_some_and(|second| second.get(0).is_some_and(&is_file)) {
            let found = format!("`{}`, which is no file", &first[0]);
            return refuse(
                found,
                "a picture as in the next line, or a header with `path` and `label`",
            );
        }
        columns(0, 1, false)
    }
}

/// A word of a header without what its writers do not agree on.
fn word(text: &str) -> String {
    text.trim().to_lowercase().replace([' ', '-'], "_")
}

fn looks_like_path(text: &str) -> bool {
    text.contains(['.', '/', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Positions of path and label and whether there is a header, or the message. `a.jpg` and `b.jpg`
    /// are files.
    fn columns(first: &str, second: &str) -> Result<(usize, usize, bool), String> {
        let record = |line: &str| line.split(',').collect::<StringRecord>();
        let is_file = |path: &str| matches!(path, "a.jpg" | "b.jpg");
        Columns::of(&record(first), Some(&record(second)), b',', is_file, Path::new("list"))
            .map(|columns| (columns.path, columns.label, columns.has_header))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn headers_are_known_by_their_words() {
        for (first, second, expected) in [
            ("filename,label", "a.jpg,0", (0, 1, true)),
            ("Image Path,Class", "a.jpg,0", (0, 1, true)),
            ("label,file", "0,a.jpg", (1, 0, true)),
            ("id,label,path", "0,x,a.jpg", (2, 1, true)),
            ("image_id,image,breed", "0,a.jpg,x", (1, 2, true)),
            ("file,class,label", "a.jpg,x,0", (0, 2, true)),
            ("filename,Hunderasse", "a.jpg,0", (0, 1, true)),
            ("bild,label", "a.jpg,0", (0, 1, true)),
            ("Hunderasse,file", "0,a.jpg", (1, 0, true)),
            ("c.jpg,name", "d.jpg,image", (0, 1, false)),
            // Files that are not there yet.
            ("filename,label", "c.jpg,0", (0, 1, true)),
            ("c.jpg,dog", "d.jpg,cat", (0, 1, false)),
            ("c.jpg,y", "d.jpg,n", (0, 1, false)),
            ("a.jpg,label", "b.jpg,other", (0, 1, false)),
            ("a.jpg,dog", "b.jpg,cat", (0, 1, false)),
            ("ImageId,PredictionString", "v,n0", (0, 1, true)),
        ] {
            assert_eq!(columns(first, second), Ok(expected), "{first}");
        }
    }

    #[test]
    fn first_lines_that_may_be_a_header_or_not_are_refused() {
        for (first, second, message) in [
            (
                "bild,klasse",
                "a.jpg,0",
                "found `bild`, which is no file in line 1, expected a picture as in the next line, or a header with `path` and `label`: list",
            ),
            (
                "file,class,breed",
                "a.jpg,0,x",
                "found two columns for labels, `class` and `breed` in line 1, expected one called `label`: list",
            ),
            (
                "a.jpg,dog,x",
                "b.jpg,cat,y",
                "found 3 columns separated by commas without a header in line 1, expected a path and a label, or a header with `path` and `label`: list",
            ),
        ] {
            assert_eq!(columns(first, second).unwrap_err(), message);
        }
    }

    #[test]
    fn separators_are_found_in_the_first_line() {
        for (line, expected) in [
            ("a b;c.jpg\tdog\n", Some(b'\t')),
            ("a b.jpg,dog", Some(b',')),
            ("a b.jpg;dog", Some(b';')),
            ("a b.jpg|dog", Some(b'|')),
            ("a.jpg dog", Some(b' ')),
            ("dog\na.jpg,dog", None),
        ] {
            assert_eq!(separator(line.as_bytes()), expected);
        }
        assert_eq!(name_of(b';'), "semicolons");
    }
}
