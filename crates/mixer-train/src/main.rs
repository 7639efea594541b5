//! The `mixer` binary: reads the command line, runs one command, prints an error once.

use std::process::ExitCode;

/// Burn's CPU backend allocates every result anew. The system's allocator gives large blocks back to
/// the kernel at once and takes them again page by page: a fifth of a small Mixer's training time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mixer_train::cli::main()
}
