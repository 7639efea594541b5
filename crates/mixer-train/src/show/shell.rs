//! Commands that work when they are typed.

use std::path::Path;

/// This program as it was called.
pub(crate) fn program() -> String {
    std::env::args_os().next().map_or_else(|| "mixer".to_owned(), |path| word(Path::new(&path)))
}

/// A path as one word of a shell, also where it begins with a dash.
pub(crate) fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        for (path, expected) in [
            ("runs/größe_1", "runs/größe_1"),
            ("my pictures", "'my pictures'"),
            ("a'b", r"'a'\''b'"),
            ("$HOME", "'$HOME'"),
            ("-x", "./-x"),
            ("", "''"),
        ] {
            assert_eq!(word(Path::new(path)), expected);
        }
    }
}
