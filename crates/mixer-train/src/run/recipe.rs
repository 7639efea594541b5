//! A configuration that is to be run.

use std::path::{Path, PathBuf};

use mixer_model::Weights;

use crate::config::RunConfig;
use crate::config::inheritance::in_file_of_key;
use crate::config::model::IMAGE_SIZE;
use crate::config::train::BATCH_SIZE;
use crate::disk::run_dir;
use crate::error::TrainError;
use crate::input::dataset::Dataset;
use crate::plan::{DataFacts, InitFacts, RunPlan, Task};

/// A configuration that is to be run.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// As typed, with overrides.
    pub config: RunConfig,
    /// Its text, which the run directory keeps.
    pub text: String,
    /// Its file, which errors name.
    pub file: Option<PathBuf>,
}

impl Recipe {
    /// Reads a configuration file, with overrides as `train.epochs=2`.
    ///
    /// # Errors
    /// [`TrainError::Config`] with the place in the file.
    pub fn read(file: &Path, overrides: &[String]) -> Result<Self, TrainError> {
        let (config, text) = RunConfig::read(file, overrides)?;
        Ok(Self { config, text, file: Some(file.to_owned()) })
    }

    /// Takes a configuration as text.
    ///
    /// # Errors
    /// [`TrainError::Config`] with the place in the text.
    pub fn parse(text: &str) -> Result<Self, TrainError> {
        let (config, text) = RunConfig::parse(text, &[])?;
        Ok(Self { config, text, file: None })
    }

    /// The task that it is for, where no command says so: fine-tuning where it names weights.
    #[must_use]
    pub fn task(&self) -> Task {
        if self.config.init.weights.is_some() { Task::Finetune } else { Task::Pretrain }
    }

    /// Reads the weights that fine-tuning starts from.
    ///
    /// # Errors
    /// [`TrainError::Config`] when it names none, [`TrainError::Model`] when they cannot be read.
    pub fn read_init(&self) -> Result<Weights, TrainError> {
        let path = self.config.init.weights.as_deref().ok_or_else(|| {
            TrainError::config("`init.weights` is missing").with_hint(
                "name the weights with `--init`, or use `mixer pretrain` to start from scratch",
            )
        })?;
        run_dir::read_weights(path, self.config.model.gelu)
    }

    /// Reads the weights of the teacher that it names; none where it names none.
    ///
    /// # Errors
    /// [`TrainError::Model`] or [`TrainError::RunDir`] when they cannot be read.
    pub fn read_teacher(&self) -> Result<Option<Weights>, TrainError> {
        let teacher = self.config.train.teacher.as_ref();
        teacher.map(|teacher| run_dir::read_weights(&teacher.weights, None)).transpose()
    }

    /// The weights that the task starts from; none in pre-training.
    pub(crate) fn initial(&self, task: Task) -> Result<Option<Weights>, TrainError> {
        match task {
            Task::Pretrain => Ok(None),
            Task::Finetune => self.read_init().map(Some),
        }
    }

    /// Side of the network's input, px: the configuration's, else that of the weights.
    #[must_use]
    pub fn image_size(&self, init: Option<&InitFacts>) -> usize {
        let of_weights = init.map(|facts| facts.config.image_size);
        self.config.model.image_size.or(of_weights).unwrap_or(IMAGE_SIZE)
    }

    /// Resolves it for data that is known already.
    ///
    /// # Errors
    /// Those of [`RunPlan::resolve`], with the file.
    pub fn plan(
        &self,
        task: Task,
        init: Option<&InitFacts>,
        data: DataFacts,
    ) -> Result<RunPlan, TrainError> {
        RunPlan::resolve(&self.config, task, init, data).map_err(|error| self.in_file(error))
    }

    /// The same plan with the teacher that was read.
    ///
    /// # Errors
    /// Those of [`RunPlan::with_teacher`], with the file.
    pub fn taught(
        &self,
        plan: RunPlan,
        teacher: Option<&InitFacts>,
    ) -> Result<RunPlan, TrainError> {
        plan.with_teacher(teacher).map_err(|error| self.in_file(error))
    }

    /// Opens the data and resolves a new run, but for a teacher.
    ///
    /// # Errors
    /// Those of `Dataset::open` and of [`RunPlan::resolve`].
    pub fn resolve(
        &self,
        task: Task,
        initial: Option<&Weights>,
    ) -> Result<(RunPlan, Dataset), TrainError> {
        let init = initial.map(InitFacts::of);
        let dataset = Dataset::open(&self.config.data, self.image_size(init.as_ref()))
            .map_err(|error| self.in_file(error))?;
        let plan = self.plan(task, init.as_ref(), dataset.facts())?;
        Ok((plan, dataset))
    }

    /// Reads the weights that it names, opens the data, and resolves a new run: what a command does that no
    /// task is given to.
    ///
    /// # Errors
    /// Those of [`Recipe::read_init`] and [`Recipe::resolve`].
    pub fn resolve_by_itself(&self) -> Result<(RunPlan, Dataset), TrainError> {
        let task = self.task();
        self.resolve(task, self.initial(task)?.as_ref())
    }

    /// The recipe of a new run of several processes: where nothing says how large a microbatch is, each process
    /// computes its share of the batch in one.
    ///
    /// # Errors
    /// [`TrainError::Config`] where the batch has no even shares.
    pub(crate) fn shared_by(&self, ranks: usize) -> Result<Self, TrainError> {
        let mut recipe = self.clone();
        let train = &mut recipe.config.train;
        if ranks > 1 && train.microbatch_size.is_none() {
            let batch = train.batch_size.unwrap_or(BATCH_SIZE);
            if !batch.is_multiple_of(ranks) {
                let message = format!(
                    "`train.batch_size` is {batch}, expected a multiple of the {ranks} processes"
                );
                return Err(self.in_file(TrainError::config(message)));
            }
            train.microbatch_size = Some(batch / ranks);
        }
        Ok(recipe)
    }

    /// The recipe that continues a run, with its microbatches where nothing says how large they are: it may
    /// have been started by another number of processes.
    pub(crate) fn shared_as(&self, plan: &RunPlan) -> Self {
        let mut recipe = self.clone();
        let train = &mut recipe.config.train;
        if train.batch_size.unwrap_or(BATCH_SIZE) == plan.train.batch_size {
            train.microbatch_size.get_or_insert(plan.train.microbatch_size);
        }
        recipe
    }

    /// The same error, with the file that the configuration was read from.
    pub(crate) fn in_file(&self, error: TrainError) -> TrainError {
        match &self.file {
            Some(file) => in_file_of_key(error, file),
            None => error,
        }
    }
}
