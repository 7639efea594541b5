//! Calls of readers that others wrote, which panic on some damage that they did not expect.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// `true` while this thread reads a file with a decoder that others wrote, whose panics are caught
/// and become an error about the file.
///
/// For panic hooks, which would otherwise report a bug.
pub fn panics_are_caught() -> bool {
    IS_GUARDED.get()
}

/// Result of `read`, and nothing where it panics.
///
/// `read` gets bytes and nothing that outlives a panic half changed.
pub(crate) fn guarded<T>(read: impl FnOnce() -> T) -> Option<T> {
    let before = IS_GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    IS_GUARDED.set(before);
    outcome.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_nothing_and_known_to_hooks_only_meanwhile() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !panics_are_caught() {
                hook(info);
            }
        }));
        assert_eq!(guarded(|| (7, panics_are_caught())), Some((7, true)));
        let empty: &[u8] = &[];
        assert_eq!(guarded(|| empty[std::hint::black_box(0)]), None);
        assert!(!panics_are_caught());
    }
}
