//! The launcher that started this process, by what it leaves in the environment, and the group that it is in.

use std::rc::Rc;

use crate::error::TrainError;
use crate::group::{Alone, Group};

/// Variables with the number of processes that were started, and what sets them. The first that is there
/// counts: under `mpirun` in a job of Slurm, Slurm's describe `mpirun`'s daemons.
const SIZES: [(&str, &str); 4] = [
    ("OMPI_COMM_WORLD_SIZE", "mpirun"),
    ("PMI_SIZE", "mpiexec"),
    ("SLURM_STEP_NUM_TASKS", "srun"),
    ("WORLD_SIZE", "torchrun"),
];

/// The number of processes that a launcher has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Launched {
    /// Variable that says so.
    variable: &'static str,
    /// Launcher that sets it.
    launcher: &'static str,
    size: usize,
}

impl Launched {
    /// More than one process, where a launcher has started so many.
    fn several(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let found = SIZES.into_iter().find_map(|(name, launcher)| {
            let size = variable(name)?.trim().parse().ok()?;
            Some(Self { variable: name, launcher, size })
        });
        found.filter(|launched| launched.size > 1)
    }

    /// Refuses processes that do not know of each other: each would do the whole work.
    fn alone(self) -> TrainError {
        let Self { variable, launcher, size } = self;
        let message = format!(
            "`{launcher}` has started {size} processes (`{variable}={size}`), and each takes itself for the only one"
        );
        TrainError::usage(message).with_hint(if launcher == "torchrun" {
            "start it with `mpirun` or `srun`; where nothing was started, `unset WORLD_SIZE`"
        } else if library().is_none() {
            "build with `--features mpi`, or start one process"
        } else if launcher == "srun" {
            "`srun --mpi=list` shows the ways to start MPI: Open MPI wants `--mpi=pmix`, MPICH and Intel MPI `--mpi=pmi2`"
        } else {
            "use the launcher of the MPI that this binary was built with; `mixer --version` names it"
        })
    }
}

/// The MPI that this binary was built with; absent where it can be no one of several processes.
#[must_use]
pub fn library() -> Option<String> {
    #[cfg(feature = "mpi")]
    return Some(crate::group::mpi::library());
    #[cfg(not(feature = "mpi"))]
    None
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The group that this process is in: that of one, where nothing else was started.
///
/// # Errors
/// [`TrainError::Usage`] where a launcher has started several processes that do not know of each other.
pub fn join() -> Result<Rc<dyn Group>, TrainError> {
    let Some(launched) = Launched::several(variable) else { return Ok(Rc::new(Alone)) };
    #[cfg(feature = "mpi")]
    if let Some(group) = crate::group::mpi::Mpi::join()?
        && group.size() == launched.size
    {
        return Ok(Rc::new(group));
    }
    Err(launched.alone())
}

/// Refuses several processes for what one does.
///
/// # Errors
/// [`TrainError::Usage`] with the launcher.
pub(crate) fn refuse_several() -> Result<(), TrainError> {
    match Launched::several(variable) {
        // It is set in many a container, and means nothing to this command.
        None | Some(Launched { launcher: "torchrun", .. }) => Ok(()),
        Some(Launched { launcher, size, .. }) => {
            let message =
                format!("this command runs in one process, `{launcher}` has started {size}");
            Err(TrainError::usage(message).with_hint(
                "`mixer pretrain` and `mixer finetune` run in several; start one process",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<(&'static str, usize)> {
        let value = |name: &str| {
            variables.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned())
        };
        Launched::several(value).map(|launched| (launched.launcher, launched.size))
    }

    #[test]
    fn the_nearest_launcher_counts() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", "1"), ("SLURM_STEP_NUM_TASKS", "4")]), None);
        assert_eq!(
            of(&[("SLURM_STEP_NUM_TASKS", "2"), ("OMPI_COMM_WORLD_SIZE", "8")]),
            Some(("mpirun", 8))
        );
        assert_eq!(of(&[("PMI_SIZE", "3"), ("WORLD_SIZE", "9")]), Some(("mpiexec", 3)));
        assert_eq!(of(&[("WORLD_SIZE", "9")]), Some(("torchrun", 9)));
        assert_eq!(of(&[("WORLD_SIZE", "many")]), None);
    }

    #[test]
    fn silent_singletons_are_told_what_to_do() {
        let launched = Launched::several(|name| (name == "WORLD_SIZE").then(|| "4".to_owned()));
        let error = launched.unwrap().alone();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("`WORLD_SIZE=4`"), "{error}");
        assert!(error.hint().unwrap().contains("`mpirun` or `srun`"));
    }
}
