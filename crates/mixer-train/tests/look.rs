//! Looking inside: evaluation in depth, probe, features, pictures, reports, event files, ONNX.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::Workplace;
use serde_json::Value;

const USAGE: i32 = 2;
const CONFIG: i32 = 3;
const DATA: i32 = 4;
const WEIGHTS: i32 = 5;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn details_agree_with_the_plain_evaluation_and_no_batch_changes_a_digit() {
    let place = Workplace::with_run();
    let plain = json(&place.mixer(&["evaluate", "run", "--format", "json"]).succeeds());
    let details = |more: &[&str]| {
        let args = [&["evaluate", "run", "--details", "--format", "json"], more].concat();
        place.mixer(&args).succeeds()
    };
    let text = details(&[]);
    for more in [&["--batch-size", "1"][..], &["--batch-size", "4", "--threads", "1"]] {
        assert_eq!(details(more), text, "{more:?}");
    }
    let found = json(&text);
    assert_eq!(found["n"], 6);
    assert_eq!(found["top1"], plain["top1"]);
    let (loss, wanted) = (found["loss"].as_f64().unwrap(), plain["loss"].as_f64().unwrap());
    assert!((loss - wanted).abs() < 1e-5, "{loss} {wanted}");
    assert_eq!(found["classes"], serde_json::json!(["blue", "red"]));
    let confusion = found["confusion"].as_array().unwrap();
    let sum =
        |row: &Value| row.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!([sum(&confusion[0]), sum(&confusion[1])], [3, 3], "rows are truth");
    assert!(found["ece"].as_f64().unwrap() <= found["mce"].as_f64().unwrap());
    let table = place.mixer(&["evaluate", "run", "--details"]).succeeds();
    assert!(table.contains("ECE, 15 bins") && table.contains(" ± "), "{table}");
    assert!(!table.contains("top-5") && table.lines().all(|line| line.chars().count() <= 80));
    // Kept for reports.
    assert_eq!(json(&place.text("run/evaluation.json"))["measures"]["n"], 6);
}

#[test]
fn every_picture_has_a_row_and_mistakes_are_drawn() {
    let place = Workplace::with_run();
    let args = ["evaluate", "run", "--predictions", "rows.csv", "--wrong", "wrong.png", "--flip"];
    place.mixer(&args).succeeds();
    let rows = place.text("rows.csv");
    let lines: Vec<Vec<&str>> = rows.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 7, "{rows}");
    assert_eq!(lines[0].len(), 9);
    for line in &lines[1..] {
        assert!(line[0].contains("data/val/") && ["blue", "red"].contains(&line[2]), "{rows}");
        let (shown, loss): (f64, f64) = (line[6].parse().unwrap(), line[8].parse().unwrap());
        assert!(((-loss).exp() - shown).abs() < 1e-5, "{rows}");
        assert_eq!(line[7] == "1", line[1] == line[3], "rank 1 is right: {rows}");
    }
    assert!(place.read("wrong.png").starts_with(b"\x89PNG"));
    for (flag, path) in [("--predictions", "rows.csv"), ("--wrong", "wrong.png")] {
        place.mixer(&["evaluate", "run", flag, path]).fails(USAGE, &["exists already", path]);
    }
    place.mixer(&["evaluate", "run", "--wrong", "x.jpg"]).fails(USAGE, &["`.png`", "x.jpg"]);
}

#[test]
fn other_test_sets_have_their_labels() {
    let place = Workplace::with_run();
    // The folders are numbers of outputs: 0 is blue, 1 is red.
    place.pictures("numbered", &["0", "1"]);
    for (class, colour) in [("0", "blue"), ("1", "red")] {
        for i in 0..3 {
            let path = format!("numbered/val/{class}/{i}.bmp");
            place.write(&path, common::plain_bmp(colour));
        }
    }
    let evaluate = |more: &[&str]| {
        let args = [&["evaluate", "run", "--format", "json"], more].concat();
        place.mixer(&args)
    };
    let by_name = json(&evaluate(&[]).succeeds());
    let by_index = json(&evaluate(&["--data", "numbered", "--labels", "index"]).succeeds());
    assert_eq!(by_index["top1"], by_name["top1"]);
    place.pictures("wrong", &["0", "7"]);
    evaluate(&["--data", "wrong", "--labels", "index"]).fails(DATA, &["`7`", "0 to 1"]);

    // One class alone: nothing else is compared, so that it is always right.
    for i in 0..3 {
        place.write(
            &format!("one/val/red/ILSVRC2012_val_0000000{}.bmp", i + 1),
            common::plain_bmp("red"),
        );
    }
    let present = json(&evaluate(&["--data", "one", "--classes", "present"]).succeeds());
    assert_eq!((&present["top1"], &present["classes"]), (&1.0.into(), &serde_json::json!(["red"])));

    // The second picture has no label, the third one has another.
    place.write("real.json", "[[1], [], [0]]");
    let real = json(&evaluate(&["--data", "one", "--real", "real.json"]).succeeds());
    assert_eq!(real["real"]["n"], 2);
    let top1 = real["real"]["top1"].as_f64().unwrap();
    assert_eq!(top1, 0.5, "{real}");
    for (text, words) in [
        ("[[1]]", &["1 pictures have labels", "number 2"][..]),
        ("[]", &["0 pictures have labels", "number 1"]),
        ("{}", &["not a list of lists"]),
        ("[[1], 2]", &["not a list of lists"]),
        ("[[-1]]", &["not a list of lists", "-1"]),
        ("labels", &["not a list of lists"]),
        ("[[1], [0, 2], []]", &["picture 2 has the label 2", "outputs 0 to 1"]),
        ("[[], [], []]", &["no picture has a label"]),
    ] {
        place.write("bad.json", text);
        let args = ["--data", "one", "--real", "bad.json", "--predictions", "half.csv"];
        evaluate(&args).fails(DATA, &[words, &["bad.json"]].concat());
        assert!(!place.path("half.csv").exists(), "nothing half written: {text}");
    }
    place.write("bad.json", b"[[1], [\xff]]");
    evaluate(&["--data", "one", "--real", "bad.json"]).fails(DATA, &["not a list of lists"]);
    evaluate(&["--data", "one", "--real", "none.json"]).fails(DATA, &["none.json"]);
    evaluate(&["--data", "one", "--real", "one"]).fails(DATA, &["`one`"]);
    evaluate(&["--real", "real.json"])
        .fails(DATA, &["no picture of ImageNet's", "data/val/blue/0.bmp"])
        .hints("by their names");
}

#[test]
fn a_temperature_is_kept_with_the_weights_and_changes_confidence_alone() {
    let place = Workplace::with_run();
    let args = ["evaluate", "run", "--calibrate", "cool.safetensors"];
    assert!(place.mixer(&args).succeeds().contains("top-1"));
    let loss = |weights: &str| {
        let args = ["evaluate", weights, "--data", "data", "--details", "--format", "json"];
        let found = json(&place.mixer(&args).succeeds());
        (found["loss"].as_f64().unwrap(), found["top1"].clone())
    };
    let (before, after) = (loss("run/best.safetensors"), loss("cool.safetensors"));
    assert!(after.0 <= before.0 && after.1 == before.1, "{before:?} {after:?}");
    let probability = |weights: &str| {
        let args = ["predict", weights, "data/val/red/0.bmp", "--format", "json"];
        json(&place.mixer(&args).succeeds())[0]["predictions"][0]["probability"].clone()
    };
    assert_ne!(probability("cool.safetensors"), probability("run"));
    // It goes with the weights.
    for (weights, is_known) in [("cool.safetensors", true), ("run", false)] {
        let (model, folder) = (format!("{is_known}.onnx"), format!("{is_known}"));
        place.mixer(&["weights", "export", weights, &model, "--to", "onnx"]).succeeds();
        place.mixer(&["weights", "export", weights, &folder, "--to", "timm"]).succeeds();
        let bytes = place.read(&model);
        assert_eq!(bytes.windows(11).any(|part| part == b"temperature"), is_known);
        let card = place.text(&format!("{folder}/README.md"));
        assert_eq!(card.contains("temperature: `mixer` divides"), is_known, "{card}");
    }
}

#[test]
fn the_probe_and_features_are_the_same_for_any_batch() {
    let place = Workplace::with_run();
    let probe = |more: &[&str]| {
        let train = ["probe", "run", "--train", "data/train", "--test", "data/val"];
        place.mixer(&[&train[..], more].concat())
    };
    let args = ["--shots", "1,5", "--seeds", "2", "--knn", "3", "--format", "json"];
    let text = probe(&args).succeeds();
    assert_eq!(probe(&[&args[..], &["--batch-size", "1"]].concat()).succeeds(), text);
    let found = json(&text);
    let shots: Vec<_> =
        found.as_array().unwrap().iter().map(|entry| entry["shots"].as_u64()).collect();
    assert_eq!(shots, [Some(1), Some(1), Some(5), Some(5), None]);
    assert_eq!((&found[0]["seed"], &found[0]["l2"]), (&0.into(), &1024.0.into()));
    assert_eq!(found[4]["knn"], 3);
    // Two colours are no task.
    assert_eq!(found[2]["accuracy"], 1.0);
    let outcome = probe(&["--shots", "25"]);
    assert!(outcome.stderr.contains("2 of 2 classes have fewer than 25"), "{outcome:?}");
    let outcome = probe(&["--shots", "1", "--knn", "13"]);
    assert!(outcome.stderr.contains("`--knn` is 13, more than the 12 examples"), "{outcome:?}");
    place.pictures("more", &["blue", "green", "red"]);
    place.pictures("one", &["red"]);
    for (train, test, words) in [
        ("more/train", "data/val", &["1 of 3 classes", "`green`", "data/val"][..]),
        ("data/train", "more/val", &["`green`", "the 2 known classes"]),
        ("one/train", "one/val", &["`red` alone", "at least two", "one/train"]),
        ("data/train", "nowhere", &["nowhere"]),
        ("data", "data/val", &["data"]),
    ] {
        place.mixer(&["probe", "run", "--train", train, "--test", test]).fails(DATA, words);
    }

    place.mixer(&["features", "run", "data/val", "--out", "f.npy"]).succeeds();
    let (array, table) = (place.read("f.npy"), place.text("f.csv"));
    assert!(array.starts_with(b"\x93NUMPY\x01\x00") && table.starts_with("path,label,class\n"));
    assert_eq!(table.lines().count(), 7);
    let header = String::from_utf8_lossy(&array[..128]).into_owned();
    let width = header.split("(6, ").nth(1).unwrap().split(')').next().unwrap();
    assert_eq!(array.len(), 128 + 6 * 4 * width.parse::<usize>().unwrap(), "{header}");
    place.mixer(&["features", "run", "data/val", "--out", "f.npy"]).fails(USAGE, &["f.npy"]);
    place.mixer(&["features", "run", "data/val", "--out", "f.txt"]).fails(USAGE, &["`.npy`"]);
}

#[test]
fn pictures_of_weights_and_of_a_prediction_are_drawn() {
    let place = Workplace::with_run();
    let picture = "data/val/red/0.bmp";
    place.mixer(&["visualise", "run", "--out", "v", "--pictures", picture]).succeeds();
    for file in ["token_mixing_0.png", "embedding.png", "picture_0.png"] {
        assert!(place.read(&format!("v/{file}")).starts_with(b"\x89PNG"), "{file}");
    }
    let page = place.text("v/index.html");
    assert!(page.contains("default-src 'none'") && page.contains(picture), "{page}");
    // Integrated gradients add up to what the picture has above the baseline.
    let number = |before: &str| -> f64 {
        let text = page.split(before).nth(1).unwrap();
        let end = text.find(|c: char| !"-.0123456789".contains(c)).unwrap();
        text[..end].trim_end_matches('.').parse().unwrap()
    };
    let sum = number("their sum: ");
    let gap = page.split("logit ").nth(1).unwrap().split(", ").nth(1).unwrap();
    let gap: f64 = gap.split(' ').next().unwrap().parse().unwrap();
    assert!((sum - gap).abs() <= 0.01 * gap.abs() + 0.001, "{sum} {gap}");
    place.mixer(&["visualise", "run", "--out", "v"]).fails(USAGE, &["exists already"]);
    let args = ["visualise", "run", "--out", "w", "--pictures", picture, "--class", "mauve"];
    place.mixer(&args).fails(USAGE, &["`--class mauve`"]).hints("2 classes");
    assert!(!place.path("w").exists(), "nothing half written");
}

#[test]
fn a_report_opens_from_disk_and_no_name_ends_it() {
    let place = Workplace::with_pictures();
    place.pictures("data", &["<script>"]);
    place.mixer(&["pretrain", "folder.toml", "--run-dir", "runs/a"]).succeeds();
    place.mixer(&["pretrain", "folder.toml", "--run-dir", "runs/b", "--set", "seed=7"]).succeeds();
    place.write("runs/a/notes.md", "hello </script> world");
    place.mixer(&["evaluate", "runs/a", "--details"]).succeeds();
    place.mixer(&["report", "runs/a", "runs/b", "--out", "r.html"]).succeeds();
    let page = place.text("r.html");
    assert!(page.contains("Content-Security-Policy") && page.contains("default-src 'none'"));
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "no network");
    assert_eq!(page.matches("</script>").count(), 2, "the data ends no element");
    let data = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    let data = json(data);
    assert_eq!(data["runs"][0]["notes"], "hello </script> world");
    assert_eq!(data["differences"][0]["key"], "seed");
    assert_eq!(data["differences"][0]["values"], serde_json::json!(["0", "7"]));
    assert!(data["runs"][0]["evaluation"]["confusion"].is_array());
    assert!(data["runs"][1]["evaluation"].is_null());
    let charts = data["charts"].as_array().unwrap();
    assert!(charts.iter().any(|chart| chart["name"] == "val/top1"));
    let bins = data["runs"][0]["evaluation"]["calibration"].as_array().unwrap();
    let n: u64 = bins.iter().map(|bin| bin["n"].as_u64().unwrap()).sum();
    assert_eq!(n, 9, "every picture is in one bin");
    assert_eq!(data["figures"], serde_json::json!([]));

    // Accuracy against cost, with runs and without.
    let figures = |args: &[&str]| {
        let args = [&["report", "--figure", "pareto", "--out", "p.html"], args].concat();
        place.mixer(&args).succeeds();
        let page = place.text("p.html");
        let data = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
        json(data)["figures"].as_array().unwrap().clone()
    };
    let found = figures(&["runs/a", "runs/b"]);
    assert_eq!(found.len(), 4);
    assert_eq!(found[0]["points"].as_array().unwrap().len(), 2);
    // Six updates of four pictures, six operations for each product.
    let summary: Vec<f64> = found[0]["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["x"].as_f64().unwrap())
        .collect();
    let macs = 4 * 48 * 8 + 2 * (2 * 4 * 4 * 8 + 2 * 4 * 8 * 32) + 8 * 3;
    let expected = f64::from(6 * 4 * 6 * macs) / 1e9;
    assert!(summary.iter().all(|x| (x / expected - 1.0).abs() < 1e-9), "{summary:?} {expected}");
    assert_eq!(figures(&[]).len(), 2);
    // Against the size of the training set, where runs differ in it.
    let half = ["--run-dir", "half", "--set", "data.train_fraction=0.5"];
    place.mixer(&[&["pretrain", "folder.toml"], &half[..]].concat()).succeeds();
    let found = figures(&["runs/a", "half"]);
    assert_eq!((found.len(), &found[2]["joins"]), (5, &"group".into()), "{found:?}");
    let examples = |i: usize| found[2]["points"][i]["x"].as_f64().unwrap();
    assert_eq!(examples(0), 2.0 * examples(1));
    assert_eq!(found[2]["points"][0]["group"], found[2]["points"][1]["group"]);
    place.mixer(&["report"]).fails(USAGE, &["RUN"]);
    place.mixer(&["report", "runs/a", "--figure", "pie"]).fails(USAGE, &["pareto"]);

    let runs = place.mixer(&["runs", "runs"]).succeeds();
    assert!(runs.contains("runs/a\n  done, step") && runs.contains("seed = 7"), "{runs}");
    let list = json(&place.mixer(&["runs", "runs", "--format", "json"]).succeeds());
    assert_eq!((&list[1]["state"], &list[1]["differs"]["seed"]), (&"done".into(), &"7".into()));
    // A run that was stopped before its first line of metrics has come as far as its checkpoint.
    place.write("runs/b/metrics.jsonl", "");
    let list = json(&place.mixer(&["runs", "runs", "--format", "json"]).succeeds());
    assert_eq!((&list[1]["step"], &list[1]["last"]), (&6.into(), &Value::Null));

    let csv = place.mixer(&["report", "runs/a", "--csv", "m.csv"]).succeeds();
    assert!(csv.contains("m.csv"));
    let table = place.text("m.csv");
    let columns = table.lines().next().unwrap().split(',').count();
    assert!(table.starts_with("step,") && table.contains("train/loss,"), "{table}");
    assert!(table.lines().count() > 1, "{table}");
    assert!(table.lines().all(|line| line.split(',').count() == columns), "{table}");
}

#[test]
fn a_run_that_is_not_whole_is_reported_as_far_as_it_goes_or_refused_in_a_line() {
    let place = Workplace::with_run();
    let metrics = place.text("run/metrics.jsonl");
    let report = || place.mixer(&["report", "run", "--out", "r.html"]);
    let runs = || place.mixer(&["runs", "."]);

    // Cut off in a line, and in a letter.
    let last = metrics.trim_end().lines().next_back().unwrap();
    for cut in [&b"{\"kind\":\"eval\",\"step\":6"[..], b"{\"kind\":\"skipped\",\"reason\":\"\xc3"] {
        let whole = &metrics[..metrics.len() - last.len() - 1];
        place.write("run/metrics.jsonl", [whole.as_bytes(), cut].concat());
        let outcome = report();
        assert!(outcome.stderr.contains("the last line of the metrics is cut off"), "{outcome:?}");
        outcome.succeeds();
        let page = place.text("r.html");
        assert!(page.contains("Content-Security-Policy"));
        assert!(runs().succeeds().contains("run\n  done, step "), "{cut:?}");
    }
    place.write("run/metrics.jsonl", format!("{{\"kind\":\n{metrics}"));
    fs::remove_file(place.path("r.html")).unwrap();
    report().fails(WEIGHTS, &["cannot read the metrics", "line 1", "run/metrics.jsonl"]);
    assert!(!place.path("r.html").exists(), "nothing half written");
    let listed = runs();
    assert!(listed.stderr.contains("warning: cannot read the metrics: line 1"), "{listed:?}");
    assert!(listed.succeeds().starts_with("no runs"));

    // None yet, and none of a finished run.
    fs::remove_file(place.path("run/metrics.jsonl")).unwrap();
    let outcome = report();
    assert!(outcome.stderr.contains("there are no metrics yet: run"), "{outcome:?}");
    outcome.succeeds();
    assert!(runs().succeeds().contains("no metrics"));
    place.write("run/metrics.jsonl", &metrics);

    // Another process trains it.
    let lock = fs::File::open(place.path("run/run.lock")).unwrap();
    lock.lock().unwrap();
    let outcome = report();
    assert!(outcome.stderr.contains("still running, at step 6 of 6: run"), "{outcome:?}");
    outcome.succeeds();
    assert!(runs().succeeds().contains("run\n  running, step 6 of 6"));
    drop(lock);

    // What is kept beside the metrics.
    place.write("run/environment.json", "{");
    report().succeeds();
    place.write("run/evaluation.json", "{");
    report().fails(WEIGHTS, &["cannot read the evaluation", "run/evaluation.json"]);
    fs::remove_file(place.path("run/evaluation.json")).unwrap();

    let plan = place.text("run/plan.toml");
    for (text, words) in [
        (plan.replace("format = 2\n", "format = 3\n"), "its format is 3, expected 2"),
        (plan.replace("seed = ", "sead = "), "`plan.toml` cannot be read"),
        (String::new(), "`plan.toml` cannot be read"),
    ] {
        place.write("run/plan.toml", text);
        report().fails(CONFIG, &[words, "run"]);
        assert!(runs().stderr.contains(words), "{words}");
    }
    place.write("file", "");
    for (path, words) in [
        ("nowhere", "no such run directory"),
        ("file", "this is a file, expected a run directory"),
        ("data", "the directory holds no run"),
    ] {
        place.mixer(&["report", path]).fails(CONFIG, &[words, path]).hints("mixer runs");
    }
    place.mixer(&["runs", "file"]).fails(USAGE, &["this is a file", "file"]);
    place.mixer(&["runs", "nowhere"]).fails(USAGE, &["no such folder", "nowhere"]);
}

#[test]
fn a_path_that_cannot_be_written_to_is_refused_before_the_work() {
    let place = Workplace::with_run();
    place.write("file", "");
    for folder in ["folder.csv", "folder.png", "folder.npy", "folder.safetensors", "folder.onnx"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    let evaluate = |option| vec!["evaluate", "run", option];
    for (command, ending) in [
        (vec!["report", "run", "--out"], "html"),
        (vec!["report", "run", "--csv"], "csv"),
        (evaluate("--predictions"), "csv"),
        (evaluate("--wrong"), "png"),
        (evaluate("--calibrate"), "safetensors"),
        (vec!["features", "run", "data/val", "--out"], "npy"),
        (vec!["weights", "convert", "run", "--out"], "safetensors"),
        (vec!["weights", "export", "run", "--to", "onnx", "--out"], "onnx"),
        (vec!["data", "sheet", "folder.toml", "--out"], "png"),
    ] {
        for (path, words) in [
            (format!("missing/x.{ending}"), "the folder to write into is missing: missing"),
            (format!("file/x.{ending}"), "this is a file, expected a folder: file"),
            (format!("data/x.{ending}/"), "this is a folder, expected the name of a file"),
        ] {
            let outcome = place.mixer(&[&command[..], &[&path]].concat());
            let outcome = outcome.fails(USAGE, &[words]);
            assert!(!outcome.stderr.contains("example"), "before the work: {outcome:?}");
        }
        if ending != "html" {
            place
                .mixer(&[&command[..], &[&format!("folder.{ending}")]].concat())
                .fails(USAGE, &["folder"]);
        }
        assert!(!place.path("missing").exists());
    }
    // What the system refuses, it refuses before the work too.
    let long = format!("{}.csv", "x".repeat(300));
    for command in [vec!["report", "run", "--csv"], evaluate("--predictions")] {
        let outcome = place.mixer(&[&command[..], &[&long]].concat());
        let outcome = outcome.fails(WEIGHTS, &["nothing can be written there", "(os error "]);
        assert!(!outcome.stderr.contains("example"), "before the work: {outcome:?}");
    }
    for command in [
        vec!["report", "run", "--tensorboard"],
        vec!["visualise", "run", "--out"],
        vec!["weights", "export", "run", "--to", "timm", "--out"],
    ] {
        for (path, words) in [
            ("file", "the file exists already: file"),
            ("data", "the folder exists already: data"),
            ("file/deep/er", "this is a file, expected a folder: file"),
        ] {
            place.mixer(&[&command[..], &[path]].concat()).fails(USAGE, &[words]);
        }
        // Folders are made.
        let path = format!("made/{}/here", command[0]);
        place.mixer(&[&command[..], &[&path]].concat()).succeeds();
        assert!(place.path(path).is_dir());
    }
    // Nothing of a trial is left.
    let names = fs::read_dir(place.path(".")).unwrap();
    let hidden = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().starts_with('.')
    };
    assert!(!names.into_iter().any(hidden));
}

#[test]
fn weights_without_a_square_grid_are_refused_by_everything_that_looks_at_them() {
    let place = Workplace::with_run();
    // Six tokens in the place of four.
    let six = |name: &str, shape: &[usize]| -> Vec<usize> {
        let tokens = if name.contains("fc2") { 0 } else { 1 };
        let is_mixing = name.contains("mlp_tokens") && !name.ends_with("fc1.bias");
        shape
            .iter()
            .enumerate()
            .map(|(i, n)| if is_mixing && i == tokens { 6 } else { *n })
            .collect()
    };
    let info = json(&place.mixer(&["weights", "inspect", "run", "--format", "json"]).succeeds());
    let tensors: Vec<(String, Vec<usize>)> = info["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tensor| {
            let name = tensor["name"].as_str().unwrap().to_owned();
            let shape = tensor["shape"].as_array().unwrap();
            let shape: Vec<usize> = shape.iter().map(|n| n.as_u64().unwrap() as usize).collect();
            (name.clone(), six(&name, &shape))
        })
        .collect();
    let tensors: Vec<(&str, &[usize])> =
        tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    place.write("six.safetensors", common::safetensors(&tensors));
    for args in [
        &["visualise", "six.safetensors", "--out", "v"][..],
        &["probe", "six.safetensors", "--train", "data/train", "--test", "data/val"],
        &["features", "six.safetensors", "data/val", "--out", "f.npy"],
        &["weights", "export", "six.safetensors", "m.onnx", "--to", "onnx"],
    ] {
        place
            .mixer(args)
            .fails(WEIGHTS, &["6 tokens do not form a square grid", "six.safetensors"]);
    }
    for file in ["v", "f.npy", "m.onnx"] {
        assert!(!place.path(file).exists(), "nothing half written: {file}");
    }
}

#[test]
fn every_run_writes_event_files_and_they_can_be_written_again() {
    let place = Workplace::with_run();
    let files = || -> Vec<_> {
        let folder = fs::read_dir(place.path("run/tensorboard")).unwrap();
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let [name] = files().try_into().unwrap();
    assert!(name.starts_with("events.out.tfevents."), "{name}");
    let bytes = place.read(&format!("run/tensorboard/{name}"));
    let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    let tags = ["brain.Event:2", "train/loss", "val/top1", "hparams", "optimizer.learning_rate"];
    for tag in tags {
        assert!(has(&bytes, tag), "{tag}");
    }
    assert!(has(&bytes, "weights/token_mixing_0") && has(&bytes, "PNG\r\n"));
    place.mixer(&["report", "run", "--tensorboard", "again"]).succeeds();
    let again = fs::read_dir(place.path("again/run")).unwrap().next().unwrap().unwrap();
    let again = fs::read(again.path()).unwrap();
    tags.iter().for_each(|tag| assert!(has(&again, tag), "{tag}"));
    place.mixer(&["report", "run", "--tensorboard", "again"]).fails(USAGE, &["exists already"]);
}

#[test]
fn a_model_card_tells_preparation_results_and_origin() {
    let place = Workplace::with_run();
    let card = |weights: &str, out: &str, more: &[&str]| {
        let args = [&["weights", "export", weights, out, "--to", "timm"], more].concat();
        let outcome = place.mixer(&args);
        outcome.succeeds();
        place.text(&format!("{out}/README.md"))
    };
    let best = card("run", "best", &[]);
    let runs = json(&place.mixer(&["runs", ".", "--format", "json"]).succeeds());
    let (top1, loss) = (&runs[0]["best"]["top1"], &runs[0]["best"]["loss"]);
    let line = best.lines().find(|line| line.starts_with("| `val` | 6 | ")).unwrap();
    let shown = format!("{:.1} ± ", 100.0 * top1.as_f64().unwrap());
    assert!(line.contains(&shown), "{line} {shown}");
    assert!(line.ends_with(&format!("| {:.4} |", loss.as_f64().unwrap())), "{line} {loss}");
    assert!(best.contains("resized to 8 ÷ 0.875 px") && best.contains("- run: `run`"), "{best}");
    assert!(best.contains("learning_rate = 0.01"), "{best}");
    let hash = best.split("`model.safetensors`: `").nth(1).unwrap().split('`').next().unwrap();
    assert_eq!(hash, sha256(&place.read("best/model.safetensors")));

    // Nothing is claimed of weights that were not evaluated: others than the run's, or computed otherwise.
    place.write("alone.safetensors", place.read("run/best.safetensors"));
    for (weights, out, more) in
        [("alone.safetensors", "alone", &[][..]), ("run", "erf", &["--gelu", "erf"])]
    {
        let card = card(weights, out, more);
        assert!(card.contains("None are known") && !card.contains("| `val`"), "{card}");
    }
    place.write("run/metrics.jsonl", "nonsense\n");
    let export = place.mixer(&["weights", "export", "run", "damaged", "--to", "timm"]);
    assert!(export.stderr.contains("note: the card has no results"), "{export:?}");
    export.succeeds();
    assert!(place.text("damaged/README.md").contains("None are known"));
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_onnx_model_has_the_shapes_and_the_metadata() {
    let place = Workplace::with_run();
    place.mixer(&["weights", "export", "run", "m.onnx", "--to", "onnx"]).succeeds();
    place
        .mixer(&["weights", "export", "run", "--out", "p.onnx", "--to", "onnx", "--pixels"])
        .succeeds();
    let (model, pixels) = (place.read("m.onnx"), place.read("p.onnx"));
    let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    for text in ["Conv", "LayerNormalization", "Gemm", "images", "logits", "[\"blue\",\"red\"]"] {
        assert!(has(&model, text) && has(&pixels, text), "{text}");
    }
    assert!(has(&pixels, "input.scale") && !has(&model, "input.scale"));
    place.mixer(&["weights", "export", "run", "m.onnx", "--to", "onnx"]).fails(USAGE, &["m.onnx"]);
    place
        .mixer(&["weights", "export", "run", "t", "--to", "timm", "--pixels"])
        .fails(USAGE, &["`--pixels`"]);
}

/// The best of a run, as it is called, is that of `best.safetensors`.
#[test]
fn the_best_of_a_record_is_that_of_the_run() {
    let place = Workplace::new();
    let args = ["pretrain", "builtin.toml", "--run-dir", "run", "--device", "flex"];
    let set = ["--set", "train.ema_decay=0.5", "--set", "train.eval_at_start=true"];
    place.mixer(&[&args[..], &set].concat()).succeeds();
    let line = |step: u64, weights: &str, top1: f64| {
        format!(
            r#"{{"kind":"eval","step":{step},"split":"val"{weights},"loss":1,"top1":{top1},"top5":1,"n":20}}"#
        )
    };
    let average = r#","weights":"average""#;
    let lines =
        [line(0, average, 0.9), line(3, "", 0.8), line(3, average, 0.5), line(6, average, 0.5)];
    place.write("run/metrics.jsonl", lines.join("\n") + "\n");
    let runs = place.mixer(&["runs", ".", "--format", "json"]).succeeds();
    let runs: serde_json::Value = serde_json::from_str(&runs).unwrap();
    assert_eq!((&runs[0]["best"]["step"], &runs[0]["best"]["top1"]), (&3.into(), &0.5.into()));
    // Of runs that have little in common, not every key is named.
    place.pictures("data", &["blue", "red"]);
    place.write("folder.toml", common::FOLDER);
    place.mixer(&["pretrain", "folder.toml", "--run-dir", "other"]).succeeds();
    let table = place.mixer(&["runs", "."]).succeeds();
    assert!(table.lines().any(|line| line.contains("(`--format json` has all)")), "{table}");
}
