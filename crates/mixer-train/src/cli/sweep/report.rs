//! `sweep.json`: the members of a sweep and what they came to.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::disk::atomic;
use crate::disk::metrics::{self, Metric};
use crate::disk::run_dir::{RunDir, SWEEP_REPORT};
use crate::error::TrainError;
use crate::run::evaluation::Evaluation;
use crate::show::progress::say;

/// `sweep.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// The name of the member with the highest top-1; the first one of equals.
    pub(super) winner: Option<String>,
    pub(super) members: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) settings: BTreeMap<String, toml::Value>,
    pub(super) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) best: Option<Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<Measured>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// It has not come to its end yet.
    Pending,
    Finished,
    Diverged,
}

/// An evaluation and its update.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Measured {
    step: u64,
    #[serde(flatten)]
    evaluation: Evaluation,
}

/// The best evaluation of a run, the first one of equals, and the last one. Where a moving average was
/// evaluated, it is what counts.
pub(super) fn measured(run_dir: &RunDir) -> Result<Option<(Measured, Measured)>, TrainError> {
    let evaluations: Vec<(bool, Measured)> = metrics::read(&run_dir.metrics())?
        .into_iter()
        .filter_map(|metric| match metric {
            // What the start could do already is no result.
            Metric::Eval { step, weights, loss, top1, top5, n, .. } if step > 0 => {
                let evaluation = Evaluation { loss, top1, top5, n };
                Some((weights.is_some(), Measured { step, evaluation }))
            }
            _ => None,
        })
        .collect();
    let averaged = evaluations.iter().any(|(averaged, _)| *averaged);
    let counting: Vec<Measured> = evaluations
        .into_iter()
        .filter(|(own, _)| *own == averaged)
        .map(|(_, measured)| measured)
        .collect();
    let best = counting.iter().copied().reduce(|best, other| {
        if other.evaluation.top1 > best.evaluation.top1 { other } else { best }
    });
    Ok(best.zip(counting.last().copied()))
}

impl Report {
    /// Of these members: the winner is the one with the highest top-1.
    pub(super) fn of(members: Vec<Line>) -> Self {
        let top1 = |line: &Line| line.best.map(|best| best.evaluation.top1);
        let winner = members
            .iter()
            .filter(|line| line.best.is_some())
            .reduce(|best, other| if top1(other) > top1(best) { other } else { best });
        Self { winner: winner.map(|line| line.name.clone()), members }
    }

    /// The members that a directory had so far; none where there is no report.
    pub(super) fn members_of(directory: &Path) -> Vec<Line> {
        let path = directory.join(SWEEP_REPORT);
        let Ok(bytes) = fs::read(&path) else { return Vec::new() };
        let read: Result<Self, _> = serde_json::from_slice(&bytes);
        read.map(|report| report.members).unwrap_or_else(|error| {
            say(format_args!(
                "warning: the members so far are not known: {error}: {}",
                path.display()
            ));
            Vec::new()
        })
    }

    /// Writes it so that it is there whole or not at all.
    pub(super) fn write(&self, directory: &Path) -> Result<(), TrainError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?;
        Ok(atomic::write(&directory.join(SWEEP_REPORT), &bytes)?)
    }

    /// One line per member.
    pub(super) fn table(&self) -> String {
        let width = self.members.iter().map(|line| line.name.len()).max().unwrap_or(0).max(6);
        let mut lines =
            vec![format!("{:width$}  best top-1  at step  last top-1  last loss", "member")];
        for Line { name, status, best, last, .. } in &self.members {
            lines.push(match (best, last) {
                (Some(best), Some(last)) => {
                    let mark = if self.winner.as_ref() == Some(name) { "  winner" } else { "" };
                    format!(
                        "{name:width$}    {:6.2} %  {:7}    {:6.2} %  {:9.4}{mark}",
                        100.0 * best.evaluation.top1,
                        best.step,
                        100.0 * last.evaluation.top1,
                        last.evaluation.loss,
                    )
                }
                _ if *status == Status::Diverged => format!("{name:width$}    diverged"),
                _ => format!("{name:width$}    not finished"),
            });
        }
        lines.join("\n")
    }
}
