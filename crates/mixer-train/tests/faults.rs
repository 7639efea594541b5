//! What happens to a run when the machine, its disk, its data or its user does something to it: how much
//! is lost, and whether it goes on as the same run.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::run::{
    CONFIG, Fixture, assert_same_run, assert_success, metrics, signal, wait_for_checkpoint,
};
use common::{Workplace, bmp};
use mixer_model::{Gelu, MixerConfig};

const DATA: i32 = 4;
const DIVERGED: i32 = 6;
const INTERRUPTED: i32 = 130;

/// Pseudo-random numbers below `below`; the same ones in every run of a test.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits for a process that must come to its end by itself.
fn wait(mut child: Child, at_most: Duration) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > at_most {
            child.kill().unwrap();
            panic!("still running after {at_most:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

/// `MIXER_KILLS=200 cargo test --release --workspace --test faults killed` takes it further.
#[test]
fn a_run_killed_at_random_moments_is_the_same_run() {
    let kills = std::env::var("MIXER_KILLS").map_or(25, |kills| kills.parse().unwrap());
    let fixture = Fixture::new();
    let expected = fixture.uninterrupted();
    let mut random = Random(1);
    let (mut killed, mut runs) = (0, 0);
    let mut run = fixture.runs.join("killed_0");
    loop {
        let mut child = fixture.command(&run).spawn().unwrap();
        let started = Instant::now();
        let life = Duration::from_millis(random.below(300));
        while child.try_wait().unwrap().is_none() && (killed == kills || started.elapsed() < life) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            continue;
        }
        assert_success(&child.wait_with_output().unwrap());
        assert_same_run(&run, &expected);
        runs += 1;
        if killed == kills {
            break;
        }
        run = fixture.runs.join(format!("killed_{runs}"));
    }
    println!("{killed} kills in {runs} runs, each of them the same as the uninterrupted one");
}

#[test]
fn a_run_stopped_between_microbatches_is_the_same_run() {
    // Each update takes 16 passes, so that nearly every signal comes in the middle of one.
    let fixture = Fixture::with(&CONFIG.replace("microbatch_size = 16", "microbatch_size = 2"));
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("stopped");
    let mut random = Random(2);
    let mut stops = 0;
    loop {
        let child = fixture.command(&run).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(60 + random.below(400)));
        if stops < 12 {
            signal(&child, ["-INT", "-TERM", "-HUP"][stops % 3]);
        }
        let output = wait(child, Duration::from_secs(120));
        match output.status.code() {
            Some(0) => break,
            code => assert_eq!(code, Some(INTERRUPTED), "{}", stderr(&output)),
        }
        stops += 1;
    }
    assert_same_run(&run, &expected);
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    // An update that takes some time, which the first signal waits for.
    let fixture = Fixture::with(
        &CONFIG
            .replace("image_size = 16", "image_size = 128")
            .replace("batch_size = 32\nmicrobatch_size = 16", "batch_size = 256"),
    );
    let run = fixture.runs.join("run");
    let mut child = fixture.command(&run).spawn().unwrap();
    let mut output = child.stderr.take().unwrap();
    let mut says = String::new();
    while !says.contains("images/s") {
        let mut bytes = [0; 256];
        let read = output.read(&mut bytes).unwrap();
        assert!(read > 0, "{says}");
        says += &String::from_utf8_lossy(&bytes[..read]);
    }
    signal(&child, "-TERM");
    std::thread::sleep(Duration::from_millis(30));
    if child.try_wait().unwrap().is_none() {
        signal(&child, "-TERM");
    }
    let output = wait(child, Duration::from_secs(2));
    assert_eq!(output.status.code(), Some(INTERRUPTED));
}

#[test]
fn nohup_is_respected() {
    let fixture = Fixture::new();
    let run = fixture.runs.join("run");
    let command = fixture.command(&run);
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(command.get_program());
    let mut child = shell.args(command.get_args()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_checkpoint(&mut child, &run, 9);
    signal(&child, "-HUP");
    assert_success(&wait(child, Duration::from_secs(60)));
}

#[test]
fn a_checkpoint_is_written_when_it_is_asked_for_and_the_run_goes_on() {
    let rare = CONFIG.replace("checkpoint_every_steps = 9", "checkpoint_every_steps = 100000");
    let fixture = Fixture::with(&rare);
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("asked");
    let mut child = fixture.command(&run).spawn().unwrap();
    while !run.join("best.safetensors").exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(&child, "-USR1");
    wait_for_checkpoint(&mut child, &run, 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let output = fixture.command(&run).arg("--resume=must").output().unwrap();
    assert_success(&output);
    assert_same_run(&run, &expected);
}

#[test]
fn a_time_limit_ends_a_run_without_an_error_and_it_can_be_continued() {
    let fixture = Fixture::with(&CONFIG.replace("microbatch_size = 16", "microbatch_size = 2"));
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("limited");
    let mut unfinished = 0;
    loop {
        let started = Instant::now();
        // A second is kept back for saving.
        let output = fixture.command(&run).arg("--max-time=2500ms").output().unwrap();
        assert_success(&output);
        let says = stderr(&output);
        if !says.contains("unfinished: the time limit ends the run at step ") {
            break;
        }
        assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
        assert!(says.contains("run the same command again to continue"), "{says}");
        assert!(!run.join("final.safetensors").exists());
        unfinished += 1;
        assert!(unfinished < 100, "it never comes to its end");
    }
    assert!(unfinished > 0, "the limit was never reached");
    assert_same_run(&run, &expected);
}

#[test]
fn a_time_limit_without_room_for_an_update_is_an_error() {
    let fixture = Fixture::new();
    let run = fixture.runs.join("run");
    let output = fixture.command(&run).arg("--max-time=1s").output().unwrap();
    let says = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{says}");
    assert!(says.contains("no room for an update") && says.contains("--max-time"), "{says}");
}

#[test]
fn a_run_whose_checkpoints_cannot_be_read_is_not_started_again() {
    let place = Workplace::with_run();
    for step in ["step_00000003", "step_00000006"] {
        place.write(&format!("run/checkpoints/{step}/state.json"), "{}");
    }
    let metrics = place.read("run/metrics.jsonl");
    let again = ["pretrain", "folder.toml", "--run-dir", "run"];
    place.mixer(&again).fails(5, &["none of the checkpoints can be read"]).hints("start again");
    assert_eq!(place.read("run/metrics.jsonl"), metrics);
}

#[test]
fn what_is_kept_may_be_changed_when_a_run_is_continued() {
    let fixture = Fixture::new();
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("run");
    let mut child = fixture.command(&run).arg("--set=train.keep_checkpoints=9").spawn().unwrap();
    wait_for_checkpoint(&mut child, &run, 36);
    child.kill().unwrap();
    child.wait().unwrap();
    // As of a process that was killed while it wrote weights.
    let leftover = run.join(".best.safetensors.1-0.tmp");
    std::fs::write(&leftover, "half").unwrap();
    assert_success(&fixture.command(&run).arg("--set=train.keep_checkpoints=1").output().unwrap());
    assert_eq!(mixer_train::disk::checkpoint::list(&run.join("checkpoints")).unwrap().len(), 1);
    assert!(!leftover.exists());
    let plan: toml::Table =
        std::fs::read_to_string(run.join("plan.toml")).unwrap().parse().unwrap();
    assert_eq!(plan["train"]["keep_checkpoints"].as_integer(), Some(1));
    assert_same_run(&run, &expected);
}

#[test]
fn milestones_and_the_best_checkpoint_are_kept() {
    let kept =
        "keep_checkpoints = 1\nkeep_checkpoint_every_steps = 45\nkeep_best_checkpoint = true\n";
    let fixture = Fixture::with(&format!("{CONFIG}{kept}"));
    let run = fixture.uninterrupted();
    let found = mixer_train::disk::checkpoint::list(&run.join("checkpoints")).unwrap();
    let mut steps: Vec<u64> =
        found.iter().filter_map(|path| mixer_train::disk::checkpoint::step_of(path)).collect();
    let text = std::fs::read_to_string(found[0].join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    let best = state["best"][0].as_u64().unwrap();
    let mut expected = vec![141, 135, 90, 45, best];
    steps.sort_unstable();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(steps, expected);
}

// Data that goes away.

/// Pictures of plain colours, and a run on them.
fn with_pictures(settings: &str) -> (Fixture, PathBuf) {
    let fixture = Fixture::with("");
    let data = fixture.runs.join("data");
    for (class, red) in [("dark", 40), ("light", 200)] {
        for (split, count) in [("train", 10), ("val", 4)] {
            std::fs::create_dir_all(data.join(split).join(class)).unwrap();
            for number in 0..count {
                let file = data.join(split).join(class).join(format!("{number}.bmp"));
                std::fs::write(file, bmp(8, 8, [red, 9 * number, 100])).unwrap();
            }
        }
    }
    let text = format!(
        "[model]\nimage_size = 8\npatch_size = 4\nhidden_dim = 8\nnum_blocks = 2\n\
         [data]\npath = {:?}\nworkers = 2\nqueue_mib = 1\n\
         [train]\nbatch_size = 4\nmicrobatch_size = 2\nsteps = 4000\nema_decay = 0.9\n\
         eval_every_steps = 1500\ncheckpoint_every_steps = 100\n{settings}",
        data.display().to_string()
    );
    std::fs::write(fixture.runs.join("run.toml"), text).unwrap();
    (fixture, data)
}

#[test]
fn a_picture_that_goes_bad_in_the_middle_of_a_run_loses_no_step() {
    let (fixture, data) = with_pictures("");
    let expected = fixture.uninterrupted();
    let picture = data.join("train/light/3.bmp");
    let good = std::fs::read(&picture).unwrap();
    let run = fixture.runs.join("bad");
    type Fault = fn(&Path);
    let faults: [(&str, Fault); 4] = [
        ("gone", |path| std::fs::remove_file(path).unwrap()),
        ("cut off", |path| std::fs::write(path, &std::fs::read(path).unwrap()[..90]).unwrap()),
        ("something else", |path| std::fs::write(path, "no picture").unwrap()),
        ("unreadable", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
    ];
    for (number, (fault, break_it)) in faults.into_iter().enumerate() {
        let mut child = fixture.command(&run).spawn().unwrap();
        wait_for_checkpoint(&mut child, &run, 100 + 700 * number as u64);
        break_it(&picture);
        let output = wait(child, Duration::from_secs(60));
        let says = stderr(&output);
        assert_eq!(output.status.code(), Some(DATA), "{fault}: {says}");
        assert!(says.contains("light/3.bmp"), "{fault}: {says}");
        let saved = says.split("checkpoint written: ").nth(1).expect("a checkpoint");
        let saved = PathBuf::from(saved.lines().next().unwrap());
        mixer_train::disk::checkpoint::verify(&saved).unwrap();
        let newest =
            mixer_train::disk::checkpoint::list(&run.join("checkpoints")).unwrap().remove(0);
        assert_eq!(newest, saved, "{fault}: no step is lost");
        if picture.is_dir() {
            std::fs::remove_dir(&picture).unwrap();
        }
        std::fs::write(&picture, &good).unwrap();
    }
    assert_success(&fixture.command(&run).output().unwrap());
    assert_same_run(&run, &expected);
}

#[test]
fn examples_that_were_passed_over_are_reported_once_however_often_the_run_is_stopped() {
    let (fixture, data) = with_pictures("[data.on_corrupt.skip]\nat_most = 2\n");
    std::fs::write(data.join("train/dark/1.bmp"), "no picture").unwrap();
    std::fs::write(data.join("train/light/7.bmp"), "").unwrap();
    let expected = fixture.uninterrupted();
    let skipped = |run: &Path| metrics(run).iter().filter(|line| line["kind"] == "skipped").count();
    assert_eq!(skipped(&expected), 2);
    let run = fixture.runs.join("stopped");
    for step in [100, 900, 2000] {
        let mut child = fixture.command(&run).spawn().unwrap();
        wait_for_checkpoint(&mut child, &run, step);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_success(&fixture.command(&run).output().unwrap());
    assert_same_run(&run, &expected);
}

// Numbers that are not finite.

/// A white picture among black ones, and weights to start from whose sums over it are infinite.
fn with_a_white_picture() -> (Fixture, PathBuf) {
    let (fixture, data) = with_pictures("log_every_steps = 1\n");
    for class in ["dark", "light"] {
        for number in 0..10 {
            let file = data.join("train").join(class).join(format!("{number}.bmp"));
            std::fs::write(file, bmp(8, 8, [0, 0, 0])).unwrap();
        }
        for number in 0..4 {
            let file = data.join("val").join(class).join(format!("{number}.bmp"));
            std::fs::write(file, bmp(8, 8, [0, 0, 0])).unwrap();
        }
    }
    std::fs::write(data.join("train/light/6.bmp"), bmp(8, 8, [255, 255, 255])).unwrap();
    let config = fixture.runs.join("run.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let network = MixerConfig {
        image_size: 8,
        patch_size: 4,
        hidden_dim: 8,
        tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 4 },
        channels_mlp_dim: 32,
        num_blocks: 2,
        num_classes: 2,
        gelu: Gelu::Tanh,
    };
    let mut weights = mixer_model::init::weights(&network, 2, 0.0).unwrap();
    weights.tensors.get_mut("stem.proj.weight").unwrap().data.fill(f32::MAX);
    let huge = fixture.runs.join("huge.safetensors");
    weights.write_safetensors(&huge).unwrap();
    let text = format!("seed = 2\n{text}\n[init]\nweights = {:?}\n", huge.display().to_string())
        .replace(
            "model]\nimage_size = 8\npatch_size = 4\nhidden_dim = 8\nnum_blocks = 2\n",
            "model]\n",
        )
        .replace("[data]", "[data]\nmean = [0, 0, 0]\nstd = [1, 1, 1]\nflip = false")
        .replace("steps = 4000", "steps = 20")
        .replace("eval_every_steps = 1500", "eval_every_steps = 10")
        .replace("checkpoint_every_steps = 100", "checkpoint_every_steps = 2");
    std::fs::write(config, text).unwrap();
    (fixture, data)
}

#[test]
fn an_update_that_is_not_finite_stops_the_run_and_can_be_replayed_and_left_out() {
    let (fixture, _data) = with_a_white_picture();
    let run = fixture.runs.join("run");
    let output = fixture.command(&run).output().unwrap();
    let says = stderr(&output);
    assert_eq!(output.status.code(), Some(DIVERGED), "{says}");
    assert!(says.contains("on_divergence.skip"), "{says}");
    let file = says.split("--replay ").nth(1).expect("a file to replay").split('`').next().unwrap();
    let kept: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let step = kept["step"].as_u64().unwrap();
    assert!(says.contains(&format!("at step {step}: training diverged")), "{says}");
    assert_eq!(kept["examples"].as_array().unwrap().len(), 4);
    // Every batch before it was finite.
    assert!(step > 2, "with this seed, it comes after a checkpoint");
    assert_eq!(kept["last_finite"]["step"].as_u64(), Some(step - 1));

    let before = std::fs::read(run.join("metrics.jsonl")).unwrap();
    let output = fixture.command(&run).args(["--replay", file]).output().unwrap();
    assert_success(&output);
    let report = String::from_utf8(output.stdout.clone()).unwrap();
    let says = stderr(&output);
    assert!(says.contains(&format!("replaying update {step} from step {step}")), "{says}");
    assert!(!says.contains("warning"), "{says}");
    let first = report.lines().skip_while(|line| !line.ends_with("example")).nth(1).unwrap();
    assert!(first.contains("NaN") && first.contains("light/6.bmp"), "{report}");
    assert!(report.contains("blocks.0.mlp_tokens.fc1.weight"), "{report}");
    assert_eq!(std::fs::read(run.join("metrics.jsonl")).unwrap(), before, "nothing is touched");

    // The same command comes to the same end; told to leave it out, it goes on.
    let again = fixture.command(&run).output().unwrap();
    assert_eq!(again.status.code(), Some(DIVERGED));
    // Twenty updates of four are four passes over twenty pictures.
    let skip = "--set=train.on_divergence.skip.at_most=4";
    let output = fixture.command(&run).arg(skip).output().unwrap();
    let says = stderr(&output);
    assert_success(&output);
    assert_eq!(says.matches("the update is left out").count(), 4, "{says}");
    let left_out = metrics(&run).iter().filter(|line| line["kind"] == "diverged").count();
    assert_eq!(left_out, 4);
    let whole = fixture.runs.join("left_out");
    assert_success(&fixture.command(&whole).arg(skip).output().unwrap());
    assert_same_run(&run, &whole);

    let too_few = fixture.runs.join("too_few");
    let output =
        fixture.command(&too_few).arg("--set=train.on_divergence.skip.at_most=3").output().unwrap();
    assert_eq!(output.status.code(), Some(DIVERGED), "{}", stderr(&output));
}

/// The gradient of each update is finite, and what comes of it is not.
#[test]
fn a_divergence_that_only_an_evaluation_shows_stops_the_run_and_leaves_nothing_of_it() {
    let place = Workplace::with_pictures();
    // Half of a class cannot be told from the other one, so that there is always something to learn.
    for number in 0..3 {
        place.write(&format!("data/train/red/{number}.bmp"), common::plain_bmp("blue"));
    }
    let sets = [
        "optimizer.kind=sgd",
        "optimizer.learning_rate=1e9",
        "train.clip_norm=0",
        "train.batch_size=12",
        "train.steps=2",
    ];
    let sets: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).collect();
    let run = ["pretrain", "folder.toml", "--run-dir", "run"];
    let outcome = place.mixer(&[&run[..], &sets].concat());
    outcome.fails(DIVERGED, &["the loss on `val` is NaN at step 2"]).hints("--run-dir");
    let lines = place.text("run/metrics.jsonl");
    assert!(lines.contains("\"kind\":\"eval\",\"step\":2") && lines.contains("\"loss\":null"));
    for file in ["best.safetensors", "final.safetensors"] {
        assert!(!place.path("run").join(file).exists(), "{file}");
    }
    assert_eq!(std::fs::read_dir(place.path("run/checkpoints")).unwrap().count(), 0);
    // Nothing was saved, so that a calmer run may take its place.
    let outcome = place.mixer(&run);
    assert!(outcome.stderr.contains("it starts over"), "{outcome:?}");
    outcome.succeeds();
}

#[test]
fn weights_that_are_not_finite_are_found_before_they_are_written() {
    let place = Workplace::with_run();
    let path = place.path("run/final.safetensors");
    let mut weights = mixer_model::Weights::read(&path, None).unwrap();
    weights.tensors.get_mut("stem.proj.bias").unwrap().data[0] = f32::NAN;
    let file = std::fs::File::create(place.path("bad.safetensors")).unwrap();
    weights.write_safetensors_to(&mut std::io::BufWriter::new(file)).unwrap();
    let args = ["finetune", "folder.toml", "--init", "bad.safetensors", "--run-dir", "tuned"];
    let skip = ["--set", "train.on_divergence.skip.at_most=9", "--set", "train.eval_every_steps=6"];
    let often = ["--set", "train.checkpoint_every_steps=1"];
    let outcome = place.mixer(&[&args[..], &skip, &often].concat());
    outcome.fails(DIVERGED, &["1 values of `stem.proj.bias` are not finite at step 1"]);
    assert_eq!(std::fs::read_dir(place.path("tuned/checkpoints")).unwrap().count(), 0);
    let first = ["--set", "train.eval_at_start=true", "--run-dir", "first"];
    let outcome = place.mixer(&[&args[..4], &first].concat());
    outcome
        .fails(DIVERGED, &["the loss on `val` is NaN before the first update"])
        .hints("weights verify");
}

// Output that nobody reads, and directories that nobody may write to.

#[test]
fn a_full_pipe_holds_up_nothing() {
    let place = Workplace::new();
    // Some 150 kB of lines, more than a pipe holds.
    let args =
        ["pretrain", "builtin.toml", "--run-dir", "run", "--set", "train.eval_every_steps=1"];
    let args = [&args[..], &["--set", "train.steps=1500", "--set", "data.val_examples=2"]].concat();
    let mut child = place.start(&args, Stdio::piped(), Stdio::piped());
    let start = Instant::now();
    // `wait` closes and reads nothing.
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "it waits for who reads");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success());
    assert!(place.path("run/final.safetensors").exists());
}

#[test]
fn closed_outputs_are_no_reason_to_stop() {
    let fixture = Fixture::new();
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("closed");
    let command = fixture.command(&run);
    let mut shell = Command::new("bash");
    shell.args(["-c", "exec \"$0\" \"$@\" >&- 2>&-"]).arg(command.get_program());
    assert!(shell.args(command.get_args()).status().unwrap().success());
    assert_same_run(&run, &expected);
}

#[test]
fn a_run_directory_that_cannot_be_written_to_is_refused() {
    use std::os::unix::process::CommandExt;

    let fixture = Fixture::new();
    let run = fixture.uninterrupted();
    let allow = |mode| std::fs::set_permissions(&run, std::fs::Permissions::from_mode(mode));
    let mut command = fixture.command(&run);
    // The superuser may write everywhere, and steps down to nobody.
    let is_superuser = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if is_superuser {
        std::fs::set_permissions(&fixture.runs, std::fs::Permissions::from_mode(0o755)).unwrap();
        command.uid(65534);
    }
    std::fs::remove_file(run.join("run.lock")).unwrap();
    allow(0o555).unwrap();
    let output = command.output();
    allow(0o755).unwrap();
    // Nobody may not even be allowed to see the program.
    let Ok(output) = output else {
        assert!(is_superuser);
        return;
    };
    let says = stderr(&output);
    assert_eq!(output.status.code(), Some(5), "{says}");
    let words = "cannot write to the run directory: Permission denied (os error 13): ";
    assert!(says.contains(words) && says.contains("run.lock"), "{says}");
    assert!(says.contains("hint: make room in it or make it writable"), "{says}");
}

/// `ulimit -f`, with the signal that ends a process which does not know of it.
#[test]
fn a_limit_on_the_size_of_files_is_a_disk_that_is_full() {
    let place = Workplace::with_run();
    let limited = |kib: &str, args: &[&str]| {
        let mut shell = Command::new("bash");
        shell.current_dir(place.path(".")).args(["-c", "ulimit -f $0; exec \"$@\"", kib]);
        let output = shell.arg(env!("CARGO_BIN_EXE_mixer")).args(args).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    for (kib, file) in [("0", "run.lock"), ("1", "full"), ("4", "full")] {
        let (code, says) = limited(kib, &["pretrain", "folder.toml", "--run-dir", "full"]);
        assert_eq!(code, Some(5), "{says}");
        assert!(says.contains("File too large (os error 27)"), "{says}");
        assert!(says.contains(file) && says.matches("error: ").count() == 1, "{says}");
        std::fs::remove_dir_all(place.path("full")).unwrap();
    }
    let before = std::fs::read_dir(place.path(".")).unwrap().count();
    let (code, says) = limited("1", &["weights", "convert", "run", "--out", "out.safetensors"]);
    assert!(code == Some(5) && says.contains("File too large"), "{says}");
    assert_eq!(std::fs::read_dir(place.path(".")).unwrap().count(), before, "half a file is left");
}

#[test]
fn verify_names_what_is_damaged_in_a_run() {
    let place = Workplace::with_run();
    let whole = place.mixer(&["weights", "verify", "run"]).succeeds();
    assert_eq!(whole.matches("whole    ").count(), 4, "{whole}");
    assert!(whole.contains("checkpoint of step 6"), "{whole}");
    let file = "run/checkpoints/step_00000003/optimizer.safetensors";
    let mut bytes = place.read(file);
    *bytes.last_mut().unwrap() ^= 1;
    place.write(file, bytes);
    place.write("run/final.safetensors", &place.read("run/final.safetensors")[..100]);
    let outcome = place.mixer(&["weights", "verify", "run", "run/best.safetensors"]);
    assert_eq!(outcome.code, Some(5), "{outcome:?}");
    assert_eq!(outcome.stdout.matches("damaged  ").count(), 2, "{outcome:?}");
    assert!(outcome.stdout.contains("`optimizer.safetensors` does not have its checksum"));
    assert!(outcome.stderr.contains("2 of 5 are damaged"), "{outcome:?}");
}
