//! Names of the same letters that are composed of different ones: `é`, or `e` and an accent.
//!
//! Unicode has several forms of many letters, which look alike. Copies by way of macOS change them.

use std::collections::HashMap;
use std::path::Path;

use unicode_normalization::UnicodeNormalization;

use crate::error::DataError;

/// Another name among `names` with the same letters.
pub(crate) fn twin<'a>(name: &str, names: &'a [String]) -> Option<&'a str> {
    // Letters of ASCII have one form.
    let names = names.iter().map(String::as_str).filter(|_| !name.is_ascii());
    names.filter(|other| *other != name).find(|other| other.nfc().eq(name.nfc()))
}

/// Refuses names of classes that look alike.
pub(crate) fn check_letters(names: &[String], path: &Path) -> Result<(), DataError> {
    let mut seen = HashMap::new();
    for name in names.iter().filter(|name| !name.is_ascii()) {
        if let Some(first) = seen.insert(name.nfc().collect::<String>(), name) {
            return Err(DataError::SameLetters {
                first: first.clone(),
                second: name.clone(),
                path: path.to_path_buf(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_the_same_letters_are_told_apart() {
        let composed = ["caf\u{e9}", "the"].map(str::to_owned);
        assert_eq!(twin("cafe\u{301}", &composed), Some("caf\u{e9}"));
        assert_eq!(twin("caf\u{e9}", &composed), None);
        assert_eq!(twin("cafe", &composed), None);
        check_letters(&composed, Path::new("D")).unwrap();
        let both = ["caf\u{e9}", "cafe\u{301}"].map(str::to_owned);
        assert_eq!(
            check_letters(&both, Path::new("D")).unwrap_err().to_string(),
            "found classes `caf\\u{e9}` and `cafe\\u{301}`, the same letters in two forms of Unicode, expected one of them: D"
        );
    }
}
