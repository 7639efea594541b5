//! A run that is continued: its plan against that of the configuration which is to continue it. What may
//! change is said beside the key, in the section's file of `config/`.

use std::collections::BTreeSet;
use std::fmt;

use crate::config::RunConfig;
use crate::config::schema::{self, Change, Key};
use crate::error::TrainError;
use crate::plan::data::DataPlan;
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
    /// Its freedom to change.
    pub change: Change,
}

/// A plan that continues a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Continued {
    /// The plan from here on.
    pub plan: RunPlan,
    /// Keys that changed.
    pub changes: Vec<Difference>,
    /// Length of the run before, where it is made longer.
    pub longer_than: Option<u64>,
}

impl fmt::Display for Difference {
    /// The change as a line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.found, self.wanted)?;
        match self.change {
            Change::Rounding | Change::RoundingWithoutMixing => {
                f.write_str(" (results differ by no more than rounding)")
            }
            Change::No | Change::Free | Change::Longer => Ok(()),
        }
    }
}

impl Continued {
    /// The plan after so many updates are done.
    ///
    /// # Errors
    /// [`TrainError::Config`] where what is left has no room for its warm-up.
    pub fn after(mut self, done: u64) -> Result<RunPlan, TrainError> {
        if let Some(before) = self.longer_than {
            self.plan.schedule.extend(done, before, self.plan.train.steps)?;
        }
        Ok(self.plan)
    }
}

impl RunPlan {
    /// The plan with which a configuration continues this run, or the first key that makes it another run.
    /// Values are compared, not how they came about: a default that is written out is none. With `extend` it
    /// may be longer.
    ///
    /// # Errors
    /// [`TrainError::Config`] when the configuration cannot be resolved for the data of the run.
    pub fn continued(
        &self,
        config: &RunConfig,
        extend: bool,
    ) -> Result<Result<Continued, Difference>, TrainError> {
        let init = self.init.as_ref().map(|init| &init.from);
        let plan = Self::resolve(config, self.task, init, self.facts.clone())?;
        let mut plan = plan.with_teacher(self.teacher.as_ref())?;
        plan.schedule.lengths.clone_from(&self.schedule.lengths);
        let (here, there) = (schema::table(&plan)?, schema::table(self)?);
        let mixes_within = |data: &DataPlan| data.mix.is_some() && !data.leads_microbatches();
        let mixes = mixes_within(&self.data) || mixes_within(&plan.data);
        let is_longer = plan.train.steps > self.train.steps;
        let mut changes = Vec::new();
        for key in Key::all() {
            let of = |table: &toml::Table| match key.section {
                "" => table.get(key.name).cloned(),
                section => schema::section(table, section)?.get(key.name).cloned(),
            };
            let (change, is_allowed) = match key.change() {
                Change::RoundingWithoutMixing if mixes => (Change::No, false),
                Change::Longer if is_longer => (Change::Longer, extend),
                Change::Longer | Change::No => (Change::No, false),
                change => (change, true),
            };
            let (wanted, found) = (of(&here), of(&there));
            let mut found = differences(&key.address(), wanted.as_ref(), found.as_ref(), change);
            found.iter_mut().filter(|found| key.frees(&found.key)).for_each(|found| {
                found.change = Change::Free;
            });
            let is_refused = |found: &&Difference| !is_allowed && found.change != Change::Free;
            if let Some(first) = found.iter().find(is_refused) {
                return Ok(Err(first.clone()));
            }
            changes.extend(found);
        }
        let longer_than = is_longer.then_some(self.train.steps);
        Ok(Ok(Continued { plan, changes, longer_than }))
    }
}

/// The values that differ, inside of tables.
fn differences(
    key: &str,
    wanted: Option<&toml::Value>,
    found: Option<&toml::Value>,
    change: Change,
) -> Vec<Difference> {
    if wanted == found {
        return Vec::new();
    }
    if let (Some(toml::Value::Table(a)), Some(toml::Value::Table(b))) = (wanted, found) {
        let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let inside = names.into_iter().flat_map(|name| {
            differences(&format!("{key}.{name}"), a.get(name), b.get(name), change)
        });
        return inside.collect();
    }
    let shown =
        |value: Option<&toml::Value>| value.map_or_else(|| "not set".to_owned(), schema::shown);
    vec![Difference { key: key.to_owned(), wanted: shown(wanted), found: shown(found), change }]
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
        plan(&config(&[])).continued(&config(overrides), false).unwrap()
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
            let key = entry.split_once('=').unwrap().0;
            let is_of_key =
                |change: &Difference| change.key.starts_with(key) || key.starts_with(&change.key);
            assert!(continued.changes.iter().any(is_of_key), "{entry}");
            for change in &continued.changes {
                assert!(!change.to_string().contains("rounding"), "{change}");
            }
            assert_eq!(continued.plan, plan(&config(&[entry])), "{entry}");
        }
        for entry in
            ["train.eval_batch_size=3", "train.recompute_blocks=1", "train.microbatch_size=2"]
        {
            let key = entry.split_once('=').unwrap().0;
            let continued = continued(&[entry, "train.eval_batch_size=3"]).unwrap();
            let mut lines = continued.changes.iter().map(ToString::to_string);
            let line = lines.find(|line| line.starts_with(key)).unwrap();
            assert!(line.ends_with(" (results differ by no more than rounding)"), "{line}");
        }
        let lines = continued(&["train.keep_checkpoints=9"]).unwrap().changes;
        assert_eq!(lines[0].to_string(), "train.keep_checkpoints: 2 -> 9");
    }

    #[test]
    fn a_run_is_made_longer_where_that_is_asked_for_and_nothing_else_changes() {
        let short = plan(&config(&[]));
        let longer = |overrides: &[&str]| short.continued(&config(overrides), true).unwrap();
        let found = longer(&["train.epochs=4"]).unwrap();
        assert_eq!(found.longer_than, Some(10));
        assert!(found.changes.iter().any(|c| c.to_string() == "train.steps: 10 -> 20"));
        let extended = found.after(10).unwrap();
        assert_eq!(extended.schedule.extended_at(), Some(10));
        // The same command again makes nothing longer.
        let again = extended.continued(&config(&["train.epochs=4"]), true).unwrap().unwrap();
        assert_eq!((again.changes.len(), again.longer_than), (0, None));
        assert_eq!(again.after(13).unwrap(), extended);
        let kept = RunPlan::from_toml(&extended.to_toml().unwrap(), || panic!("not asked"));
        assert_eq!(kept.unwrap(), extended);

        assert_eq!(longer(&["train.epochs=1"]).unwrap_err().change, Change::No);
        assert_eq!(longer(&["train.epochs=4", "seed=3"]).unwrap_err().key, "seed");
        assert_eq!(longer(&["schedule.rewarm_steps=3"]).unwrap_err().change, Change::No);
        let unasked = continued(&["train.epochs=4", "schedule.rewarm_steps=3"]).unwrap_err();
        assert_eq!(unasked.change, Change::Longer);
        let anew = longer(&["train.epochs=4", "schedule.rewarm_steps=3"]).unwrap();
        assert!(anew.clone().after(17).is_err(), "three updates are left");
        assert_eq!(anew.after(10).unwrap().learning_rate().rate(10), 0.0);
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
        let difference = plan(&mixed).continued(&smaller, false).unwrap().unwrap_err();
        assert_eq!(difference.key, "train.microbatch_size");
        let other = config(&["data.mix.mixup_alpha=0.2"]);
        assert_eq!(
            plan(&mixed).continued(&other, false).unwrap().unwrap_err().key,
            "data.mix.mixup_alpha"
        );
    }
}
