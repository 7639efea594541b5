//! Facts about a source that somebody who trains on it should know, and nothing refuses.

use crate::sources::source::Source;
use crate::sources::split::{SplitRange, SplitSpec};

/// Classes that a remark names.
const SHOWN_CLASSES: usize = 5;

/// Remarks on the source that a split is, a line each: files that were passed over, and classes without
/// an example.
///
/// Nothing is read; it takes a look at every label.
pub fn remarks(source: &dyn Source, split: &str) -> Vec<String> {
    let passed_over = source.passed_over();
    let mut remarks = Vec::new();
    if !passed_over.is_empty() {
        // Archives alone have kinds with two dots.
        let has_dots = passed_over.kinds().keys().any(|kind| kind.matches('.').count() > 1);
        let why =
            if has_dots { "; the key of a member ends at the first dot of its name" } else { "" };
        // It is the same for every range.
        let whole = split.split('[').next().unwrap_or(split);
        remarks.push(format!("`{whole}`: passed over {passed_over}{why}"));
    }
    let empty = empty_classes(source);
    remarks.extend(empty.map(|remark| format!("`{split}`: {remark}{}", advice(split))));
    remarks
}

/// The range that would have some of each class, where another one was asked for.
fn advice(split: &str) -> String {
    match split.parse() {
        Ok(SplitSpec { folder, range }) if !range.is_all() && !range.of_each_class => {
            let of_each_class =
                SplitSpec { folder, range: SplitRange { of_each_class: true, ..range } };
            format!(" (`{of_each_class}` has some of each)")
        }
        _ => String::new(),
    }
}

/// The remark on classes without an example.
fn empty_classes(source: &dyn Source) -> Option<String> {
    let names = source.class_names();
    let mut has_example = vec![false; names.len()];
    for index in 0..source.len() {
        if let Some(class) = has_example.get_mut(source.label(index) as usize) {
            *class = true;
        }
    }
    let empty: Vec<&str> = names
        .iter()
        .zip(&has_example)
        .filter(|(_, has_example)| !**has_example)
        .map(|(name, _)| name.as_str())
        .collect();
    let count = names.len();
    let are_numbers = names.iter().enumerate().all(|(at, name)| *name == at.to_string());
    match empty[..] {
        [] => None,
        ["0"] if are_numbers && count > 2 => Some(format!(
            "the labels run from 1 to {}, and are counted from 0: there is an empty class `0`",
            count - 1
        )),
        _ => {
            let mut shown: Vec<String> =
                empty.iter().take(SHOWN_CLASSES).map(|name| format!("`{name}`")).collect();
            if empty.len() > SHOWN_CLASSES {
                shown.push(format!("{} more", empty.len() - SHOWN_CLASSES));
            }
            Some(format!(
                "{} of {count} classes have no example: {}",
                empty.len(),
                shown.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fs_err as fs;

    use super::*;
    use crate::decode::options::DecodeOptions;
    use crate::sources::open::open_split;

    fn remarks_on(root: &Path, split: &str) -> Vec<String> {
        let source = open_split(None, root, split, None, &DecodeOptions::default()).unwrap();
        remarks(&*source, split)
    }

    #[test]
    fn empty_classes_and_labels_that_count_from_one_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for (list, expected) in [
            ("a.jpg,0\nb.jpg,1\n", None),
            (
                "a.jpg,1\nb.jpg,2\n",
                Some(
                    "the labels run from 1 to 2, and are counted from 0: there is an empty class `0`",
                ),
            ),
            ("a.jpg,0\nb.jpg,3\n", Some("2 of 4 classes have no example: `1`, `2`")),
            (
                "a.jpg,9\nb.jpg,8\n",
                Some("8 of 10 classes have no example: `0`, `1`, `2`, `3`, `4`, 3 more"),
            ),
        ] {
            fs::write(folder.path().join("t.csv"), list).unwrap();
            let expected: Vec<String> =
                expected.iter().map(|remark| format!("`t.csv`: {remark}")).collect();
            assert_eq!(remarks_on(folder.path(), "t.csv"), expected);
        }
    }

    #[test]
    fn ranges_without_some_class_come_with_the_range_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["ant/1.png", "bee/1.png", "bee/2.png", "bee/3.tiff"] {
            let path = folder.path().join("all").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let remarks = remarks_on(folder.path(), "all[:1]");
        assert_eq!(remarks[0], "`all`: passed over 1 file: 1 `.tiff` (bee/3.tiff)");
        let class = if remarks[1].contains("ant") { "ant" } else { "bee" };
        assert_eq!(
            remarks[1],
            format!(
                "`all[:1]`: 1 of 2 classes have no example: `{class}` (`all[:1 of each class]` has some of each)"
            )
        );
        assert_eq!(remarks_on(folder.path(), "all[:1 of each class]").len(), 1);
    }
}
