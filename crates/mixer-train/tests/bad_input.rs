//! Everything that users get wrong: each mistake has one clear error, the documented exit code and no
//! data on stdout. Exit codes are written as the numbers that scripts see.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Outcome, Workplace, bmp_header, jpeg, plain_bmp, safetensors};

const USAGE: i32 = 2;
const CONFIG: i32 = 3;
const DATA: i32 = 4;
const WEIGHTS: i32 = 5;
const DIVERGED: i32 = 6;
const DEVICE: i32 = 7;

/// `mixer pretrain folder.toml` with overrides, into `run`.
fn pretrain_with(place: &Workplace, overrides: &[&str]) -> Outcome {
    let mut args = vec!["pretrain", "folder.toml", "--run-dir", "run"];
    for entry in overrides {
        args.extend(["--set", entry]);
    }
    place.mixer(&args)
}

/// `mixer config check` of a file with this text.
fn check_text(text: &str) -> Outcome {
    let place = Workplace::with_pictures();
    place.write("mine.toml", text);
    place.mixer(&["config", "check", "mine.toml"])
}

// The command line.

#[test]
fn a_command_line_that_makes_no_sense_is_a_usage_error() {
    let place = Workplace::new();
    place.mixer(&["frobnicate"]).fails(USAGE, &["frobnicate"]);
    place.mixer(&["pretrain"]).fails(USAGE, &["<CONFIG>"]);
    place.mixer(&["predict", "weights"]).fails(USAGE, &["<IMAGE|DIR>"]);
    place.write("weights", "");
    place.mixer(&["evaluate", "weights"]).fails(WEIGHTS, &["weights"]);
    place
        .mixer(&["evaluate", "w", "--data", "d", "--on-corrupt", "skip"])
        .fails(USAGE, &["expected `stop`, or `skip=` and a number"]);
    place
        .mixer(&["pretrain", "builtin.toml", "--resume", "sometimes"])
        .fails(USAGE, &["sometimes", "auto, never, must"]);
    place
        .mixer(&["evaluate", "w", "--data", "d", "--batch-size", "0"])
        .fails(USAGE, &["--batch-size"]);
    place.mixer(&["predict", "w", "i", "--top-k", "0"]).fails(USAGE, &["--top-k"]);
    place
        .mixer(&["predict", "w", "i", "--logits"])
        .fails(USAGE, &["`--logits` has no effect without `--format json`"]);
}

#[test]
fn an_override_that_is_no_key_and_value_is_a_usage_error_with_an_example() {
    let place = Workplace::with_pictures();
    for entry in ["seed", "=3", "train..steps=1", ".seed=1"] {
        pretrain_with(&place, &[entry])
            .fails(USAGE, &[&format!("`--set {entry}`")])
            .hints("--set optimizer.learning_rate=0.01");
    }
    assert!(!place.path("run").exists());
}

// The configuration.

#[test]
fn a_missing_configuration_is_named_and_the_shipped_ones_are_pointed_at() {
    let place = Workplace::new();
    for command in ["pretrain", "finetune"] {
        place.mixer(&[command, "nope.toml"]).fails(CONFIG, &["`nope.toml`"]).hints("configs/");
    }
    place.mixer(&["config", "check", "."]).fails(CONFIG, &["cannot read the configuration"]);
    place.write("binary.toml", [0xff, 0xfe, 0x00]);
    place.mixer(&["config", "check", "binary.toml"]).fails(CONFIG, &["`binary.toml`", "UTF-8"]);
}

#[test]
fn a_misspelt_key_gets_its_place_and_the_nearest_key() {
    check_text("[train]\nsteps = 6\nbatch_sise = 4\n")
        .fails(
            CONFIG,
            &["invalid configuration: mine.toml", "line 3, column 1", "unknown field `batch_sise`"],
        )
        .hints("did you mean `batch_size`?");
    check_text("[modle]\nimage_size = 8\n")
        .fails(CONFIG, &["line 1, column 2", "`modle`"])
        .hints("did you mean `model`?");
    check_text("[optimizer]\nkind = \"adam\"\n")
        .fails(CONFIG, &["line 2, column 8", "`adam`"])
        .hints("did you mean `adamw`?");
}

#[test]
fn a_misspelt_key_in_an_override_is_not_blamed_on_the_file() {
    let place = Workplace::with_pictures();
    let outcome = pretrain_with(&place, &["train.batch_sise=4"])
        .fails(CONFIG, &["with `--set train.batch_sise=4`", "unknown field `batch_sise`"])
        .hints("did you mean `batch_size`?");
    assert!(!outcome.stderr.contains("folder.toml"), "{outcome:?}");
}

#[test]
fn an_override_repairs_what_is_wrong_with_the_file() {
    let place = Workplace::with_pictures();
    place.write("mine.toml", common::FOLDER.replace("steps = 6", "steps = \"six\""));
    place.mixer(&["config", "check", "mine.toml"]).fails(CONFIG, &["mine.toml", "\"six\""]);
    place.mixer(&["config", "check", "mine.toml", "--set", "train.steps=6"]).succeeds();
}

#[test]
fn a_wrong_type_is_explained_in_plain_words() {
    for (text, column, expected) in [
        ("[train]\nbatch_size = \"many\"\n", 14, "expected a whole number, at least 0"),
        ("[train]\nbatch_size = -1\n", 14, "expected a whole number, at least 0"),
        ("[train]\nsteps = 1.5\n", 9, "expected a whole number, at least 0"),
        ("[train]\nepochs = \"two\"\n", 10, "expected a number"),
        ("[data]\nflip = 1\n", 8, "expected true or false"),
        ("[data]\nstd = 0.5\n", 7, "expected an array of length 3"),
        ("[data]\nstd = [0.5, 0.5]\n", 7, "expected an array of length 3"),
        ("\nmodel = 3\n", 9, "expected a table"),
        ("[data]\ncrop = { pad = 4 }\n", 16, "expected a table"),
    ] {
        let place = format!("line 2, column {column}");
        let outcome = check_text(text).fails(CONFIG, &["mine.toml", &place, expected]);
        for rust in ["usize", "u64", "f64", "struct"] {
            assert!(!outcome.stderr.contains(rust), "{outcome:?}");
        }
    }
    check_text("[optimizer]\nlearning_rate = \"0.01\"\n")
        .fails(CONFIG, &["expected a number"])
        .hints("without quotes");
}

#[test]
fn a_syntax_error_shows_its_line() {
    let outcome = check_text("seed = 1\n[train\nsteps = 3\n");
    outcome.fails(CONFIG, &["mine.toml", "line 2, column 7", "2 | [train", "expected `]`"]);
    check_text("seed = 1\nseed = 2\n").fails(CONFIG, &["line 2, column 1", "duplicate key"]);
}

#[test]
fn a_value_out_of_range_is_named_with_what_was_found_and_what_was_expected() {
    let place = Workplace::with_pictures();
    for (entry, found, expected) in [
        ("train.batch_size=0", "`train.batch_size` is 0", "at least 1"),
        ("train.microbatch_size=3", "`train.batch_size` is 4", "a multiple of"),
        ("train.steps=0", "`train.steps` is 0", "at least 1"),
        ("train.epochs=-1", "`train.epochs` is -1", "above 0"),
        ("train.epochs=1e300", "updates long", "at most"),
        ("train.label_smoothing=1.5", "`train.label_smoothing` is 1.5", "below 1"),
        ("train.clip_norm=-1", "`train.clip_norm` is -1", "at least 0"),
        ("train.eval_every_steps=0", "`train.eval_every_steps` is 0", "at least 1"),
        ("train.keep_checkpoints=0", "`train.keep_checkpoints` is 0", "at least 1"),
        ("optimizer.learning_rate=-0.1", "`optimizer.learning_rate` is -0.1", "above 0"),
        ("optimizer.learning_rate=nan", "`optimizer.learning_rate` is NaN", "above 0"),
        ("optimizer.beta1=1", "`optimizer.beta1` is 1", "below 1"),
        ("optimizer.weight_decay=-1", "`optimizer.weight_decay` is -1", "at least 0"),
        ("schedule.warmup_steps=6", "`schedule.warmup_steps` is 6", "fewer than the 6 updates"),
        ("model.drop_path_rate=1", "`model.drop_path_rate` is 1", "below 1"),
        ("model.head_bias=nan", "`model.head_bias` is NaN", "a finite value"),
        ("model.image_size=0", "`model.image_size` is 0", "at least 1"),
        ("model.num_blocks=0", "`model.num_blocks` is 0", "at least 1"),
        ("data.std=[0, 1, 1]", "`data.std` holds 0", "at least 0.001"),
        ("data.std=[1e-40, 1, 1]", "`data.std` holds", "at least 0.001"),
        ("optimizer.learning_rate=1e300", "`optimizer.learning_rate` is 1", "at most"),
        ("optimizer.epsilon=0", "`optimizer.epsilon` is 0", "at least"),
        ("data.mean=[nan, 0, 0]", "`data.mean` holds NaN", "finite"),
        ("data.crop.pad.pixels=4000", "`data.crop.pad.pixels` is 4000", "at most"),
        (
            "data.eval_resize.resmall_crop.fraction=0",
            "`data.eval_resize.resmall_crop.fraction` is 0",
            "above 0 and at most 1",
        ),
        ("data.train=train[:101%]", "`train[:101%]`", "expected"),
        ("data.train=train[50:]", "`[50:]` of 12 examples", "within the data"),
        ("train.freeze=[\"stem\", \"block.1\"]", "`train.freeze` has `block.1`", "`blocks.1`"),
        (
            "train.freeze=[\"stem\", \"blocks\", \"norm\", \"head\"]",
            "`train.freeze` has every parameter",
            "left to train",
        ),
        ("train.layer_decay=0", "`train.layer_decay` is 0", "above 0 and at most 1"),
        ("train.early_stopping.patience=0", "`train.early_stopping.patience` is 0", "at least 1"),
        (
            "train.early_stopping={ patience = 1, min_delta = -0.1 }",
            "`train.early_stopping.min_delta` is -0.1",
            "at least 0",
        ),
        ("optimizer.first_moment_dtype=f16", "unknown variant `f16`", "`bf16`"),
        ("data.workers=100000", "`data.workers` is 100000", "at most 1024"),
    ] {
        pretrain_with(&place, &[entry]).fails(CONFIG, &[found, expected]);
        assert!(!place.path("run").exists(), "{entry} left a run directory");
    }
}

#[test]
fn networks_and_batches_that_no_machine_holds_are_refused_before_they_are_made() {
    let place = Workplace::with_pictures();
    for entry in [
        "model.image_size=100000000000",
        "model.hidden_dim=100000000000",
        "model.num_blocks=9223372036854775807",
        "train.batch_size=4611686018427387904",
        "train.eval_batch_size=9223372036854775807",
        "train.steps=9223372036854775807",
    ] {
        pretrain_with(&place, &[entry]).fails(CONFIG, &["expected at most"]);
    }
    place
        .mixer(&["summary", "--model", "S/1", "--image-size", "1000000000000"])
        .fails(CONFIG, &["`--image-size` is 1000000000000"]);
}

#[test]
fn mistakes_of_configurations_that_extend_others_name_the_file() {
    let place = Workplace::with_pictures();
    place.write("configs/child.toml", "extends = \"../base.toml\"\n[train]\nsteps = 3\n");
    let check = || place.mixer(&["config", "check", "configs/child.toml"]);
    check()
        .fails(CONFIG, &["cannot read what is extended", "base.toml", ": configs/child.toml"])
        .hints("relative to the folder");
    place.write("base.toml", "extends = \"configs/child.toml\"\n");
    check().fails(CONFIG, &["leads back to `configs/child.toml`", ": configs/../base.toml"]);
    place.write("base.toml", format!("{}batch_sise = 3\n", common::FOLDER));
    check()
        .fails(CONFIG, &["invalid configuration: configs/../base.toml", "`batch_sise`"])
        .hints("did you mean `batch_size`?");
    // Sound by itself, and wrong for the run.
    place.write("base.toml", format!("{}[schedule]\nwarmup_steps = 4\n", common::FOLDER));
    check().fails(
        CONFIG,
        &["`schedule.warmup_steps` is 4", "fewer than the 3 updates", ": configs/../base.toml"],
    );
    place.write("base.toml", common::FOLDER);
    place
        .mixer(&["config", "check", "configs/child.toml", "--set", "extends=other.toml"])
        .fails(CONFIG, &["`extends` is other.toml"]);
}

#[test]
fn configurations_that_were_made_to_do_harm_are_refused() {
    for (what, text) in [
        ("brackets", format!("seed = {}", "[".repeat(100_000))),
        ("closed brackets", format!("seed = {}{}", "[".repeat(100_000), "]".repeat(100_000))),
        ("braces", format!("seed = {}", "{a=".repeat(100_000))),
        ("dotted key", format!("{}a = 1", "a.".repeat(100_000))),
        ("quoted dotted key", format!("{}a = 1", "'a'.".repeat(100_000))),
        ("dotted key within braces", format!("data = {{ {}a = 1 }}", "a.".repeat(100_000))),
        ("section", format!("[{}a]", "a.".repeat(100_000))),
        ("list of sections", format!("[[{}a]]", "a.".repeat(100_000))),
        ("long key", format!("{} = 1", "a".repeat(1_000_000))),
        ("long variant", format!("[optimizer]\nkind = \"{}\"", "a".repeat(1_000_000))),
        ("many keys", (0..80_000).map(|i| format!("a{i}=1\n")).collect()),
    ] {
        let outcome = check_text(&text).fails(CONFIG, &["invalid configuration: mine.toml"]);
        assert!(outcome.stderr.len() < 4000, "{what}: {} bytes of text", outcome.stderr.len());
    }
    let place = Workplace::with_pictures();
    let check = |file: &str| place.mixer(&["config", "check", file]);
    place.write("long.toml", "# words\n".repeat(200_000));
    check("long.toml").fails(CONFIG, &["`long.toml`: more than 1048576 bytes"]);
    place.write("child.toml", "extends = \"long.toml\"\n");
    check("child.toml")
        .fails(CONFIG, &["cannot read what is extended", "more than", ": child.toml"]);
    place.write("child.toml", "extends = \"data\"\n");
    check("child.toml").fails(CONFIG, &["cannot read what is extended", "`data`", ": child.toml"]);
    if cfg!(unix) {
        check("/dev/zero").fails(CONFIG, &["`/dev/zero`: more than 1048576 bytes"]);
        place.write("child.toml", "extends = \"/dev/zero\"\n");
        check("child.toml").fails(CONFIG, &["`/dev/zero`: more than 1048576 bytes"]);
    }
    // As long as the system lets an argument be.
    let deep = format!("{}a=1", "a.".repeat(50_000));
    let deep_value = format!("seed={}", "[".repeat(100_000));
    let deep_key_in_value = format!("data={{ {}a = 1 }}", "a.".repeat(40_000));
    pretrain_with(&place, &[&deep]).fails(USAGE, &["a key of 50001 parts"]);
    pretrain_with(&place, &[&deep_value]).fails(CONFIG, &["with `--set seed=[["]);
    pretrain_with(&place, &[&deep_key_in_value]).fails(CONFIG, &["with `--set data="]);
}

#[test]
fn a_sweep_that_makes_no_sense_is_refused_before_it_trains() {
    let place = Workplace::with_run();
    let sweep = |args: &[&str]| {
        let start = ["finetune", "folder.toml", "--init", "run", "--run-dir", "sweep"];
        let outcome = place.mixer(&[&start[..], args].concat());
        assert!(!place.path("sweep").exists(), "{outcome:?}");
        outcome
    };
    for entry in ["lr", "=1", "lr=", "lr=0.1,,0.2"] {
        sweep(&["--sweep", entry])
            .fails(USAGE, &[&format!("`--sweep {entry}`")])
            .hints("--sweep lr=0.003,0.01,0.03");
    }
    sweep(&["--sweep", "lr=0.1", "--sweep", "optimizer.learning_rate=0.2"])
        .fails(USAGE, &["the key is there twice"]);
    sweep(&["--sweep", "data.train=a b,ab"]).fails(USAGE, &["two runs", "`data.train=ab`"]);
    sweep(&["--sweep", "lr=0.1", "--extend"]).fails(USAGE, &["`--extend`"]).hints("--run-dir");
    // Keys that do not have the values which the members are named after.
    for (entries, words) in [
        (&["init.weights=a,b"][..], "init.weights=a: `init.weights` is \"run\" and not \"a\""),
        (&["train.steps=5,6", "train.epochs=1"], "`train.steps` is not set and not 5"),
        (&["data.mix.prob=0.3,0.7", "data.mix={mixup_alpha=0.2}"], "`data.mix.prob` is 1"),
    ] {
        let entries: Vec<&str> = entries.iter().flat_map(|entry| ["--sweep", *entry]).collect();
        sweep(&entries).fails(USAGE, &[words]).hints("takes its place");
    }
    sweep(&["--sweep", "seed=1,2", "--resume", "must"]).fails(USAGE, &["`--resume must`"]);
    // The last member is wrong, and the first one does not start.
    sweep(&["--sweep", "lr=0.1,-1"]).fails(CONFIG, &["lr=-1: `optimizer.learning_rate` is -1"]);
    sweep(&["--sweep", "lr=0.1,high"]).fails(CONFIG, &["lr=high: ", "expected a number"]);
    sweep(&["--sweep", "train.stepz=1"]).fails(CONFIG, &["`stepz`"]).hints("`steps`");
    place
        .mixer(&["finetune", "folder.toml", "--init=run", "--run-dir=run", "--sweep=lr=0.1"])
        .fails(CONFIG, &["the directory holds a run, expected a sweep"])
        .hints("--run-dir");
    place
        .mixer(&["pretrain", "folder.toml", "--sweep", "init.head=auto"])
        .fails(CONFIG, &["`init` has no meaning in pre-training"]);
}

#[test]
fn the_length_of_a_run_is_set_once() {
    let without = common::FOLDER.replace("steps = 6", "");
    check_text(&without).fails(CONFIG, &["neither `train.epochs` nor `train.steps`"]);
    let both = common::FOLDER.replace("steps = 6", "steps = 6\nepochs = 2");
    check_text(&both).fails(CONFIG, &["both `train.epochs` and `train.steps`"]);
}

#[test]
fn keys_without_effect_are_refused() {
    let place = Workplace::with_pictures();
    for overrides in [
        &["optimizer.momentum=0.9"][..],
        &["optimizer.kind=sgd", "optimizer.beta1=0.9"],
        &["schedule.linear_end=0.1"],
        &["data.train_examples=10"],
        &["data.source=builtin"],
        &["init.head=keep"],
        &["model.drop_path_scaling=keep"],
        &["data.mix={}"],
        &["data.mix.mixup_alpha=0"],
        &["data.mix={mixup_alpha=0.5, prob=0}"],
        &["data.mix={mixup_alpha=0.5, switch_prob=0.3}"],
        &["data.mix={mixup_alpha=0.5, cutmix_alpha=1, switch_prob=0}"],
        &["data.mix.mixup_alpha=0.5", "train.microbatch_size=1"],
        &["data.erasing.probability=0"],
    ] {
        let outcome = pretrain_with(&place, overrides).fails(CONFIG, &[]);
        let says =
            ["has no effect", "has no meaning"].iter().any(|words| outcome.stderr.contains(words));
        assert!(says, "{outcome:?}");
    }
}

#[test]
fn settings_of_the_built_in_data_are_checked_as_those_of_folders() {
    let place = Workplace::new();
    for (entry, found) in [
        ("data.val_examples=0", "`data.val_examples` is 0, expected at least 1"),
        ("model.image_size=8000", "`model.image_size` is 8000, expected at most 4096 px"),
        ("data.path=data", "`data.path` has no meaning"),
        ("data.max_pixels=5", "`data.max_pixels` has no meaning"),
    ] {
        place.mixer(&["config", "check", "builtin.toml", "--set", entry]).fails(CONFIG, &[found]);
    }
}

#[test]
fn an_image_that_patches_do_not_tile_is_refused_with_sizes_that_they_do() {
    let place = Workplace::with_run();
    let error = "image size 10 is not divisible by the patch size 4";
    let hint = "an image size of 8 or 12 would do";
    place
        .mixer(&["config", "check", "folder.toml", "--set", "model.image_size=10"])
        .fails(CONFIG, &[error])
        .hints(hint);
    place
        .mixer(&[
            "finetune",
            "folder.toml",
            "--init",
            "run",
            "--run-dir",
            "other",
            "--set",
            "model.image_size=10",
        ])
        .fails(CONFIG, &[error])
        .hints(hint);
    place
        .mixer(&["weights", "resize", "run", "--image-size", "10", "--out", "x.safetensors"])
        .fails(CONFIG, &[error])
        .hints(hint);
}

#[test]
fn an_unknown_variant_is_refused_with_the_known_ones() {
    let place = Workplace::new();
    for name in ["X/16", "S", "S/0", "s16"] {
        place
            .mixer(&["summary", "--model", name])
            .fails(CONFIG, &[&format!("unknown variant `{name}`"), "S/32", "H/14"]);
    }
    let text = "[model]\nvariant = \"S/16\"\npatch_size = 4\n[data]\nsource = \"builtin\"\n[train]\nsteps = 1\n";
    check_text(text).fails(CONFIG, &["both `model.variant = \"S/16\"` and `model.patch_size`"]);
}

// The data.

#[test]
fn data_that_is_not_there_is_named() {
    let place = Workplace::with_pictures();
    place.write("empty/readme.txt", "");
    pretrain_with(&place, &["data.path=nope"]).fails(DATA, &["nope/train"]).hints("relative path");
    pretrain_with(&place, &["data.path=empty"]).fails(DATA, &["empty/train"]).hints("per split");
    place.write("flat/train/0.bmp", plain_bmp("red"));
    pretrain_with(&place, &["data.path=flat"])
        .fails(DATA, &["no class folder", "flat/train"])
        .hints("one folder per class");
    check_text("[model]\nvariant = \"S/16\"\n[train]\nsteps = 1\n")
        .fails(CONFIG, &["`data.path` is missing", "mine.toml"])
        .hints("builtin");
}

#[test]
fn a_folder_without_validation_pictures_gets_told_how_to_hold_some_back() {
    let place = Workplace::with_pictures();
    std::fs::remove_dir_all(place.path("data/val")).unwrap();
    pretrain_with(&place, &[])
        .fails(DATA, &["data/val"])
        .hints("`data.train = \"train[:90% of each class]\"` and `data.val = \"train[90%: of each class]\"`");
    pretrain_with(&place, &["data.train=train[:75%]", "data.val=train[75%:]"]).succeeds();
}

#[test]
fn classes_that_do_not_fit_are_named() {
    let place = Workplace::with_pictures();
    place.pictures("one", &["red"]);
    pretrain_with(&place, &["data.path=one"]).fails(DATA, &["1 class", "`red`", "at least 2"]);
    place.pictures("gap", &["red", "blue"]);
    place.write("gap/train/void/notes.txt", "no picture");
    pretrain_with(&place, &["data.path=gap"])
        .fails(DATA, &["no image in class `void`", "passed over 1 file", "gap/train/void"])
        .hints("remove");
    // They can be looked at all the same.
    for data in ["one", "gap"] {
        place.mixer(&["data", "inspect", data]).succeeds();
    }
    place.pictures("more", &["red", "blue"]);
    place.write("more/val/violet/0.bmp", plain_bmp("red"));
    pretrain_with(&place, &["data.path=more"])
        .fails(DATA, &["`violet`", "2 known classes", "more/val/violet"])
        .hints("training folder");
}

/// Files that are no pictures, with what the error says.
fn broken_pictures() -> [(&'static str, Vec<u8>, &'static str); 4] {
    let whole = jpeg();
    [
        ("truncated", whole[..whole.len() / 2].to_vec(), "truncated"),
        ("text", b"hello world\n".to_vec(), "not an image: starts with `hell`"),
        ("nothing", Vec::new(), "the file is empty"),
        ("huge", bmp_header(60_000, 60_000), "60000x60000 px"),
    ]
}

#[test]
fn a_broken_picture_stops_training_with_its_path_and_the_reason() {
    for (name, bytes, reason) in broken_pictures() {
        let place = Workplace::with_pictures();
        let path = format!("data/train/red/{name}.jpg");
        place.write(&path, bytes);
        pretrain_with(&place, &[])
            .fails(DATA, &["cannot decode image", reason, &path])
            .hints("data.on_corrupt.skip.at_most");
    }
}

#[test]
fn broken_pictures_are_passed_over_when_that_is_allowed_and_counted() {
    let place = Workplace::with_pictures();
    for (name, bytes, _) in broken_pictures() {
        place.write(&format!("data/train/red/{name}.jpg"), bytes);
    }
    place.write("data/val/red/nothing.jpg", "");
    // Two passes over the data, so that every file is met.
    let outcome = place.mixer(&[
        "pretrain",
        "folder.toml",
        "--run-dir",
        "run",
        "--set",
        "train.epochs=2",
        "--set",
        "data.on_corrupt.skip.at_most=4",
    ]);
    let metrics = place.text("run/metrics.jsonl");
    let skipped: Vec<&str> =
        metrics.lines().filter(|line| line.contains(r#""kind":"skipped""#)).collect();
    for (name, _, reason) in broken_pictures() {
        let path = format!("data/train/red/{name}.jpg");
        let warned = |line: &str| {
            line.starts_with("warning: ") && line.contains(&path) && line.contains(reason)
        };
        assert!(outcome.stderr.lines().any(warned), "{outcome:?}");
        assert!(skipped.iter().any(|line| line.contains(&path)), "{metrics}");
    }
    let path = "data/val/red/nothing.jpg";
    let warned = |line: &str| line.starts_with("warning: ") && line.contains(path);
    assert!(outcome.stderr.lines().any(warned), "{outcome:?}");
    outcome.succeeds();
}

#[test]
fn more_broken_pictures_than_allowed_stop_training() {
    let place = Workplace::with_pictures();
    for name in ["a", "b", "c"] {
        place.write(&format!("data/train/red/{name}.jpg"), "");
    }
    pretrain_with(&place, &["data.on_corrupt.skip.at_most=2", "train.epochs=2"])
        .fails(DATA, &["3 unreadable examples, expected at most 2", "data/train/red/"])
        .hints("at_most");
}

#[test]
fn pictures_that_cannot_be_classified_are_named() {
    let place = Workplace::with_run();
    place.write("notes.txt", "hello world");
    place.write("empty/.keep", "");
    place.write("texts/notes.txt", "");
    let predict = |image: &str| place.mixer(&["predict", "run", image]);
    let missing = predict("nope.jpg").fails_in_part(DATA, &["failed to open file `nope.jpg`"]);
    assert_eq!(missing.stderr.matches("nope.jpg").count(), 1, "{missing:?}");
    predict("notes.txt").fails_in_part(DATA, &["not an image", "notes.txt"]);
    predict("empty").fails(DATA, &["no pictures (0 other files)", "empty"]);
    predict("texts").fails(DATA, &["no pictures (1 other files)", "texts"]).hints("endings");
    for (name, bytes, reason) in broken_pictures() {
        let path = format!("{name}.jpg");
        place.write(&path, bytes);
        predict(&path).fails_in_part(DATA, &[reason, &path]);
    }
    place.mixer(&["predict", "run", "-", "-"]).fails(USAGE, &["`-` is there twice"]).hints("`./-`");
}

// Weights.

#[test]
fn files_that_are_no_weights_are_refused_by_every_command_that_reads_some() {
    let place = Workplace::with_run();
    let whole = place.read("run/final.safetensors");
    place.write("notes.safetensors", "hello world");
    place.write("nothing.safetensors", "");
    place.write("header.safetensors", &whole[..600]);
    place.write("data.safetensors", &whole[..whole.len() - 10]);
    place.write("page.safetensors", "<!DOCTYPE html><html></html>");
    place.write(
        "vit.safetensors",
        safetensors(&[
            ("cls_token", &[1, 1, 8]),
            ("pos_embed", &[1, 5, 8]),
            ("patch_embed.proj.weight", &[8, 3, 4, 4]),
            ("patch_embed.proj.bias", &[8]),
            ("blocks.0.attn.qkv.weight", &[24, 8]),
            ("blocks.0.mlp.fc1.weight", &[32, 8]),
            ("head.weight", &[2, 8]),
        ]),
    );
    for (file, reason) in [
        ("nope.safetensors", "No such file"),
        ("notes.safetensors", "not a readable npz, safetensors or pth weights file"),
        ("nothing.safetensors", "the file is empty"),
        ("header.safetensors", "truncated"),
        ("data.safetensors", "truncated"),
        ("page.safetensors", "a web page"),
        ("vit.safetensors", "not the weights of an MLP-Mixer"),
    ] {
        for args in [
            &["evaluate", file, "--data", "data"][..],
            &["predict", file, "data/val/red/0.bmp"],
            &["finetune", "folder.toml", "--run-dir", "other", "--init", file],
            &["weights", "convert", file, "--out", "out.safetensors"],
        ] {
            place.mixer(args).fails(WEIGHTS, &[reason, file]);
        }
    }
    assert!(!place.path("other").exists() && !place.path("out.safetensors").exists());
    place
        .mixer(&["evaluate", "nope", "--data", "data"])
        .fails(WEIGHTS, &["`nope`"])
        .hints("run dir");
    // Another network is still listed.
    let listing = place.mixer(&["weights", "inspect", "vit.safetensors"]).succeeds();
    assert!(listing.contains("cls_token") && listing.contains("not the weights of an MLP-Mixer"));
}

#[test]
fn weights_that_were_made_to_do_harm_are_refused_with_a_hint() {
    let place = Workplace::with_pictures();
    let with_length = |length: u64, rest: &[u8]| [&length.to_le_bytes()[..], rest].concat();
    let nested = [&b"{\"a\":"[..], &b"[".repeat(100_000)].concat();
    let legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let trace = place.path("trace").display().to_string();
    let call =
        format!("\u{2}cos\nsystem\n(X{}\0\0\0touch {trace}tR.", (trace.len() + 6) as u8 as char);
    let call = [&b"\x80"[..], call.as_bytes()].concat();
    for (file, bytes, reason, hint) in [
        (
            "long.safetensors",
            with_length(1 << 63, b"{}"),
            "header of 9223372036854775808",
            "checksum",
        ),
        ("deep.safetensors", with_length(nested.len() as u64, &nested), "bad header (", "checksum"),
        ("code.pth", call, "calls `os.system`", "torch.save(model.state_dict()"),
        ("short.pth", legacy.to_vec(), "truncated", "checksum"),
        ("empty.npz", b"PK\x05\x06".to_vec(), "no end record", "checksum"),
        ("model.bpk", b"NRUB\x01\x00".to_vec(), "record of Burn", "SafetensorsStore"),
        (
            "data.tar",
            [vec![0; 257], b"ustar".to_vec(), vec![0; 250]].concat(),
            "a tar archive",
            "unpack",
        ),
    ] {
        place.write(file, bytes);
        for args in [
            &["weights", "inspect", file][..],
            &["weights", "convert", file, "--out", "out.safetensors"],
            &["predict", file, "data/val/red/0.bmp"],
            &["finetune", "folder.toml", "--run-dir", "other", "--init", file],
        ] {
            place.mixer(args).fails(WEIGHTS, &[reason, file]).hints(hint);
        }
    }
    for made in ["trace", "other", "out.safetensors"] {
        assert!(!place.path(made).exists(), "{made}");
    }
}

#[test]
fn weights_that_are_not_finite_are_announced() {
    let place = Workplace::with_run();
    let mut bytes = place.read("run/final.safetensors");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    place.write("nan.safetensors", bytes);
    let outcome = place.mixer(&["predict", "nan.safetensors", "data/val/red/0.bmp"]);
    let warning = "warning: 1 values of `stem.proj.weight` are not finite";
    assert!(outcome.stderr.contains(warning), "{outcome:?}");
    let listing = place.mixer(&["weights", "inspect", "nan.safetensors"]).succeeds();
    assert!(listing.contains("1 of them not finite"), "{listing}");
}

#[test]
fn incomplete_weights_are_refused_with_what_is_missing() {
    let place = Workplace::with_run();
    let whole = place.read("run/final.safetensors");
    let rest = common::without_tensor(&whole, "blocks.1.mlp_tokens.fc2.bias");
    place.write("rest.safetensors", rest);
    place
        .mixer(&["evaluate", "rest.safetensors", "--data", "data"])
        .fails(WEIGHTS, &["rest.safetensors", "blocks.1.mlp_tokens.fc2.bias"]);
}

#[test]
fn files_of_class_names_and_endings_that_do_not_fit_are_refused() {
    let place = Workplace::with_run();
    for (names, expected) in [
        ("a\nb\nc\n", "3 class names, the weights have 2 classes: names"),
        ("a\na\n", "lines 1 and 2 are the same class name `a`: names"),
        ("a\n\nb", "line 2 is empty"),
    ] {
        place.write("names", names);
        let args = ["predict", "run", "data/val/red/0.bmp", "--classes", "names"];
        place.mixer(&args).fails(USAGE, &[expected]);
    }
    for out in ["x.pth", "x.onnx", "x"] {
        place
            .mixer(&["weights", "convert", "run", "--out", out])
            .fails(USAGE, &["expected `.safetensors` or `.npz`", out])
            .hints("export WEIGHTS DIR --to timm");
        assert!(!place.path(out).exists());
    }
    place
        .mixer(&["finetune", "folder.toml", "--run-dir", "other", "--init", "mixer_b16_224"])
        .fails(WEIGHTS, &["a name of published weights, expected a file: mixer_b16_224"])
        .hints("huggingface.co/timm/mixer_b16_224");
}

#[test]
fn a_directory_without_weights_is_refused_with_what_was_expected() {
    let place = Workplace::with_pictures();
    place
        .mixer(&["evaluate", "data", "--data", "data"])
        .fails(CONFIG, &["no weights", "`best.safetensors` or `final.safetensors`"]);
}

#[test]
fn evaluation_on_other_classes_than_those_of_the_weights_is_refused() {
    let place = Workplace::with_run();
    place.pictures("three", &["red", "green", "blue"]);
    place
        .mixer(&["evaluate", "run", "--data", "three"])
        .fails(DATA, &["`green`", "2 known classes"])
        .hints("weights name");
    let nameless = common::without_metadata(&place.read("run/final.safetensors"));
    place.write("nameless.safetensors", nameless);
    place
        .mixer(&["evaluate", "nameless.safetensors", "--data", "three"])
        .fails(DATA, &["3 classes, the weights 2"])
        .hints("these weights name no classes");
    place.write("nameless_list.csv", "data/val/red/0.bmp,1\ndata/val/blue/0.bmp,0\n");
    place
        .mixer(&["evaluate", "run", "--data", ".", "--split", "nameless_list.csv"])
        .fails(DATA, &["label `1` in line 1", "nothing that says which class", "2 known classes"])
        .hints("classes.txt");
    place.mixer(&["evaluate", "run", "--data", "nope"]).fails(DATA, &["nope/val"]);
    place.mixer(&["evaluate", "run", "--data", "data", "--split", "x"]).fails(DATA, &["data/x"]);
    place
        .mixer(&["evaluate", "run", "--data", "data", "--split", "val[5"])
        .fails(CONFIG, &["`val[5`", "`train[:98%]`"]);
}

#[test]
fn fine_tuning_needs_weights_that_fit() {
    let place = Workplace::with_run();
    let finetune = |args: &[&str]| {
        place.mixer(&[&["finetune", "folder.toml", "--run-dir", "other"], args].concat())
    };
    finetune(&[]).fails(CONFIG, &["`init.weights` is missing"]).hints("--init");
    place.pictures("three", &["red", "green", "blue"]);
    let three = ["--init", "run", "--set", "data.path=three"];
    finetune(&[&three[..], &["--set", "init.head=keep"]].concat())
        .fails(CONFIG, &["`init.head = \"keep\"`", "2 classes", "3"]);
    place.write("moved/classes.txt", "red\nblue\n");
    place.write("moved/all.csv", "../data/val/red/0.bmp,0\n../data/val/blue/0.bmp,1\n");
    let moved = ["data.path=moved", "data.train=all.csv", "data.val=all.csv", "init.head=keep"]
        .map(|value| format!("--set={value}"));
    let moved: Vec<&str> = moved.iter().map(String::as_str).collect();
    finetune(&[&["--init", "run"], &moved[..]].concat())
        .fails(CONFIG, &["class `red` is number 1 of the weights and number 0 of the data"])
        .hints("`init.head = \"reset\"`");
    finetune(&["--init", "run", "--set", "model.hidden_dim=16"])
        .fails(CONFIG, &["`model.hidden_dim` is 16, but the weights have 8"])
        .hints("leave the key out");
    finetune(&["--init", "run", "--set", "model.image_size=80000"])
        .fails(CONFIG, &["`model.image_size` is 80000", "expected at most"]);
    finetune(&["--init", "run", "--set", "optimizer.beta1=0.9"])
        .fails(CONFIG, &["has no effect with SGD"]);
    assert!(!place.path("other").exists());
}

#[test]
fn results_overwrite_nothing() {
    let place = Workplace::with_run();
    let before = place.read("run/final.safetensors");
    place
        .mixer(&["weights", "convert", "run", "--out", "run/final.safetensors"])
        .fails(USAGE, &["exists already", "run/final.safetensors"]);
    place
        .mixer(&[
            "weights",
            "resize",
            "run",
            "--image-size",
            "16",
            "--out",
            "run/final.safetensors",
        ])
        .fails(USAGE, &["exists already"]);
    assert!(place.read("run/final.safetensors") == before);
    place
        .mixer(&["weights", "convert", "run", "--out", "nope/x.safetensors"])
        .fails(USAGE, &["folder to write into is missing: nope"]);
}

// Devices.

#[test]
fn a_device_that_cannot_be_used_is_refused_with_those_that_can() {
    let place = Workplace::new();
    let on = |device: &str| place.mixer(&["pretrain", "builtin.toml", "--device", device]);
    on("tpu").fails(DEVICE, &["unknown device `tpu`", "cuda[:N]"]).hints("flex");
    on("flex:1").fails(DEVICE, &["`flex:1` was not found"]).hints("flex");
    if !cfg!(feature = "cuda") {
        on("cuda").fails(DEVICE, &["`cuda` is not compiled"]).hints("--features cuda");
    }
    if !cfg!(feature = "wgpu") {
        on("vulkan:0").fails(DEVICE, &["`vulkan:0` is not compiled"]).hints("--features vulkan");
        on("wgpu:0").fails(DEVICE, &["`wgpu:0` is not compiled"]).hints("--features wgpu");
    }
}

#[test]
fn half_precision_is_refused_where_it_cannot_be_multiplied() {
    let place = Workplace::new();
    let bf16 = ["--set", "train.precision='bf16'", "--device", "ndarray", "--run-dir", "run"];
    place
        .mixer(&[&["pretrain", "builtin.toml"], &bf16[..]].concat())
        .fails(DEVICE, &["precision `bf16` is not supported on device `ndarray`"])
        .hints("AVX512-BF16");
    assert!(!place.path("run").exists());
    for device in ["flex", "ndarray"] {
        let f16 = ["--set", "train.precision='f16'", "--device", device, "--run-dir", "run"];
        let words = format!("precision `f16` is not supported on device `{device}`");
        place
            .mixer(&[&["pretrain", "builtin.toml"], &f16[..]].concat())
            .fails(DEVICE, &[&words])
            .hints("a GPU that computes in f16");
    }
    place
        .mixer(&["pretrain", "builtin.toml", "--set", "train.precision='f8'"])
        .fails(CONFIG, &["train.precision", "f8"]);
}

#[test]
fn loss_scaling_out_of_range_is_refused() {
    let place = Workplace::new();
    for (setting, words) in [
        ("initial=1000", "`train.loss_scale.initial` is 1000, expected a power of two from 1 to"),
        ("initial=0", "`train.loss_scale.initial` is 0, expected a power of two"),
        ("growth_every_steps=0", "train.loss_scale.growth_every_steps"),
        ("decay=2", "decay"),
    ] {
        let setting = format!("train.loss_scale.{setting}");
        place
            .mixer(&["config", "check", "builtin.toml", "--set", &setting])
            .fails(CONFIG, &[words]);
    }
}

#[test]
fn more_threads_than_anybody_needs_are_refused_at_once() {
    let place = Workplace::with_pictures();
    place.mixer(&["--threads", "3000", "devices"]).fails(USAGE, &["`--threads` is 3000", "1024"]);
    place.mixer(&["--threads", "2", "devices"]).succeeds();
}

#[test]
fn evaluation_on_what_is_trained_on_is_warned_of() {
    let place = Workplace::with_pictures();
    let check = |val: &str| {
        let val = format!("data.val={val}");
        place.mixer(&["config", "check", "folder.toml", "--set", &val]).stderr
    };
    assert!(check("train[50%:]").contains("warning: `data.val` is `train[50%:]`"));
    assert_eq!(check("val"), "");
}

// Run directories.

#[test]
fn a_run_is_never_mixed_with_another() {
    let place = Workplace::with_run();
    let before = place.read("run/final.safetensors");
    place
        .mixer(&["pretrain", "folder.toml", "--run-dir", "run", "--resume", "never"])
        .fails(CONFIG, &["holds a run already", "run"])
        .hints("--resume auto");
    pretrain_with(&place, &["seed=7"])
        .fails(CONFIG, &["belongs to another configuration", "`seed` is 7 here and 0 there: run"])
        .hints("--run-dir");
    pretrain_with(&place, &["train.epochs=9"])
        .fails(CONFIG, &["the run is not as long", "`train.steps` is 27 here and 6 there"])
        .hints("--set train.epochs=9 --extend");
    pretrain_with(&place, &["train.epochs=1"])
        .fails(CONFIG, &["belongs to another configuration", "`train.steps` is 3 here"])
        .hints("--run-dir");
    pretrain_with(&place, &["schedule.rewarm_steps=2"])
        .fails(CONFIG, &["`schedule.rewarm_steps` is 2 here and not set there"]);
    place
        .mixer(&["finetune", "folder.toml", "--run-dir", "run", "--init", "run"])
        .fails(CONFIG, &["was made by `mixer pretrain`", "run"])
        .hints("--run-dir");
    place.pictures("three", &["red", "green", "blue"]);
    pretrain_with(&place, &["data.path=three"])
        .fails(DATA, &["classes are not those"])
        .hints("--run-dir");
    place.write("data/train/red/new.bmp", plain_bmp("red"));
    pretrain_with(&place, &[]).fails(DATA, &["found 13 training", "12"]).hints("--run-dir");
    assert!(place.read("run/final.safetensors") == before);
}

#[test]
fn two_processes_never_train_in_one_run_directory() {
    let place = Workplace::with_pictures();
    let args = ["pretrain", "folder.toml", "--run-dir", "run", "--set", "train.steps=100000000"];
    let mut first = place.start(&args, Stdio::null(), Stdio::null());
    let start = Instant::now();
    while !place.path("run/metrics.jsonl").exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "the first process does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = place.mixer(&args);
    let holder = format!("process {}", first.id());
    first.kill().unwrap();
    first.wait().unwrap();
    second.fails(CONFIG, &[&holder, "is training in the run directory"]).hints("--run-dir");
    // What it left behind holds up nobody.
    let settings = ["pretrain", "folder.toml", "--run-dir", "run", "--max-time", "4s"];
    let third = place.mixer(&[&settings[..], &["--set", "train.steps=100000000"]].concat());
    assert!(third.stderr.contains("unfinished: the time limit"), "{third:?}");
    third.succeeds();
}

#[test]
fn nothing_to_continue_is_an_error_where_continuing_is_asked_for() {
    let place = Workplace::with_pictures();
    place
        .mixer(&["pretrain", "folder.toml", "--run-dir", "run", "--resume", "must"])
        .fails(CONFIG, &["no checkpoint to continue from", "run"])
        .hints("--resume auto");
    assert!(!place.path("run").exists());
}

#[test]
fn a_run_directory_that_cannot_be_made_is_refused() {
    let place = Workplace::with_pictures();
    let into = |run_dir: &str| place.mixer(&["pretrain", "folder.toml", "--run-dir", run_dir]);
    into("data").fails(CONFIG, &["holds `train` but no run: data"]).hints("--run-dir");
    into("folder.toml").fails(CONFIG, &["found a file", "folder.toml"]).hints("--run-dir");
    into("folder.toml/run")
        .fails(WEIGHTS, &["cannot make the run directory: Not a directory", ": folder.toml/run"])
        .hints("--run-dir");
    if cfg!(target_os = "linux") {
        into("/proc/run").fails(WEIGHTS, &["cannot make the run directory: No such", "/proc/run"]);
    }
}

#[test]
fn a_damaged_run_is_named_and_its_checkpoints_are_passed_over_to_the_last_good_one() {
    let place = Workplace::with_run();
    let (metrics, weights) = (place.text("run/metrics.jsonl"), place.read("run/final.safetensors"));
    let newest = "run/checkpoints/step_00000006";
    let mut model = place.read(&format!("{newest}/model.safetensors"));
    *model.last_mut().unwrap() ^= 1;
    place.write(&format!("{newest}/model.safetensors"), model);

    let outcome = pretrain_with(&place, &[]);
    let warning =
        format!("damaged checkpoint: `model.safetensors` does not have its checksum: {newest}");
    assert!(outcome.stderr.contains(&warning), "{outcome:?}");
    let from = "continuing at step 3 from run/checkpoints/step_00000003";
    assert!(outcome.stderr.contains(from), "{outcome:?}");
    outcome.succeeds();
    // It ends where the run ended that was never damaged.
    assert!(place.read("run/final.safetensors") == weights);
    assert_eq!(place.text("run/metrics.jsonl").lines().count(), metrics.lines().count());

    // Cut short, then without any that is whole.
    place.write(&format!("{newest}/state.json"), "{");
    std::fs::remove_file(place.path("run/checkpoints/step_00000003/manifest.json")).unwrap();
    let outcome = place.mixer(&["pretrain", "folder.toml", "--run-dir", "run", "--resume", "must"]);
    assert!(outcome.stderr.contains("`state.json` has 1 bytes"), "{outcome:?}");
    assert!(outcome.stderr.contains("manifest.json"), "{outcome:?}");
    outcome.fails(WEIGHTS, &["none of the checkpoints can be read"]);
}

#[test]
fn a_plan_that_somebody_edited_badly_is_refused() {
    let place = Workplace::with_run();
    place.write("run/plan.toml", "task = \"pretrain\"\n");
    pretrain_with(&place, &[]).fails(CONFIG, &["`plan.toml` cannot be read", "run"]);
}

// Training.

#[test]
fn a_run_that_diverges_stops_before_the_update_is_applied() {
    let place = Workplace::with_pictures();
    pretrain_with(&place, &["optimizer.learning_rate=1e30", "train.clip_norm=0"])
        .fails(DIVERGED, &["at step 1", "not applied"])
        .hints("optimizer.learning_rate");
}

// Output that nobody reads.

#[test]
fn closed_output_is_no_failure() {
    let place = Workplace::with_run();
    for args in [
        &["predict", "run", "data/val/red", "data/val/blue"][..],
        &["weights", "inspect", "run"],
        &["config", "schema"],
        &["completions", "bash"],
        &["pretrain", "builtin.toml", "--run-dir", "unseen"],
    ] {
        assert_eq!(place.mixer_with_closed_output(args), Some(0), "mixer {}", args.join(" "));
    }
    // Nobody watches, and still it trains to the end.
    assert!(place.path("unseen/final.safetensors").exists());
    assert_eq!(place.mixer_with_closed_output(&["pretrain", "nope.toml"]), Some(CONFIG));
}
