//! The `mixer` binary: sets up memory, then hands over to the command line.

use std::process::ExitCode;

/// Burn's CPU backend allocates every result anew. The system's allocator gives large blocks back to
/// the kernel at once and takes them again page by page: a fifth of a small Mixer's training time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`, which the bindings leave out: milliseconds until free memory goes
/// back to the kernel, never for −1.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // The next update needs the same memory again; pages that the kernel has to clear first cost a small
    // Mixer a quarter of its speed. `MIMALLOC_PURGE_DELAY` in the environment wins.
    // SAFETY: the call only writes an option; no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, -1) };
    mixer_train::cli::main()
}
