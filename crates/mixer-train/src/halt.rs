//! The reasons for which a loop ends before its end.

use mixer_data::DataError;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// A request to stop a run before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// A signal.
    Interrupted,
    /// The time limit.
    TimeLimit,
}

/// The end of a loop before its end: somebody asked for it, or something failed. Who is never asked to stop
/// has [`std::convert::Infallible`] for `S`, and his halts are errors.
#[derive(Debug)]
pub enum Halt<S = Stop> {
    /// It was asked to stop.
    Stop(S),
    /// It cannot go on.
    Failed(TrainError),
}

/// A question whether to stop that is always answered by no.
pub(crate) fn never() -> Option<std::convert::Infallible> {
    None
}

impl<S> From<TrainError> for Halt<S> {
    fn from(error: TrainError) -> Self {
        Self::Failed(error)
    }
}

impl<S> From<DataError> for Halt<S> {
    fn from(error: DataError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Halt<std::convert::Infallible>> for TrainError {
    fn from(halt: Halt<std::convert::Infallible>) -> Self {
        match halt {
            Halt::Stop(never) => match never {},
            Halt::Failed(error) => error,
        }
    }
}
