//! Tells the program which git commit it is built from, as `MIXER_COMMIT`; nothing where it is built without
//! its repository. Read from git's files, so that no program has to be there. Cargo runs this again when
//! the commit changes, and else not.

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(commit) = commit(Path::new("../../.git")) {
        println!("cargo::rustc-env=MIXER_COMMIT={commit}");
    }
}

/// The commit of `HEAD` in the repository whose `.git` this is.
fn commit(dot_git: &Path) -> Option<String> {
    // In a worktree `.git` is a file with the path of a folder, which names that of the repository.
    let own = match fs::read_to_string(dot_git) {
        Ok(link) => PathBuf::from(link.trim().strip_prefix("gitdir: ")?),
        Err(_) => dot_git.to_owned(),
    };
    let shared = match fs::read_to_string(own.join("commondir")) {
        Ok(path) => own.join(path.trim()),
        Err(_) => own.clone(),
    };
    let head = watched(own.join("HEAD"))?;
    let commit = match head.trim().strip_prefix("ref: ") {
        None => head.trim().to_owned(),
        Some(branch) => match watched(shared.join(branch)) {
            Some(commit) => commit.trim().to_owned(),
            None => {
                let packed = watched(shared.join("packed-refs"))?;
                let line = packed.lines().find(|line| line.ends_with(&format!(" {branch}")))?;
                // The next commit writes a file that is not there yet, and this.
                watched(own.join("logs/HEAD"));
                line.split(' ').next()?.to_owned()
            }
        },
    };
    let is_hash = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then_some(commit)
}

/// The text of a file, a change of which is looked out for; one that is missing would always count as
/// changed.
fn watched(path: PathBuf) -> Option<String> {
    let text = fs::read_to_string(&path).ok()?;
    println!("cargo::rerun-if-changed={}", path.display());
    Some(text)
}
