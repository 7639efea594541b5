//! `mixer predict` and `mixer evaluate` on folders as people have them: with junk, sub-folders and bad files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Workplace;
use serde_json::Value;

const DATA: i32 = 4;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The paths of a JSON answer, each with its first class or its error.
fn answers(text: &str) -> Vec<(String, String)> {
    let found = json(text);
    let entries = found.as_array().unwrap().iter();
    let pair = |entry: &Value| {
        let what = match &entry["error"] {
            Value::String(error) => format!("error: {error}"),
            _ => entry["predictions"][0]["class"].as_str().unwrap().to_owned(),
        };
        (entry["path"].as_str().unwrap().to_owned(), what)
    };
    entries.map(pair).collect()
}

#[test]
fn folders_and_files_are_taken_in_order_and_bad_files_stop_nothing() {
    let place = Workplace::with_run();
    place.write("mess/b/deep/2.BMP", common::plain_bmp("blue"));
    place.write("mess/a.bmp", common::plain_bmp("red"));
    place.write("mess/.hidden.bmp", common::plain_bmp("red"));
    place.write("mess/notes.txt", "hello world");
    place.write("mess/c.jpg", "no picture");
    place.write("empty.png", "");
    let images = ["data/val/blue/0.bmp", "mess", "nope.jpg", "data/val/red/0.bmp", "empty.png"];
    let predict = |format: &str| {
        let args = [&["predict", "run"], &images[..], &["--format", format]].concat();
        place.mixer(&args)
    };
    let outcome = predict("json");
    assert!(
        outcome.stderr.contains("note: passed over 1 file: 1 `.txt` (notes.txt)"),
        "{outcome:?}"
    );
    let words = ["3 of 7 pictures cannot be read", "the first", "mess/c.jpg"];
    let found = answers(&outcome.fails_in_part(DATA, &words).stdout);
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    let expected = [
        "data/val/blue/0.bmp",
        "mess/a.bmp",
        "mess/b/deep/2.BMP",
        "mess/c.jpg",
        "nope.jpg",
        "data/val/red/0.bmp",
        "empty.png",
    ];
    assert_eq!(paths, expected);
    let what: Vec<&str> = found.iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!([what[0], what[1], what[2], what[5]], ["blue", "red", "blue", "red"]);
    for bad in [3, 4, 6] {
        assert!(what[bad].starts_with("error: "), "{what:?}");
    }
    assert!(what[3].contains("not an image") && what[4].contains("No such file"), "{what:?}");

    let csv = predict("csv").fails_in_part(DATA, &[]).stdout;
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 1 + 4 * 2 + 3, "{csv}");
    assert!(rows.iter().all(|row| row.split(',').count() == 6), "{csv}");
    assert!(rows[7].starts_with("mess/c.jpg,,,,,"), "{csv}");
    let table = predict("table").fails_in_part(DATA, &[]).stdout;
    assert!(table.contains("mess/c.jpg\n  error: cannot decode image: "), "{table}");
}

#[test]
fn more_pictures_than_a_batch_come_in_order_with_their_own_answers() {
    let place = Workplace::with_run();
    let mut expected = Vec::new();
    for number in 0..40 {
        // A whole batch of them is bad, and some in the midst of others.
        let (class, bytes) = match number {
            16..32 | 5 | 39 => ("", Vec::new()),
            n if n % 3 == 0 => ("red", common::plain_bmp("red")),
            _ => ("blue", common::plain_bmp("blue")),
        };
        let path = format!("many/{number:02}.bmp");
        place.write(&path, bytes);
        expected.push((path, class));
    }
    let outcome = place.mixer(&["predict", "run", "many", "--format", "json"]);
    let found = answers(&outcome.fails_in_part(DATA, &["18 of 40"]).stdout);
    assert_eq!(found.len(), expected.len());
    for ((path, what), (expected, class)) in found.iter().zip(&expected) {
        assert_eq!(path, expected);
        match *class {
            "" => assert!(what.starts_with("error: "), "{path}: {what}"),
            class => assert_eq!(what, class, "{path}"),
        }
    }
}

#[test]
fn a_picture_comes_from_stdin() {
    let place = Workplace::with_run();
    let args = ["predict", "run", "data/val/blue/0.bmp", "-", "--format", "json"];
    let outcome = place.mixer_with_input(&args, "data/val/red/0.bmp");
    let found = answers(&outcome.succeeds());
    assert_eq!(found[1], ("-".to_owned(), "red".to_owned()));
    place.write("nothing", "");
    let outcome = place.mixer_with_input(&args, "nothing");
    let found = answers(&outcome.fails_in_part(DATA, &["1 of 2", "-"]).stdout);
    assert_eq!(found[0].1, "blue");
    assert!(found[1].1.starts_with("error: "), "{found:?}");
}

#[test]
fn names_cannot_speak_to_the_terminal() {
    let place = Workplace::new();
    let class = "red\u{1b}[2J\nerror: no\u{9b}";
    place.write("folder.toml", common::FOLDER);
    place.pictures("data", &["blue", class]);
    place.write("data/train/blue/\u{1b}]0;x\u{7}.jpg", "no picture");
    let outcome = place.mixer(&["pretrain", "folder.toml", "--run-dir", "run"]);
    let outcome = outcome.fails(DATA, &["\\u{1b}]0;x\\u{7}.jpg"]);
    assert!(!outcome.stderr.contains(['\u{1b}', '\u{7}']), "{outcome:?}");
    let skip = ["--set", "data.on_corrupt.skip.at_most=1", "--run-dir", "other"];
    let outcome = place.mixer(&[&["pretrain", "folder.toml"][..], &skip].concat());
    assert!(outcome.stderr.contains("passed over"), "{outcome:?}");
    assert!(!outcome.stderr.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{outcome:?}");
    outcome.succeeds();
    for args in [
        &["predict", "other", "data/val"][..],
        &["predict", "other", "data/val", "--format", "json"],
        &["data", "inspect", "data"],
        &["data", "inspect", "data", "--format", "json"],
        &["weights", "inspect", "other"],
    ] {
        let outcome = place.mixer(args);
        assert!(!outcome.stdout.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{outcome:?}");
        assert!(!outcome.stdout.contains("\nerror: no"), "{outcome:?}");
    }
    // What JSON says is the name itself.
    let outcome = place.mixer(&["predict", "other", "data/val", "--format", "json"]);
    let found = json(&outcome.succeeds());
    assert_eq!(found[0]["predictions"].as_array().unwrap().len(), 2);
    let names: Vec<&Value> = (0..2).map(|n| &found[0]["predictions"][n]["class"]).collect();
    assert!(names.iter().any(|name| **name == class), "{names:?}");
}

#[test]
fn a_run_is_evaluated_on_its_own_data() {
    let place = Workplace::with_run();
    let evaluate = |args: &[&str]| {
        json(&place.mixer(&[&["evaluate"], args, &["--format", "json"]].concat()).succeeds())
    };
    assert_eq!(evaluate(&["run"]), evaluate(&["run", "--data", "data"]));
    assert_eq!(evaluate(&["run", "--split", "train"])["n"], 12);
    place.mixer(&["pretrain", "builtin.toml", "--run-dir", "drawn"]).succeeds();
    let best = place.text("drawn/metrics.jsonl");
    let best = best.lines().map(json).filter_map(|line| line["top1"].as_f64()).fold(0.0, f64::max);
    assert_eq!(evaluate(&["drawn"])["top1"].as_f64(), Some(best));
    // A file does not say what it was evaluated on.
    place
        .mixer(&["evaluate", "run/final.safetensors"])
        .fails(2, &["`--data` is missing", "run/final.safetensors"])
        .hints("--data");
    // Another split of the configuration, and data that are gone.
    std::fs::rename(place.path("data"), place.path("moved")).unwrap();
    place
        .mixer(&["evaluate", "run"])
        .fails(DATA, &["not where it was", "data/val"])
        .hints("--data");
    assert_eq!(evaluate(&["run", "--data", "moved"])["n"], 6);
}

#[test]
fn a_sweep_stands_for_its_winner() {
    let place = Workplace::with_run();
    let sweep = ["finetune", "folder.toml", "--init", "run", "--run-dir", "sweep"];
    let values = ["--sweep", "lr=0.000001,0.02"];
    place.mixer(&[&sweep[..], &values].concat()).succeeds();
    let report = json(&place.text("sweep/sweep.json"));
    let winner = format!("sweep/{}", report["winner"].as_str().unwrap());
    for args in [&["evaluate"][..], &["predict", "data/val"], &["weights", "inspect"]] {
        let of = |weights: &str| {
            let args = [&args[..1], &args[1..], &[weights][..]];
            let args = match args[1] {
                [image] if args[0] == ["predict"] => vec!["predict", weights, image],
                _ => args.concat(),
            };
            place.mixer(&args).succeeds()
        };
        assert_eq!(of("sweep"), of(&winner));
    }
    let found = place.mixer(&["weights", "verify", "sweep"]).succeeds();
    assert!(found.contains("lr=0.000001") && found.contains("lr=0.02"), "{found}");
    place.write("begun/sweep.json", r#"{"winner": null, "members": []}"#);
    place.mixer(&["evaluate", "begun"]).fails(3, &["no winner yet", "begun"]);
}

#[test]
fn a_sweep_pre_trains_too() {
    let place = Workplace::with_pictures();
    let args = ["pretrain", "folder.toml", "--run-dir", "sweep", "--sweep", "lr=0.000001,0.02"];
    let table = place.mixer(&args).succeeds();
    assert!(table.contains("lr=0.02") && table.contains("winner"), "{table}");
    assert!(place.text("sweep/lr=0.02/plan.toml").contains("task = \"pretrain\""));
    place.mixer(&["evaluate", "sweep"]).succeeds();
}

#[test]
fn evaluation_passes_over_as_many_bad_pictures_as_it_may() {
    let place = Workplace::with_run();
    place.write("data/val/red/bad.bmp", "");
    let evaluate = |args: &[&str]| {
        place.mixer(&[&["evaluate", "run", "--data", "data", "--format", "json"], args].concat())
    };
    evaluate(&[]).fails(DATA, &["data/val/red/bad.bmp"]);
    let outcome = evaluate(&["--on-corrupt", "skip=1"]);
    assert!(outcome.stderr.contains("warning: passed over an example of val"), "{outcome:?}");
    let found = json(&outcome.succeeds());
    assert_eq!((found["n"].as_u64(), found["skipped"].as_u64()), (Some(6), Some(1)));
    place.write("data/val/red/worse.bmp", "x");
    evaluate(&["--on-corrupt", "skip=1"]).fails(DATA, &["2 unreadable", "at most 1"]);
}

#[test]
fn a_part_of_the_classes_is_matched_by_name() {
    let place = Workplace::with_run();
    place.pictures("part", &["red"]);
    let nameless = common::without_metadata(&place.read("run/final.safetensors"));
    place.write("nameless.safetensors", nameless);
    place.write("names", "blue\nred\n");
    let evaluate = |args: &[&str]| place.mixer(&[&["evaluate"], args].concat());
    let json_of = |weights: &str, args: &[&str]| {
        let fixed = [weights, "--data", "part", "--format", "json", "--preprocess", "resmall-crop"];
        json(&evaluate(&[&fixed[..], args].concat()).succeeds())
    };
    let own = json_of("run", &[]);
    assert_eq!(own["n"], 3);
    assert_eq!(json_of("nameless.safetensors", &["--classes", "names"])["n"], 3);
    evaluate(&["nameless.safetensors", "--data", "part", "--split", "val"])
        .fails(DATA, &["`val`", "1 class, the weights 2", "part"]);
    place.pictures("three", &["red", "green", "blue"]);
    evaluate(&["nameless.safetensors", "--data", "three"])
        .fails(DATA, &["3 classes, the weights 2"])
        .hints("--classes FILE");
}
