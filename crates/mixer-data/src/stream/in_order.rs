//! Work on numbered items by several threads, with results in order.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls `work` for every index of `range` on `workers` threads, and returns the results in order.
///
/// Every thread has working memory of its own, made by `memory`.
pub(crate) fn map_in_order<T: Send, M>(
    range: std::ops::Range<usize>,
    workers: usize,
    memory: impl Fn() -> M + Sync,
    work: impl Fn(&mut M, usize) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(range.start);
    let results = Mutex::new(Vec::with_capacity(range.len()));
    let run = || {
        let mut memory = memory();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= range.end {
                return;
            }
            let result = work(&mut memory, index);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers.min(range.len()) {
            // Where no further thread may be started, those that there are do the work.
            drop(std::thread::Builder::new().spawn_scoped(scope, run));
        }
        run();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
