//! The processes of one run. All ranks run the same loop on the same state; what only one of them can know
//! (a signal, a clock, a picture that cannot be read, a full disk) is told to all, once per update. Rank 0
//! alone touches the run directory and the terminal.
//!
//! [`Group`] is what a run asks of them. `alone` is the group of one, `mpi` the file that names MPI, `tree`
//! the order of every sum.

pub(crate) mod alone;
pub(crate) mod launcher;
#[cfg(feature = "mpi")]
pub(crate) mod mpi;
#[cfg(test)]
pub(crate) mod threads;
pub(crate) mod tree;
pub(crate) mod verdict;
pub(crate) mod watchdog;

use std::fmt;
use std::time::Duration;

pub use alone::Alone;
pub(crate) use launcher::refuse_several;
pub use launcher::{join, library};

/// A process among those of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 0.
    pub rank: usize,
    /// Processes on the machine.
    pub size: usize,
}

/// The processes of one run. Every rank calls the same methods in the same order.
pub trait Group: fmt::Debug {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// Processes in the group.
    fn size(&self) -> usize;

    /// This process among those of its machine.
    fn local(&self) -> Place;

    /// The name of the machine that a rank is on.
    fn host(&self, rank: usize) -> String;

    /// The words of every rank, in order of rank.
    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>>;

    /// The bytes of rank 0, on every rank. Those of others are not looked at.
    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8>;

    /// Values of every rank: the `r`-th piece of what this rank sends goes to rank `r`, and the `r`-th of what
    /// it receives is from there. Both have a multiple of [`Group::size`] values.
    fn all_to_all(&self, send: &[f32], received: &mut [f32]);

    /// The values of all ranks, in order of rank. `all` has [`Group::size`] times as many as `own`.
    fn all_gather(&self, own: &[f32], all: &mut [f32]);

    /// The last words of every rank, when this one is at its end; absent where the others have not come to
    /// theirs in time.
    fn leave(&self, own: &[u8], patience: Duration) -> Option<Vec<Vec<u8>>>;

    /// Ends all processes, without waiting for any.
    fn abort(&self, code: u8) -> !;
}

/// `true` for the process that writes files and talks to the terminal.
pub(crate) fn is_first(group: &dyn Group) -> bool {
    group.rank() == 0
}

/// The name of this rank in messages.
pub(crate) fn name(group: &dyn Group) -> String {
    format!("rank {} on {}", group.rank(), group.host(group.rank()))
}
