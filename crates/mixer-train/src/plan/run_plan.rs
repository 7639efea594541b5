//! The plan of a run: its sections, each in a file of its own, and what follows from several of them.

use std::ops::Range;

use mixer_data::{EvalTransform, Order, RandAugment, SplitBound, SplitSpec, TrainTransform};
use mixer_model::weights::{Preprocessing, ResizeMethod};
use serde::{Deserialize, Serialize};

use crate::config::data::REPEATS;
use crate::config::{RunConfig, SEED, schema};
use crate::error::TrainError;
use crate::input::preprocessing;
use crate::plan::data::DataPlan;
use crate::plan::facts::{DataFacts, InitFacts};
use crate::plan::init::InitPlan;
use crate::plan::model::{self, ModelPlan};
use crate::plan::optimizer::OptimizerPlan;
use crate::plan::schedule::SchedulePlan;
use crate::plan::task::Task;
use crate::plan::train::TrainPlan;
use crate::run::early_stopping::EarlyStopping;
use crate::update::parameter_rates::ParameterRates;
use crate::update::sam::Sam;
use crate::update::schedule::LearningRate;

/// A run with every value resolved, in the sections of the configuration and under its names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// Its purpose.
    pub task: Task,
    /// Seed of everything random.
    pub seed: u64,
    /// The network.
    pub model: ModelPlan,
    /// The start of a fine-tuning; absent in pre-training.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub init: Option<InitPlan>,
    /// The teacher of `train.teacher` as it was found.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub teacher: Option<InitFacts>,
    /// The data and how it is prepared.
    pub data: DataPlan,
    /// The optimizer.
    pub optimizer: OptimizerPlan,
    /// The learning rate over the run.
    pub schedule: SchedulePlan,
    /// Batches, length, loss, and how often to evaluate and save.
    pub train: TrainPlan,
    /// The data as it was found.
    pub facts: DataFacts,
}

impl RunPlan {
    /// Resolves a configuration.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a value out of range, for keys that contradict each other, and for
    /// keys that would have no effect; [`TrainError::Model`] for dimensions that make no network. A teacher is looked at by
    /// [`RunPlan::with_teacher`].
    pub fn resolve(
        config: &RunConfig,
        task: Task,
        init: Option<&InitFacts>,
        facts: DataFacts,
    ) -> Result<Self, TrainError> {
        schema::check_ranges(config)?;
        if facts.val_examples == 0 || facts.train_examples == 0 {
            return Err(TrainError::config("a split of the data has no examples"));
        }
        let network = model::network(&config.model, init, facts.classes.len())?;
        let start = match init {
            Some(from) => Some(InitPlan::resolve(&config.init, from, &network, &facts.classes)?),
            None => None,
        };
        let keeps_head = start.as_ref().is_some_and(|start| !start.resets_head());
        let model = ModelPlan::resolve(&config.model, network, keeps_head)?;
        let pass = pass(&facts, config.data.repeats.unwrap_or(REPEATS));
        let train = TrainPlan::resolve(&config.train, &model.network, pass)?;
        let size = model.network.image_size;
        let plan = Self {
            task,
            seed: config.seed.unwrap_or(SEED),
            data: DataPlan::resolve(&config.data, init, &facts, size, &train)?,
            optimizer: OptimizerPlan::resolve(&config.optimizer, task)?,
            schedule: SchedulePlan::resolve(&config.schedule, train.steps)?,
            model,
            init: start,
            teacher: None,
            train,
            facts,
        };
        plan.check_sam()?;
        Ok(plan)
    }

    /// Refuses a radius that follows a learning rate which stays where it is.
    fn check_sam(&self) -> Result<(), TrainError> {
        let (last, highest) = self.learning_rate().ends(0);
        match self.optimizer.sam {
            Some(Sam { rho_min: Some(_), .. }) if last >= highest => {
                let because = "with a learning rate that does not decay";
                Err(TrainError::no_effect("optimizer.sam.rho_min", because))
            }
            _ => Ok(()),
        }
    }

    /// The learning rate of each update.
    #[must_use]
    pub fn learning_rate(&self) -> LearningRate {
        self.schedule.learning_rate(self.optimizer.learning_rate, self.train.steps)
    }

    /// Augmentation.
    #[must_use]
    pub fn train_transform(&self) -> TrainTransform {
        TrainTransform {
            image_size: self.model.network.image_size as u32,
            crop: self.data.crop.clone(),
            flip: self.data.flip,
            interpolation: self.data.interpolation,
            randaugment: self.data.randaugment.clone(),
            erasing: self.data.erasing.clone(),
            jpeg_scaling: self.data.jpeg_scaling,
        }
    }

    /// Preparation of pictures in evaluation.
    #[must_use]
    pub fn eval_transform(&self) -> EvalTransform {
        EvalTransform {
            image_size: self.model.network.image_size as u32,
            resize: self.data.eval_resize.clone(),
            interpolation: self.data.interpolation,
            jpeg_scaling: self.data.jpeg_scaling,
        }
    }

    /// Preprocessing as it is written into weights files.
    #[must_use]
    pub fn preprocessing(&self) -> Preprocessing {
        let eval = self.eval_transform();
        Preprocessing {
            apply_exif_orientation: self.data.apply_exif_orientation.unwrap_or(false),
            shuffle: self.data.shuffle,
            ..preprocessing::preprocessing(&eval, self.data.mean, self.data.std)
        }
    }

    /// Updates in one pass over the training data, which shows every example
    /// [`repeats`](DataPlan::repeats) times; not a whole number.
    #[must_use]
    pub fn steps_per_epoch(&self) -> f64 {
        pass(&self.facts, self.data.repeats) / self.train.batch_size as f64
    }

    /// Order of the examples in the training stream.
    #[must_use]
    pub fn order(&self) -> Order {
        Order::training(self.seed, self.data.repeats, self.train.batch_size)
    }

    /// Parameters that are trained, and how fast.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a plan that was not resolved but written by hand.
    pub fn parameter_rates(&self) -> Result<ParameterRates, TrainError> {
        ParameterRates::new(&self.train.freeze, self.train.layer_decay, &self.model.network)
    }

    /// Remarks on a plan that is legal.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.train.batch_size as u64 > self.facts.train_examples {
            warnings.push(format!(
                "`train.batch_size` is {}, more than the {} training examples: a batch holds some of them twice",
                self.train.batch_size, self.facts.train_examples
            ));
        }
        if let (Some(train), Some(val)) = (&self.data.train, &self.data.val)
            && split_overlaps(train, val)
        {
            warnings.push(format!(
                "`data.val` is `{val}` and `data.train` is `{train}`: evaluation sees pictures that are trained on, and says nothing of others"
            ));
        }
        let transform = self.train_transform();
        if self.data.repeats > 1 && !transform.is_random() {
            warnings.push(format!(
                "`data.repeats` is {}, but nothing in the augmentation is random: the repeats of an example are the same picture",
                self.data.repeats
            ));
        }
        let size = transform.image_size;
        if let Some(RandAugment::BigVision { magnitude, .. }) = transform.randaugment
            && 10.0 * magnitude >= f64::from(size)
        {
            warnings.push(format!(
                "`data.randaugment` moves pictures by {} px, out of the {size} px that they have: the distances of `big_vision` are for 224 px",
                10.0 * magnitude
            ));
        }
        let of_weights = self.init.as_ref().map(|init| init.from.metadata.preprocessing);
        let of_weights = of_weights.map(|known| known.unwrap_or_default().shuffle);
        if let Some(of_weights) = of_weights.filter(|shuffle| *shuffle != self.data.shuffle) {
            warnings.push(format!(
                "`data.shuffle` is {}, but the weights were trained with {of_weights}: they begin with pictures that they do not know",
                self.data.shuffle
            ));
        }
        if self.train.eval_every_steps > self.train.steps {
            warnings.push(format!(
                "`train.eval_every_steps` is {}, more than the {} updates of the run: it is evaluated only at its end",
                self.train.eval_every_steps, self.train.steps
            ));
        }
        let evaluations = self.train.steps.div_ceil(self.train.eval_every_steps);
        if let Some(EarlyStopping { patience, .. }) = self.train.early_stopping
            && patience >= evaluations
        {
            warnings.push(format!(
                "`train.early_stopping.patience` is {patience}, but the run has {evaluations} evaluations: it cannot stop early"
            ));
        }
        if let Some(init) = &self.init
            && let method @ ResizeMethod::Interpolated = init.resolution(&self.model.network)
        {
            warnings.push(format!(
                "token mixing is {method}: an extension of the paper's method, not exact"
            ));
        }
        warnings
    }
}

/// Examples that a pass over the training data shows.
fn pass(facts: &DataFacts, repeats: u32) -> f64 {
    facts.train_examples as f64 * f64::from(repeats)
}

/// `true` where two splits have examples in common for sure: per cent and numbers of examples cannot be compared.
fn split_overlaps(train: &str, val: &str) -> bool {
    let (Ok(train), Ok(val)) = (train.parse::<SplitSpec>(), val.parse::<SplitSpec>()) else {
        return false;
    };
    let bounds = [train.range.start, train.range.end, val.range.start, val.range.end];
    let is_part = |bound: &&SplitBound| matches!(bound, SplitBound::Millionths(_));
    let parts = bounds.iter().flatten().filter(is_part).count();
    // Per cent mean the same of every number, and numbers of examples all lie below a large one.
    let len = match parts {
        0 => usize::MAX >> 1,
        all if all == bounds.iter().flatten().count() => 1_000_000,
        _ => return false,
    };
    let overlap = |a: Range<usize>, b: Range<usize>| a.start < b.end && b.start < a.end;
    let (a, b) = (train.range.resolve(len), val.range.resolve(len));
    train.folder == val.folder && a.is_ok_and(|a| b.is_ok_and(|b| overlap(a, b)))
}

#[cfg(test)]
mod tests {
    use super::split_overlaps;

    #[test]
    fn splits_that_share_examples_are_found_and_those_that_meet_are_not() {
        for (train, val) in [
            ("train", "train"),
            ("train", "train[90%:]"),
            ("train", "train[:500]"),
            ("train[:80%]", "train[79.5%:]"),
            ("train[100:]", "train[:101]"),
            ("train[10%:]", "train"),
        ] {
            assert!(split_overlaps(train, val), "{train} {val}");
        }
        for (train, val) in [
            ("train", "val"),
            ("train[:80%]", "train[80%:]"),
            ("train[100:]", "train[:100]"),
            ("train[:80%]", "test[:80%]"),
            ("train[:80%]", "train[100:]"),
        ] {
            assert!(!split_overlaps(train, val), "{train} {val}");
        }
    }
}
