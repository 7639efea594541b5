//! The run that a directory holds already, and with what it goes on.

use crate::config::schema::Change;
use crate::disk::checkpoint;
use crate::disk::environment::command_with;
use crate::disk::run_dir::RunDir;
use crate::error::{CheckpointFault, TrainError};
use crate::plan::continued::{Continued, Difference};
use crate::plan::{InitFacts, RunPlan, Task};
use crate::run::recipe::Recipe;

/// The run that a directory holds.
pub(crate) struct FoundRun<'a> {
    pub(crate) run_dir: &'a RunDir,
    /// Every value of it resolved.
    pub(crate) plan: RunPlan,
}

impl<'a> FoundRun<'a> {
    /// Reads its plan.
    ///
    /// # Errors
    /// Those of [`RunDir::read_plan`].
    pub(crate) fn read(run_dir: &'a RunDir) -> Result<Self, TrainError> {
        Ok(Self { run_dir, plan: run_dir.read_plan()? })
    }

    /// The run with updates that were saved; none where it has to start over, because there is nothing that
    /// it could go on from.
    ///
    /// # Errors
    /// Those of [`FoundRun::read`], and [`TrainError::Checkpoint`] for a run that came to its end and whose
    /// checkpoints are gone.
    pub(crate) fn with_updates(run_dir: &'a RunDir) -> Result<Option<Self>, TrainError> {
        if !run_dir.exists() {
            return Ok(None);
        }
        let checkpoints = run_dir.checkpoints();
        if !checkpoint::list(&checkpoints)?.is_empty() {
            return Self::read(run_dir).map(Some);
        }
        if run_dir.last().exists() {
            let reason = "the run came to its end, and its checkpoints are gone";
            return Err(TrainError::checkpoint(
                CheckpointFault::CannotContinue,
                reason,
                checkpoints,
            ));
        }
        Ok(None)
    }

    /// The weights that a recipe names, as `read` finds them, where they have to be compared with those that
    /// the run started from: these need not be there any more, nor be named.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn start_of(
        &self,
        recipe: &Recipe,
        read: impl FnOnce(&Recipe) -> Result<InitFacts, TrainError>,
    ) -> Result<Option<InitFacts>, TrainError> {
        let named = recipe.config.init.weights.as_ref();
        let before = self.plan.init.as_ref().and_then(|init| init.weights.as_ref());
        let is_compared = named.is_some_and(|named| Some(named) != before || named.exists());
        is_compared.then(|| read(recipe)).transpose()
    }

    /// The plan with which a recipe continues it, longer where `extend` allows for that; `start` is of
    /// [`FoundRun::start_of`].
    ///
    /// # Errors
    /// [`TrainError::RunDir`] when it is a run of another task, from other weights or of another
    /// configuration, with the first key that differs; [`TrainError::Config`] for a configuration that makes
    /// no sense.
    pub(crate) fn continued_by(
        &self,
        recipe: &Recipe,
        task: Task,
        start: Option<&InitFacts>,
        extend: bool,
    ) -> Result<Continued, TrainError> {
        if self.plan.task != task {
            let (found, expected) = (self.plan.task.command(), task.command());
            return Err(self.refused(format!(
                "the run directory was made by `mixer {found}`, expected one of `mixer {expected}`"
            )));
        }
        if let Some(start) = start {
            self.check_start(recipe, start)?;
        }
        self.plan.continued(&recipe.config, extend)?.map_err(|difference| {
            let Difference { key, wanted, found, change } = difference;
            if change == Change::Longer {
                let message =
                    format!("the run is not as long: `{key}` is {wanted} here and {found} there");
                return TrainError::run_dir(message, self.run_dir.path()).with_hint(format!(
                    "`--run-dir` starts another one; this makes it longer: {}",
                    command_with("--extend")
                ));
            }
            self.refused(format!(
                "the run directory belongs to another configuration: `{key}` is {wanted} here and {found} there"
            ))
        })
    }

    /// Refuses other weights than those that the run started from.
    fn check_start(&self, recipe: &Recipe, start: &InitFacts) -> Result<(), TrainError> {
        let Some(init) = &self.plan.init else { return Ok(()) };
        let named = |path: Option<&std::path::PathBuf>, facts: &InitFacts| {
            let path = path.map_or("not named".to_owned(), |path| format!("`{}`", path.display()));
            match &facts.sha256 {
                Some(hash) => format!("{path} (SHA-256 {}…)", &hash[..hash.len().min(12)]),
                None => path,
            }
        };
        let is_same = match (&init.from.sha256, &start.sha256) {
            (Some(before), Some(now)) => before == now,
            // Of a version that kept no hash: what has the same name may be the same.
            _ => init.weights.is_none() || init.weights == recipe.config.init.weights,
        };
        if is_same && init.from.config == start.config {
            return Ok(());
        }
        Err(self.refused(format!(
            "the run started from other weights: `init.weights` is {} here and {} there",
            named(recipe.config.init.weights.as_ref(), start),
            named(init.weights.as_ref(), &init.from)
        )))
    }

    fn refused(&self, message: String) -> TrainError {
        TrainError::run_dir(message, self.run_dir.path()).with_hint(
            "choose another one with `--run-dir`, or run the configuration and weights that it was made with",
        )
    }
}
