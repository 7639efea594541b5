//! Names of several files in one text: `imagenet-{000..127}.tar`, `train-*.parquet`.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::error::DataError;
use crate::sources::passed_over::PassedOver;

/// The most files that a pattern may mean.
const MAX_FILES: usize = 100_000;

/// The paths that a pattern means, in order.
///
/// In the last component, `{000..127}` counts (with leading zeros where the first number has them),
/// `{a,b}` lists, and `*` stands for any letters, in the sorted order of what is there. A file whose
/// name has such letters itself is found by it.
///
/// # Errors
/// [`DataError::BadSetting`] when braces do not match, and [`DataError::NoExamples`] when no file
/// has a name like that. Whether the files of braces exist is not looked at.
pub(crate) fn expand_pattern(pattern: &Path) -> Result<Vec<PathBuf>, DataError> {
    let Some(name) = pattern.file_name().and_then(|name| name.to_str()) else {
        return Err(DataError::NonUnicodeName { path: pattern.to_path_buf() });
    };
    if pattern.is_file() {
        return Ok(vec![pattern.to_path_buf()]);
    }
    let folder = pattern.parent().unwrap_or(Path::new(""));
    let mut paths = Vec::new();
    for name in expand_braces(name)? {
        if name.contains('*') {
            let start = paths.len();
            let listed = match folder.as_os_str().is_empty() {
                true => Path::new("."),
                false => folder,
            };
            for entry in fs::read_dir(listed).map_err(DataError::io)? {
                let entry = entry.map_err(DataError::io)?.file_name();
                if let Some(entry) = entry.to_str().filter(|entry| matches(&name, entry)) {
                    paths.push(folder.join(entry));
                }
            }
            paths[start..].sort_unstable();
        } else {
            paths.push(folder.join(name));
        }
    }
    if paths.is_empty() {
        return Err(DataError::no_examples(pattern, &PassedOver::default()));
    }
    Ok(paths)
}

/// Expands `{a..b}` and `{a,b}`, from the left.
pub(crate) fn expand_braces(text: &str) -> Result<Vec<String>, DataError> {
    let refuse = |expected: &str| DataError::BadSetting {
        setting: "pattern",
        found: text.to_owned(),
        expected: expected.to_owned(),
    };
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) =
            after.split_once('}').ok_or_else(|| refuse("a `}` behind every `{`"))?;
        let items: Vec<String> = match inside.split_once("..") {
            Some((first, last)) => {
                let bounds = parse_number(first).zip(parse_number(last));
                let (low, high) = bounds
                    .filter(|(low, high)| low <= high)
                    .ok_or_else(|| refuse("a range like `{000..127}`, the smaller number first"))?;
                if high - low >= MAX_FILES as u64 {
                    return Err(refuse("at most 100000 files"));
                }
                let width = if first.starts_with('0') { first.len() } else { 0 };
                (low..=high).map(|number| format!("{number:0width$}")).collect()
            }
            None => inside.split(',').map(str::to_owned).collect(),
        };
        if names.len() * items.len() > MAX_FILES {
            return Err(refuse("at most 100000 files"));
        }
        names = names
            .iter()
            .flat_map(|name| items.iter().map(move |item| format!("{name}{before}{item}")))
            .collect();
        rest = after;
    }
    if rest.contains('}') {
        return Err(refuse("a `{` before every `}`"));
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

fn parse_number(text: &str) -> Option<u64> {
    let is_number = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// `true` where a name has the form of a pattern with stars.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    // The last part stands at the end, and those before it as early as they can.
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn braces_count_and_list() {
        for (pattern, expected) in [
            ("a-{008..010}.tar", vec!["a-008.tar", "a-009.tar", "a-010.tar"]),
            ("a-{8..10}.tar", vec!["a-8.tar", "a-9.tar", "a-10.tar"]),
            ("{a,b}{0..1}", vec!["a0", "a1", "b0", "b1"]),
            ("plain.tar", vec!["plain.tar"]),
        ] {
            assert_eq!(expand_braces(pattern).unwrap(), expected);
        }
        for pattern in ["a{0..", "a}", "{3..1}", "{a..b}", "{0..999999999999}", "{-1..2}", "{..}"] {
            let error = expand_braces(pattern).unwrap_err();
            assert!(matches!(error, DataError::BadSetting { .. }), "{pattern}");
        }
    }

    #[test]
    fn stars_find_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["t-1.tar", "t-0.tar", "t-0.tar.index", "v-0.tar", "odd-{1}.tar"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names = |pattern: &str| -> Vec<String> {
            let paths = expand_pattern(&folder.path().join(pattern)).unwrap();
            paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("t-*.tar"), ["t-0.tar", "t-1.tar"]);
        assert_eq!(names("*-0*"), ["t-0.tar", "t-0.tar.index", "v-0.tar"]);
        assert_eq!(names("odd-{1}.tar"), ["odd-{1}.tar"]);
        assert!(expand_pattern(&folder.path().join("x*")).is_err());
    }

    #[test]
    fn a_star_matches_any_letters() {
        assert!(matches("a*b*c", "a-b-c") && matches("a*b", "ab") && matches("*", "x"));
        assert!(!matches("a*b*c", "a-c") && !matches("ab*b", "ab") && !matches("a*", "b"));
    }

    proptest! {
        #[test]
        fn expanding_never_panics(text in "[{}.,a0-9*]{0,20}", name in "[ab*]{0,8}") {
            let _outcome = expand_braces(&text);
            matches(&text, &name);
        }
    }
}
