//! The plan on disk: `plan.toml` of a run directory, in the format of today and in the one before.
//!
//! Format 1 had no number: a flat list of most keys, with sections of its own. It lacks what the configuration
//! says of the place of the data, which is taken from the `config.toml` beside it.

use mixer_model::{MixerConfig, TokenLayer};
use toml::{Table, Value};

use crate::config::data::{
    DataKind, MAX_PIXELS, QUEUE_MIB, TRAIN, TRAIN_EXAMPLES, VAL_EXAMPLES, default_workers,
};
use crate::config::{RunConfig, schema};
use crate::error::TrainError;
use crate::plan::run_plan::RunPlan;

/// The format that is written.
const FORMAT: i64 = 2;

/// The key that says which format it is.
const KEY: &str = "format";

impl RunPlan {
    /// The plan as it is written.
    ///
    /// # Errors
    /// [`TrainError::Config`] if a value has no TOML form.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        let text = toml::to_string(self).map_err(|error| TrainError::config(error.to_string()))?;
        Ok(format!("{KEY} = {FORMAT}\n{text}"))
    }

    /// The plan that was written. `typed` is asked for the configuration of the run where the format is 1.
    ///
    /// # Errors
    /// The fault of the text, in one line.
    pub fn from_toml(
        text: &str,
        typed: impl FnOnce() -> Result<RunConfig, TrainError>,
    ) -> Result<Self, String> {
        let in_a_line = |error: toml::de::Error| error.message().replace('\n', " ");
        let mut table: Table = text.parse().map_err(in_a_line)?;
        let table = match table.remove(KEY) {
            Some(Value::Integer(FORMAT)) => table,
            Some(other) => {
                return Err(format!(
                    "its format is {other}, expected {FORMAT} or none (written by a newer mixer?)"
                ));
            }
            None => {
                let typed = typed().map_err(|error| error.to_string())?;
                upgraded(table, &typed)
                    .ok_or("it lacks a part that every plan has, or has one of another kind")?
            }
        };
        Value::Table(table).try_into().map_err(in_a_line)
    }
}

/// Format 2 of a plan in format 1.
fn upgraded(mut old: Table, typed: &RunConfig) -> Option<Table> {
    let mut taken = |name: &str| match old.remove(name) {
        Some(Value::Table(table)) => Some(table),
        _ => None,
    };
    let (network, drop_path, facts) = (taken("model")?, taken("drop_path")?, taken("data")?);
    let (rule, mut schedule) = (taken("optimizer")?, taken("schedule")?);
    let (mut transform, mut eval) = (taken("train_transform")?, taken("eval_transform")?);
    let (preprocessing, start) = (taken("preprocessing")?, taken("init"));
    let typed_data = schema::table(&typed.data).ok()?;
    let is_builtin = typed.data.source == Some(DataKind::Builtin);
    let resets_head =
        start.as_ref().is_none_or(|start| start.get("reset_head") == Some(&Value::Boolean(true)));

    let mut model = network.clone();
    let rate = drop_path.get("rate")?.clone();
    if rate.as_float()? > 0.0 {
        model.insert("drop_path_scaling".to_owned(), drop_path.get("scaling")?.clone());
    }
    model.insert("drop_path_rate".to_owned(), rate);
    let head_bias = old.remove("head_bias")?;
    if resets_head {
        model.insert("head_bias".to_owned(), head_bias);
    }

    let mut data = Table::new();
    for name in [
        "source",
        "path",
        "train",
        "train_examples",
        "val_examples",
        "max_pixels",
        "workers",
        "queue_mib",
    ] {
        data.extend(typed_data.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    let number = |number: usize| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let mut absent = |name: &str, value: Value| {
        data.entry(name).or_insert(value);
    };
    if is_builtin {
        absent("train_examples", number(TRAIN_EXAMPLES));
        absent("val_examples", number(VAL_EXAMPLES));
    } else {
        absent("train", TRAIN.into());
        absent("val", facts.get("val_split")?.clone());
        absent("max_pixels", Value::Integer(i64::try_from(MAX_PIXELS).ok()?));
        let turned = preprocessing.get("apply_exif_orientation").cloned();
        absent("apply_exif_orientation", turned.unwrap_or(false.into()));
    }
    absent("workers", number(default_workers()));
    absent("queue_mib", number(QUEUE_MIB));
    absent("repeats", old.remove("repeats").unwrap_or(1.into()));
    absent("eval_resize", eval.remove("resize")?);
    absent("mean", preprocessing.get("mean")?.clone());
    absent("std", preprocessing.get("std")?.clone());
    for name in ["mix", "on_corrupt"] {
        data.extend(old.remove(name).map(|value| (name.to_owned(), value)));
    }
    for name in ["crop", "flip", "interpolation", "randaugment", "erasing"] {
        data.extend(transform.remove(name).map(|value| (name.to_owned(), value)));
    }

    let mut optimizer = rule;
    optimizer.insert("learning_rate".to_owned(), schedule.remove("base")?);
    let steps = schedule.remove("total_steps")?;
    if schedule.get("decay")?.as_str()? != "linear" {
        schedule.remove("linear_end");
    }

    let mut plan = Table::new();
    for name in ["task", "seed"] {
        plan.insert(name.to_owned(), old.remove(name)?);
    }
    if let Some(start) = start {
        let init = upgraded_start(&start, network, &facts, preprocessing, typed)?;
        plan.insert("init".to_owned(), init.into());
    }
    // What is left are the keys of training, some of which were added after the first runs.
    let mut train = old;
    train.insert("steps".to_owned(), steps);
    for (name, value) in [
        ("clip_norm", Value::Float(0.0)),
        ("outlier_z_score", Value::Float(0.0)),
        ("precision", "f32".into()),
        ("keep_best_checkpoint", false.into()),
        ("on_divergence", "stop".into()),
    ] {
        train.entry(name).or_insert(value);
    }
    for (name, section) in [
        ("model", model),
        ("data", data),
        ("optimizer", optimizer),
        ("schedule", schedule),
        ("train", train),
        ("facts", facts),
    ] {
        plan.insert(name.to_owned(), section.into());
    }
    Some(plan)
}

/// The start of a fine-tuning: the weights as far as format 1 says what they were.
fn upgraded_start(
    start: &Table,
    network: Table,
    facts: &Table,
    preprocessing: Table,
    typed: &RunConfig,
) -> Option<Table> {
    let resets_head = start.get("reset_head")?.as_bool()?;
    let mut config: MixerConfig = Value::Table(network).try_into().ok()?;
    let image_size = usize::try_from(start.get("image_size")?.as_integer()?).ok()?;
    if start.get("resolution")?.as_str()?.starts_with("exact") {
        let factor = config.image_size / image_size.max(1);
        if let TokenLayer::Mlp { tokens_mlp_dim } = &mut config.tokens {
            *tokens_mlp_dim /= (factor * factor).max(1);
        }
    }
    config.image_size = image_size;
    // The names of other classes are not known any more, only that they were others.
    let classes =
        if resets_head { Value::Array(Vec::new()) } else { facts.get("classes")?.clone() };
    let mut metadata = Table::new();
    metadata.insert("classes".to_owned(), classes);
    metadata.insert("preprocessing".to_owned(), preprocessing.into());
    metadata.insert("provenance".to_owned(), Table::new().into());
    let mut from = Table::new();
    from.insert("config".to_owned(), Value::try_from(config).ok()?);
    from.insert("metadata".to_owned(), metadata.into());
    let mut init = Table::new();
    if let Some(weights) = &typed.init.weights {
        init.insert("weights".to_owned(), Value::try_from(weights).ok()?);
    }
    let head = if resets_head { "reset" } else { "keep" };
    init.insert("head".to_owned(), head.into());
    init.insert("from".to_owned(), from.into());
    Some(init)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a run of `mixer pretrain` before plans had sections, and its configuration.
    const PRETRAIN: &str = include_str!("../../tests/data/plan_format_1.toml");
    const PRETRAIN_CONFIG: &str = include_str!("../../tests/data/plan_format_1_config.toml");

    const FINETUNE: &str = include_str!("../../tests/data/plan_format_1_finetune.toml");
    const FINETUNE_CONFIG: &str =
        include_str!("../../tests/data/plan_format_1_finetune_config.toml");

    fn typed(text: &str) -> RunConfig {
        RunConfig::parse(text, &[]).unwrap().0
    }

    #[test]
    fn a_plan_without_a_format_is_read_and_continued_by_its_configuration() {
        for (text, config) in [(PRETRAIN, PRETRAIN_CONFIG), (FINETUNE, FINETUNE_CONFIG)] {
            let config = typed(config);
            let plan = RunPlan::from_toml(text, || Ok(config.clone())).unwrap();
            let continued = plan.continued(&config, false).unwrap().unwrap();
            assert_eq!(continued.plan, plan);
            let written = plan.to_toml().unwrap();
            let again = RunPlan::from_toml(&written, || panic!("has all that it needs")).unwrap();
            assert_eq!(again, plan);
        }
    }

    #[test]
    fn another_format_is_refused_in_one_line() {
        let error = RunPlan::from_toml("format = 3\n", || panic!("not asked")).unwrap_err();
        assert_eq!(error, "its format is 3, expected 2 or none (written by a newer mixer?)");
        let error = RunPlan::from_toml("task = \"pretrain\"\n", || Ok(RunConfig::default()));
        assert!(!error.unwrap_err().contains('\n'));
    }
}
