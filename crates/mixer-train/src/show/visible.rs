//! Names of files and classes as a terminal may show them: what would move its cursor, colour it or turn the
//! direction of its text is written out.

use std::borrow::Cow;

/// The text in one line of visible characters: control characters, ends of lines and characters that turn the
/// direction of the text are written as escapes.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() || turns_or_breaks(c))
}

/// The same for a text of several lines and columns.
pub(crate) fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| (c.is_control() && !matches!(c, '\n' | '\t')) || turns_or_breaks(c))
}

/// The same for JSON: what JSON allows in a string although a terminal would obey it is written as an escape
/// of JSON, so that the values stay as they are.
pub(crate) fn visible_json(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| (c.is_control() && c != '\n') || turns_or_breaks(c);
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    // All of them have four digits.
    let shown = |c: char| {
        if is_hidden(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// `true` for marks of direction and for the ends of lines and paragraphs that are no control characters.
fn turns_or_breaks(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_hidden(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out_and_all_else_stays() {
        for (text, expected) in [
            ("größe 猫 \\ 'a'", "größe 猫 \\ 'a'"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\nerror: b\r\tc\u{7f}", "a\\nerror: b\\r\\tc\\u{7f}"),
            ("c1\u{9b}2J", "c1\\u{9b}2J"),
            ("\u{202e}gpj", "\\u{202e}gpj"),
        ] {
            assert_eq!(visible(text), expected);
        }
        assert_eq!(visible_json("\"a\u{7f}\u{202e}ü\"\n"), "\"a\\u007f\\u202eü\"\n");
        assert_eq!(visible_lines("a\tb\n\u{1b}c\rd"), "a\tb\n\\u{1b}c\\rd");
    }
}
