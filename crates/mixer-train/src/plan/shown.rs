//! The plan as a configuration: every key with its value and, as a comment, where the value comes from.

use std::path::Path;

use mixer_model::count;
use toml_edit::{DocumentMut, Item};

use crate::config::inheritance::Chain;
use crate::config::schema::{self, Key};
use crate::config::{RunConfig, text_of_override};
use crate::error::TrainError;
use crate::plan::run_plan::RunPlan;

/// Origins of the values of a plan.
#[derive(Debug)]
pub struct Origins {
    typed: RunConfig,
    chain: Chain,
    overrides: Vec<String>,
}

impl Origins {
    /// Of a configuration that was read from `path` with these overrides.
    ///
    /// # Errors
    /// [`TrainError::Config`] when it can no longer be read.
    pub fn read(path: &Path, overrides: &[String], typed: RunConfig) -> Result<Self, TrainError> {
        Ok(Self { typed, chain: Chain::read(path)?, overrides: overrides.to_vec() })
    }

    /// Place of a key that somebody typed.
    fn place(&self, key: &str) -> String {
        let sets = |entry: &&String| {
            let set = text_of_override(entry);
            let covers = |whole: &str, part: &str| {
                part.strip_prefix(whole)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            covers(set, key) || covers(key, set)
        };
        if self.overrides.iter().any(|entry| sets(&entry)) {
            return "--set".to_owned();
        }
        if self.chain.is_single() {
            return "file".to_owned();
        }
        self.chain.file_of_key(key).unwrap_or(Path::new("-")).display().to_string()
    }

    fn of(&self, key: &Key, typed: &toml::Table, plan: &RunPlan) -> String {
        let table = match key.section {
            "" => Some(typed),
            section => schema::section(typed, section),
        };
        if table.is_some_and(|table| table.contains_key(key.name)) {
            return self.place(&key.address());
        }
        if let (Some(epochs), "train.steps") = (self.typed.train.epochs, key.address().as_str()) {
            return format!("{epochs} epochs: {}", self.place("train.epochs"));
        }
        if let (Some(variant), "model", Some("weights")) =
            (&self.typed.model.variant, key.section, key.decided_by())
            && !["image_size", "gelu"].contains(&key.name)
        {
            return format!("variant {variant}: {}", self.place("model.variant"));
        }
        let from = plan.init.as_ref().map(|init| &init.from);
        match key.decided_by() {
            Some("weights") if from.is_some() => "weights",
            Some("preprocessing")
                if from.is_some_and(|from| from.metadata.preprocessing.is_some()) =>
            {
                "weights"
            }
            Some("weights" | "preprocessing") | None => "default",
            Some(other) => other,
        }
        .to_owned()
    }
}

impl RunPlan {
    /// The configuration that has every value of this plan, and resolves to it.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a value that TOML cannot hold.
    pub fn configuration(&self) -> Result<RunConfig, TrainError> {
        let mut table = schema::table(self)?;
        table.retain(|name: &str, _| {
            Key::all().iter().any(|key| key.section == name || key.address() == name)
        });
        for (section, keys) in &mut table {
            if let Some(keys) = keys.as_table_mut() {
                keys.retain(|name, _| Key::find(section, name).is_some());
            }
        }
        table.try_into().map_err(|error| TrainError::config(error.to_string()))
    }

    /// The same as text, with the origin of each value.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a value that TOML cannot hold.
    pub fn shown(&self, path: &Path, origins: &Origins) -> Result<String, TrainError> {
        let text = toml::to_string(&self.configuration()?);
        let text = text.map_err(|error| TrainError::config(error.to_string()))?;
        let document: DocumentMut = text
            .parse()
            .map_err(|error: toml_edit::TomlError| TrainError::config(error.to_string()))?;
        let typed = schema::table(&origins.typed)?;
        let mut lines = self.heading(path);
        let mut section = "";
        for key in Key::all() {
            let item = match key.section {
                "" => document.get(key.name),
                section => document.get(section).and_then(|keys| keys.get(key.name)),
            };
            let Some(value) = item.and_then(inline) else { continue };
            if key.section != section {
                section = key.section;
                lines.push(format!("\n[{section}]"));
            }
            let line = format!("{} = {value}", key.name);
            let origin = origins.of(key, &typed, self).replace(char::is_control, " ");
            lines.push(format!("{line:<40}  # {origin}"));
        }
        Ok(lines.join("\n"))
    }

    fn heading(&self, path: &Path) -> Vec<String> {
        let path = path.display().to_string().replace(char::is_control, " ");
        vec![
            format!("# mixer {} {path}", self.task.command()),
            format!(
                "# {} training and {} validation examples, {} classes; {} parameters",
                self.facts.train_examples,
                self.facts.val_examples,
                self.facts.classes.len(),
                count::num_params(&self.model.network)
            ),
            format!("# {:.1} epochs", self.train.steps as f64 / self.steps_per_epoch()),
        ]
    }
}

/// A value in one line.
fn inline(item: &Item) -> Option<String> {
    let mut value = item.clone().into_value().ok()?;
    value.decor_mut().clear();
    Some(value.to_string().trim().to_owned())
}
