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
    place.write("short.json", "[[1]]");
    evaluate(&["--data", "one", "--real", "short.json"]).fails(DATA, &["1 pictures", "number 2"]);
    place.write("bad.json", "{}");
    evaluate(&["--data", "one", "--real", "bad.json"]).fails(DATA, &["list", "bad.json"]);
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
    place.pictures("more", &["blue", "green", "red"]);
    place
        .mixer(&["probe", "run", "--train", "more/train", "--test", "data/val"])
        .fails(DATA, &["1 of 3 classes", "`green`", "data/val"]);

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
    place.mixer(&["report"]).fails(USAGE, &["RUN"]);
    place.mixer(&["report", "runs/a", "--figure", "pie"]).fails(USAGE, &["pareto"]);

    let runs = place.mixer(&["runs", "runs"]).succeeds();
    assert!(runs.contains("runs/a\n  done, step") && runs.contains("seed = 7"), "{runs}");
    let list = json(&place.mixer(&["runs", "runs", "--format", "json"]).succeeds());
    assert_eq!((&list[1]["state"], &list[1]["differs"]["seed"]), (&"done".into(), &"7".into()));

    let csv = place.mixer(&["report", "runs/a", "--csv", "m.csv"]).succeeds();
    assert!(csv.contains("m.csv"));
    let table = place.text("m.csv");
    let columns = table.lines().next().unwrap().split(',').count();
    assert!(table.starts_with("step,") && table.contains("train/loss,"), "{table}");
    assert!(table.lines().count() > 1, "{table}");
    assert!(table.lines().all(|line| line.split(',').count() == columns), "{table}");

    place.mixer(&["report", "nowhere"]).fails(CONFIG, &["no such run directory"]);
    place.mixer(&["report", "data"]).fails(CONFIG, &["holds no run"]).hints("mixer runs");
    place.mixer(&["report", "runs/a", "--out", "data"]).fails(USAGE, &["folder", "data"]);
    place.write("runs/b/metrics.jsonl", "nonsense\n");
    place.mixer(&["report", "runs/b"]).fails(WEIGHTS, &["line 1", "runs/b/metrics.jsonl"]);
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
