//! `mixer completions`.

use clap_complete::Shell;

use crate::error::TrainError;

pub(super) fn run(shell: Shell, command: &mut clap::Command) -> Result<(), TrainError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "mixer", &mut script);
    super::print(&String::from_utf8_lossy(&script))
}
