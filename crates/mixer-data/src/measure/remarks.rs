//! What somebody who trains on a source should know of it, and nothing refuses.

use crate::sources::source::Source;

/// Classes that a remark names.
const SHOWN_CLASSES: usize = 5;

/// Remarks on a source, a line each: files that were passed over, and classes without an example.
///
/// Nothing is read; it takes a look at every label.
pub fn remarks(source: &dyn Source) -> Vec<String> {
    let passed_over = source.passed_over();
    let mut remarks = Vec::new();
    if !passed_over.is_empty() {
        // Archives alone have kinds with two dots.
        let has_dots = passed_over.kinds().keys().any(|kind| kind.matches('.').count() > 1);
        let why =
            if has_dots { "; the key of a member ends at the first dot of its name" } else { "" };
        remarks.push(format!("passed over {passed_over}{why}"));
    }
    remarks.extend(empty_classes(source));
    remarks
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
