//! The paper's experiments on what a network learns from: shuffled pictures (Figure 4) and parts of the data.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Workplace, without_metadata};
use serde_json::Value;

const CONFIG: i32 = 3;

/// Another order of summation.
const ROUNDING: f64 = 1e-5;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A run on drawn pictures whose pixels are shuffled in a way, in `run`; one colour could not tell.
fn shuffled(how: &str) -> Workplace {
    let place = Workplace::with_pictures();
    let synthesise = ["data", "synthesise", "--out", "drawn", "--image-size", "8"];
    let small = ["--classes", "4", "--examples", "40", "--format", "png"];
    place.mixer(&[&synthesise[..], &small].concat()).succeeds();
    let shuffle = format!("data.shuffle={{ {how} = {{ seed = 3 }} }}");
    let train = ["pretrain", "folder.toml", "--run-dir", "run", "--set", "data.path=drawn"];
    let once = ["--set", "train.eval_every_steps=6"];
    place.mixer(&[&train[..], &once, &["--set", &shuffle]].concat()).succeeds();
    place
}

fn loss(place: &Workplace, weights: &str) -> f64 {
    let args = ["evaluate", weights, "--data", "drawn", "--preprocess", "squash"];
    let found = place.mixer(&[&args[..], &["--format", "json", "--classes", "names"]].concat());
    json(&found.succeeds())["loss"].as_f64().unwrap()
}

#[test]
fn weights_for_shuffled_pictures_shuffle_them_wherever_they_are_used() {
    for how in ["patches", "pixels"] {
        let place = shuffled(how);
        let inspected = place.mixer(&["weights", "inspect", "run"]).succeeds();
        assert!(inspected.contains(&format!("shuffle.{how}.seed: 3")), "{inspected}");
        let evaluated = json(&place.mixer(&["evaluate", "run", "--format", "json"]).succeeds());
        let metrics = place.text("run/metrics.jsonl");
        let seen = metrics.lines().map(json).rfind(|line| line["kind"] == "eval").unwrap();
        let (found, seen) = (&evaluated["loss"], &seen["loss"]);
        let (found, seen) = (found.as_f64().unwrap(), seen.as_f64().unwrap());
        assert!((found - seen).abs() < ROUNDING, "{found} {seen}");

        // Weights that do not say so see other pictures.
        let inspected =
            json(&place.mixer(&["weights", "inspect", "run", "--format", "json"]).succeeds());
        let header = json(inspected["metadata"]["mixer"].as_str().unwrap());
        let classes = header["classes"].as_array().unwrap();
        let names: Vec<&str> = classes.iter().map(|name| name.as_str().unwrap()).collect();
        place.write("names", names.join("\n"));
        place.write("silent.safetensors", without_metadata(&place.read("run/best.safetensors")));
        let (own, silent) =
            (loss(&place, "run/best.safetensors"), loss(&place, "silent.safetensors"));
        assert!((own - silent).abs() > 1e-3, "{own} {silent}");

        // Everything that prepares pictures goes the same way.
        let picture = "drawn/val/0/000000.png";
        for args in [
            &["predict", "run", picture][..],
            &["features", "run", "drawn/val", "--out", "f.npy"],
            &["visualise", "run", "--out", "v", "--pictures", picture],
            &["weights", "export", "run", "m.onnx", "--to", "onnx", "--pixels"],
        ] {
            let picture = first_picture(&place);
            let args: Vec<&str> = args
                .iter()
                .map(|arg| if arg.ends_with(".png") { picture.as_str() } else { arg })
                .collect();
            place.mixer(&args).succeeds();
        }
        let model = place.read("m.onnx");
        let has = |text: &str| model.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        assert!(has("Gather") && has("shuffle.order") && has("\"seed\":3"));

        let resize = ["weights", "resize", "run", "--image-size", "16", "--out", "r.safetensors"];
        place.mixer(&resize).fails(CONFIG, &["8 px", how, "seed 3", "no order for 16 px"]);
        let timm = place.mixer(&["weights", "export", "run", "timm", "--to", "timm"]);
        let npz = place.mixer(&["weights", "convert", "run", "--out", "w.npz"]);
        if how == "pixels" {
            timm.fails(CONFIG, &["shuffled pixels", "timm"]).hints("--to onnx");
            npz.fails(CONFIG, &["shuffled pixels", "`.npz`"]).hints("--to onnx");
            assert!(!place.path("timm").exists() && !place.path("w.npz").exists());
        } else {
            // The order has moved into the weights.
            for outcome in [timm, npz] {
                assert!(outcome.stderr.contains("shuffled patches of seed 3"), "{outcome:?}");
                outcome.succeeds();
            }
            for weights in ["timm/model.safetensors", "w.npz"] {
                let found = loss(&place, weights);
                assert!((found - own).abs() < ROUNDING, "{weights}: {found} {own}");
            }
        }
    }
}

#[test]
fn jpegs_at_a_part_of_their_size_are_so_wherever_the_weights_are_used() {
    let place = Workplace::with_pictures();
    let synthesise = ["data", "synthesise", "--out", "drawn", "--image-size", "64"];
    place.mixer(&[&synthesise[..], &["--classes", "4", "--examples", "40"]].concat()).succeeds();
    let run = |command: &[&str], more: &[&str]| {
        let data = ["folder.toml", "--set", "data.path=drawn", "--set", "train.eval_every_steps=6"];
        place.mixer(&[command, &data, more].concat())
    };
    let seen = |run: &str| {
        let metrics = place.text(&format!("{run}/metrics.jsonl"));
        let last = metrics.lines().map(json).rfind(|line| line["kind"] == "eval").unwrap();
        last["loss"].as_f64().unwrap()
    };
    let scaling = ["--set", "data.jpeg_scaling=true"];
    run(&["pretrain"], &["--run-dir", "exact"]).succeeds();
    run(&["pretrain"], &[&["--run-dir", "run"], &scaling[..]].concat()).succeeds();
    assert!((seen("run") - seen("exact")).abs() > 10.0 * ROUNDING, "the key has no effect");

    let inspected = place.mixer(&["weights", "inspect", "run"]).succeeds();
    assert!(inspected.contains("jpeg_scaling: true"), "{inspected}");
    let evaluated = json(&place.mixer(&["evaluate", "run", "--format", "json"]).succeeds());
    let found = evaluated["loss"].as_f64().unwrap();
    assert!((found - seen("run")).abs() < ROUNDING, "{found} {}", seen("run"));

    let tune = ["finetune", "--init", "run"];
    run(&tune, &["--run-dir", "tuned"]).succeeds();
    assert!(place.text("tuned/plan.toml").contains("jpeg_scaling = true"));
    let exact = ["--set", "data.jpeg_scaling=false", "--run-dir", "other"];
    run(&tune, &exact).succeeds();
    assert!(place.text("other/plan.toml").contains("jpeg_scaling = false"));
    let drawn = ["pretrain", "builtin.toml", "--run-dir", "drawn-at-once"];
    Workplace::new()
        .mixer(&[&drawn[..], &scaling[..]].concat())
        .fails(CONFIG, &["data.jpeg_scaling", "builtin"]);
}

fn first_picture(place: &Workplace) -> String {
    let class = std::fs::read_dir(place.path("drawn/val")).unwrap().next().unwrap().unwrap().path();
    let picture = std::fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    picture.display().to_string()
}

#[test]
fn fine_tuning_inherits_the_order_and_a_run_keeps_it() {
    let place = shuffled("patches");
    let tune = |more: &[&str]| {
        let args = ["finetune", "folder.toml", "--init", "run", "--set", "data.path=drawn"];
        place.mixer(&[&args[..], more].concat())
    };
    tune(&["--run-dir", "tuned"]).succeeds();
    let plan = place.text("tuned/plan.toml");
    assert!(plan.contains("[data.shuffle.patches]\nseed = 3"), "{plan}");
    let other = tune(&["--run-dir", "other", "--set", "data.shuffle=\"none\""]);
    assert!(other.stderr.contains("`data.shuffle` is none, but"), "{other:?}");
    other.succeeds();
    tune(&["--run-dir", "large", "--set", "model.image_size=16"])
        .fails(CONFIG, &["8 px", "patches of seed 3", "16 px"]);
    assert!(!place.path("large").exists());

    let again = ["pretrain", "folder.toml", "--run-dir", "run", "--set", "data.path=drawn"];
    place
        .mixer(&[&again[..], &["--extend", "--set", "train.steps=8"]].concat())
        .fails(CONFIG, &["data.shuffle"]);
    let bad = [&again[..], &["--set", "data.shuffle={ patches = { seed = -1 } }"]].concat();
    place.mixer(&bad).fails(CONFIG, &["-1"]);
    let bad = [&again[..], &["--set", "data.shuffle=\"tokens\""]].concat();
    place.mixer(&bad).fails(CONFIG, &["tokens", "patches"]);
}

#[test]
fn a_fraction_of_the_examples_is_trained_on_and_epochs_count_it() {
    let place = Workplace::with_pictures();
    let train = |run: &str, more: &[&str]| {
        let args = ["pretrain", "builtin.toml", "--run-dir", run, "--set", "train.batch_size=5"];
        place.mixer(&[&args[..], more].concat())
    };
    let part = ["--set", "data.train_fraction=0.25"];
    let epochs = ["--set", "train.epochs=2"];
    let outcome = train("part", &[part, epochs].concat());
    assert!(
        outcome
            .stderr
            .contains("10 training and 20 validation examples, 4 updates of 5 (2.0 epochs)")
    );
    assert!(outcome.stderr.contains("`train[0.25 of it]`: "), "{outcome:?}");
    outcome.succeeds();
    let plan = place.text("part/plan.toml");
    assert!(plan.contains("train_fraction = 0.25\ntrain_fraction_seed = 0\n"), "{plan}");
    assert!(plan.contains("train_examples = 10\n"), "{plan}");

    // A run keeps its part.
    for other in ["data.train_fraction=0.5", "data.train_fraction_seed=1"] {
        let set = [&part[..], &["--set", other, "--extend", "--set", "train.epochs=4"]].concat();
        train("part", &set).fails(CONFIG, &[other.split('=').next().unwrap()]);
    }
    train("part", &[&part[..], &["--extend", "--set", "train.epochs=3"]].concat()).succeeds();

    // Of a part of a folder as well, and shown as it is.
    let show = |more: &[&str]| place.mixer(&[&["config", "show", "folder.toml"], more].concat());
    let set = ["--set", "data.train=\"train[:8]\"", "--set", "data.val=\"train[8:]\""];
    let shown = show(&[&set[..], &["--set", "data.train_fraction=0.5"]].concat()).succeeds();
    assert!(shown.contains("# 4 training and 4 validation examples"), "{shown}");
    assert!(shown.contains("train_fraction = 0.5") && shown.contains("train_fraction_seed = 0"));
    let assume = ["--assume", "classes=2,train=1000,val=10", "--set", "data.train_fraction=0.03"];
    assert!(show(&assume).succeeds().contains("# 30 training"));

    for (value, words) in [
        ("0", "above 0 and at most 1"),
        ("1.5", "above 0 and at most 1"),
        ("nan", "above 0 and at most 1"),
        ("0.001", "0.001 of 40 examples, expected at least one of them"),
    ] {
        let set = format!("data.train_fraction={value}");
        train("bad", &["--set", &set]).fails(CONFIG, &["`data.train_fraction` is", words]);
    }
    train("bad", &["--set", "data.train_fraction_seed=1"])
        .fails(CONFIG, &["data.train_fraction_seed", "no effect"]);
    assert!(!place.path("bad").exists());
}
