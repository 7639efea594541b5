//! A run that is stopped, however it is stopped, goes on as the same run: the same metrics (timings
//! aside) and the same weights, byte for byte.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::Command;

use common::run::{CONFIG, Fixture, assert_same_run, assert_success, signal, wait_for_checkpoint};

#[test]
fn killed_run_matches_uninterrupted_run() {
    let fixture = Fixture::new();
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("killed");
    // Updates 9, 45 and 90 lie inside an epoch of 4.7 updates and between lines of metrics.
    for step in [9, 45, 90] {
        let mut child = fixture.command(&run).spawn().unwrap();
        wait_for_checkpoint(&mut child, &run, step);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = fixture.command(&run).arg("--resume=must").output().unwrap();
    assert_success(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("continuing at step"));
    assert_same_run(&run, &expected);
}

/// Top-1 cannot gain 99 %, so the first of the evaluations after 20, 40, 60 and 80 updates stays the best.
#[test]
fn killed_run_stops_early_where_the_uninterrupted_run_does() {
    let stopping = "early_stopping = { patience = 3, min_delta = 0.99 }\n";
    let fixture = Fixture::with(&format!("{CONFIG}{stopping}"));
    let expected = fixture.runs.join("uninterrupted");
    let output = fixture.command(&expected).output().unwrap();
    assert_success(&output);
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    let words = "stopped early at step 80 of 141: top-1 has not improved in 3 evaluations";
    assert!(says.contains(words), "{says}");
    let run = fixture.runs.join("killed");
    // After the first evaluation, and before the second one.
    let mut child = fixture.command(&run).spawn().unwrap();
    wait_for_checkpoint(&mut child, &run, 27);
    child.kill().unwrap();
    child.wait().unwrap();
    let output = fixture.command(&run).arg("--resume=must").output().unwrap();
    assert_success(&output);
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(says.contains("continuing at step") && says.contains(words), "{says}");
    assert_same_run(&run, &expected);
    // Once more, there is nothing left to do.
    let output = fixture.command(&run).output().unwrap();
    assert_success(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("already done"));
    assert_same_run(&run, &expected);
}

/// What is frozen has no moments to restore.
#[test]
fn killed_run_with_frozen_parameters_and_layer_decay_matches_uninterrupted_run() {
    let settings = "freeze = [\"stem\", \"blocks.0.norm1\"]\nlayer_decay = 0.7\n";
    let fixture = Fixture::with(&format!("{CONFIG}{settings}"));
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("killed");
    let mut child = fixture.command(&run).spawn().unwrap();
    wait_for_checkpoint(&mut child, &run, 45);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_success(&fixture.command(&run).arg("--resume=must").output().unwrap());
    assert_same_run(&run, &expected);
}

#[test]
fn interrupted_run_checkpoints_exits_130_and_matches_uninterrupted_run() {
    let fixture = Fixture::new();
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("interrupted");
    for (name, step) in [("-INT", 9), ("-TERM", 63)] {
        let mut child = fixture.command(&run).spawn().unwrap();
        wait_for_checkpoint(&mut child, &run, step);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        let is_saved = ["checkpoint written: ", "its checkpoint is on disk already"];
        assert!(is_saved.iter().any(|words| stderr.contains(words)), "{stderr}");
    }
    // The number of workers is no part of a run's identity.
    let moved = fixture.runs.join("moved");
    std::fs::rename(&run, &moved).unwrap();
    let output = fixture.command(&moved).arg("--set=data.workers=3").output().unwrap();
    assert_success(&output);
    assert_same_run(&moved, &expected);
}

#[test]
fn damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let fixture = Fixture::new();
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("damaged");
    let mut child = fixture.command(&run).spawn().unwrap();
    wait_for_checkpoint(&mut child, &run, 36);
    child.kill().unwrap();
    child.wait().unwrap();
    let newest = mixer_train::disk::checkpoint::list(&run.join("checkpoints")).unwrap().remove(0);
    let file = newest.join("optimizer.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let output = fixture.command(&run).output().unwrap();
    assert_success(&output);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("`optimizer.safetensors` does not have its checksum"), "{stderr}");
    assert_same_run(&run, &expected);
}

/// A limit on file sizes fails a write in the middle, as a full disk does, and needs no privileges.
#[test]
fn checkpoint_that_cannot_be_written_ends_the_run_and_leaves_the_older_ones() {
    let fixture = Fixture::new();
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("full");
    let mut child = fixture.command(&run).spawn().unwrap();
    wait_for_checkpoint(&mut child, &run, 18);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = mixer_train::disk::checkpoint::list(&run.join("checkpoints")).unwrap();
    let limited = fixture.command(&run);
    let mut shell = Command::new("bash");
    // In units of 1 KiB: the metrics fit, the weights do not.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""]).arg(limited.get_program());
    let output = shell.args(limited.get_args()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("error: "), "{stderr}");
    let after = mixer_train::disk::checkpoint::list(&run.join("checkpoints")).unwrap();
    assert_eq!(before, after, "an older checkpoint is gone");
    let leftovers = std::fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'))
        .count();
    assert_eq!(leftovers, 0);
    assert_success(&fixture.command(&run).output().unwrap());
    assert_same_run(&run, &expected);
}
