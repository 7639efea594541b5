//! The reasons to stop a run before its end.

/// A request to stop a run before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A signal.
    Interrupted,
    /// The time limit.
    TimeLimit,
}
