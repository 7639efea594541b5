//! A run is what it was started from: the weights, the configuration and the data that its files name.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::Workplace;

const CONFIG: i32 = 3;
const WEIGHTS: i32 = 5;

/// With the runs `a` and `b` of two seeds, and the weights of `a` as `a.npz`.
fn with_two_runs() -> Workplace {
    let place = Workplace::with_pictures();
    for (run, seed) in [("a", "seed=1"), ("b", "seed=2")] {
        place.mixer(&["pretrain", "folder.toml", "--run-dir", run, "--set", seed]).succeeds();
    }
    place
}

fn finetune(place: &Workplace, init: &str, more: &[&str]) -> common::Outcome {
    let args = ["finetune", "folder.toml", "--run-dir", "tuned", "--init", init];
    place.mixer(&[&args[..], more].concat())
}

/// The hash of the starting weights in a plan, and in the weights of the run.
fn hashes(place: &Workplace, run: &str) -> (String, Option<String>) {
    let plan: toml::Table = place.text(&format!("{run}/plan.toml")).parse().unwrap();
    let planned = plan["init"]["from"]["sha256"].as_str().unwrap().to_owned();
    let file = place.path(format!("{run}/final.safetensors"));
    let written = mixer_model::Weights::read(&file, None).ok();
    (planned, written.map(|weights| weights.metadata.provenance["init_sha256"].clone()))
}

#[test]
fn a_run_from_other_weights_is_never_gone_on_with() {
    let place = with_two_runs();
    finetune(&place, "a", &[]).succeeds();
    let before = place.read("tuned/final.safetensors");
    let (planned, written) = hashes(&place, "tuned");
    assert_eq!(Some(&planned), written.as_ref());
    assert_eq!(planned.len(), 64);

    let words = ["started from other weights", "`b` (SHA-256 ", "`a` (SHA-256 ", ": tuned"];
    finetune(&place, "b", &[]).fails(CONFIG, &words).hints("--run-dir");
    finetune(&place, "nowhere.safetensors", &[]).fails(WEIGHTS, &["nowhere.safetensors"]);
    // The same weights elsewhere and in another form are the same.
    place.mixer(&["weights", "convert", "a", "--out", "a.npz"]).succeeds();
    let again = finetune(&place, "a.npz", &["--set", "model.gelu=tanh"]);
    assert!(again.stderr.contains("already done"), "{again:?}");
    assert!(again.stderr.contains("init.weights: \"a\" -> \"a.npz\""), "{again:?}");
    // What it started from may be gone.
    std::fs::remove_file(place.path("a.npz")).unwrap();
    assert!(finetune(&place, "a.npz", &[]).stderr.contains("already done"));
    assert!(place.read("tuned/final.safetensors") == before);
    assert_eq!(hashes(&place, "tuned"), (planned, written));
    // A plan of a version that kept no hash is read, and goes on from weights of the same name.
    let plan = place.text("tuned/plan.toml");
    let old: Vec<&str> = plan.lines().filter(|line| !line.starts_with("sha256")).collect();
    place.write("tuned/plan.toml", old.join("\n"));
    assert!(finetune(&place, "a.npz", &[]).stderr.contains("already done"));
    finetune(&place, "b", &[]).fails(CONFIG, &["started from other weights", "and `a.npz` there"]);
}

#[test]
fn a_run_of_which_nothing_was_saved_starts_over_with_what_it_is_given() {
    let place = with_two_runs();
    // Killed before its first checkpoint.
    finetune(&place, "a", &[]).succeeds();
    let of_a = hashes(&place, "tuned").0;
    std::fs::remove_dir_all(place.path("tuned/checkpoints")).unwrap();
    let again = finetune(&place, "a", &[]);
    again.fails(WEIGHTS, &["came to its end, and its checkpoints are gone"]).hints("start again");
    std::fs::remove_file(place.path("tuned/final.safetensors")).unwrap();
    let says = finetune(&place, "b", &["--set", "seed=9"]);
    assert!(says.stderr.contains("it starts over"), "{says:?}");
    says.succeeds();
    let (planned, written) = hashes(&place, "tuned");
    assert_eq!(Some(&planned), written.as_ref());
    assert_ne!(planned, of_a);
    let typed: toml::Table = place.text("tuned/config.toml").parse().unwrap();
    assert_eq!(typed["init"]["weights"].as_str(), Some("b"));
    assert_eq!(typed["seed"].as_integer(), Some(9));
    // As if the first one had never been.
    let args = ["finetune", "folder.toml", "--run-dir", "clean", "--init", "b", "--set", "seed=9"];
    place.mixer(&args).succeeds();
    for file in ["final.safetensors", "best.safetensors", "plan.toml", "config.toml"] {
        assert!(place.read(&format!("tuned/{file}")) == place.read(&format!("clean/{file}")));
    }
    let lines = |run: &str| place.text(&format!("{run}/metrics.jsonl")).lines().count();
    assert_eq!(lines("tuned"), lines("clean"));
}

#[test]
fn a_file_that_cannot_be_read_before_the_first_update_is_passed_over_or_removed() {
    let place = Workplace::with_pictures();
    let good = place.read("data/train/red/0.bmp");
    place.write("data/train/red/0.bmp", "no picture");
    let run = ["pretrain", "folder.toml", "--run-dir", "run", "--set", "train.batch_size=12"];
    place.mixer(&run).fails(4, &["red/0.bmp"]).hints("on_corrupt.skip");
    // Both ways that the hint names.
    let skip = ["--set", "data.on_corrupt.skip.at_most=10", "--set", "train.steps=1"];
    place.mixer(&[&run[..], &skip].concat()).succeeds();
    std::fs::remove_dir_all(place.path("run")).unwrap();
    place.mixer(&run).fails(4, &["red/0.bmp"]);
    std::fs::remove_file(place.path("data/train/red/0.bmp")).unwrap();
    let says = place.mixer(&run);
    assert!(says.stderr.contains("it starts over"), "{says:?}");
    says.succeeds();
    // A run that has something to lose is compared with its data.
    place.write("data/train/red/0.bmp", good);
    place.mixer(&run).fails(4, &["found 12 training"]);
}

#[test]
fn a_sweep_is_gone_on_with_from_the_same_weights() {
    let place = with_two_runs();
    let sweep = |init: &str| {
        let args = ["finetune", "folder.toml", "--run-dir", "sweep", "--sweep", "lr=0.01,0.02"];
        place.mixer(&[&args[..], &["--init", init]].concat())
    };
    sweep("a").succeeds();
    std::fs::remove_dir_all(place.path("sweep/lr=0.02")).unwrap();
    sweep("b").fails(CONFIG, &["started from other weights", "sweep/lr=0.01"]);
    assert!(!place.path("sweep/lr=0.02").exists());
    sweep("a").succeeds();
}

#[test]
fn a_sweep_that_is_gone_on_with_for_other_values_keeps_its_members() {
    let place = with_two_runs();
    let sweep = |values: &str, more: &[&str]| {
        let args = ["finetune", "folder.toml", "--run-dir", "sweep", "--init", "a", "--sweep"];
        place.mixer(&[&args[..], &[values], more].concat())
    };
    let names = |table: &str| -> Vec<String> {
        let first = |line: &str| line.split_whitespace().next().unwrap().to_owned();
        table.lines().skip(1).map(first).collect()
    };
    let table = sweep("lr=0.01,0.02", &[]).succeeds();
    assert_eq!(names(&table), ["lr=0.01", "lr=0.02"]);
    let outcome = sweep("lr=2e-2,0.03", &[]);
    assert!(outcome.stderr.contains("lr=0.02: already done"), "{outcome:?}");
    let table = outcome.succeeds();
    assert_eq!(names(&table), ["lr=0.01", "lr=0.02", "lr=0.03"]);
    let report: serde_json::Value = serde_json::from_str(&place.text("sweep/sweep.json")).unwrap();
    let members = report["members"].as_array().unwrap();
    assert!(members.iter().all(|member| member["status"] == "finished"), "{report}");
    assert_eq!(members[0]["settings"]["optimizer.learning_rate"], 0.01);
    // Those that are there belong to the same configuration, also where they are not run again.
    sweep("lr=0.04", &["--set", "seed=8"])
        .fails(CONFIG, &["lr=0.01: ", "`seed` is 8 here and 0 there"])
        .hints("choose another directory for this sweep");
}
