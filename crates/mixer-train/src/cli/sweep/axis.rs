//! A key of a sweep and its values, and the runs that several of them make.

use crate::error::TrainError;
use crate::show::progress::say;

/// A key and its values, `lr=0.003,0.01`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    /// The key as it was typed, which names the directories.
    pub(super) name: String,
    /// The key with dots.
    pub(super) key: String,
    /// The values as TOML.
    pub(super) values: Vec<String>,
}

/// The keys and values of the command line.
pub(super) fn axes(entries: &[String]) -> Result<Vec<Axis>, TrainError> {
    let mut axes: Vec<Axis> = Vec::new();
    for entry in entries {
        let malformed = |why: &str| {
            TrainError::usage(format!("`--sweep {entry}`: {why}"))
                .with_hint("write `--sweep lr=0.003,0.01,0.03`")
        };
        let (name, values) =
            entry.split_once('=').ok_or_else(|| malformed("expected KEY=VALUE,VALUE,…"))?;
        let name = name.trim();
        let key = match name {
            "lr" => "optimizer.learning_rate",
            key => key,
        };
        let values = split_values(values);
        if name.is_empty() || values.iter().any(String::is_empty) {
            return Err(malformed("the key or a value is empty"));
        }
        if axes.iter().any(|axis| axis.key == key) {
            return Err(malformed("the key is there twice"));
        }
        axes.push(Axis {
            name: name.to_owned(),
            key: key.to_owned(),
            values: distinct(name, values),
        });
    }
    Ok(axes)
}

/// Each value once, however it is written.
fn distinct(name: &str, values: Vec<String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::with_capacity(values.len());
    for value in values {
        match distinct.iter().find(|first| holds(&typed(first), &typed(&value))) {
            Some(first) => say(format_args!("note: `{name}` is {first} and {value}: one value")),
            None => distinct.push(value),
        }
    }
    distinct
}

/// Cuts at commas that lie outside brackets and quotes.
fn split_values(text: &str) -> Vec<String> {
    let (mut values, mut depth, mut quote) = (vec![String::new()], 0_usize, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                values.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = values.last_mut() {
            last.push(c);
        }
    }
    values.iter().map(|value| value.trim().to_owned()).collect()
}

/// All combinations; the first key varies slowest.
pub(super) fn combinations(axes: &[Axis]) -> Vec<Vec<(&Axis, &str)>> {
    let mut all = vec![Vec::new()];
    for axis in axes {
        let longer = |start: &Vec<(_, _)>, value| {
            start.iter().copied().chain([(axis, value)]).collect::<Vec<(&Axis, &str)>>()
        };
        all = all
            .iter()
            .flat_map(|start| axis.values.iter().map(move |value| longer(start, value.as_str())))
            .collect();
    }
    all
}

/// A name that a directory can have on any system.
pub(super) fn directory_name(settings: &[(&Axis, &str)]) -> String {
    let parts: Vec<String> =
        settings.iter().map(|(axis, value)| format!("{}={value}", axis.name)).collect();
    let plain = |c: char| match c {
        ' ' | '"' | '\'' | '{' | '}' | '[' | ']' => None,
        c if c.is_ascii_alphanumeric() || "._-+=,".contains(c) => Some(c),
        _ => Some('_'),
    };
    parts.join(",").chars().filter_map(plain).collect()
}

/// A value as `--set` takes it: TOML, or a bare word.
pub(super) fn typed(value: &str) -> toml::Value {
    let table: Option<toml::Table> = toml::from_str(&format!("value = {value}")).ok();
    table
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()))
}

/// `true` where a value is the one that was wanted: the same number, however it is written and however many
/// digits its type has; of a table, all that was wanted of it.
pub(super) fn holds(found: &toml::Value, wanted: &toml::Value) -> bool {
    use toml::Value::{Array, Float, Integer, Table};
    let number = |value: &toml::Value| match value {
        Integer(number) => Some(*number as f64),
        Float(number) => Some(*number),
        _ => None,
    };
    match (found, wanted) {
        (Integer(found), Integer(wanted)) => found == wanted,
        (Array(found), Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| holds(f, w))
        }
        (Table(found), Table(wanted)) => wanted
            .iter()
            .all(|(name, wanted)| found.get(name).is_some_and(|found| holds(found, wanted))),
        _ => match (number(found), number(wanted)) {
            // A key may be an f32, whose value has its digits.
            (Some(found), Some(wanted)) => {
                let single = wanted as f32;
                found == wanted || found == f64::from(single)
            }
            _ => found == wanted,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(entries: &[&str]) -> Result<Vec<Axis>, TrainError> {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        axes(&entries)
    }

    fn names(entries: &[&str]) -> Vec<String> {
        let axes = parsed(entries).unwrap();
        combinations(&axes).iter().map(|settings| directory_name(settings)).collect()
    }

    #[test]
    fn one_key_makes_a_list_and_several_make_a_grid() {
        assert_eq!(names(&["lr=0.003,0.01"]), ["lr=0.003", "lr=0.01"]);
        assert_eq!(
            names(&["lr=0.1, 0.2", "seed=1,2"]),
            ["lr=0.1,seed=1", "lr=0.1,seed=2", "lr=0.2,seed=1", "lr=0.2,seed=2"]
        );
        assert_eq!(parsed(&["lr=1"]).unwrap()[0].key, "optimizer.learning_rate");
    }

    #[test]
    fn commas_within_a_value_do_not_cut_it() {
        assert_eq!(
            split_values(r#"{ a = [1, 2], b = 3 },"x,y",none"#),
            ["{ a = [1, 2], b = 3 }", "\"x,y\"", "none"]
        );
        assert_eq!(
            names(&[r#"model.variant=B/16,"L/16""#]),
            ["model.variant=B_16", "model.variant=L_16"]
        );
    }

    #[test]
    fn what_is_no_key_with_values_is_a_usage_error() {
        for entries in [&["lr"][..], &["=1"], &["lr=1,,2"], &["lr="], &["lr=1", "lr=2"]] {
            let error = parsed(entries).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.hint().unwrap().contains("--sweep lr=0.003"), "{error}");
        }
        let twice = ["lr=1", "optimizer.learning_rate=2"];
        assert!(parsed(&twice).unwrap_err().to_string().contains("there twice"));
    }

    #[test]
    fn a_value_is_the_same_however_it_is_written() {
        assert_eq!(parsed(&["lr=0.1,1e-1,0.10,0.2"]).unwrap()[0].values, ["0.1", "0.2"]);
        assert_eq!(parsed(&["seed=1,1.0,2"]).unwrap()[0].values, ["1", "2"]);
        assert_eq!(parsed(&["model.variant=B/16,\"B/16\""]).unwrap()[0].values, ["B/16"]);
        let (table, part) = (typed("{ a = 1, b = [2.0] }"), typed("{ b = [2] }"));
        assert!(holds(&table, &part) && !holds(&part, &table));
        assert!(holds(&toml::Value::Float(f64::from(0.1_f32)), &typed("0.1")));
        assert_eq!(parsed(&["lr=0.1,0.1000000001"]).unwrap()[0].values.len(), 2);
        assert!(!holds(&typed("0.1"), &typed("0.1000001")) && !holds(&typed("1"), &typed("\"1\"")));
    }

    #[test]
    fn values_keep_their_type_in_the_report() {
        assert_eq!(typed("0.01"), toml::Value::Float(0.01));
        assert_eq!(typed("3"), toml::Value::Integer(3));
        assert_eq!(typed("B/16"), toml::Value::String("B/16".to_owned()));
        assert_eq!(typed("\"none\""), toml::Value::String("none".to_owned()));
    }
}
