//! All that is said of keys beside their fields: JSON Schema with ranges and defaults, the check of a
//! configuration against the ranges, and which keys a run that is continued may change.
//!
//! A field says it in `#[schemars(extend(…))]`: `default`, `minimum`, `maximum`, `exclusiveMinimum` and
//! `exclusiveMaximum` are those of JSON Schema. `x-default` is a default in words, `x-unit` what a number
//! counts, `x-from` who else may have decided a value that nobody typed, and `x-resume` a [`Change`].

use std::sync::OnceLock;

use schemars::schema_for;
use serde_json::{Map, Value};

use crate::config::run_config::RunConfig;
use crate::error::TrainError;

/// Freedom of a key when a run is continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It stays: another value makes another run.
    No,
    /// It may change, and changes no weight.
    Free,
    /// It may change, and changes no more than rounding.
    Rounding,
    /// The same, but it stays where batches are mixed.
    RoundingWithoutMixing,
    /// It may change where the run is made longer.
    Longer,
}

/// One key and what is said beside its field.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its section; empty at the top level.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    facts: &'static Map<String, Value>,
}

impl Key {
    /// Every key of every section, in the order of their fields.
    #[must_use]
    pub fn all() -> &'static [Key] {
        static KEYS: OnceLock<Vec<Key>> = OnceLock::new();
        KEYS.get_or_init(|| {
            let of_section = |(section, name): (String, String)| {
                let (section, facts) = if section.is_empty() {
                    ("", Some(schema()))
                } else {
                    let (section, facts) = property(schema(), &section)?;
                    (section, referenced(facts))
                };
                let (name, facts) = property(facts?, &name)?;
                Some(Key { section, name, facts })
            };
            fields().into_iter().filter_map(of_section).collect()
        })
    }

    /// The key of this section and name.
    #[must_use]
    pub fn find(section: &str, name: &str) -> Option<&'static Key> {
        Key::all().iter().find(|key| key.section == section && key.name == name)
    }

    /// Its address in a configuration, `train.steps`.
    #[must_use]
    pub fn address(&self) -> String {
        if self.section.is_empty() {
            return self.name.to_owned();
        }
        format!("{}.{}", self.section, self.name)
    }

    /// Its freedom when a run is continued.
    #[must_use]
    pub fn change(&self) -> Change {
        match self.word("x-resume") {
            Some("free") => Change::Free,
            Some("rounding") => Change::Rounding,
            Some("rounding without mixing") => Change::RoundingWithoutMixing,
            Some("longer") => Change::Longer,
            _ => Change::No,
        }
    }

    /// `true` where a field of its value may change when a run is continued, by its address, `train.teacher.weights`.
    #[must_use]
    pub fn frees(&self, address: &str) -> bool {
        let field = address.strip_prefix(&self.address()).and_then(|rest| rest.strip_prefix('.'));
        let pointer = field.map(|field| format!("/properties/{field}/x-resume"));
        let word = pointer.and_then(|pointer| referenced(self.facts)?.pointer(&pointer)?.as_str());
        word == Some("free")
    }

    /// Decider of it where nobody typed it and it is no default: `weights`, `preprocessing` (of the
    /// weights), or in words.
    #[must_use]
    pub fn decided_by(&self) -> Option<&'static str> {
        self.word("x-from")
    }

    /// Its meaning: one sentence, and more where that is not enough.
    #[must_use]
    pub fn meaning(&self) -> (String, String) {
        paragraphs(self.facts)
    }

    /// Its default as the documentation says it; empty where there is none.
    #[must_use]
    pub fn default_in_words(&self) -> String {
        let value = match (self.word("x-default"), self.facts.get("default")) {
            (Some(words), _) => words.to_owned(),
            (None, Some(value)) => format!("`{}`", toml_of(value)),
            (None, None) => return String::new(),
        };
        match self.decided_by() {
            Some("weights" | "preprocessing") => {
                format!("{value}; in fine-tuning, that of the weights")
            }
            _ => value,
        }
    }

    /// Form of its values: unit, range, the words that it may be.
    #[must_use]
    pub fn values(&self) -> String {
        let mut parts: Vec<String> = self.word("x-unit").map(str::to_owned).into_iter().collect();
        let words = self.words();
        if !words.is_empty() {
            parts.push(
                words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
            );
        }
        if self.facts.get("type").is_some_and(|kind| kind == "boolean") {
            parts.push("`true`, `false`".to_owned());
        }
        let is_any_size = self.facts.get("type").is_some_and(|kind| kind == "integer")
            && self.number("minimum").is_none_or(|least| least <= 1.0)
            && self.number("maximum").is_none();
        if !is_any_size && let Some(range) = self.range() {
            parts.push(range);
        }
        if !parts.is_empty() {
            parts.join(", ")
        } else if self.facts.contains_key("$ref") {
            "see below".to_owned()
        } else {
            self.facts.get("type").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
    }

    /// The words that its value may be, where it is a choice of words alone.
    fn words(&self) -> Vec<&'static str> {
        let Some(defined) = referenced(self.facts) else { return Vec::new() };
        let one_of = defined.get("oneOf").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let listed = defined.get("enum").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let of_variant = |variant: &'static Value| match (variant.get("const"), variant.get("enum"))
        {
            (Some(word), _) => vec![word],
            (None, Some(words)) => words.as_array().map_or(&[][..], Vec::as_slice).iter().collect(),
            (None, None) => vec![&Value::Null],
        };
        let words: Option<Vec<&str>> =
            one_of.iter().flat_map(of_variant).chain(listed).map(Value::as_str).collect();
        words.unwrap_or_default()
    }

    /// The range of its numbers, `at least 0 and below 1`.
    fn range(&self) -> Option<String> {
        let bound = |words: &str, name: &str| {
            self.facts.get(name).map(|limit| format!("{words} {}", toml_of(limit)))
        };
        let low = bound("at least", "minimum").or(bound("above", "exclusiveMinimum"));
        let high = bound("at most", "maximum").or(bound("below", "exclusiveMaximum"));
        match (low, high) {
            (Some(low), Some(high)) => Some(format!("{low} and {high}")),
            (low, high) => low.or(high),
        }
    }

    /// Refuses a number outside of the range, and one that is none.
    fn check(&self, value: &toml::Value) -> Result<(), TrainError> {
        let (numbers, holds): (Vec<&toml::Value>, _) = match value {
            toml::Value::Array(numbers) => (numbers.iter().collect(), "holds"),
            number => (vec![number], "is"),
        };
        for found in numbers {
            let (number, is_whole) = match found {
                toml::Value::Integer(number) => (*number as f64, true),
                toml::Value::Float(number) => (*number, false),
                _ => continue,
            };
            let is_low = self.number("minimum").is_some_and(|least| number < least)
                || self.number("exclusiveMinimum").is_some_and(|below| number <= below);
            let is_high = self.number("maximum").is_some_and(|most| number > most)
                || self.number("exclusiveMaximum").is_some_and(|above| number >= above);
            if !is_low && !is_high && number.is_finite() {
                continue;
            }
            let least = self.number("minimum").filter(|_| is_low && is_whole);
            let most = self.number("maximum").filter(|_| is_high && is_whole);
            let expected = match (least, most) {
                (Some(least), _) => format!("at least {least}"),
                (None, Some(most)) => format!("at most {most}"),
                _ => self.range().unwrap_or_else(|| "a finite value".to_owned()),
            };
            let unit = if self.word("x-unit") == Some("px") { " px" } else { "" };
            return Err(TrainError::config(format!(
                "`{}` {holds} {}, expected {expected}{unit}",
                self.address(),
                shown(found)
            )));
        }
        Ok(())
    }

    fn number(&self, fact: &str) -> Option<f64> {
        self.facts.get(fact).and_then(Value::as_f64)
    }

    fn word(&self, fact: &str) -> Option<&'static str> {
        self.facts.get(fact).and_then(Value::as_str)
    }
}

/// Refuses numbers outside of the range that stands beside their field.
///
/// # Errors
/// [`TrainError::Config`] with key, value and range.
pub(crate) fn check_ranges(config: &RunConfig) -> Result<(), TrainError> {
    let typed = table(config)?;
    for key in Key::all() {
        let section =
            if key.section.is_empty() { Some(&typed) } else { section(&typed, key.section) };
        if let Some(value) = section.and_then(|section| section.get(key.name)) {
            key.check(value)?;
        }
    }
    Ok(())
}

/// A configuration or a plan as a table.
///
/// # Errors
/// [`TrainError::Config`] for a number that TOML cannot hold.
pub(crate) fn table(value: &impl serde::Serialize) -> Result<toml::Table, TrainError> {
    toml::Table::try_from(value).map_err(|error| TrainError::config(error.to_string()))
}

pub(crate) fn section<'a>(table: &'a toml::Table, name: &str) -> Option<&'a toml::Table> {
    table.get(name).and_then(toml::Value::as_table)
}

/// A value as somebody would have typed it: numbers that were f32 have the digits of f32.
pub(crate) fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::Float(number) => digits(*number),
        other => other.to_string(),
    }
}

/// A number with the digits of the f32 that it was, and without a row of zeros.
fn digits(number: f64) -> String {
    let single = number as f32;
    let is_single = f64::from(single) == number;
    let is_far = number != 0.0 && !(1e-5..1e15).contains(&number.abs());
    match (is_single, is_far && number.is_finite()) {
        (true, true) => format!("{single:e}"),
        (true, false) => single.to_string(),
        (false, true) => format!("{number:e}"),
        (false, false) => number.to_string(),
    }
}

/// The JSON Schema of configurations.
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut schema = schema_for!(RunConfig).to_value();
        without_null(&mut schema);
        schema
    })
}

/// TOML has no null: what is not set is not there.
fn without_null(value: &mut Value) {
    let is_null = |value: &Value| value["type"] == "null";
    match value {
        Value::Object(object) => {
            let choice = object.get_mut("anyOf").and_then(Value::as_array_mut);
            if let Some(choice) = choice
                && choice.iter().any(is_null)
            {
                choice.retain(|value| !is_null(value));
                if let [Value::Object(only)] = choice.as_mut_slice() {
                    let only = std::mem::take(only);
                    object.remove("anyOf");
                    object.extend(only);
                }
            }
            if let Some(Value::Array(kinds)) = object.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [only] = kinds.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            // Of a key without a default, and of a section, whose keys have theirs.
            if object.get("default").is_some_and(|default| default.is_null())
                || object
                    .get("$ref")
                    .is_some_and(|path| path.as_str().is_some_and(|path| path.ends_with("Config")))
            {
                object.remove("default");
            }
            object.values_mut().for_each(without_null);
        }
        Value::Array(values) => values.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// Section and name of every key in the order of the fields, which a schema does not keep: an empty
/// configuration as JSON is `{"seed":null,"model":{"variant":null,…},…}`.
fn fields() -> Vec<(String, String)> {
    let text = serde_json::to_string(&RunConfig::default()).unwrap_or_default();
    let (mut section, mut fields) = (String::new(), Vec::new());
    let mut parts = text.split('"').skip(1);
    while let (Some(name), Some(rest)) = (parts.next(), parts.next()) {
        if rest.starts_with(":{") {
            name.clone_into(&mut section);
            continue;
        }
        fields.push((section.clone(), name.to_owned()));
        if rest.contains('}') {
            section.clear();
        }
    }
    fields
}

fn property(
    schema: &'static Value,
    name: &str,
) -> Option<(&'static str, &'static Map<String, Value>)> {
    let (name, facts) = schema.get("properties")?.as_object()?.get_key_value(name)?;
    Some((name.as_str(), facts.as_object()?))
}

/// The definition that a `$ref` leads to.
fn referenced(facts: &'static Map<String, Value>) -> Option<&'static Value> {
    let path = facts.get("$ref")?.as_str()?.strip_prefix('#')?;
    schema().pointer(path)
}

/// The first paragraph of a description, and the others; each is one line.
fn paragraphs(facts: &Map<String, Value>) -> (String, String) {
    let text = facts.get("description").and_then(Value::as_str).unwrap_or_default();
    let mut paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    (paragraphs.next().unwrap_or_default(), paragraphs.collect::<Vec<_>>().join("\n\n"))
}

/// A JSON value as TOML.
fn toml_of(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => digits(number.as_f64().unwrap_or_default()),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(toml_of).collect::<Vec<_>>().join(", "))
        }
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| format!("{key} = {}", toml_of(value));
            format!("{{ {} }}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// All that is known of the field of this name that a table lacks which is the value of a key, `"big_vision"` or
/// `"timm"`: of the first key with such a table in a configuration.
pub(crate) fn values_of_missing(config: &toml::Table, name: &str) -> Option<String> {
    let lacking = Key::all().iter().filter(|key| {
        let value = match key.section {
            "" => config.get(key.name),
            of => section(config, of).and_then(|keys| keys.get(key.name)),
        };
        value.is_some_and(|value| value.is_table() && !value.to_string().contains(name))
    });
    lacking.map(|key| values_of_field(key.facts, name)).find_map(|found| found)
}

/// The words that a field of this name may be, else its meaning, wherever it is in the value of a key.
fn values_of_field(facts: &'static Map<String, Value>, name: &str) -> Option<String> {
    fn collect(
        object: &'static Map<String, Value>,
        name: &str,
        words: &mut Vec<String>,
        meanings: &mut Vec<String>,
    ) {
        if let Some(Value::Object(fields)) = object.get("properties")
            && let Some(Value::Object(field)) = fields.get(name)
        {
            words.extend(field.get("const").map(|word| format!("`{word}`")));
            meanings.push(paragraphs(field).0.trim_end_matches('.').to_owned());
        }
        if let Some(Value::Object(defined)) = referenced(object) {
            collect(defined, name, words, meanings);
        }
        for value in object.values() {
            let inside: Vec<&Value> = match value {
                Value::Array(values) => values.iter().collect(),
                value => vec![value],
            };
            for object in inside.into_iter().filter_map(Value::as_object) {
                collect(object, name, words, meanings);
            }
        }
    }
    let (mut words, mut meanings) = (Vec::new(), Vec::new());
    collect(facts, name, &mut words, &mut meanings);
    let mut found = if words.is_empty() { meanings } else { words };
    found.retain(|words| !words.is_empty());
    found.dedup();
    let last = found.pop()?;
    Some(if found.is_empty() { last } else { format!("{} or {last}", found.join(", ")) })
}

/// docs/configuration.md.
#[must_use]
pub fn markdown() -> String {
    let mut text = include_str!("introduction.md").to_owned();
    let mut section = None;
    let mut below = String::new();
    for key in Key::all() {
        if section != Some(key.section) {
            section = Some(key.section);
            text.push_str(&std::mem::take(&mut below));
            let (title, words) = title(key.section);
            text.push_str(&format!("\n## {title}\n\n"));
            if !words.is_empty() {
                text.push_str(&format!("{words}\n\n"));
            }
            text.push_str(
                "| key | values | default | may change | meaning |\n|---|---|---|---|---|\n",
            );
        }
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let may_change = match key.change() {
            Change::No => "",
            Change::Free => "yes",
            Change::Rounding => "yes, up to rounding",
            Change::RoundingWithoutMixing => "yes, up to rounding, without `data.mix`",
            Change::Longer => "larger, with `--extend`",
        };
        let (meaning, more) = key.meaning();
        text.push_str(&format!(
            "| `{}` | {} | {} | {may_change} | {meaning} |\n",
            key.name,
            or_dash(key.values()),
            or_dash(key.default_in_words())
        ));
        if !more.is_empty() {
            below.push_str(&format!("\n`{}`: {more}\n", key.name));
        }
    }
    text.push_str(&below);
    text
}

/// Title and text of a section.
fn title(section: &str) -> (String, String) {
    let Some((_, facts)) = property(schema(), section) else {
        return ("Top level".to_owned(), String::new());
    };
    let described = referenced(facts).and_then(Value::as_object);
    let (title, words) = described.map(paragraphs).unwrap_or_default();
    let title = title.trim_end_matches('.');
    let mut letters = title.chars();
    let first = letters.next().map(char::to_lowercase);
    let title: String = first.into_iter().flatten().chain(letters).collect();
    (format!("`[{section}]`: {title}"), words)
}
