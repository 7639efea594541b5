//! The `mixer` binary: reads the command line, runs one command, prints an error once.

use std::process::ExitCode;

fn main() -> ExitCode {
    mixer_train::cli::main()
}
