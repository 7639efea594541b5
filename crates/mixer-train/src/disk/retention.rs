//! The checkpoints that are kept, and the removal of the others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::disk::checkpoint::{self, hidden, is_leftover, step_of};
use crate::disk::operations::Disk;
use crate::error::TrainError;
use crate::plan::TrainPlan;
use crate::show::progress::say;

/// The choice of checkpoints that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Number of the newest ones that are kept; at least 1.
    pub newest: usize,
    /// Those whose update is a multiple of this.
    pub every_steps: Option<u64>,
    /// That of the best evaluation.
    pub best: bool,
}

impl Retention {
    /// That of a plan.
    #[must_use]
    pub fn of(plan: &TrainPlan) -> Self {
        Self {
            newest: plan.keep_checkpoints,
            every_steps: plan.keep_checkpoint_every_steps,
            best: plan.keep_best_checkpoint,
        }
    }

    /// Those to keep out of `found`: update and wholeness of each, newest first. What is damaged
    /// counts for nothing, but stays while the run may still come back to replace it.
    fn kept(&self, found: &[(u64, bool)], best: Option<u64>) -> Vec<u64> {
        let whole = || found.iter().filter(|(_, whole)| *whole).map(|(step, _)| *step);
        let oldest = whole().take(self.newest.max(1)).last();
        let is_kept = |step: u64| {
            // Without a whole one, nothing is removed.
            oldest.is_none_or(|oldest| step >= oldest)
                || self.every_steps.is_some_and(|every| step.is_multiple_of(every))
                || (self.best && best == Some(step))
        };
        found.iter().map(|(step, _)| *step).filter(|step| is_kept(*step)).collect()
    }
}

/// Keeps a directory of checkpoints to a [`Retention`].
#[derive(Debug)]
pub(crate) struct Pruner {
    retention: Retention,
    /// Outcome of each check that this process has made: reading all of them again after every
    /// write would cost as much as writing them.
    checked: HashMap<PathBuf, bool>,
}

impl Pruner {
    pub(crate) fn new(retention: Retention) -> Self {
        Self { retention, checked: HashMap::new() }
    }

    /// Removes what is not kept, and what a killed process was writing. `written` has just been written
    /// and read back, and stays in any case; `best` is the update of the best evaluation. What cannot be
    /// removed is said, and tried again the next time.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the directory cannot be listed.
    pub(crate) fn prune(
        &mut self,
        disk: &dyn Disk,
        directory: &Path,
        written: &Path,
        best: Option<u64>,
    ) -> Result<(), TrainError> {
        self.checked.insert(written.to_owned(), true);
        let paths = checkpoint::list(directory)?;
        let mut found = Vec::with_capacity(paths.len());
        // Older ones need not be read: they count for nothing either way.
        let mut wanted = self.retention.newest.max(1);
        for path in &paths {
            let check = || checkpoint::verify(path).is_ok();
            let whole = wanted > 0 && *self.checked.entry(path.clone()).or_insert_with(check);
            wanted -= usize::from(whole);
            found.extend(step_of(path).map(|step| (step, whole)));
        }
        let kept = self.retention.kept(&found, best);
        for path in paths {
            if path != written && step_of(&path).is_none_or(|step| !kept.contains(&step)) {
                self.checked.remove(&path);
                // Out of sight first: a kill in the middle must not leave half of a checkpoint.
                let aside = hidden(&path, "old");
                let removed =
                    disk.rename(&path, &aside).and_then(|()| disk.remove_directory(&aside));
                removed.unwrap_or_else(|error| say_not_removed(&path, &error));
            }
        }
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if is_leftover(&path) {
                let removed = disk.remove_directory(&path);
                removed.unwrap_or_else(|error| say_not_removed(&path, &error));
            }
        }
        Ok(())
    }
}

fn say_not_removed(path: &Path, error: &std::io::Error) {
    say(format_args!("warning: an old checkpoint cannot be removed: {error}: {}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn keep(newest: usize) -> Retention {
        Retention { newest, every_steps: None, best: false }
    }

    #[test]
    fn the_newest_whole_ones_are_kept() {
        let whole = [(40, true), (30, true), (20, true), (10, true)];
        assert_eq!(keep(2).kept(&whole, None), [40, 30]);
        assert_eq!(keep(9).kept(&whole, None), [40, 30, 20, 10]);
        assert_eq!(keep(0).kept(&whole, None), [40], "one is always kept");
    }

    #[test]
    fn damaged_ones_do_not_push_out_whole_ones() {
        let found = [(40, false), (30, false), (25, true), (20, true), (10, true)];
        assert_eq!(keep(2).kept(&found, None), [40, 30, 25, 20]);
        assert_eq!(keep(1).kept(&found, None), [40, 30, 25]);
        let none_whole = [(20, false), (10, false)];
        assert_eq!(keep(1).kept(&none_whole, None), [20, 10]);
        let below = [(40, true), (30, false), (20, true), (10, false)];
        assert_eq!(keep(2).kept(&below, None), [40, 30, 20]);
    }

    #[test]
    fn milestones_and_the_best_are_kept_besides() {
        let whole = [(50, true), (40, true), (30, true), (20, true), (10, true)];
        let milestones = Retention { every_steps: Some(20), ..keep(1) };
        assert_eq!(milestones.kept(&whole, Some(10)), [50, 40, 20]);
        let best = Retention { best: true, ..keep(1) };
        assert_eq!(best.kept(&whole, Some(10)), [50, 10]);
        assert_eq!(best.kept(&whole, None), [50]);
    }
}
