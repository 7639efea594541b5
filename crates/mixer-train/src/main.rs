//! The `mixer` binary: sets up memory, then hands over to the command line.

use std::process::ExitCode;

/// Burn's CPU backend allocates every result anew, and the system's allocator gives large blocks back to
/// the kernel at once and takes them again page by page. From one pool with the kernels' own, they use
/// each other's memory.
#[cfg(feature = "flex")]
#[global_allocator]
static ALLOCATOR: mixer_kernels::PoolAllocator = mixer_kernels::PoolAllocator;

fn main() -> ExitCode {
    mixer_train::cli::main()
}
