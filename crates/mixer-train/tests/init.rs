//! `mixer init`: a folder of pictures, a configuration, a run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Workplace;

const DATA: i32 = 4;

/// Twelve pictures of each of two classes below `root`.
fn classes(place: &Workplace, root: &str) {
    for class in ["blue", "red"] {
        for number in 0..12 {
            place.write(&format!("{root}/{class}/{number}.bmp"), common::plain_bmp(class));
        }
    }
}

/// The configuration for a folder, which passes the check, and where the name of it has `{}`, the table.
fn proposed(place: &Workplace, args: &[&str]) -> toml::Table {
    let text = place.mixer(&[&["init"], args].concat()).succeeds();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    place.write("proposed.toml", &text);
    place.mixer(&["config", "check", "proposed.toml"]).succeeds();
    text.parse().unwrap()
}

#[test]
fn every_layout_gets_a_configuration_that_passes_the_check() {
    let place = Workplace::new();
    for (train, val, expected) in [
        ("train", "val", ("train", "val")),
        ("train", "test", ("train", "test")),
        ("train", "valid", ("train", "valid")),
    ] {
        let root = format!("{train} and {val}");
        classes(&place, &format!("{root}/{train}"));
        classes(&place, &format!("{root}/{val}"));
        let config = proposed(&place, &[&root]);
        assert_eq!(config["data"]["path"].as_str(), Some(root.as_str()));
        assert_eq!(config["data"]["train"].as_str(), Some(expected.0));
        assert_eq!(config["data"]["val"].as_str(), Some(expected.1));
    }
    classes(&place, "whole");
    let config = proposed(&place, &["whole"]);
    assert_eq!(config["data"]["train"].as_str(), Some(".[:80% of each class]"));
    assert_eq!(config["data"]["val"].as_str(), Some(".[80%: of each class]"));
    classes(&place, "half/train");
    assert_eq!(
        proposed(&place, &["half"])["data"]["val"].as_str(),
        Some("train[80%: of each class]")
    );

    // Pictures without classes are there to be predicted.
    place.write("half/test/1.bmp", common::plain_bmp("red"));
    assert_eq!(
        proposed(&place, &["half"])["data"]["val"].as_str(),
        Some("train[80%: of each class]")
    );

    let shard = ["data", "shard", "whole", "--split", "."];
    let more = ["--out", "shards", "--name", "train", "--examples-per-shard", "10"];
    place.mixer(&[&shard[..], &more].concat()).succeeds();
    let config = proposed(&place, &["shards"]);
    assert_eq!(config["data"]["train"].as_str(), Some("train-*.tar[:80% of each class]"));
    place.mixer(&[&shard[..], &["--out", "shards", "--name", "val"]].concat()).succeeds();
    let config = proposed(&place, &["shards"]);
    assert_eq!(config["data"]["train"].as_str(), Some("train-*.tar"));
    assert_eq!(config["data"]["val"].as_str(), Some("val-000000.tar"));

    let mut list = "path,label\n".to_owned();
    for class in ["blue", "red"] {
        (0..12).for_each(|number| list += &format!("{class}/{number}.bmp,{class}\n"));
    }
    place.write("whole/train.csv", list);
    assert_eq!(
        proposed(&place, &["whole"])["data"]["train"].as_str(),
        Some("train.csv[:80% of each class]")
    );
}

#[test]
fn parquet_files_are_opened_and_their_pictures_looked_at() {
    let place = Workplace::new();
    let fixtures =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../mixer-data/fuzz/seeds/parquet");
    let entries = std::fs::read_dir(fixtures).unwrap();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "parquet") {
            place.write("rows/train-00000-of-00001.parquet", std::fs::read(path).unwrap());
        }
    }
    // Those of the fuzzer's seeds are none.
    place
        .mixer(&["init", "rows"])
        .fails(DATA, &["pictures can be read", "rows/train-00000-of-00001.parquet: row"]);
}

#[test]
fn what_is_written_trains_and_its_run_answers() {
    let place = Workplace::new();
    classes(&place, "pictures");
    place.write("pictures/red/broken.bmp", "no picture");
    let outcome = place.mixer(&["init", "pictures"]);
    assert!(outcome.stderr.contains("broken.bmp"), "{outcome:?}");
    assert!(outcome.stderr.contains("mixer pretrain"), "{outcome:?}");
    place.write("mine.toml", outcome.succeeds());
    let run = ["pretrain", "mine.toml", "--set", "train.epochs=20"];
    let outcome = place.mixer(&run);
    assert!(outcome.stderr.contains("best top-1 100.00 %"), "{outcome:?}");
    outcome.succeeds();
    // A folder in the place of a configuration is answered with the same text.
    let text = place.text("mine.toml");
    assert_eq!(place.mixer(&["pretrain", "pictures"]).succeeds(), text);
    // Weights that are named are fine-tuned.
    let config = proposed(&place, &["pictures", "--init", "runs/mine"]);
    assert_eq!(config["init"]["weights"].as_str(), Some("runs/mine"));
    let outcome = place.mixer(&["finetune", "proposed.toml"]);
    assert!(outcome.stderr.contains("from weights at"), "{outcome:?}");
    outcome.succeeds();
}

#[test]
fn what_is_no_data_set_is_refused() {
    let place = Workplace::new();
    place.mixer(&["init", "nope"]).fails(2, &["found no folder", "nope"]);
    place.write("flat/1.bmp", common::plain_bmp("red"));
    place.mixer(&["init", "flat"]).fails(DATA, &["no class folder", "flat"]);
    place.write("one/red/1.bmp", common::plain_bmp("red"));
    place.mixer(&["init", "one"]).fails(DATA, &["1 class (`red`)", "one"]);
    for class in ["red", "blue"] {
        place.write(&format!("single/{class}/1.bmp"), common::plain_bmp(class));
    }
    place.mixer(&["init", "single"]).fails(DATA, &["no class has a second picture", "single"]);
    for (class, number) in [("a", 1), ("a", 2), ("b", 1), ("b", 2)] {
        place.write(&format!("broken/{class}/{number}.jpg"), "no picture");
    }
    place.mixer(&["init", "broken"]).fails(DATA, &["none of 2 pictures can be read"]);
}
