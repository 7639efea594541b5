//! Foreign text in messages.

/// Foreign text, fit for one line of a message: no control characters, bounded length.
pub(super) fn one_line(text: &str) -> String {
    const MAX_CHARS: usize = 400;
    let mut line: String =
        text.chars().take(MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_on_one_line() {
        assert_eq!(one_line("a\nb\x1b[31m"), "a b [31m");
        assert_eq!(one_line(&"x".repeat(1000)).len(), 403);
    }
}
