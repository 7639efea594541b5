//! The way in which a folder of pictures is a data set: which of its parts is to be trained on, and which to
//! be evaluated on.

use std::path::Path;

use fs_err as fs;
use mixer_data::SourceKind;

use crate::error::TrainError;

/// Names of the part to train on, of folders, lists and groups of shards.
const TRAIN: [&str; 2] = ["train", "training"];

/// Names of the part to evaluate on, the best first.
const VAL: [&str; 6] = ["val", "valid", "validation", "dev", "test", "testing"];

/// The splits of a folder, as `data.train` and `data.val` name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The split to train on; all there is where no part is held back.
    pub(crate) train: String,
    /// The split to evaluate on; absent where a part of the other is to be held back.
    pub(crate) val: Option<String>,
}

impl Layout {
    /// Looks at the names in a folder; none of the files is opened.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the folder cannot be listed.
    pub(crate) fn of(folder: &Path) -> Result<Self, TrainError> {
        let (mut folders, mut files) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // What has a name that is no text is told by who opens the split.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.starts_with('.') {
                let list = if entry.path().is_dir() { &mut folders } else { &mut files };
                list.push(name);
            }
        }
        folders.sort();
        files.sort();
        if let Some(train) = named(&folders, &TRAIN, "") {
            return Ok(Self { train, val: named(&folders, &VAL, "") });
        }
        if matches!(SourceKind::of(folder, "train"), SourceKind::Cifar | SourceKind::Idx) {
            return Ok(Self { train: "train".to_owned(), val: Some("test".to_owned()) });
        }
        for ending in [".tar", ".parquet"] {
            if let Some(layout) = of_groups(&groups(&files, ending), ending) {
                return Ok(layout);
            }
        }
        for ending in [".csv", ".tsv", ".txt"] {
            if let Some(train) = named(&files, &TRAIN, ending) {
                return Ok(Self { train, val: named(&files, &VAL, ending) });
            }
        }
        let is_list = |name: &&String| name.ends_with(".csv") || name.ends_with(".tsv");
        let list = files.iter().find(is_list).filter(|_| folders.len() < 2);
        Ok(Self { train: list.map_or(".", String::as_str).to_owned(), val: None })
    }
}

/// The name in a list that is the first of `words` and the ending, in any case.
fn named(names: &[String], words: &[&str], ending: &str) -> Option<String> {
    let is = |word: &str, name: &&String| name.eq_ignore_ascii_case(&format!("{word}{ending}"));
    words.iter().find_map(|word| names.iter().find(|name| is(word, name)).cloned())
}

/// The files with an ending as patterns: what differs in its numbers alone is a group.
fn groups(files: &[String], ending: &str) -> Vec<String> {
    let mut groups: Vec<(String, Vec<&String>)> = Vec::new();
    for file in files {
        let Some(stem) = file.strip_suffix(ending) else { continue };
        // `train-00000-of-00004-3f1c.parquet` and `train-000123.tar`.
        let start = stem.split_once("-of-").map_or(stem, |(start, _)| start);
        let start = start.trim_end_matches(|c: char| c.is_ascii_digit());
        match groups.iter_mut().find(|(known, _)| known == start) {
            Some((_, members)) => members.push(file),
            None => groups.push((start.to_owned(), vec![file])),
        }
    }
    let pattern = |(start, members): (String, Vec<&String>)| match members.as_slice() {
        [one] => (*one).clone(),
        _ => format!("{start}*{ending}"),
    };
    groups.into_iter().map(pattern).collect()
}

/// The part of each group, which one of the words in its name tells.
fn of_groups(groups: &[String], ending: &str) -> Option<Layout> {
    let with = |words: &[&str]| {
        let has = |word: &str, group: &&String| {
            let name = group.to_ascii_lowercase();
            name.split(|c: char| !c.is_ascii_alphabetic()).any(|part| part == word)
        };
        words.iter().find_map(|word| groups.iter().find(|group| has(word, group)).cloned())
    };
    match groups {
        [] => None,
        [one] => Some(Layout { train: one.clone(), val: None }),
        _ => Some(match with(&TRAIN) {
            Some(train) => Layout { train, val: with(&VAL) },
            None => Layout { train: format!("*{ending}"), val: None },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(paths: &[&str]) -> (String, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        for path in paths {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let Layout { train, val } = Layout::of(folder.path()).unwrap();
        (train, val)
    }

    #[test]
    fn the_names_in_a_folder_say_what_its_splits_are() {
        for (paths, train, val) in [
            (&["train/a/1.png", "val/a/1.png", "test/a/1.png"][..], "train", Some("val")),
            (&["train/a/1.png", "test/a/1.png", "readme.txt"], "train", Some("test")),
            (&["Train/a/1.png", "Valid/a/1.png"], "Train", Some("Valid")),
            (&["train/a/1.png", "other/a/1.png"], "train", None),
            (&["cat/1.png", "dog/1.png", "notes.csv", ".git/x"], ".", None),
            (&["images/1.png", "labels.csv"], "labels.csv", None),
            (&["images/1.png", "train.csv", "val.csv"], "train.csv", Some("val.csv")),
            (&["batches.meta.txt"], "train", Some("test")),
            (
                &["train-000.tar", "train-001.tar", "val-000.tar"],
                "train-*.tar",
                Some("val-000.tar"),
            ),
            (&["x-train-000.tar", "x-train-001.tar"], "x-train-*.tar", None),
            (&["000.tar", "001.tar", "a.index"], "*.tar", None),
            (&["all.tar"], "all.tar", None),
            (
                &[
                    "train-00000-of-00002-ab1.parquet",
                    "train-00001-of-00002-cd2.parquet",
                    "test-00000-of-00001.parquet",
                ],
                "train-*.parquet",
                Some("test-00000-of-00001.parquet"),
            ),
            (&["pets.parquet"], "pets.parquet", None),
        ] {
            assert_eq!(layout(paths), (train.to_owned(), val.map(str::to_owned)), "{paths:?}");
        }
    }
}
