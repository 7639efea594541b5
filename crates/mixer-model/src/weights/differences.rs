//! Everything in which a set of tensors differs from those of an architecture.

use std::collections::{BTreeMap, BTreeSet};

use super::one_line::one_line;
use crate::mixer::config::MixerConfig;
use crate::parameters::{ParameterSpec, parameters};

/// Shapes by timm name.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// Lines of a list of differences that are shown; the rest is counted.
const MAX_SHOWN_DIFFERENCES: usize = 20;

/// Everything in which `shapes` is not the set of tensors of `config`, one line each: first missing
/// and misshapen tensors in the order of the layers, then the unexpected ones.
pub(super) fn differences(config: &MixerConfig, shapes: &Shapes) -> Vec<String> {
    let expected = parameters(config);
    let mut lines = Vec::new();
    for ParameterSpec { name, shape, .. } in &expected {
        match shapes.get(name) {
            None => lines.push(format!("missing {name} {shape:?}")),
            Some(found) if found != shape => {
                lines.push(format!("{name} is {found:?}, expected {shape:?}"));
            }
            Some(_) => {}
        }
    }
    let expected: BTreeSet<&str> = expected.iter().map(|spec| spec.name.as_str()).collect();
    let unexpected = shapes.iter().filter(|(name, _)| !expected.contains(name.as_str()));
    lines.extend(unexpected.map(|(name, shape)| format!("unexpected {name} {shape:?}")));
    lines
}

/// The lines as shown, cut off with a count.
pub(super) fn shown(lines: &[String]) -> String {
    let mut text = lines
        .iter()
        .take(MAX_SHOWN_DIFFERENCES)
        .map(|line| format!("  {}", one_line(line)))
        .collect::<Vec<_>>()
        .join("\n");
    if lines.len() > MAX_SHOWN_DIFFERENCES {
        text.push_str(&format!("\n  ... and {} more", lines.len() - MAX_SHOWN_DIFFERENCES));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_differences_is_cut_with_a_count() {
        let lines: Vec<String> = (0..34).map(|i| format!("missing {i}")).collect();
        let text = shown(&lines);
        assert_eq!(text.lines().count(), 21);
        assert!(text.ends_with("  ... and 14 more"), "{text}");
    }
}
