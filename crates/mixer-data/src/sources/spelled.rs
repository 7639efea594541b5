//! Letters as numbers.

/// A name with the letters beyond ASCII as numbers, so that forms can be told apart.
pub(crate) fn spelled(name: &str) -> String {
    let letter = |c: char| match c.is_ascii() {
        true => c.to_string(),
        false => c.escape_unicode().to_string(),
    };
    name.chars().map(letter).collect()
}
