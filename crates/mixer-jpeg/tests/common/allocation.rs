//! Counts what a thread holds of the heap, for tests of what a parser asks for. Those of the other crates
//! include this file.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with a count of what the thread holds.
pub struct Counting;

thread_local! {
    /// Bytes that the thread holds, and the most since [`peak_of`] began.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(change: isize) {
    let add = |held: &Cell<(isize, isize)>| {
        let (now, peak) = held.get();
        held.set((now + change, peak.max(now + change)));
    };
    // While a thread ends it has no count any more, and what it frees then is not of interest.
    HELD.try_with(add).unwrap_or_default();
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most bytes that `work` held at once, beyond what was held before.
pub fn peak_of(work: impl FnOnce()) -> usize {
    let before = HELD.get().0;
    HELD.set((before, before));
    work();
    (HELD.get().1 - before) as usize
}
