//! The comparison of the processes of a run, before anything is opened: what differs would give other results
//! on each of them.

use serde::{Deserialize, Serialize};

use crate::device::DeviceEntry;
use crate::error::TrainError;
use crate::group::{Group, verdict};
use crate::plan::Task;
use crate::run::recipe::Recipe;

/// The traits that have to be the same, by its name in messages, and the device, which has to be another one where it is
/// a GPU.
#[derive(Debug, Serialize, Deserialize)]
struct Traits {
    same: Vec<(String, String)>,
    /// Advice for each of them.
    hints: Vec<String>,
    gpu: Option<String>,
}

/// Refuses processes of other versions, configurations, devices or vector instructions than the first one's,
/// and a GPU that two of them would use.
///
/// # Errors
/// [`TrainError::Ranks`] with the rank that differs, and in what.
pub(crate) fn check(
    group: &dyn Group,
    recipe: &Recipe,
    task: Task,
    device: &DeviceEntry,
) -> Result<(), TrainError> {
    let kind = device.name.split(':').next().unwrap_or_default();
    let mut traits = Traits {
        same: Vec::new(),
        hints: Vec::new(),
        gpu: device.is_gpu().then(|| device.place().unwrap_or_else(|| device.name.clone())),
    };
    let mut add = |name: &str, value: String, hint: &str| {
        traits.same.push((name.to_owned(), value));
        traits.hints.push(hint.to_owned());
    };
    add("version", version(), "start the same binary everywhere");
    add("task", task.command().to_owned(), "start the same command everywhere");
    add(
        "configuration",
        recipe.text.clone(),
        "start the same command with the same file everywhere",
    );
    add("device", kind.to_owned(), "name it with `--device`");
    #[cfg(feature = "flex")]
    if !device.is_gpu() {
        let level = mixer_kernels::instruction_set().name().to_owned();
        add("vector instructions", level, "set `MIXER_SIMD` to what all processors have");
    }
    let own = serde_json::to_vec(&traits).map_err(std::io::Error::other)?;
    let all = group.gather(&own);
    let all = all.iter().map(|traits| serde_json::from_slice(traits));
    let all: Result<Vec<Traits>, _> = all.collect();
    let all = all.map_err(std::io::Error::other)?;
    verdict::all(group, compare(&all, |rank| group.host(rank)))
}

/// The version with the commit, where it is known.
fn version() -> String {
    let commit = option_env!("MIXER_COMMIT").map_or(String::new(), |commit| format!(" ({commit})"));
    format!("{}{commit}", env!("CARGO_PKG_VERSION"))
}

fn compare(all: &[Traits], host: impl Fn(usize) -> String) -> Result<(), TrainError> {
    let Some((first, others)) = all.split_first() else { return Ok(()) };
    let name = |rank| format!("rank {rank} on {}", host(rank));
    for (rank, traits) in (1..).zip(others) {
        for (((what, own), (_, of_first)), hint) in
            traits.same.iter().zip(&first.same).zip(&traits.hints)
        {
            if own == of_first {
                continue;
            }
            // A configuration is long: only where they part.
            let (own, of_first) = first_difference(own, of_first);
            let message =
                format!("{} has the {what} `{own}`, {} has `{of_first}`", name(rank), name(0));
            return Err(TrainError::ranks(message).with_hint(hint.clone()));
        }
    }
    for (rank, traits) in all.iter().enumerate() {
        let Some(gpu) = &traits.gpu else { continue };
        let is_same =
            |other: &usize| all[*other].gpu.as_ref() == Some(gpu) && host(*other) == host(rank);
        if let Some(other) = (0..rank).find(is_same) {
            let message = format!("{} and rank {other} would both use `{gpu}`", name(rank));
            return Err(TrainError::ranks(message).with_hint(
                "start as many processes on a machine as it has GPUs, and name the backend alone, as `--device cuda`",
            ));
        }
    }
    Ok(())
}

/// The lines in which two texts part; the texts themselves, where they are short.
fn first_difference<'a>(own: &'a str, other: &'a str) -> (&'a str, &'a str) {
    let lines = |text: &'a str| text.lines().map(str::trim).chain(std::iter::repeat("(nothing)"));
    let longest = own.lines().count().max(other.lines().count());
    lines(own)
        .zip(lines(other))
        .take(longest)
        .find(|(own, other)| own != other)
        .unwrap_or((own.trim(), other.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(version: &str, configuration: &str, gpu: Option<&str>) -> Traits {
        let same = vec![
            ("version".to_owned(), version.to_owned()),
            ("configuration".to_owned(), configuration.to_owned()),
        ];
        let hints = vec!["one binary".to_owned(), "one file".to_owned()];
        Traits { same, hints, gpu: gpu.map(str::to_owned) }
    }

    fn refused(all: &[Traits]) -> Option<String> {
        let host = |rank| format!("n{:02}", rank / 2);
        compare(all, host).err().map(|error| format!("{error}; {}", error.hint().unwrap()))
    }

    #[test]
    fn what_differs_is_named_with_its_rank() {
        let of = |version: &str, configuration: &str| traits(version, configuration, None);
        assert_eq!(refused(&[of("1", "a = 1"), of("1", "a = 1")]), None);
        assert_eq!(
            refused(&[of("1", "a = 1"), of("1", "a = 1"), of("2", "a = 1")]).unwrap(),
            "rank 2 on n01 has the version `2`, rank 0 on n00 has `1`; one binary"
        );
        assert_eq!(
            refused(&[of("1", "[train]\nsteps = 3"), of("1", "[train]\nsteps = 4")]).unwrap(),
            "rank 1 on n00 has the configuration `steps = 4`, rank 0 on n00 has `steps = 3`; one file"
        );
        assert!(refused(&[of("1", "a"), of("1", "a\nb")]).unwrap().contains("`b`"));
    }

    #[test]
    fn a_gpu_is_used_by_one_process() {
        let of = |gpu| traits("1", "a", Some(gpu));
        assert_eq!(refused(&[of("cuda:0"), of("cuda:1"), of("cuda:0"), of("cuda:1")]), None);
        let found = refused(&[of("cuda:0"), of("cuda:0")]).unwrap();
        assert!(found.starts_with("rank 1 on n00 and rank 0 would both use `cuda:0`"), "{found}");
    }
}
