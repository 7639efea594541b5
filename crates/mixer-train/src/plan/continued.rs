//! A run that is continued: its plan against that of the configuration which is to continue it. What may
//! change is said beside the key, in the section's file of `config/`.

use crate::config::RunConfig;
use crate::config::schema::{self, Change, Key};
use crate::error::TrainError;
use crate::plan::run_plan::RunPlan;

/// A key of which two plans do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key, with dots.
    pub key: String,
    /// Its value in the plan that is wanted.
    pub wanted: String,
    /// Its value in the plan of the run.
    pub found: String,
}

/// A plan that continues a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Continued {
    /// The plan from here on.
    pub plan: RunPlan,
    /// Keys that changed, and change results no more than rounding does.
    pub rounding: Vec<Difference>,
}

impl RunPlan {
    /// The plan with which a configuration continues this run, or the first key that makes it another run.
    /// Values are compared, not how they came about: a default that is written out is none.
    ///
    /// # Errors
    /// [`TrainError::Config`] when the configuration cannot be resolved for the data of the run.
    pub fn continued(
        &self,
        config: &RunConfig,
    ) -> Result<Result<Continued, Difference>, TrainError> {
        let init = self.init.as_ref().map(|init| &init.from);
        let wanted = Self::resolve(config, self.task, init, self.facts.clone())?;
        let (here, there) = (schema::table(&wanted)?, schema::table(self)?);
        let mixes = self.data.mix.is_some() || wanted.data.mix.is_some();
        let mut rounding = Vec::new();
        for key in Key::all() {
            let of = |table: &toml::Table| match key.section {
                "" => table.get(key.name).cloned(),
                section => schema::section(table, section)?.get(key.name).cloned(),
            };
            let Some(difference) = difference(key.address(), of(&here), of(&there)) else {
                continue;
            };
            match key.change() {
                Change::Free => {}
                Change::Rounding => rounding.push(difference),
                Change::RoundingWithoutMixing if !mixes => rounding.push(difference),
                Change::RoundingWithoutMixing | Change::No => return Ok(Err(difference)),
            }
        }
        Ok(Ok(Continued { plan: wanted, rounding }))
    }
}

/// The first value that differs, inside of tables.
fn difference(
    key: String,
    wanted: Option<toml::Value>,
    found: Option<toml::Value>,
) -> Option<Difference> {
    if wanted == found {
        return None;
    }
    if let (Some(toml::Value::Table(a)), Some(toml::Value::Table(b))) = (&wanted, &found) {
        return a.keys().chain(b.keys()).find_map(|name| {
            difference(format!("{key}.{name}"), a.get(name).cloned(), b.get(name).cloned())
        });
    }
    let shown = |value: Option<toml::Value>| {
        value.map_or_else(|| "not set".to_owned(), |value| schema::shown(&value))
    };
    Some(Difference { key, wanted: shown(wanted), found: shown(found) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::DataFacts;
    use crate::plan::task::Task;

    const CONFIG: &str = "[model]\npatch_size = 2\nimage_size = 8\nhidden_dim = 4\nnum_blocks = 2\n[train]\n\
                          batch_size = 4\nepochs = 2\n";

    fn config(overrides: &[&str]) -> RunConfig {
        let overrides: Vec<String> = overrides.iter().map(|&entry| entry.to_owned()).collect();
        RunConfig::parse(CONFIG, &overrides).unwrap().0
    }

    fn plan(config: &RunConfig) -> RunPlan {
        let facts = DataFacts {
            train_examples: 20,
            val_examples: 4,
            val_split: "val".to_owned(),
            train_fingerprint: String::new(),
            val_fingerprint: String::new(),
            classes: vec!["cat".to_owned(), "dog".to_owned()],
        };
        RunPlan::resolve(config, Task::Pretrain, None, facts).unwrap()
    }

    fn continued(overrides: &[&str]) -> Result<Continued, Difference> {
        plan(&config(&[])).continued(&config(overrides)).unwrap()
    }

    #[test]
    fn defaults_that_are_written_out_are_no_other_configuration() {
        for entry in [
            "seed=0",
            "train.steps=10",
            "train.loss=softmax",
            "train.layer_decay=1",
            "data.val=val",
            "optimizer.kind=adamw",
            "optimizer.learning_rate=0.001",
            "model.tokens_mlp_dim=2",
            "data.interpolation=bilinear",
        ] {
            assert_eq!(continued(&[entry]).unwrap().plan, plan(&config(&[])), "{entry}");
        }
    }

    #[test]
    fn what_changes_no_weight_may_change() {
        for entry in [
            "train.log_every_steps=3",
            "train.eval_every_steps=7",
            "train.keep_checkpoints=9",
            "train.keep_best_checkpoint=true",
            "train.on_divergence.skip.at_most=2",
            "train.outlier_z_score=0",
            "train.early_stopping.patience=3",
            "data.on_corrupt.skip.at_most=2",
            "data.workers=0",
            "data.queue_mib=1",
            "data.path=elsewhere",
        ] {
            let continued = continued(&[entry]).unwrap();
            assert!(continued.rounding.is_empty(), "{entry}");
            assert_eq!(continued.plan, plan(&config(&[entry])), "{entry}");
        }
        for entry in
            ["train.eval_batch_size=3", "train.recompute_blocks=1", "train.microbatch_size=2"]
        {
            let key = entry.split_once('=').unwrap().0;
            let continued = continued(&[entry, "train.eval_batch_size=3"]).unwrap();
            assert!(continued.rounding.iter().any(|change| change.key == key), "{entry}");
        }
    }

    #[test]
    fn another_run_is_refused_with_key_and_values() {
        let refused = |entry: &str| continued(&[entry]).unwrap_err();
        let found = refused("optimizer.learning_rate=0.1");
        assert_eq!(
            (found.key.as_str(), found.wanted.as_str(), found.found.as_str()),
            ("optimizer.learning_rate", "0.1", "0.001")
        );
        assert_eq!(refused("train.epochs=3").key, "train.steps");
        assert_eq!(refused("data.mix.mixup_alpha=0.5").found, "not set");
        let mixed = config(&["data.mix.mixup_alpha=0.5"]);
        let smaller = config(&["data.mix.mixup_alpha=0.5", "train.microbatch_size=2"]);
        let difference = plan(&mixed).continued(&smaller).unwrap().unwrap_err();
        assert_eq!(difference.key, "train.microbatch_size");
        let other = config(&["data.mix.mixup_alpha=0.2"]);
        assert_eq!(
            plan(&mixed).continued(&other).unwrap().unwrap_err().key,
            "data.mix.mixup_alpha"
        );
    }
}
