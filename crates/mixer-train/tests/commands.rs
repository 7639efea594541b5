//! What every command does when its input is good: its files, its data on stdout, its exit code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::Workplace;
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Everything below a folder, sorted.
fn files(place: &Workplace, folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![place.path(folder)];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let below = path.strip_prefix(place.path("")).unwrap();
                found.push(below.display().to_string());
            }
        }
    }
    found.sort();
    found
}

// Training.

#[test]
fn pre_training_leaves_the_documented_run_directory_and_nothing_on_stdout() {
    let place = Workplace::new();
    let run = ["pretrain", "builtin.toml", "--run-dir", "run"];
    let outcome = place.mixer(&run);
    assert!(outcome.stderr.contains("done in"), "{outcome:?}");
    assert_eq!(outcome.succeeds(), "");

    let mut expected = vec!["best.safetensors", "config.toml", "environment.json"];
    expected.extend(["final.safetensors", "metrics.jsonl", "plan.toml", "run.lock"]);
    let mut expected: Vec<String> = expected.iter().map(|file| format!("run/{file}")).collect();
    for step in ["step_00000003", "step_00000006"] {
        for file in ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"] {
            expected.push(format!("run/checkpoints/{step}/{file}"));
        }
    }
    expected.sort();
    let (events, found): (Vec<String>, Vec<String>) =
        files(&place, "run").into_iter().partition(|file| file.starts_with("run/tensorboard/"));
    assert_eq!(found, expected);
    assert!(events.len() == 1 && events[0].contains("/events.out.tfevents."), "{events:?}");

    assert_eq!(place.text("run/config.toml"), common::BUILTIN, "exactly as typed");
    let plan: toml::Table = place.text("run/plan.toml").parse().unwrap();
    assert_eq!(plan["train"]["steps"].as_integer(), Some(6));
    assert_eq!(plan["model"]["num_classes"].as_integer(), Some(10));
    let environment = json(&place.text("run/environment.json"));
    for key in ["version", "command", "started", "device", "threads", "platform"] {
        assert!(keys(&environment).contains(key), "{environment}");
    }
    let command = environment["command"].as_array().unwrap();
    assert_eq!(command[1..], ["pretrain", "builtin.toml", "--run-dir", "run"]);

    // The same command again finds nothing left to do, and changes nothing.
    let before = (place.read("run/final.safetensors"), place.read("run/metrics.jsonl"));
    let outcome = place.mixer(&run);
    assert!(outcome.stderr.contains("already done"), "{outcome:?}");
    assert!(!outcome.stderr.contains("val loss"), "{outcome:?}");
    assert_eq!(outcome.succeeds(), "");
    assert!(before == (place.read("run/final.safetensors"), place.read("run/metrics.jsonl")));
    assert_eq!(files(&place, "run").len(), expected.len() + 1);
}

#[test]
fn every_line_of_metrics_is_an_object_with_the_documented_keys() {
    let place = Workplace::new();
    place.mixer(&["pretrain", "builtin.toml", "--run-dir", "run"]).succeeds();
    let text = place.text("run/metrics.jsonl");
    let clock = ["elapsed_secs", "time"];
    let train = ["kind", "step", "epoch", "loss", "lr", "grad_norm", "images_per_sec", "data_wait"];
    let eval = ["kind", "step", "split", "loss", "loss_kind", "top1", "top5", "n"];
    let train: BTreeSet<&str> = train.into_iter().chain(clock).collect();
    let eval: BTreeSet<&str> = eval.into_iter().chain(clock).collect();
    let mut elapsed = 0.0;
    let mut steps = Vec::new();
    for line in text.lines().map(json) {
        let kind = line["kind"].as_str().unwrap();
        let documented = if kind == "train" { &train } else { &eval };
        assert_eq!(&keys(&line), documented, "{line}");
        let now = line["elapsed_secs"].as_f64().unwrap();
        assert!(now >= elapsed, "{line}");
        elapsed = now;
        steps.push((kind.to_owned(), line["step"].as_u64().unwrap()));
    }
    let expected = [("train", 2), ("eval", 3), ("train", 4), ("train", 6), ("eval", 6)];
    assert_eq!(steps, expected.map(|(kind, step)| (kind.to_owned(), step)));
}

#[test]
fn without_a_run_directory_it_is_named_after_the_configuration() {
    let place = Workplace::new();
    let outcome = place.mixer(&["pretrain", "builtin.toml"]);
    assert!(outcome.stderr.contains("run directory runs/builtin"), "{outcome:?}");
    outcome.succeeds();
    assert!(place.path("runs/builtin/final.safetensors").exists());
}

#[test]
fn overrides_beat_the_file_and_later_ones_beat_earlier_ones() {
    let place = Workplace::new();
    let show = |overrides: &[&str]| -> toml::Table {
        let mut args = vec!["config", "show", "builtin.toml"];
        for entry in overrides {
            args.extend(["--set", entry]);
        }
        place.mixer(&args).succeeds().parse().unwrap()
    };
    assert_eq!(show(&[])["train"]["batch_size"].as_integer(), Some(8));
    assert_eq!(show(&["train.batch_size=4"])["train"]["batch_size"].as_integer(), Some(4));
    let twice = show(&["train.batch_size=4", "train.batch_size=5"]);
    assert_eq!(twice["train"]["batch_size"].as_integer(), Some(5));
    // A length takes the place of the other form of it: 2 epochs of 40 examples by 8.
    let epochs = show(&["train.epochs=2"]);
    assert_eq!(epochs["train"]["steps"].as_integer(), Some(10));

    // They are kept with the run, and the same ones continue it.
    let run = ["pretrain", "builtin.toml", "--run-dir", "run", "--set", "train.steps=2"];
    place.mixer(&run).succeeds();
    let kept: toml::Table = place.text("run/config.toml").parse().unwrap();
    assert_eq!(kept["train"]["steps"].as_integer(), Some(2));
    place.mixer(&run).succeeds();
}

#[test]
fn fine_tuning_expands_token_mixing_and_treats_the_head_as_the_classes_demand() {
    let place = Workplace::with_run();
    place.pictures("three", &["red", "green", "blue"]);
    let finetune = |run_dir: &str, overrides: &[&str]| {
        let mut args = vec!["finetune", "folder.toml", "--init", "run", "--run-dir", run_dir];
        for entry in overrides {
            args.extend(["--set", entry]);
        }
        let outcome = place.mixer(&args);
        let says = outcome.stderr.clone();
        assert_eq!(outcome.succeeds(), "");
        says
    };

    let says = finetune("same", &[]);
    assert!(says.contains("token mixing unchanged, head kept"), "{says}");
    let says = finetune("double", &["model.image_size=16", "data.path=three"]);
    assert!(says.contains("token mixing exact ×2, head reset"), "{says}");
    assert!(!says.contains("warning"), "{says}");
    let says = finetune("between", &["model.image_size=12"]);
    assert!(says.contains("warning: token mixing is interpolated"), "{says}");
    assert!(says.contains("not exact"), "{says}");
    let says = finetune("forced", &["init.head=reset"]);
    assert!(says.contains("head reset"), "{says}");

    let plan: toml::Table = place.text("double/plan.toml").parse().unwrap();
    assert_eq!(plan["task"].as_str(), Some("finetune"));
    assert_eq!(plan["model"]["tokens_mlp_dim"].as_integer(), Some(16), "4 tiles of 4");
    let listing = place.mixer(&["weights", "inspect", "double"]).succeeds();
    assert!(listing.contains("at 16 px, 3 classes"), "{listing}");
    assert!(listing.contains("exact ×2 from 8 px"), "{listing}");
}

/// The tensors of a weights file by name.
fn tensors(place: &Workplace, path: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = place.read(path);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> =
        file.iter().map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec())).collect();
    tensors.sort();
    tensors
}

#[test]
fn fine_tuning_leaves_what_is_frozen_as_it_was() {
    let place = Workplace::with_run();
    let mut args = vec!["finetune", "folder.toml", "--init", "run", "--run-dir", "frozen"];
    for entry in ["train.freeze=[\"stem\", \"blocks.0\"]", "train.layer_decay=0.75"] {
        args.extend(["--set", entry]);
    }
    let outcome = place.mixer(&args);
    // The stem has 4 · 4 · 3 · 8 + 8 values, a block 4 · 8 + 2 · 4 · 4 + 4 + 4 + 2 · 8 · 32 + 32 + 8.
    assert!(outcome.stderr.contains("658 of 1674 parameters are trained"), "{outcome:?}");
    outcome.succeeds();
    let before = tensors(&place, "run/best.safetensors");
    let after = tensors(&place, "frozen/final.safetensors");
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        let is_frozen = name.starts_with("stem.") || name.starts_with("blocks.0.");
        // A gradient of rounding noise.
        if !name.ends_with("mlp_tokens.fc2.bias") || is_frozen {
            assert_eq!(before == after, is_frozen, "{name}");
        }
    }
    let plan: toml::Table = place.text("frozen/plan.toml").parse().unwrap();
    assert_eq!(plan["train"]["freeze"].as_array().unwrap().len(), 2);
    assert_eq!(plan["train"]["layer_decay"].as_float(), Some(0.75));
}

#[test]
fn a_run_is_evaluated_before_its_first_update_where_it_is_asked_for() {
    let place = Workplace::with_pictures();
    let run = ["pretrain", "folder.toml", "--run-dir", "run", "--set", "train.eval_at_start=true"];
    place.mixer(&run).succeeds();
    place.mixer(&["pretrain", "folder.toml", "--run-dir", "plain"]).succeeds();
    let evaluations = |run: &str| -> Vec<(u64, f64)> {
        let text = place.text(&format!("{run}/metrics.jsonl"));
        let lines = text.lines().map(json).filter(|line| line["kind"] == "eval");
        lines.map(|l| (l["step"].as_u64().unwrap(), l["loss"].as_f64().unwrap())).collect()
    };
    let (asked, plain) = (evaluations("run"), evaluations("plain"));
    assert_eq!(asked[0].0, 0);
    // It changes nothing of what follows.
    assert_eq!(asked[1..], plain[..]);
    for file in ["final.safetensors", "best.safetensors"] {
        assert!(place.read(&format!("run/{file}")) == place.read(&format!("plain/{file}")));
    }
    // A run may be continued without it.
    let without = ["pretrain", "folder.toml", "--run-dir", "run"];
    assert!(place.mixer(&without).stderr.contains("already done"));

    // With a start that nothing improves upon, it is neither the best nor what early stopping waits for.
    let tuned = |run: &str, at_start: &str| {
        let args =
            ["finetune", "folder.toml", "--init", "run", "--run-dir", run, "--set", at_start];
        let sets = [
            "optimizer.learning_rate=1e-9",
            "train.eval_every_steps=1",
            "train.early_stopping.patience=2",
            "train.keep_best_checkpoint=true",
        ];
        let sets: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).collect();
        let says = place.mixer(&[&args[..], &sets].concat()).stderr;
        assert!(says.contains("stopped early at step 3 of 6"), "{says}");
        assert!(says.contains("best top-1 100.00 % at step 1\n"), "{says}");
        (evaluations(run), place.read(&format!("{run}/best.safetensors")))
    };
    let (with, without) = (tuned("with", "train.eval_at_start=true"), tuned("without", "seed=0"));
    assert_eq!((with.0[0].0, &with.0[1..]), (0, &without.0[..]));
    assert!(with.1 == without.1);
    assert!(!place.path("with/checkpoints/step_00000000").exists());
}

#[test]
fn a_run_without_improvement_stops_early_with_all_its_files() {
    let place = Workplace::with_pictures();
    let mut run = vec!["pretrain", "folder.toml", "--run-dir", "run"];
    // No accuracy is better than another one by 99 %.
    for entry in [
        "train.steps=50",
        "train.eval_every_steps=4",
        "train.checkpoint_every_steps=50",
        "train.early_stopping={ patience = 2, min_delta = 0.99 }",
    ] {
        run.extend(["--set", entry]);
    }
    let outcome = place.mixer(&run);
    let says = "stopped early at step 12 of 50: top-1 has not improved in 2 evaluations";
    assert!(outcome.stderr.contains(says), "{outcome:?}");
    outcome.succeeds();
    for file in ["best.safetensors", "final.safetensors", "checkpoints/step_00000012/state.json"] {
        assert!(place.path("run").join(file).exists(), "{file}");
    }
    let before = place.read("run/metrics.jsonl");
    let again = place.mixer(&run);
    assert!(again.stderr.contains("already done"), "{again:?}");
    again.succeeds();
    assert!(before == place.read("run/metrics.jsonl"));

    // As many evaluations as there are cannot pass without improvement.
    let patient = ["config", "check", "folder.toml", "--set", "train.early_stopping.patience=2"];
    let outcome = place.mixer(&patient);
    assert!(outcome.stderr.contains("it cannot stop early"), "{outcome:?}");
    outcome.succeeds();
}

// A configuration that builds upon another one.

#[test]
fn a_configuration_extends_another_one_and_its_run_needs_neither() {
    let place = Workplace::with_pictures();
    place.write("configs/base.toml", common::FOLDER);
    let child = "extends = \"../base.toml\"\n\n[train]\nepochs = 1\nbatch_size = 6\n";
    place.write("configs/small/child.toml", child);
    let show = place.mixer(&["config", "show", "configs/small/child.toml"]).succeeds();
    let plan: toml::Table = show.parse().unwrap();
    // One epoch of 12 examples in batches of 6, not the 6 updates of the parent.
    assert_eq!(plan["train"]["steps"].as_integer(), Some(2));
    assert_eq!(plan["train"]["eval_every_steps"].as_integer(), Some(3), "the parent's");
    place.mixer(&["config", "check", "configs/small/child.toml"]).succeeds();
    let run = ["pretrain", "configs/small/child.toml", "--run-dir", "run", "--set", "seed=3"];
    place.mixer(&run).succeeds();

    let kept = place.text("run/config.toml");
    assert!(!kept.contains("extends"), "{kept}");
    let table: toml::Table = kept.parse().unwrap();
    assert_eq!(table["seed"].as_integer(), Some(3));
    assert_eq!(table["train"]["epochs"].as_integer(), Some(1));
    assert!(!table["train"].as_table().unwrap().contains_key("steps"), "{kept}");
    assert_eq!(table["data"]["path"].as_str(), Some("data"));
    // The same run, from the file that was kept.
    std::fs::remove_dir_all(place.path("configs")).unwrap();
    std::fs::copy(place.path("run/config.toml"), place.path("copy.toml")).unwrap();
    let again = place.mixer(&["pretrain", "copy.toml", "--run-dir", "run"]);
    assert!(again.stderr.contains("already done"), "{again:?}");
    again.succeeds();
}

// Several fine-tunings at once.

#[test]
fn a_sweep_fine_tunes_with_every_value_compares_them_and_runs_nothing_twice() {
    let place = Workplace::with_run();
    // With the last value nothing is finite after the first update.
    let sweep = ["finetune", "folder.toml", "--init", "run", "--run-dir", "sweep"];
    let sweep =
        [&sweep[..], &["--sweep", "lr=1e-9,0.02,1e30", "--set", "train.clip_norm=0"]].concat();
    let sweep = [&sweep[..], &["--set", "optimizer.kind=adamw"]].concat();
    let outcome = place.mixer(&sweep);
    assert!(outcome.stderr.contains("lr=0.02 (2 of 3)"), "{outcome:?}");
    assert!(outcome.stderr.contains("warning: lr=1e30: "), "{outcome:?}");
    let table = outcome.succeeds();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("member "), "{table}");
    assert!(lines[1].starts_with("lr=1e-9 ") && lines[2].starts_with("lr=0.02 "), "{table}");
    assert!(lines[3].starts_with("lr=1e30") && lines[3].ends_with("diverged"), "{table}");
    for member in ["lr=1e-9", "lr=0.02"] {
        assert!(place.path("sweep").join(member).join("final.safetensors").exists());
    }

    let report = json(&place.text("sweep/sweep.json"));
    assert_eq!(keys(&report), ["members", "winner"].into());
    let members = report["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    let top1 = |member: usize| members[member]["best"]["top1"].as_f64().unwrap();
    // The first one of equals.
    let (winner, line) = if top1(1) > top1(0) { ("lr=0.02", 2) } else { ("lr=1e-9", 1) };
    assert_eq!(report["winner"], winner);
    assert_eq!(lines.iter().position(|line| line.ends_with("  winner")), Some(line), "{table}");
    assert_eq!(keys(&members[1]), ["best", "last", "name", "settings", "status"].into());
    assert_eq!(keys(&members[1]["best"]), ["loss", "n", "step", "top1", "top5"].into());
    assert_eq!(members[1]["settings"]["optimizer.learning_rate"], 0.02);
    let status: Vec<&str> = members.iter().map(|m| m["status"].as_str().unwrap()).collect();
    assert_eq!(status, ["finished", "finished", "diverged"]);
    assert_eq!(members[1]["last"]["step"], 6);

    // One member is lost, one has not come to its end: only these are run, and the result is the same.
    let kept = place.read("sweep/lr=1e-9/metrics.jsonl");
    let before = place.read("sweep/lr=0.02/final.safetensors");
    std::fs::remove_dir_all(place.path("sweep/lr=0.02")).unwrap();
    let outcome = place.mixer(&sweep);
    assert!(outcome.stderr.contains("lr=1e-9: already done"), "{outcome:?}");
    assert!(!outcome.stderr.contains("lr=0.02: already done"), "{outcome:?}");
    assert_eq!(outcome.succeeds(), table);
    assert!(kept == place.read("sweep/lr=1e-9/metrics.jsonl"));
    assert!(before == place.read("sweep/lr=0.02/final.safetensors"));
    assert_eq!(json(&place.text("sweep/sweep.json")), report);
}

#[test]
fn several_sweeps_make_a_grid_in_the_directory_of_the_configuration() {
    let place = Workplace::with_run();
    let outcome = place.mixer(&[
        "finetune",
        "folder.toml",
        "--init=run",
        "--sweep=optimizer.learning_rate=0.01,0.02",
        "--sweep=data.crop=none,{ pad = { pixels = 1 } }",
    ]);
    let table = outcome.succeeds();
    assert_eq!(table.lines().count(), 5, "{table}");
    let mut found: Vec<String> = std::fs::read_dir(place.path("runs/folder"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "optimizer.learning_rate=0.01,data.crop=none",
            "optimizer.learning_rate=0.01,data.crop=pad=pixels=1",
            "optimizer.learning_rate=0.02,data.crop=none",
            "optimizer.learning_rate=0.02,data.crop=pad=pixels=1",
            "sweep.json",
        ]
    );
    let plan = place.text(&format!("runs/folder/{}/plan.toml", found[1]));
    let plan: toml::Table = plan.parse().unwrap();
    assert_eq!(plan["data"]["crop"]["pad"]["pixels"].as_integer(), Some(1));
}

// Using weights.

#[test]
fn evaluation_agrees_between_backends_formats_and_what_training_saw() {
    let place = Workplace::with_run();
    let evaluate = |args: &[&str]| {
        place.mixer(&[&["evaluate", "run", "--data", "data"], args].concat()).succeeds()
    };
    let flex = json(&evaluate(&["--format", "json", "--device", "flex"]));
    let ndarray = json(&evaluate(&["--format", "json", "--device", "ndarray"]));
    assert_eq!(keys(&flex), ["loss", "n", "skipped", "top1", "top5"].into());
    for key in ["n", "top1", "top5"] {
        assert_eq!(flex[key], ndarray[key]);
    }
    let (a, b) = (flex["loss"].as_f64().unwrap(), ndarray["loss"].as_f64().unwrap());
    assert!((a - b).abs() < 1e-5, "{a} {b}");

    let metrics = place.text("run/metrics.jsonl");
    let best = metrics.lines().map(json).filter(|line| line["kind"] == "eval");
    let best = best.map(|line| line["top1"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!(flex["top1"].as_f64(), Some(best));

    let table = evaluate(&["--batch-size", "4"]);
    let top1 = format!("top-1     {:.2} %", 100.0 * best);
    assert!(table.contains("examples  6\n") && table.contains(&top1), "{table}");
    // Another split, a part of it, and another preprocessing.
    assert_eq!(json(&evaluate(&["--split", "train", "--format", "json"]))["n"], 12);
    assert_eq!(json(&evaluate(&["--split", "train[:50%]", "--format", "json"]))["n"], 6);
    evaluate(&["--preprocess", "squash", "--gelu", "erf"]);
}

#[test]
fn predictions_have_class_names_and_probabilities_in_every_format() {
    let place = Workplace::with_run();
    let predict = |args: &[&str]| {
        place.mixer(&[&["predict", "run", "data/val/red/0.bmp", "data/val/blue"], args].concat())
    };
    let answers = json(&predict(&["--format", "json", "--logits"]).succeeds());
    let answers = answers.as_array().unwrap();
    let paths: Vec<&str> = answers.iter().map(|answer| answer["path"].as_str().unwrap()).collect();
    let expected =
        ["data/val/red/0.bmp", "data/val/blue/0.bmp", "data/val/blue/1.bmp", "data/val/blue/2.bmp"];
    assert_eq!(paths, expected);
    for answer in answers {
        assert_eq!(keys(answer), ["logits", "path", "predictions"].into());
        let predictions = answer["predictions"].as_array().unwrap();
        assert_eq!(predictions.len(), 2, "no more than there are classes");
        assert_eq!(keys(&predictions[0]), ["class", "index", "probability"].into());
        let sum: f64 = predictions.iter().map(|p| p["probability"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{answer}");
        assert!(predictions[0]["probability"].as_f64() >= predictions[1]["probability"].as_f64());
        for p in predictions {
            let index = p["index"].as_u64().unwrap() as usize;
            assert_eq!(p["class"], ["blue", "red"][index]);
        }
        assert_eq!(answer["logits"].as_array().unwrap().len(), 2);
    }
    // The pictures are plain colours, and a few updates tell them apart.
    assert_eq!(answers[0]["predictions"][0]["class"], "red");
    assert_eq!(answers[1]["predictions"][0]["class"], "blue");

    let csv = predict(&["--format", "csv", "--top-k", "1"]).succeeds();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0], "path,rank,class,index,probability,error");
    assert!(lines[1].starts_with("data/val/red/0.bmp,1,red,1,0."), "{csv}");
    let table = predict(&[]).succeeds();
    assert!(table.starts_with("data/val/red/0.bmp\n  "), "{table}");
    assert!(table.lines().nth(1).unwrap().ends_with(" %  red"), "{table}");
    assert!(!predict(&["--format", "json"]).succeeds().contains("logits"));
}

#[test]
fn names_and_pictures_of_every_kind_are_understood() {
    let place = Workplace::new();
    place.write("folder.toml", common::FOLDER.replace("\"data\"", "\"my data, new\""));
    place.pictures("my data, new", &["größe", "a, \"b\""]);
    // As small, as long and as flat as pictures get.
    place.write("my data, new/train/größe/dot.bmp", common::bmp(1, 1, [9, 9, 9]));
    place.write("my data, new/train/größe/line.bmp", common::bmp(3000, 1, [9, 9, 9]));
    place.write("my data, new/train/größe/deep/er.bmp", common::bmp(1, 3000, [9, 9, 9]));
    place.write("PHOTO.JPEG", common::jpeg());
    place.mixer(&["pretrain", "folder.toml", "--run-dir", "ein Lauf"]).succeeds();
    let args = ["predict", "ein Lauf", "PHOTO.JPEG", "my data, new/val/größe", "--format", "csv"];
    let csv = place.mixer(&args).succeeds();
    assert!(csv.contains("\"a, \"\"b\"\"\",0,"), "{csv}");
    assert!(csv.contains("\"my data, new/val/größe/0.bmp\",1,"), "{csv}");
    // A folder of class folders without splits.
    let args =
        ["evaluate", "ein Lauf", "--data", "my data, new/val", "--split", ".", "--format", "json"];
    assert_eq!(json(&place.mixer(&args).succeeds())["n"], 6);
}

#[test]
fn weights_without_names_still_classify() {
    let place = Workplace::with_run();
    let nameless = common::without_metadata(&place.read("run/final.safetensors"));
    place.write("nameless.safetensors", nameless);
    let csv = place
        .mixer(&["predict", "nameless.safetensors", "data/val/red/0.bmp", "--format", "csv"])
        .succeeds();
    assert!(csv.contains(",class 0,0,") && csv.contains(",class 1,1,"), "{csv}");
    let found = place
        .mixer(&["evaluate", "nameless.safetensors", "--data", "data", "--format", "json"])
        .succeeds();
    assert_eq!(json(&found)["n"], 6);
}

#[test]
fn weights_are_listed_converted_and_resized() {
    let place = Workplace::with_run();
    let listing = place.mixer(&["weights", "inspect", "run"]).succeeds();
    for words in [
        "stem.proj.weight",
        "f32  [8, 3, 4, 4]",
        "30 tensors, 1674 values",
        "format: safetensors",
        "at 8 px, 2 classes, gelu tanh",
        r#"metadata.mixer.classes: ["blue","red"]"#,
    ] {
        assert!(listing.contains(words), "{words}: {listing}");
    }
    assert!(listing.starts_with("architecture: Mixer("), "{listing}");
    let json = place.mixer(&["weights", "inspect", "run", "--format", "json"]).succeeds();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["architecture"]["patch_size"], 4);
    assert_eq!(json["tensors"].as_array().unwrap().len(), 30);
    let json = place.mixer(&["summary", "--model", "S/32", "--format", "json"]).succeeds();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[0]["model"], &json[0]["tokens"]), (&"S/32".into(), &49.into()));

    let convert = place.mixer(&["weights", "convert", "run", "--out", "copy.safetensors"]);
    assert_eq!(convert.succeeds(), "");
    assert!(place.read("copy.safetensors") == place.read("run/best.safetensors"));

    let convert = place.mixer(&["weights", "convert", "run", "--out", "copy.npz"]);
    assert!(convert.stderr.contains("note: `.npz` holds no class names"), "{convert:?}");
    assert_eq!(convert.succeeds(), "");
    place.write("names", "no\nyes\n");
    let answer = place
        .mixer(&["predict", "copy.npz", "data/val/red/0.bmp", "--classes", "names"])
        .succeeds();
    assert!(answer.contains("yes") && answer.contains("no"), "{answer}");
    let export = place.mixer(&["weights", "export", "run", "folder", "--to", "timm"]);
    assert_eq!(export.succeeds(), "");
    assert_eq!(place.text("folder/class_map.txt"), "blue\nred\n");
    place.mixer(&["predict", "folder", "data/val/red/0.bmp"]).succeeds();

    let resize = place.mixer(&[
        "weights",
        "resize",
        "run",
        "--image-size",
        "16",
        "--out",
        "big.safetensors",
    ]);
    assert!(resize.stderr.contains("token mixing: exact ×2 from 8 px"), "{resize:?}");
    assert_eq!(resize.succeeds(), "");
    let listing = place.mixer(&["weights", "inspect", "big.safetensors"]).succeeds();
    assert!(listing.contains("at 16 px, 2 classes"), "{listing}");
    let predicted = place.mixer(&["predict", "big.safetensors", "data/val/red/0.bmp"]).succeeds();
    assert!(predicted.contains("red"), "{predicted}");
    assert_eq!(files(&place, "").iter().filter(|file| file.contains(".tmp")).count(), 0);
}

/// The lines at the end of a run, by their first word.
fn said_at_the_end(outcome: &common::Outcome) -> std::collections::BTreeMap<String, String> {
    let lines = outcome.stderr.lines().filter_map(|line| line.split_once("  "));
    lines.map(|(word, rest)| (word.to_owned(), rest.trim().to_owned())).collect()
}

#[test]
fn every_command_at_the_end_of_a_run_works_when_it_is_typed() {
    let place = Workplace::with_pictures();
    let typed = |command: &str| {
        let output = std::process::Command::new("sh")
            .args(["-c", command])
            .current_dir(place.path("."))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    // Names that a shell would take apart; shapes that are there already, or are something else.
    for (config, run) in
        [("folder.toml", "my run's"), ("builtin.toml", "b"), ("builtin.toml", "another")]
    {
        if run == "b" {
            place.write("shapes", "a file");
        }
        let outcome = place.mixer(&["pretrain", config, "--run-dir", run]);
        assert!(outcome.stderr.contains("best top-1"), "{outcome:?}");
        let said = said_at_the_end(&outcome);
        assert!(place.path(&said["weights"]).is_file(), "{outcome:?}");
        assert!(typed(&said["evaluate"]).contains("ECE"), "{outcome:?}");
        assert!(typed(&said["look"]).contains("report.html"), "{outcome:?}");
        assert!(place.text("report.html").contains("Calibration"), "{outcome:?}");
        assert!(!typed(&said["predict"]).is_empty(), "{outcome:?}");
    }
    let outcome =
        place.mixer(&["pretrain", "folder.toml", "--run-dir", "sw eep", "--sweep", "seed=1,2"]);
    // Those of the members come before.
    let said = said_at_the_end(&outcome);
    assert!(place.path(&said["weights"]).is_file(), "{outcome:?}");
    assert!(typed(&said["compare"]).contains("seed = 2"), "{outcome:?}");
    assert!(typed(&said["evaluate"]).contains("ECE"), "{outcome:?}");
    assert!(typed(&said["look"]).contains("report.html"), "{outcome:?}");
    // Pictures inside of archives have no path: no command is made up.
    for split in ["train", "val"] {
        place.mixer(&["data", "shard", "data", "--split", split, "--out", "shards"]).succeeds();
    }
    let splits = [("path", "shards"), ("train", "train-*.tar"), ("val", "val-*.tar")];
    let sets = splits.map(|(key, value)| format!("data.{key}=\"{value}\""));
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let outcome =
        place.mixer(&[&["pretrain", "folder.toml", "--run-dir", "s"], &sets[..]].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let said = said_at_the_end(&outcome);
    let (behind, command) = said["predict"].split_once(": ").unwrap();
    assert_eq!(behind, "with pictures or folders behind it");
    assert!(!typed(&format!("{command} data/val")).is_empty());
}

/// The commands take it, or refuse it in one line.
#[test]
fn a_bit_resnet_is_trained_and_used_as_any_other_network() {
    let place = Workplace::with_pictures();
    place.write(
        "bit.toml",
        "[model]\nimage_size = 32\npatch_size = 8\nhidden_dim = 64\ndepths = [2, 1]\nnum_groups = 8\n\
         drop_path_rate = 0.1\n[data]\npath = \"data\"\n[optimizer]\nkind = \"sgd\"\n\
         learning_rate = 0.01\n[train]\nbatch_size = 4\nsteps = 3\nfreeze = [\"stages.0.blocks.1\"]\n\
         layer_decay = 0.9\n",
    );
    place.mixer(&["pretrain", "bit.toml", "--run-dir", "bit"]).succeeds();
    let inspected = place.mixer(&["weights", "inspect", "bit/final.safetensors"]).succeeds();
    let first = inspected.lines().next().unwrap();
    let network = "BiT(P=8, C=64, depths=[2, 1], groups=8, D_C=16) at 32 px, 2 classes";
    assert_eq!(first, format!("architecture: {network}"));
    assert!(inspected.contains("stages.1.blocks.0.downsample.conv.weight"), "{inspected}");
    assert!(inspected.contains("head.fc.weight"), "{inspected}");
    place.mixer(&["evaluate", "bit"]).succeeds();
    let answers = place.mixer(&["predict", "bit", "data/val/blue", "--format", "json"]).succeeds();
    assert!(!json(&answers).as_array().unwrap().is_empty());
    place
        .mixer(&["visualise", "bit", "--out", "pictures", "--pictures", "data/val/red/0.bmp"])
        .succeeds();
    assert_eq!(
        files(&place, "pictures"),
        ["pictures/embedding.png", "pictures/index.html", "pictures/picture_0.png"]
    );
    place.mixer(&["report", "bit", "--out", "bit.html"]).succeeds();

    // Another size needs no other weights.
    place
        .mixer(&["weights", "resize", "bit", "--out", "larger.safetensors", "--image-size", "64"])
        .succeeds();
    let larger = place.mixer(&["weights", "inspect", "larger.safetensors"]).succeeds();
    assert!(larger.contains("at 64 px"), "{larger}");
    place.write(
        "finetune.toml",
        "[model]\nimage_size = 64\n[init]\nweights = \"bit\"\n[data]\npath = \"data\"\n\
         [train]\nbatch_size = 4\nsteps = 2\n",
    );
    place.mixer(&["finetune", "finetune.toml", "--run-dir", "fine"]).succeeds();

    let convert = ["weights", "convert", "bit", "--out", "bit.npz"];
    place.mixer(&convert).fails(3, &["an `.npz` file", "cannot be written for BiT("]);
    let export = ["weights", "export", "bit", "bit.onnx", "--to", "onnx"];
    place.mixer(&export).fails(3, &["an ONNX model cannot be written for BiT("]);
    let export = ["weights", "export", "bit", "timm", "--to", "timm"];
    place.mixer(&export).fails(3, &["timm", "has no such dimensions", "BiT("]);
    place.mixer(&["predict", "bit", "--gelu", "erf", "data/val/blue"]).fails(2, &["ReLU"]);
    let products = ["bench", "products", "--model", "BiT-R50x1"];
    place.mixer(&products).fails(2, &["convolutions"]);
}

// Everything else.

#[test]
fn the_summary_counts_the_paper_s_variants_exactly() {
    let place = Workplace::new();
    let table = place.mixer(&["summary"]).succeeds();
    let rows: Vec<Vec<&str>> =
        table.lines().skip(1).take(8).map(|line| line.split_whitespace().collect()).collect();
    let expected = [
        ["S/32", "49", "19104624", "18591624", "19"],
        ["S/16", "196", "18528264", "18015264", "18"],
        ["S/8", "784", "20646504", "20133504", "-"],
        ["B/32", "49", "60293428", "59524428", "60"],
        ["B/16", "196", "59880472", "59111472", "59"],
        ["L/32", "49", "206939264", "205914264", "206"],
        ["L/16", "196", "208196168", "207171168", "207"],
        ["H/14", "256", "432350952", "431069952", "431"],
    ];
    for (row, expected) in rows.iter().zip(expected) {
        assert_eq!(row[..5], expected);
    }
    let one = place.mixer(&["summary", "--model", "b/16", "--num-classes", "21843"]).succeeds();
    assert!(one.contains("75908739"), "{one}");
    let bit = place.mixer(&["summary", "--model", "BiT-R50x1"]).succeeds();
    let row: Vec<&str> = bit.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..6], ["BiT-R50x1", "-", "25549352", "23500352", "-", "4.089"]);
}

#[test]
fn the_summary_counts_the_memory_of_training_by_part() {
    let place = Workplace::new();
    let summary = |more: &[&str]| {
        let args = [&["summary", "--model", "B/16"][..], more].concat();
        place.mixer(&args)
    };
    let row = |more: &[&str]| {
        json(&summary(&[more, &["--format", "json"]].concat()).succeeds())[0].clone()
    };
    let one = row(&["--device", "cuda", "--precision", "bf16", "--memory", "80GiB"]);
    assert_eq!(one["parameters"], 59_880_472);
    assert_eq!(one["training_flops"], 6 * one["macs"].as_u64().unwrap());
    let bytes = |row: &Value, part: &str| row["training_memory"][part].as_u64().unwrap();
    let weights = 4 * 59_880_472;
    assert_eq!([bytes(&one, "weights"), bytes(&one, "gradients")], [weights, weights]);
    assert_eq!([bytes(&one, "moments"), bytes(&one, "average")], [2 * weights, 0]);
    // Two inputs and two widths of a block, in two bytes, of 196 tokens and 512 examples.
    let kept = 512 * 2 * 196 * (25 * 768 + 12 * 2 * 3072);
    assert_eq!(bytes(&one, "activations"), kept);
    let largest = one["largest_batch"].as_u64().unwrap();
    assert!(largest > 1500 && largest < 2100, "{largest}");
    let fits = largest.to_string();
    let at_most = ["--device", "cuda", "--precision", "bf16", "--batch-size", &fits];
    assert!(row(&at_most)["peak_bytes"].as_u64().unwrap() <= 80 << 30);

    let eight = row(&["--processes", "8", "--ema", "--optimizer", "sgd", "--memory", "80GiB"]);
    assert_eq!(eight["microbatch_size"], 64);
    assert_eq!([bytes(&eight, "moments"), bytes(&eight, "average")], [weights, weights]);
    let per_process = eight["largest_microbatch"].as_u64().unwrap();
    assert_eq!(eight["largest_batch"].as_u64().unwrap(), 8 * per_process);
    let halved = row(&["--first-moment-dtype", "bf16"]);
    assert_eq!(bytes(&halved, "moments"), weights / 2 * 3);
    let halved = row(&["--first-moment-dtype", "bf16", "--optimizer", "sgd"]);
    assert_eq!(bytes(&halved, "moments"), weights / 2);
    let summed = row(&["--microbatch-size", "32"]);
    assert_eq!(bytes(&summed, "gradients"), 2 * weights);

    let table = summary(&["--processes", "2", "--memory", "24GB"]).succeeds();
    assert!(table.contains("each of 2 processes") && table.contains("within 24GB"), "{table}");
    for (args, found) in [
        (&["--memory", "80"][..], "`80`"),
        (&["--memory", "manyGiB"], "`manyGiB`"),
        (&["--batch-size", "0"], "`--batch-size` is 0"),
        (&["--batch-size", "2000000"], "expected 1 to 1048576"),
        (&["--batch-size", "10", "--processes", "4"], "a multiple of the 4"),
        (&["--microbatch-size", "100"], "a divisor of 512"),
        (&["--microbatch-size", "0"], "a divisor of 512"),
        (&["--recompute-blocks", "13"], "the 12 blocks"),
    ] {
        let refused = summary(args);
        assert!(refused.stderr.starts_with("error: "), "{refused:?}");
        refused.fails(2, &[found]);
    }
}

#[test]
fn every_table_fits_a_terminal_of_80_columns() {
    let place = Workplace::with_run();
    let small = ["--batch-size", "2", "--steps", "1", "--warmup", "0", "--image-size", "32"];
    let small = [&["--model", "S/32"][..], &small].concat();
    let train = [&["bench", "train"][..], &small].concat();
    let products = [&["bench", "products"][..], &small].concat();
    for args in [
        &["summary"][..],
        &["summary", "--model", "H/14", "--num-classes", "21843", "--image-size", "448"],
        &["summary", "--memory", "80GiB", "--processes", "8"],
        &["devices"],
        &["weights", "inspect", "run"],
        &["data", "inspect", "data"],
        &["evaluate", "run"],
        &["bench", "data", "--data", "data", "--examples", "12"],
        &train,
        &products,
    ] {
        let text = place.mixer(args).succeeds();
        let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{args:?}: {long:#?}");
    }
}

#[test]
fn devices_lists_what_device_takes() {
    let place = Workplace::new();
    let listing = place.mixer(&["devices"]).succeeds();
    let names: Vec<&str> =
        listing.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"flex") && names.contains(&"ndarray"), "{listing}");
    assert_eq!(listing.matches("`auto` takes it").count(), 1, "{listing}");
    let rows = json(&place.mixer(&["devices", "--format", "json"]).succeeds());
    let rows = rows.as_array().unwrap();
    // The last lines are about vector instructions and several processes.
    assert_eq!(rows.len() + 2, names.len());
    assert_eq!(rows.iter().filter(|row| row["auto"] == true).count(), 1);
    assert!(rows.iter().any(|row| row["name"] == "flex" && row["refused"].is_null()));
    for name in ["auto", "cpu", "flex", "ndarray"] {
        let args = [
            "pretrain",
            "builtin.toml",
            "--run-dir",
            name,
            "--device",
            name,
            "--set",
            "train.steps=1",
        ];
        place.mixer(&args).succeeds();
    }
}

#[test]
fn configurations_are_checked_shown_and_described() {
    let place = Workplace::new();
    let checked = place.mixer(&["config", "check", "builtin.toml"]).succeeds();
    assert_eq!(checked, "builtin.toml: ok\n");
    let shown = place.mixer(&["config", "show", "builtin.toml"]).succeeds();
    let plan: toml::Table = shown.parse().unwrap();
    let same = place.mixer(&["config", "show", "builtin.toml", "--format", "json"]).succeeds();
    assert_eq!(json(&same), serde_json::to_value(&plan).unwrap());
    assert_eq!(plan["train"]["steps"].as_integer(), Some(6));
    let odd = place.mixer(&["config", "check", "builtin.toml", "--set", "train.batch_size=99"]);
    assert!(odd.stderr.contains("warning: `train.batch_size` is 99"), "{odd:?}");
    odd.succeeds();

    let schema = json(&place.mixer(&["config", "schema"]).succeeds());
    assert_eq!(schema["title"], "RunConfig");
    let sections = schema["$defs"].as_object().unwrap();
    let mut described = 0;
    for (name, section) in sections
        .iter()
        .filter(|(name, _)| name.ends_with("Config"))
        .chain([(&"top".into(), &schema)])
    {
        for (key, value) in section["properties"].as_object().unwrap() {
            assert!(value["description"].is_string(), "{name}.{key} is not described");
            described += 1;
        }
    }
    assert!(described > 50, "only {described} keys");
}

/// As many training and validation examples and classes as `--assume` is told of the data of a file.
fn assumed(file: &str) -> &'static str {
    if file.contains("jft") {
        "classes=18291,train=303000000,val=50000"
    } else if file.contains("imagenet21k") {
        "classes=21843,train=12700000,val=50000"
    } else if file.contains("imagenet1k") {
        "classes=1000,train=1281167,val=50000"
    } else {
        "classes=100,train=50000,val=10000"
    }
}

#[test]
fn every_shipped_configuration_is_shown_without_data_and_what_is_shown_is_one() {
    let place = Workplace::new();
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let values = |shown: &str| -> toml::Table { shown.parse().unwrap() };
    let mut shown = 0;
    for folder in ["pretrain", "finetune"] {
        for entry in std::fs::read_dir(configs.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let file = path.to_str().unwrap();
            let init = if folder == "finetune" { ",init=B/16@224" } else { "" };
            let assume = format!("{}{init}", assumed(file));
            let show = |file: &str| place.mixer(&["config", "show", file, "--assume", &assume]);
            let first = show(file).succeeds();
            place.write("shown.toml", &first);
            place.mixer(&["config", "check", "shown.toml", "--assume", &assume]).succeeds();
            assert_eq!(values(&show("shown.toml").succeeds()), values(&first), "{file}");
            shown += 1;
        }
    }
    assert!(shown > 20, "only {shown} configurations");
    place.mixer(&["config", "show", "builtin.toml", "--assume", "classes=2"]).fails(2, &["all of"]);
}

#[test]
fn a_shown_value_says_where_it_comes_from() {
    let place = Workplace::with_run();
    let child = "extends = \"../folder.toml\"\n[train]\nbatch_size = 2\n";
    place.write("configs/child.toml", child);
    let args = ["config", "show", "configs/child.toml", "--init", "run", "--set", "seed=3"];
    let shown = place.mixer(&args).succeeds();
    let origin = |key: &str| {
        let start = format!("{key} = ");
        let line = shown.lines().find(|line| line.starts_with(&start));
        line.unwrap_or_else(|| panic!("{key}: {shown}")).rsplit_once("  # ").unwrap().1.to_owned()
    };
    assert_eq!(origin("seed"), "--set");
    assert_eq!(origin("batch_size"), "configs/child.toml");
    assert_eq!(origin("steps"), "configs/../folder.toml");
    assert_eq!(origin("hidden_dim"), "configs/../folder.toml");
    assert_eq!(origin("mean"), "weights");
    assert_eq!(origin("head"), "weights and data");
    assert_eq!(origin("loss"), "default");
    place.write("shown.toml", &shown);
    place.mixer(&["config", "check", "shown.toml"]).succeeds();
}

#[test]
fn every_key_of_the_schema_is_a_key_of_the_configuration() {
    // The error about an unknown key lists the keys that are read.
    let place = Workplace::new();
    let schema = json(&place.mixer(&["config", "schema"]).succeeds());
    for section in ["model", "init", "data", "optimizer", "schedule", "train"] {
        let wrong = format!("{section}.zzz=1");
        let outcome = place.mixer(&["config", "check", "builtin.toml", "--set", &wrong]);
        let outcome = outcome.fails(3, &["unknown field `zzz`"]);
        let definition = schema["properties"][section]["$ref"].as_str().unwrap();
        let keys = schema.pointer(&definition[1..]).unwrap()["properties"].as_object().unwrap();
        for key in keys.keys() {
            assert!(outcome.stderr.contains(&format!("`{key}`")), "{section}.{key}: {outcome:?}");
        }
    }
}

// Data.

#[test]
fn synthesised_pictures_are_folders_that_can_be_inspected_and_trained_on() {
    let place = Workplace::new();
    place.write("folder.toml", common::FOLDER);
    let synthesise = ["data", "synthesise", "--out", "data", "--image-size", "20"];
    let small = ["--classes", "3", "--examples", "30", "--format", "png"];
    let told = place.mixer(&[&synthesise[..], &small].concat()).succeeds();
    assert_eq!(told, "train    30\nval      3\nclasses  3\n");
    let found = json(&place.mixer(&["data", "inspect", "data", "--format", "json"]).succeeds());
    assert_eq!(found["class_names"], serde_json::json!(["circle", "ring", "square"]));
    assert_eq!(found["class_counts"], serde_json::json!([10, 10, 10]));
    assert_eq!(found["formats"], serde_json::json!({ "PNG": 30 }));
    assert_eq!((found["width"]["max"].as_u64(), found["num_broken"].as_u64()), (Some(20), Some(0)));
    place.mixer(&["pretrain", "folder.toml", "--run-dir", "run"]).succeeds();
    // Class folders without splits are looked at as they are, and made shards of.
    let bare = place.mixer(&["data", "inspect", "data/train", "--format", "json"]).succeeds();
    assert_eq!(json(&bare)["num_examples"], 30);
    place.mixer(&["data", "shard", "data/train", "--out", "shards"]).succeeds();
    assert!(place.path("shards/train-000000.tar").exists());
    // What is there already is left alone.
    place.mixer(&synthesise).fails(2, &["the folder holds something already: data"]);
    assert_eq!(files(&place, "data").len(), 33);
}

#[test]
fn what_training_sees_is_drawn_and_no_file_is_written_over() {
    let place = Workplace::with_pictures();
    let grid = ["--pictures", "3", "--draws", "2", "--set", "data.repeats=2"];
    let sheet = ["data", "sheet", "folder.toml", "--out"];
    place.mixer(&[&sheet[..], &["sheet.png"], &grid].concat()).succeeds();
    let again = place.mixer(&[&sheet[..], &["sheet.png"], &grid].concat());
    again.fails(2, &["the file exists already: sheet.png"]);

    // The same again is the same picture, other data another one.
    place.mixer(&[&sheet[..], &["same.png"], &grid].concat()).succeeds();
    assert_eq!(place.read("same.png"), place.read("sheet.png"));
    place.pictures("other", &["blue", "red", "green"]);
    let other = ["other.png", "--set", "data.path=other", "--set", "data.train=val"];
    place.mixer(&[&sheet[..], &other, &grid].concat()).succeeds();
    assert_ne!(place.read("other.png"), place.read("sheet.png"));
    place.mixer(&["data", "inspect", "other", "--draws", "3"]).fails(2, &["--draws"]);
    place.mixer(&["data", "inspect"]).fails(2, &["DATA"]);
}

#[test]
fn completions_help_and_version_go_to_stdout() {
    let place = Workplace::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.mixer(&["completions", shell]).succeeds();
        assert!(script.contains("pretrain") && script.contains("mixer"), "{shell}");
        for word in ["ndarray", "B/16", "train.epochs="] {
            assert!(script.contains(word), "{word} in {shell}");
        }
    }
    assert!(place.mixer(&["--version"]).succeeds().starts_with("mixer "));
    let help = place.mixer(&["--help"]).succeeds();
    assert!(help.contains("Exit codes") && help.contains("finetune"), "{help}");
    for command in
        ["pretrain", "finetune", "evaluate", "predict", "bench", "summary", "weights", "config"]
    {
        let help = place.mixer(&[command, "--help"]).succeeds();
        assert!(help.contains("Usage: mixer"), "{help}");
    }
}

// Speed.

#[test]
fn bench_measures_the_products_of_a_training_step() {
    let place = Workplace::new();
    let args = ["bench", "products", "--model", "s/32", "--image-size", "64"];
    let args = [&args[..], &["--batch-size", "2", "--steps", "1", "--warmup", "0"]].concat();
    let args = [&args[..], &["--device", "cpu"]].concat();
    let found = json(&place.mixer(&[&args[..], &["--format", "json"]].concat()).succeeds());
    let rows = found.as_array().unwrap();
    // Three of each of a block's four layers, and a square one.
    assert_eq!(rows.len(), 13);
    let first = &rows[0];
    assert_eq!((&first["mode"], &first["name"]), (&"products".into(), &"channel 1".into()));
    assert_eq!(
        [8, 2048, 512, 1].map(Value::from),
        ["m", "n", "k", "count"].map(|k| first[k].clone())
    );
    for row in rows {
        assert!(
            row["burn_gflops"].as_f64().unwrap() > 0.0 && row["cublaslt_ms"].is_null(),
            "{row}"
        );
    }
    let table = place.mixer(&args).succeeds();
    assert!(table.contains("token 2 dW"), "{table}");
    let outcome = place.mixer(&[&args[..], &["--profile"]].concat());
    outcome.fails(2, &["--profile"]);
}

#[test]
fn bench_measures_training_and_inference() {
    let place = Workplace::new();
    for mode in ["train", "infer"] {
        let args = ["bench", mode, "--model", "s/32", "--image-size", "32", "--batch-size", "2"];
        let more = ["--steps", "2", "--threads", "1", "--device", "cpu"];
        let found =
            json(&place.mixer(&[&args[..], &more, &["--format", "json"]].concat()).succeeds());
        let [row] = found.as_array().unwrap().as_slice() else { panic!("{found}") };
        assert_eq!(row["mode"], mode);
        assert_eq!(row["threads"], 1);
        assert_eq!(row["steps"], 2);
        for key in ["step_ms", "images_per_sec", "gflops", "fma_peak_gflops", "share_of_peak"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key}: {row}");
        }
        let share = row["gflops"].as_f64().unwrap() / row["fma_peak_gflops"].as_f64().unwrap();
        assert!((share - row["share_of_peak"].as_f64().unwrap()).abs() < 1e-9);
    }
}

#[test]
fn bench_measures_the_stages_of_data() {
    let place = Workplace::with_pictures();
    for (arguments, decodes) in [
        (&["--config", "builtin.toml", "--examples", "50"][..], false),
        (&["--data", "data", "--image-size", "16", "--batch-size", "8", "--epochs", "5"], true),
    ] {
        let command = ["bench", "data", "--workers", "1", "--format", "json"];
        let found = json(&place.mixer(&[&command[..], arguments].concat()).succeeds());
        assert_eq!(found["mode"], "data");
        assert_eq!((&found["workers"], &found["batch_size"]), (&json("1"), &json("8")));
        assert!((50..70).contains(&found["examples"].as_u64().unwrap()), "{found}");
        assert_eq!(found["skipped"], 0);
        for key in ["seconds", "cpu_seconds", "images_per_sec", "images_per_cpu_sec"] {
            assert!(found[key].as_f64().unwrap() > 0.0, "{key}: {found}");
        }
        assert!(found["limit"]["by"].is_string(), "{found}");
        let stages = found["stages"].as_array().unwrap();
        let names: Vec<_> = stages.iter().map(|row| row["stage"].as_str().unwrap()).collect();
        assert_eq!(names, ["read", "decode", "resize", "augment", "patchify"]);
        let shares: f64 = stages.iter().map(|row| row["share"].as_f64().unwrap()).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{found}");
        for row in stages {
            let works = row["cpu_ms"].as_f64().unwrap() > 0.0;
            assert_eq!(works, decodes || row["stage"] != "decode", "{row}");
        }
    }
    let table = place.mixer(&["bench", "data", "--config", "builtin.toml"]).succeeds();
    assert!(table.contains("limited by") && table.contains("patchify"), "{table}");
}

#[test]
fn a_benchmark_takes_its_own_options_and_no_others() {
    let place = Workplace::with_pictures();
    let bench = |args: &[&str]| place.mixer(&[&["bench"], args].concat());
    bench(&["data"]).fails(2, &["--data"]);
    bench(&["data", "--data", "data", "--steps", "3"]).fails(2, &["--steps"]);
    bench(&["infer", "--data", "data"]).fails(2, &["--data"]);
    bench(&["infer", "--recompute-blocks", "1"]).fails(2, &["--recompute-blocks"]);
    bench(&["train", "--recompute-blocks", "9"]).fails(2, &["is 9", "the 8 blocks"]);
    let resnet = ["train", "--model", "BiT-R50x1", "--recompute-blocks", "1"];
    bench(&resnet).fails(2, &["--recompute-blocks", "no effect"]);
    bench(&["data", "--config", "builtin.toml", "--set", "data.crop=7"]).fails(3, &["data.crop"]);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let place = Workplace::with_run();
    let predict = |threads: &str| {
        let args = ["predict", "run", "data/val/red", "--format", "json", "--logits"];
        place.mixer(&[&args[..], &["--threads", threads]].concat()).succeeds()
    };
    assert_eq!(predict("1"), predict("3"));
}

#[test]
fn no_threads_at_all_is_a_usage_error() {
    Workplace::new().mixer(&["devices", "--threads", "0"]).fails(2, &["--threads", "0"]);
}

/// A set of vector instructions that is no name, or that no processor of this architecture has.
#[test]
fn unknown_or_missing_vector_instructions_are_refused() {
    let of = |value: &str, args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mixer"))
            .args(args)
            .env("MIXER_SIMD", value)
            .output()
            .unwrap();
        let said = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let missing = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    for args in [&["devices"][..], &["summary", "--model", "S/32"], &["pretrain", "none.toml"]] {
        let (code, said) = of("AVX2", args);
        assert_eq!(code, Some(2), "{said}");
        let expected = "error: environment variable MIXER_SIMD is `AVX2`, which names no vector \
                        instructions; expected one of those that this processor has: `";
        assert!(said.starts_with(expected), "{said}");
        assert!(said.contains("`portable`\nhint: `unset MIXER_SIMD` takes the best"), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");

        let (code, said) = of(missing, args);
        assert_eq!(code, Some(7), "{said}");
        let expected =
            format!("MIXER_SIMD is `{missing}`, which this processor has not got; it has `");
        assert!(said.contains(&expected), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
    }
    for (value, expected) in [("portable", "portable\n"), ("", "")] {
        let (code, said) = of(value, &["devices"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("\nvector instructions: {expected}")), "{said}");
    }
}

/// Processes that a launcher has started, and that do not know of each other, would each do the whole work.
#[test]
fn silent_singletons_are_refused() {
    let place = Workplace::new();
    let of = |variable: &str, args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mixer"))
            .args(args)
            .env(variable, "4")
            .current_dir(place.path("."))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let pretrain = ["pretrain", "builtin.toml", "--run-dir", "run"];
    let (code, said) = of("WORLD_SIZE", &pretrain);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`torchrun` has started 4 processes (`WORLD_SIZE=4`)"), "{said}");
    assert!(said.contains("hint: start it with `mpirun` or `srun`"), "{said}");
    assert!(!place.path("run").exists());
    let (code, said) = of("SLURM_STEP_NUM_TASKS", &["devices"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("this command runs in one process, `srun` has started 4"), "{said}");
    // It means nothing to a command that has one process anyway.
    assert_eq!(of("WORLD_SIZE", &["devices"]).0, Some(0));
}
