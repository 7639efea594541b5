//! Files, or members of archives, that lie where a source looks for examples, and are none.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Kinds that are told apart; files of further kinds are counted together.
const MAX_KINDS: usize = 1000;

/// Kinds that a message names.
const SHOWN_KINDS: usize = 4;

/// The longest name that is kept, bytes.
const MAX_NAME_BYTES: usize = 1024;

/// The longest ending that is a kind, letters.
const MAX_ENDING: usize = 16;

/// Files of a folder, or members of an archive, that are no part of an example.
///
/// They are counted by their kind, which is the ending of the name (`.tif`), or a few words where that is
/// not the reason. Hidden files do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PassedOver {
    kinds: BTreeMap<String, PassedOverKind>,
}

/// The files of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PassedOverKind {
    /// Number of these files.
    pub count: u64,
    /// The first of their names, in alphabetical order.
    pub first: String,
}

impl PassedOver {
    /// The number of files.
    pub fn count(&self) -> u64 {
        self.kinds.values().map(|kind| kind.count).sum()
    }

    /// `true` where there is none.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// The kinds, by their names.
    pub fn kinds(&self) -> &BTreeMap<String, PassedOverKind> {
        &self.kinds
    }

    /// Adds a file whose ending stands behind the last dot of its name.
    pub(crate) fn add_name(&mut self, name: &str) {
        let base = name.rsplit('/').next().unwrap_or(name);
        let ending = base.rsplit_once('.').map(|(_, ending)| ending);
        self.add_ending(ending.unwrap_or_default(), name);
    }

    /// Adds a file whose name has this ending, without its dot.
    pub(crate) fn add_ending(&mut self, ending: &str, name: &str) {
        let is_one = |ending: &str| {
            let is_short = (1..=MAX_ENDING).contains(&ending.chars().count());
            is_short && !ending.contains(char::is_whitespace)
        };
        let kind = match ending.rsplit_once('.') {
            _ if is_one(ending) => format!("`.{}`", ending.to_ascii_lowercase()),
            Some((_, last)) if is_one(last) => format!("`.*.{}`", last.to_ascii_lowercase()),
            _ => "without an ending".to_owned(),
        };
        self.add(&kind, name);
    }

    /// Adds a file of a kind.
    pub(crate) fn add(&mut self, kind: &str, name: &str) {
        self.add_all(kind, 1, name);
    }

    /// Adds `count` files of a kind.
    pub(crate) fn add_all(&mut self, kind: &str, count: u64, first: &str) {
        let is_known = self.kinds.contains_key(kind) || self.kinds.len() < MAX_KINDS;
        let kind = if is_known { kind } else { "of other kinds" };
        let name = &first[..first.floor_char_boundary(MAX_NAME_BYTES)];
        match self.kinds.get_mut(kind) {
            Some(found) => {
                found.count = found.count.saturating_add(count);
                if name < found.first.as_str() {
                    name.clone_into(&mut found.first);
                }
            }
            None => {
                let found = PassedOverKind { count, first: name.to_owned() };
                self.kinds.insert(kind.to_owned(), found);
            }
        }
    }

    /// Adds everything that another one has.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (kind, found) in &other.kinds {
            self.add_all(kind, found.count, &found.first);
        }
    }
}

/// `3 files: 2 .tif (first: dog/a.tif), 1 .txt (first: dog/notes.txt)`, the most frequent kinds first.
impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(_, found)| std::cmp::Reverse(found.count));
        let plural = if self.count() == 1 { "" } else { "s" };
        write!(f, "{} file{plural}: ", self.count())?;
        for (number, (kind, found)) in kinds.iter().take(SHOWN_KINDS).enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            let which = if found.count == 1 { "" } else { "first: " };
            write!(f, "{comma}{} {kind} ({which}{})", found.count, found.first)?;
        }
        let further: u64 = kinds.iter().skip(SHOWN_KINDS).map(|(_, found)| found.count).sum();
        if further > 0 {
            write!(f, ", {further} more of {} other kinds", kinds.len() - SHOWN_KINDS)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_and_the_most_frequent_are_named() {
        let mut found = PassedOver::default();
        for name in ["b/2.TIF", "a/1.txt", "b/1.tif", "a.b/none", "x.long ending", "1.a", "1.b"] {
            found.add_name(name);
        }
        found.add("that are no plain files", "pipe");
        found.add_ending(" one and .two.png", "x. one and .two.png");
        found.add_ending("one.two and three four five", "x");
        let mut twice = PassedOver::default();
        twice.merge(&found);
        assert_eq!(twice, found);
        assert_eq!(
            found.to_string(),
            "10 files: 3 without an ending (first: a.b/none), 2 `.tif` (first: b/1.tif), \
             1 `.*.png` (x. one and .two.png), 1 `.a` (1.a), 3 more of 3 other kinds"
        );
        let mut one = PassedOver::default();
        one.add_name("notes.txt");
        assert_eq!(one.to_string(), "1 file: 1 `.txt` (notes.txt)");
    }

    #[test]
    fn kinds_and_names_are_bounded() {
        let mut found = PassedOver::default();
        for number in 0..2 * MAX_KINDS {
            found.add_name(&format!("x.{number}"));
        }
        found.add_name(&"ä".repeat(MAX_NAME_BYTES));
        assert_eq!(found.kinds().len(), MAX_KINDS + 1);
        assert_eq!(found.count(), 2 * MAX_KINDS as u64 + 1);
        assert!(found.kinds().values().all(|kind| kind.first.len() <= MAX_NAME_BYTES));
    }
}
