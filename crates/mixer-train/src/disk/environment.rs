//! `environment.json`: on what, by whom and from which sources a run was started. Nothing in it decides a
//! result, and nothing reads it but people.

use std::time::SystemTime;

use fs_err as fs;
use serde::{Deserialize, Serialize};

/// Origin of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of `mixer`.
    pub version: String,
    /// Git commit that it was built from; absent where it was built without its repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The command line, program and arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// Time at which the run was started (RFC 3339, UTC).
    #[serde(default)]
    pub started: String,
    /// Name of the machine, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Name of the device.
    pub device: String,
    /// Name of the processor, where the system tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// Threads of the CPU backend.
    pub threads: usize,
    /// Processes that it was started in.
    #[serde(default = "one")]
    pub processes: usize,
    /// Operating system and architecture.
    pub platform: String,
}

impl Environment {
    /// This process, now, on `device`.
    #[must_use]
    pub fn current(device: &str, processes: usize) -> Self {
        let command = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("MIXER_COMMIT").map(str::to_owned),
            command: command.collect(),
            started: now(),
            host: host(),
            device: device.to_owned(),
            processor: processor(),
            threads: rayon::current_num_threads(),
            processes,
            platform: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        }
    }
}

fn one() -> usize {
    1
}

/// The command line of this process with one more argument, as a shell takes it.
pub(crate) fn command_with(argument: &str) -> String {
    let arguments = std::env::args_os().map(|arg| quoted(&arg.to_string_lossy()));
    arguments.chain([argument.to_owned()]).collect::<Vec<_>>().join(" ")
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

/// The clock on the wall (RFC 3339, UTC, whole seconds).
pub(crate) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// The name of this machine.
pub(crate) fn host() -> Option<String> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").or(std::env::var("COMPUTERNAME")).ok())?;
    let host = host.trim();
    (!host.is_empty()).then(|| host.to_owned())
}

/// The processor as Linux calls it.
fn processor() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = info.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(name.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn arguments_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted("train.steps=20"), "train.steps=20");
        assert_eq!(quoted("crop={ pad = 1 }"), "'crop={ pad = 1 }'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
