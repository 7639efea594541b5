//! A run that is stopped, however it is stopped, goes on as the same run: the same metrics (timings
//! aside) and the same weights, byte for byte.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::run::{
    CONFIG, Fixture, assert_same_run, assert_success, metrics, signal, wait_for_checkpoint,
};

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

/// A run that is killed after update 45 and continued is the run that is not; gives its directory.
fn assert_a_kill_changes_nothing(fixture: &Fixture) -> PathBuf {
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("killed");
    let mut child = fixture.command(&run).spawn().unwrap();
    wait_for_checkpoint(&mut child, &run, 45);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_success(&fixture.command(&run).arg("--resume=must").output().unwrap());
    assert_same_run(&run, &expected);
    run
}

/// A Vision Transformer is a network like any other.
#[test]
fn killed_run_of_a_vision_transformer_matches_uninterrupted_run() {
    let network = "num_heads = 4\npool = \"class_token\"\nnum_blocks = 2\n";
    let fixture = Fixture::with(&CONFIG.replace("num_blocks = 2\n", network));
    assert_a_kill_changes_nothing(&fixture);
}

/// So is a BiT-ResNet, with stochastic depth.
#[test]
fn killed_run_of_a_bit_resnet_matches_uninterrupted_run() {
    let mixer = "image_size = 16\npatch_size = 4\nhidden_dim = 16\nnum_blocks = 2\n";
    assert!(CONFIG.contains(mixer));
    let network =
        "image_size = 32\npatch_size = 8\nhidden_dim = 32\ndepths = [1, 1]\nnum_groups = 4\n";
    let config = CONFIG.replace(mixer, network).replace("epochs = 15", "epochs = 7");
    let fixture = Fixture::with(&config);
    assert_a_kill_changes_nothing(&fixture);
}

/// What is frozen has no moments to restore.
#[test]
fn killed_run_with_frozen_parameters_and_layer_decay_matches_uninterrupted_run() {
    let settings = "freeze = [\"stem\", \"blocks.0.norm1\"]\nlayer_decay = 0.7\n";
    let fixture = Fixture::with(&format!("{CONFIG}{settings}"));
    assert_a_kill_changes_nothing(&fixture);
}

#[test]
fn killed_run_with_a_first_moment_in_bf16_matches_uninterrupted_run() {
    let optimizer = "[optimizer]\nfirst_moment_dtype = \"bf16\"\n";
    for kind in ["adamw", "sgd"] {
        let optimizer = format!("{optimizer}kind = \"{kind}\"\n");
        let fixture = Fixture::with(&CONFIG.replace("[optimizer]\n", &optimizer));
        let run = assert_a_kill_changes_nothing(&fixture);
        let types = types_of_moments(&run);
        for (name, dtype) in &types {
            let expected = if name.ends_with(".0") { "BF16" } else { "F32" };
            assert_eq!(dtype, expected, "{name}");
        }
        assert!(types.contains_key("stem.weight.0"), "{types:?}");
        let in_f32 = ["--resume=must", "--set=optimizer.first_moment_dtype=f32"];
        let output = fixture.command(&run).args(in_f32).output().unwrap();
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && says.contains("first_moment_dtype"), "{says}");
    }
}

/// The type of each tensor in the newest file of moments.
fn types_of_moments(run: &Path) -> BTreeMap<String, String> {
    let newest = std::fs::read_dir(run.join("checkpoints")).unwrap();
    let newest = newest.map(|entry| entry.unwrap().path()).max().unwrap();
    let bytes = std::fs::read(newest.join("optimizer.safetensors")).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let json = &rest[..u64::from_le_bytes(*length) as usize];
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(json).unwrap();
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    tensors.map(|(name, info)| (name, info["dtype"].as_str().unwrap().to_owned())).collect()
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

/// The learning rates of the lines of metrics, by update.
fn rates(run: &Path) -> BTreeMap<u64, f64> {
    let lines = metrics(run).into_iter().filter(|line| line["kind"] == "train");
    lines.map(|line| (line["step"].as_u64().unwrap(), line["lr"].as_f64().unwrap())).collect()
}

#[test]
fn a_run_that_is_made_longer_goes_on_with_the_new_schedule_and_can_be_killed_too() {
    // 30 updates, and 60 of them.
    let short = "epochs = 3.2";
    let fixture = Fixture::with(&CONFIG.replace("epochs = 15", short));
    let run = |name: &str, more: &[&str]| {
        let run = fixture.runs.join(name);
        let output = fixture.command(&run).args(more).output().unwrap();
        (run, output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let longer = ["--set=train.steps=60", "--extend"];
    let anew = [&longer[..], &["--set=schedule.rewarm_steps=10"]].concat();

    for (name, extension) in [("longer", &longer[..]), ("anew", &anew)] {
        let (expected, code, says) = run(name, &[]);
        assert_eq!(code, Some(0), "{says}");
        let before = rates(&expected);
        // Without being asked for, it is refused with the command that does it.
        let (_, code, says) =
            run(name, &extension.iter().copied().filter(|a| *a != "--extend").collect::<Vec<_>>());
        assert_eq!(code, Some(3), "{says}");
        assert!(says.contains("`train.steps` is 60 here and 30 there") || name == "anew", "{says}");
        assert!(says.contains("--set=train.steps=60") && says.contains(" --extend\n"), "{says}");
        // Killed, as soon as it is longer and later on, it is the same run.
        let killed = fixture.runs.join(format!("killed {name}"));
        assert_success(&fixture.command(&killed).output().unwrap());
        for step in [36, 45] {
            let mut child = fixture.command(&killed).args(extension).spawn().unwrap();
            wait_for_checkpoint(&mut child, &killed, step);
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(!killed.join("final.safetensors").exists(), "it has not come to its end");
        }
        let without = extension.iter().filter(|arg| **arg != "--extend");
        assert_success(&fixture.command(&killed).args(without).output().unwrap());

        let (_, code, says) = run(name, extension);
        assert_eq!(code, Some(0), "{says}");
        assert!(says.contains("train.steps: 30 -> 60\n"), "{says}");
        assert!(says.contains("continuing at step 30"), "{says}");
        assert_same_run(&killed, &expected);
        for file in ["plan.toml", "config.toml"] {
            let read = |run: &Path| std::fs::read_to_string(run.join(file)).unwrap();
            assert_eq!(read(&killed), read(&expected));
        }
        let typed = std::fs::read_to_string(expected.join("config.toml")).unwrap();
        assert!(typed.contains("steps = 60") && !typed.contains(short), "{typed}");

        // A cosine after 5 updates of warm-up; the last update of a line is one before its step.
        let cosine =
            |base: f64, part: f64| base * 0.5 * (1.0 + (std::f64::consts::PI * part).cos());
        let after = rates(&expected);
        for (step, rate) in before {
            assert_eq!(after[&step], rate, "the past stays, step {step}");
        }
        let expected_rate = |step: f64| match name {
            "anew" if step < 41.0 => 0.003 * (step - 31.0) / 10.0 * cosine(1.0, 0.0),
            "anew" => cosine(0.003, (step - 41.0) / 20.0),
            _ => cosine(0.003, (step - 6.0) / 55.0),
        };
        for step in [35_u64, 42, 49, 56, 60] {
            let (found, expected) = (after[&step], expected_rate(step as f64));
            assert!((found - expected).abs() < 1e-12, "{name}, step {step}: {found} {expected}");
        }
        // Once more, there is nothing left to do.
        let (_, code, says) = run(name, extension);
        assert!(code == Some(0) && says.contains("already done"), "{says}");
        let (_, code, says) = run(name, &["--extend", "--set=train.steps=40"]);
        assert!(code == Some(3) && says.contains("belongs to another configuration"), "{says}");
    }
}

#[test]
fn a_run_that_was_stopped_is_made_longer_and_one_without_a_checkpoint_is_not() {
    let fixture = Fixture::new();
    let run = fixture.runs.join("stopped");
    let output = fixture.command(&run).arg("--extend").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(!run.exists());
    let mut child = fixture.command(&run).spawn().unwrap();
    wait_for_checkpoint(&mut child, &run, 45);
    signal(&child, "-TERM");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let saved = mixer_train::disk::checkpoint::list(&run.join("checkpoints")).unwrap().remove(0);
    let at = mixer_train::disk::checkpoint::step_of(&saved).unwrap();
    let output =
        fixture.command(&run).args(["--extend", "--set=train.steps=200"]).output().unwrap();
    assert_success(&output);
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(says.contains("train.steps: 141 -> 200\n"), "{says}");
    let plan: toml::Table =
        std::fs::read_to_string(run.join("plan.toml")).unwrap().parse().unwrap();
    let lengths = plan["schedule"]["lengths"].as_array().unwrap();
    let number = |index: usize, key: &str| lengths[index][key].as_integer().unwrap() as u64;
    assert_eq!([number(0, "from"), number(0, "steps")], [0, 141]);
    assert_eq!([number(1, "from"), number(1, "steps")], [at, 200]);
    assert!(rates(&run).contains_key(&200));
}

/// Top-1 cannot gain 99 %: stopped early at update 80, it has as many evaluations again.
#[test]
fn a_run_that_stopped_early_goes_on_when_it_is_made_longer() {
    let stopping = "early_stopping = { patience = 3, min_delta = 0.99 }\n";
    let fixture = Fixture::with(&format!("{CONFIG}{stopping}"));
    let run = fixture.runs.join("run");
    assert_success(&fixture.command(&run).output().unwrap());
    let output =
        fixture.command(&run).args(["--extend", "--set=train.steps=200"]).output().unwrap();
    assert_success(&output);
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(says.contains("stopped early at step 140 of 200"), "{says}");
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
