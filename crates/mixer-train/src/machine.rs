//! The cores of this machine, and the share of them that the process has.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Processes of the run on this machine.
static PROCESSES: AtomicUsize = AtomicUsize::new(1);

/// Shares the machine with the other processes of a run that are on it.
pub(crate) fn share_machine(processes: usize) {
    PROCESSES.store(processes.max(1), Ordering::Relaxed);
}

/// Cores that the process may use: what its affinity allows, and of the machine its share.
#[must_use]
pub fn cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    match PROCESSES.load(Ordering::Relaxed) {
        1 => allowed,
        processes => allowed.min((machine_cores().unwrap_or(allowed) / processes).max(1)),
    }
}

/// Cores of the machine, whatever this process may use of them; absent where the system does not tell.
pub(crate) fn machine_cores() -> Option<usize> {
    // As `0-63` or `0-3,8-11`.
    let online = fs_err::read_to_string("/sys/devices/system/cpu/online").ok()?;
    online.trim().split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(sum + last.parse::<usize>().ok()? + 1 - first.parse::<usize>().ok()?)
    })
}
