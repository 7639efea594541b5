//! The text of a configuration: reading it, `--set` overrides, and what is said where it is wrong.

use std::io::Read;
use std::path::Path;

use fs_err::File;

use crate::config::run_config::RunConfig;
use crate::config::schema::{self, Key};
use crate::error::TrainError;

impl RunConfig {
    /// Parses a configuration from text. See [`RunConfig::read`].
    ///
    /// # Errors
    /// As [`RunConfig::read`], [`TrainError::Usage`] for an override that is no `KEY=VALUE`, and
    /// [`TrainError::Config`] for `extends`, which has a meaning in files alone.
    pub fn parse(text: &str, overrides: &[String]) -> Result<(RunConfig, String), TrainError> {
        if overrides.is_empty() {
            return Ok((deserialise(text, INVALID)?.without_parent()?, text.to_owned()));
        }
        let mut document: toml_edit::DocumentMut =
            text.parse().map_err(|error: toml_edit::TomlError| {
                TrainError::config(format!(
                    "{INVALID}\n{}",
                    shortened(&in_plain_words(&error.to_string()))
                ))
            })?;
        for entry in overrides {
            apply_override(&mut document, entry)?;
        }
        let text = document.to_string();
        let config =
            deserialise(&text, INVALID).map_err(|error| with_overrides(error, overrides))?;
        Ok((config.without_parent()?, text))
    }
}

/// Largest configuration file. The longest of ours has 2 kB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Longest line of a message, characters. That with all keys of a section has 500.
const MAX_LINE_CHARS: usize = 600;

/// Most parts of the key of an override. `data.eval_resize.resmall_crop.fraction` has 4.
const MAX_KEY_PARTS: usize = 16;

/// Longest unknown key for which a similar one is looked for: the time grows with the product of lengths.
const MAX_COMPARED_BYTES: usize = 64;

/// Reads a configuration file. A device or a pipe is read no further than the longest file.
///
/// # Errors
/// When it cannot be read, is too long or no UTF-8; the message names the path.
pub(crate) fn read_text(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    let what = if bytes.len() as u64 > MAX_FILE_BYTES {
        format!("more than {MAX_FILE_BYTES} bytes, expected a configuration")
    } else {
        match String::from_utf8(bytes) {
            Ok(text) => return Ok(text),
            Err(error) => format!("no UTF-8 ({})", error.utf8_error()),
        }
    };
    let message = format!("`{}`: {what}", path.display());
    Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message))
}

/// The lines of a message, cut where they are too long to be read: an excerpt has whole lines of the file.
pub(crate) fn shortened(text: &str) -> String {
    let shorten = |line: &str| match line.char_indices().nth(MAX_LINE_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    };
    text.lines().map(shorten).collect::<Vec<_>>().join("\n")
}

/// First words of an error in a file.
pub(crate) const INVALID: &str = "invalid configuration";

/// An error of overrides, which stand in no file: without the excerpt that names lines of one.
fn with_overrides(error: TrainError, overrides: &[String]) -> TrainError {
    let sets = shortened(&overrides.join(" --set "));
    match error {
        TrainError::Config { message, hint, path } => {
            let reason = message.lines().next_back().unwrap_or_default();
            let message = format!("{INVALID} with `--set {sets}`: {reason}");
            TrainError::Config { message, hint, path }
        }
        error => error,
    }
}

/// `what` is wrong when the text is: the first line of the error.
pub(crate) fn deserialise(text: &str, what: &str) -> Result<RunConfig, TrainError> {
    toml::from_str(text).map_err(|error| {
        let rendered = in_plain_words(error.to_string().trim_end());
        let place = error.span().and_then(|span| text.get(span)).unwrap_or_default();
        let rendered = with_dates(rendered, place.trim_matches('"'));
        let error = TrainError::config(format!("{what}\n{}", shortened(&rendered)));
        if let Some(key) = meant_key(&rendered) {
            return error.with_hint(format!("did you mean `{key}`?"));
        }
        if let Some(missing) = named(&rendered, "missing field `")
            && let Ok(config) = text.parse()
            && let Some(values) = schema::values_of_missing(&config, missing)
        {
            return error.with_hint(format!("add `{missing}`: {values}"));
        }
        if rendered.contains("invalid type: string") && rendered.contains("number") {
            return error.with_hint("numbers are written without quotes: `10`, `0.01` or `1e-3`");
        }
        error
    })
}

/// A date is a map to serde, and a word where an override has it, which is none of either to who typed it.
fn with_dates(rendered: String, found: &str) -> String {
    if found.parse::<toml::value::Datetime>().is_err() {
        return rendered;
    }
    let date = format!("invalid type: the date \"{found}\"");
    rendered
        .replace("invalid type: map", &date)
        .replace(&format!("invalid type: string \"{found}\""), &date)
}

/// Serde names what it expected by Rust's types, which mean nothing to who writes TOML.
fn in_plain_words(rendered: &str) -> String {
    let rendered = rendered.trim_end();
    if rendered == "recursion limit" {
        return "keys or values nest too deeply, expected at most 80 levels".to_owned();
    }
    // TOML has no larger ones, serde has.
    let rendered =
        rendered.replace("` as i128", "` (too large)").replace("` as u128", "` (too large)");
    let Some((place, expected)) = rendered.rsplit_once(", expected ") else {
        return rendered;
    };
    let plain = match expected {
        "usize" | "u64" | "u32" => "a whole number, at least 0",
        "f64" | "f32" => "a number",
        _ if expected.starts_with("struct ") => "a table",
        "a boolean" => "true or false",
        "a sequence" => "a list in brackets",
        "path string" => "a path in quotes",
        _ => expected,
    };
    format!("{place}, expected {plain}")
}

/// The key of an override.
pub(crate) fn text_of_override(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key).trim()
}

/// Sets `a.b.c=value` in a document. The value is TOML; a bare word is a string.
fn apply_override(document: &mut toml_edit::DocumentMut, entry: &str) -> Result<(), TrainError> {
    let malformed = |why: &str| {
        TrainError::usage(format!("`--set {}`: {why}", shortened(entry)))
            .with_hint("write `--set optimizer.learning_rate=0.01`")
    };
    let (path, value) = entry.split_once('=').ok_or_else(|| malformed("expected KEY=VALUE"))?;
    let value = value.trim();
    let digits = value.trim_start_matches(['+', '-']).replace('_', "");
    if value.parse::<i64>().is_err()
        && !digits.is_empty()
        && digits.chars().all(|c| c.is_ascii_digit())
    {
        let why = format!("a number beyond {}, the largest that there is", i64::MAX);
        return Err(malformed(&why));
    }
    if value.parse::<f64>().is_ok_and(f64::is_infinite)
        && value.contains(|c: char| c.is_ascii_digit())
    {
        let why = format!("a number beyond {:e}, the largest that there is", f64::MAX);
        return Err(malformed(&why));
    }
    let value: toml_edit::Value = match value.parse() {
        // No key is a date, but a folder may have one for its name.
        Ok(toml_edit::Value::Datetime(_)) | Err(_) => value.into(),
        Ok(value) => value,
    };
    let keys: Vec<&str> = path.trim().split('.').collect();
    if keys.len() > MAX_KEY_PARTS {
        return Err(malformed(&format!("a key of {} parts", keys.len())));
    }
    let displaced = displaced(&keys);
    let Some((last, parents)) = keys.split_last().filter(|_| keys.iter().all(|k| !k.is_empty()))
    else {
        return Err(malformed("a part of the key is empty"));
    };
    let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
    for key in parents {
        let item = table.entry(key).or_insert_with(toml_edit::table);
        if !item.is_table_like() {
            // `crop = "none"` gives way to `crop.pad.pixels=4`.
            *item = toml_edit::Item::Value(toml_edit::InlineTable::new().into());
        }
        table = item.as_table_like_mut().ok_or_else(|| malformed("not a table"))?;
    }
    if let Some(displaced) = displaced {
        table.remove(displaced);
    }
    table.insert(last, toml_edit::Item::Value(value));
    Ok(())
}

/// The key beside this one that loses its effect when this one is set: the length is one or the other.
pub(crate) fn displaced(keys: &[&str]) -> Option<&'static str> {
    match keys {
        ["train", "steps"] => Some("epochs"),
        ["train", "epochs"] => Some("steps"),
        _ => None,
    }
}

/// Words of the field, and the keys that they mean here.
const SYNONYMS: [(&str, &str); 24] = [
    ("lr", "optimizer.learning_rate"),
    ("base_lr", "optimizer.learning_rate"),
    ("max_lr", "optimizer.learning_rate"),
    ("rate", "optimizer.learning_rate"),
    ("wd", "optimizer.weight_decay"),
    ("opt", "optimizer.kind"),
    ("eps", "optimizer.epsilon"),
    ("sched", "schedule.decay"),
    ("scheduler", "schedule.decay"),
    ("warmup", "schedule.warmup_steps"),
    ("bs", "train.batch_size"),
    ("batch", "train.batch_size"),
    ("num_epochs", "train.epochs"),
    ("max_epochs", "train.epochs"),
    ("max_steps", "train.steps"),
    ("smoothing", "train.label_smoothing"),
    ("grad_clip", "train.clip_norm"),
    ("ema", "train.ema_decay"),
    ("dropout", "model.drop_path_rate"),
    ("drop_path", "model.drop_path_rate"),
    ("img_size", "model.image_size"),
    ("resolution", "model.image_size"),
    ("mixup", "data.mix.mixup_alpha"),
    ("cutmix", "data.mix.cutmix_alpha"),
];

/// Text in a message between `before` and the next backtick.
fn named<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    Some(message.split_once(before)?.1.split_once('`')?.0)
}

/// The key that was meant by the unknown one that serde's message names: another word for it, one of this
/// name in another section, the nearest of those that were expected, the nearest of all.
fn meant_key(message: &str) -> Option<String> {
    let unknown = named(message, "unknown field `");
    let word = unknown.or(named(message, "unknown variant `"))?;
    if word.len() > MAX_COMPARED_BYTES {
        return None;
    }
    if unknown.is_some() {
        if let Some((_, meant)) = SYNONYMS.iter().find(|(synonym, _)| *synonym == word) {
            return Some((*meant).to_owned());
        }
        if let Some(key) = Key::all().iter().find(|key| key.name == word) {
            return Some(key.address());
        }
    }
    let expected = message.rsplit_once("expected")?.1;
    let near = |candidate: &str| {
        let distance = strsim::damerau_levenshtein(word, candidate);
        (distance <= candidate.len() / 2 + 1).then_some(distance)
    };
    let here = expected.split('`').skip(1).step_by(2);
    let here = here.filter_map(|key| Some((near(key)?, key.to_owned()))).min();
    let all = Key::all().iter().filter(|_| unknown.is_some());
    let all = all.filter_map(|key| Some((near(key.name)?, key.address()))).min();
    match (here, all) {
        // Clearly nearer elsewhere.
        (Some((here, _)), Some((other, key))) if other + 2 < here => Some(key),
        (here, other) => here.or(other).map(|(_, key)| key),
    }
}

#[cfg(test)]
mod tests {
    use mixer_data::{OnCorrupt, TrainCrop};

    use super::*;

    #[test]
    fn an_unknown_key_names_its_place_and_the_nearest_key() {
        let error = RunConfig::parse("[train]\nbatch_sise = 3\n", &[]).unwrap_err();
        assert!(error.to_string().contains("line 2, column 1"), "{error}");
        assert_eq!(error.hint().as_deref(), Some("did you mean `batch_size`?"));
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn a_wrong_type_names_its_place() {
        let error = RunConfig::parse("[train]\nbatch_size = \"many\"\n", &[]).unwrap_err();
        assert!(error.to_string().contains("line 2, column 14"), "{error}");
        assert!(error.to_string().contains("expected a whole number"), "{error}");
    }

    #[test]
    fn overrides_make_tables_replace_values_and_take_bare_words() {
        let text = "[data]\ncrop = \"none\"\n";
        let set = |entry: &str| RunConfig::parse(text, &[entry.to_owned()]);
        assert_eq!(set("seed=7").unwrap().0.seed, Some(7));
        assert_eq!(set("model.variant=B/16").unwrap().0.model.variant.as_deref(), Some("B/16"));
        assert_eq!(
            set("data.crop.pad.pixels=4").unwrap().0.data.crop,
            Some(TrainCrop::Pad { pixels: 4 })
        );
        let skip = set("data.on_corrupt.skip.at_most=3").unwrap();
        assert_eq!(skip.0.data.on_corrupt, Some(OnCorrupt::Skip { at_most: 3 }));
        assert_eq!(RunConfig::parse(&skip.1, &[]).unwrap().0, skip.0);
        assert!(set("seed").is_err() && set("a..b=1").is_err());
        assert!(set("train.bathc_size=1").unwrap_err().hint().unwrap().contains("batch_size"));
    }

    fn hint_of(entry: &str) -> String {
        let error = RunConfig::parse("", &[entry.to_owned()]).unwrap_err();
        let text = error.to_string();
        assert!(!text.contains('\n') && !text.contains("line "), "{text}");
        error.hint().unwrap_or_default()
    }

    #[test]
    fn words_of_the_field_and_keys_of_other_sections_are_understood() {
        for entry in ["lr=1", "train.lr=1", "optimizer.lr=1", "train.learning_rate=1"] {
            assert_eq!(hint_of(entry), "did you mean `optimizer.learning_rate`?", "{entry}");
        }
        assert_eq!(hint_of("train.warmup_steps=5"), "did you mean `schedule.warmup_steps`?");
        assert_eq!(hint_of("trian.epochs=5"), "did you mean `train`?");
        assert_eq!(hint_of("optimizer.kind=adam"), "did you mean `adamw`?");
    }

    #[test]
    fn what_a_partial_table_lacks_is_named_with_its_values() {
        let hint = hint_of("data.randaugment={layers=2}");
        assert!(hint.contains("`flavour`") && hint.contains("big_vision"), "{hint}");
        let hint = hint_of("data.randaugment={flavour=\"timm\",layers=2}");
        assert!(hint.contains("`magnitude`") && hint.contains("0 to 30"), "{hint}");
        // Of this key and of no other one that has a field of the name.
        let hint = hint_of("data.randaugment={layers=2}");
        assert_eq!(hint, "add `flavour`: `\"big_vision\"`, `\"timm\"` or `\"autoaugment\"`");
        let hint = hint_of("data.erasing={}");
        assert!(hint.contains("a picture is touched") && !hint.contains("layer"), "{hint}");
    }

    #[test]
    fn numbers_that_are_none_are_called_what_they_are() {
        let message =
            |entry: &str| RunConfig::parse("", &[entry.to_owned()]).unwrap_err().to_string();
        let large = message("seed=99999999999999999999");
        assert!(large.contains("beyond 9223372036854775807"), "{large}");
        assert!(message("train.steps=nan").contains("`NaN`"), "{}", message("train.steps=nan"));
        let date = message("train.steps=2024-01-01");
        assert!(date.contains("the date \"2024-01-01\", expected a whole number"), "{date}");
        let large = message("optimizer.learning_rate=1e400");
        assert!(large.contains("beyond 1.7976931348623157e308"), "{large}");
        let in_file = |text: &str| RunConfig::parse(text, &[]).unwrap_err().to_string();
        let date = in_file("[train]\nsteps = 2024-01-01\n");
        assert!(date.contains("the date \"2024-01-01\", expected a whole number"), "{date}");
        let large = in_file("seed = 99999999999999999999\n");
        assert!(large.contains("`99999999999999999999` (too large)"), "{large}");
        let (config, _) = RunConfig::parse("", &["data.train=2024-01-01".to_owned()]).unwrap();
        assert_eq!(config.data.train.as_deref(), Some("2024-01-01"));
    }
}
