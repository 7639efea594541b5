//! Several processes of one run, as a launcher of MPI starts them: the same bits as one process, and an end in
//! time whatever happens to one of them.
//!
//! `cargo test --release --workspace --features mixer-train/mpi --test processes`, with `mpirun` on the path.

#![cfg(all(feature = "mpi", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::Workplace;
use common::run::{CONFIG, Fixture, assert_same_run, assert_success, metrics, wait_for_checkpoint};

/// A hang is the failure that these tests are about.
const LIMIT: Duration = Duration::from_secs(120);

/// One at a time: each has more processes than the machine has cores.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_open_mpi() -> bool {
    let version =
        Command::new("mpirun").arg("--version").output().expect("`mpirun` is not installed");
    String::from_utf8_lossy(&version.stdout).contains("Open MPI")
}

/// `mpirun` for more ranks than there are cores, by whichever user.
fn mpirun() -> Command {
    let mut command = Command::new("mpirun");
    if is_open_mpi() {
        command.args(["--oversubscribe", "--bind-to", "none", "--allow-run-as-root"]);
        // Ranks may not read each other's memory in a container.
        command.args(["--mca", "btl_vader_single_copy_mechanism", "none"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same command as so many processes.
fn by(ranks: usize, command: &Command) -> Command {
    let mut several = mpirun();
    several.args(["-n", &ranks.to_string()]).arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        several.current_dir(directory);
    }
    several
}

/// Waits for the end, which must come in time.
fn end(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("still running: {}", stderr(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The process that is a rank of the run in a directory.
fn process(run: &Path, rank: usize) -> u32 {
    let run = run.to_str().unwrap();
    let names = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"].map(|name| format!("{name}={rank}"));
    let is_it = |process: &Path| {
        let read = |file| std::fs::read(process.join(file)).unwrap_or_default();
        let (arguments, environment) = (read("cmdline"), read("environ"));
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut variables = environment.split('\0');
        arguments.contains(run)
            && !arguments.starts_with("mpirun")
            && variables.any(|variable| names.iter().any(|name| name == variable))
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let found =
        processes.into_iter().find(|process| is_it(process)).expect("the rank is not there");
    found.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

fn signal(process: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status();
    assert!(status.unwrap().success());
}

/// Eight microbatches in an update, and of the evaluation a part for each rank, the last one short.
fn fixture() -> Fixture {
    let text = CONFIG
        .replace("microbatch_size = 16", "microbatch_size = 4\neval_batch_size = 3")
        .replace("cutmix_alpha = 1.0", "cutmix_alpha = 1.0, partners = \"batch\"");
    assert!(text.contains("_size = 3") && text.contains("\"batch\""));
    Fixture::with(&text)
}

#[test]
fn any_number_of_processes_is_the_same_run() {
    let _alone = alone();
    let fixture = fixture();
    let expected = fixture.uninterrupted();
    for ranks in [2, 4] {
        let run = fixture.runs.join(format!("{ranks} ranks"));
        assert_success(&end(by(ranks, &fixture.command(&run)).spawn().unwrap()));
        assert_same_run(&run, &expected);
    }
}

/// Both passes of a sharpness-aware update are summed over the processes, and each has the teacher.
#[test]
fn any_number_of_processes_is_the_same_run_with_two_passes_and_a_teacher() {
    let _alone = alone();
    let teacher = Fixture::new();
    let run = teacher.runs.join("teacher");
    let short = ["--set=train.steps=9", "--set=train.eval_every_steps=9"];
    assert_success(&teacher.command(&run).args(short).output().unwrap());
    let fixture = fixture();
    let settings = [
        "--set=optimizer.sam={ rho = 0.1, rho_min = 0.01, adaptive = true, every = 2, alpha = 0.3 }".to_owned(),
        format!("--set=train.teacher={{ weights = '{}', temperature = 2 }}", run.display()),
        "--set=train.steps=60".to_owned(),
    ];
    let expected = fixture.runs.join("one");
    assert_success(&fixture.command(&expected).args(&settings).output().unwrap());
    for ranks in [2, 4] {
        let run = fixture.runs.join(format!("{ranks} ranks"));
        let mut command = fixture.command(&run);
        command.args(&settings);
        assert_success(&end(by(ranks, &command).spawn().unwrap()));
        assert_same_run(&run, &expected);
    }
}

/// Decisions of a run from what it has seen are alike in all processes: the best evaluation, early
/// stopping, and a longer end. They never see the weights that it starts from.
#[test]
fn a_fine_tuning_ends_early_and_is_extended_as_by_one_process() {
    let _alone = alone();
    let start = fixture();
    let weights = start.uninterrupted();
    let text = CONFIG
        .replace(
            "[model]\nimage_size = 16\npatch_size = 4\nhidden_dim = 16\nnum_blocks = 2",
            "[model]\nimage_size = 32",
        )
        .replace("microbatch_size = 16", "microbatch_size = 8")
        .replace("eval_every_steps = 20", "eval_every_steps = 6\neval_at_start = true")
        .replace("drop_path_rate = 0.2", "")
        .replace(
            "[train]",
            "[train]\nfreeze = [\"stem\"]\nlayer_decay = 0.7\nkeep_best_checkpoint = true",
        )
        .replace("[optimizer]", "[optimizer]\nkind = \"sgd\"")
        + "early_stopping = { patience = 2 }\n[init]\nweights = \"WEIGHTS\"\n";
    assert!(text.contains("image_size = 32") && text.contains("freeze") && text.contains("sgd"));
    let text = text.replace("WEIGHTS", weights.to_str().unwrap());
    let fixture = Fixture::with(&text);
    let run = |ranks: usize, arguments: &[&str]| {
        let run = fixture.runs.join(format!("{ranks} ranks"));
        let mut command = fixture.command(&run);
        command.args(arguments);
        if ranks > 1 {
            command = by(ranks, &command);
        }
        let output = end(command.spawn().unwrap());
        assert_success(&output);
        (run, stderr(&output))
    };
    for arguments in [&[][..], &["--extend", "--set", "train.epochs=18"]] {
        let ends = [1, 2, 4].map(|ranks| run(ranks, arguments));
        for (several, said) in &ends[1..] {
            assert!(said.contains("stopped early at step "), "{said}");
            assert_same_run(several, &ends[0].0);
        }
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let _alone = alone();
    let fixture = fixture();
    let expected = fixture.uninterrupted();
    let run = fixture.runs.join("stopped");
    for (ranks, step) in [(4, 9), (2, 60)] {
        let mut child = by(ranks, &fixture.command(&run)).spawn().unwrap();
        wait_for_checkpoint(&mut child, &run, step);
        signal(process(&run, ranks - 1), "TERM");
        let output = end(child);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert!(stderr(&output).contains("checkpoint written"), "{}", stderr(&output));
    }
    assert_success(&fixture.command(&run).output().unwrap());
    assert_same_run(&run, &expected);
}

/// Pictures that cannot be read are met by all ranks, reported once and counted once.
#[test]
fn examples_that_are_passed_over_are_those_of_one_process() {
    let _alone = alone();
    let place = Workplace::with_pictures();
    for broken in ["train/blue/1.bmp", "train/red/4.bmp", "val/red/0.bmp"] {
        place.write(&format!("data/{broken}"), b"BM is not all that a picture needs");
    }
    let command = |at_most: u32, run: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mixer"));
        command.current_dir(place.path("."));
        command.args(["pretrain", "folder.toml", "--device=flex", "--run-dir", run]);
        command.args(["--set", "train.microbatch_size=1", "--set", "train.eval_batch_size=2"]);
        command.args(["--set", &format!("data.on_corrupt.skip.at_most={at_most}")]);
        command.stdin(Stdio::null());
        command
    };
    assert_success(&command(2, "one").output().unwrap());
    for ranks in [2, 4] {
        let run = format!("ranks {ranks}");
        assert_success(&end(by(ranks, &command(2, &run)).spawn().unwrap()));
        assert_eq!(metrics(&place.path(&run)), metrics(&place.path("one")));
        assert_eq!(
            place.read(&format!("{run}/final.safetensors")),
            place.read("one/final.safetensors")
        );
        // One is too many, whoever met it.
        let output = end(by(ranks, &command(1, &format!("too many {ranks}"))).spawn().unwrap());
        assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
        let said = "found 2 unreadable examples, expected at most 1; the last: ";
        assert_eq!(stderr(&output).matches(said).count(), 1, "{}", stderr(&output));
    }
    let alone = command(1, "too many").output().unwrap();
    assert_eq!(alone.status.code(), Some(4));
    assert!(stderr(&alone).contains("found 2 unreadable examples, expected at most 1; the last: "));
}

/// A long run of three ranks, with a checkpoint.
fn started(fixture: &Fixture, name: &str, arguments: &[&str]) -> (PathBuf, Child) {
    let run = fixture.runs.join(name);
    let mut command = fixture.command(&run);
    command.args(["--set", "train.batch_size=24", "--set", "train.epochs=1000000"]);
    command.args(arguments);
    let mut child = by(3, &command).spawn().unwrap();
    wait_for_checkpoint(&mut child, &run, 9);
    (run, child)
}

#[test]
fn whatever_happens_to_a_rank_all_end() {
    let _alone = alone();
    let fixture = fixture();

    let (run, child) = started(&fixture, "killed", &[]);
    signal(process(&run, 1), "KILL");
    let output = end(child);
    assert!(!output.status.success(), "{}", stderr(&output));

    // Nobody passes it on, and nothing but the clock tells.
    let (run, child) = started(&fixture, "hung", &["--set", "train.rank_timeout_secs=2"]);
    let hung = process(&run, 1);
    signal(hung, "STOP");
    let output = end(child);
    assert!(!output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("rank 0 on "), "{}", stderr(&output));
    assert!(stderr(&output).contains("s for rank 1 on "), "{}", stderr(&output));

    // It is passed on by the launcher, and saves.
    let (run, child) = started(&fixture, "asked", &[]);
    signal(process(&run, 2), "USR2");
    let output = end(child);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));

    // A disk that is full, for the one who writes: where all agree, and on the way from there.
    for (every, what) in [(9, "cannot write the checkpoint"), (1000, "cannot write the metrics")] {
        let run = fixture.runs.join(format!("full {every}"));
        let mut command = fixture.command(&run);
        command.args(["--set", &format!("train.checkpoint_every_steps={every}")]);
        command.args(["--set", &format!("train.log_every_steps={}", 1000 / every)]);
        command.args(["--set", "train.eval_every_steps=1000"]);
        let arguments: Vec<&str> = command.get_args().map(|arg| arg.to_str().unwrap()).collect();
        let mut full = mpirun();
        full.args(["-n", "1", "sh", "-c", "ulimit -f 16; exec \"$0\" \"$@\""]);
        full.arg(env!("CARGO_BIN_EXE_mixer")).args(&arguments);
        full.args([":", "-n", "1", env!("CARGO_BIN_EXE_mixer")]).args(&arguments);
        let output = end(full.spawn().unwrap());
        assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
        let errors = stderr(&output).lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{}", stderr(&output));
        assert!(stderr(&output).contains(what), "{}", stderr(&output));
        assert!(stderr(&output).contains("File too large"), "{}", stderr(&output));
    }
}

#[test]
fn ranks_that_are_not_alike_are_refused() {
    let _alone = alone();
    let place = Workplace::new();
    let mixer = env!("CARGO_BIN_EXE_mixer");
    let common = ["pretrain", "builtin.toml", "--device=flex", "--run-dir", "run"];
    let mut unlike = mpirun();
    unlike.current_dir(place.path("."));
    unlike.args(["-n", "1", mixer]).args(common);
    unlike.args([":", "-n", "1", mixer]).args(common).args(["--set", "train.steps=7"]);
    let output = end(unlike.spawn().unwrap());
    assert_eq!(output.status.code(), Some(8), "{}", stderr(&output));
    let said = stderr(&output);
    assert_eq!(said.matches("error: rank 1 on ").count(), 1, "{said}");
    assert!(said.contains(" has the configuration `steps = 7`, rank 0 on "), "{said}");
    assert!(!place.path("run").exists());

    // Six microbatches of one rank each, or of two; four ranks cannot share them.
    let mut four = Command::new(mixer);
    four.args(common).args(["--set", "train.batch_size=12", "--set", "train.microbatch_size=2"]);
    let output = end(by(4, &four).current_dir(place.path(".")).spawn().unwrap());
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("expected 1, 3, 6"), "{}", stderr(&output));

    // What is for one process.
    for arguments in [&["devices"][..], &["pretrain", "builtin.toml", "--sweep", "lr=0.1,0.2"]] {
        let mut command = Command::new(mixer);
        command.args(arguments);
        let output = end(by(2, &command).current_dir(place.path(".")).spawn().unwrap());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    }
}

/// Two machines that are not alike, as far as a folder and the environment of a process can be another machine.
#[test]
fn a_machine_that_differs_is_named_with_what_differs() {
    let _alone = alone();
    let cases = [
        ("true", "", 0, ""),
        (
            "rm data/train/red/0.bmp",
            "",
            4,
            "found 11 training and 6 validation examples, rank 0 has found 12 and 6",
        ),
        (
            "mv data/train/red/0.bmp data/train/red/7.bmp",
            "",
            4,
            "the names of the data files are not those that rank 0",
        ),
        (
            "cp -r data/train/red data/train/green",
            "",
            4,
            "the classes are not those that rank 0 has found",
        ),
        ("echo x > data/train/red/0.bmp", "", 4, "cannot decode image"),
        ("rm folder.toml", "", 3, "cannot read the configuration"),
        ("true", "MIXER_SIMD=portable", 8, "has the vector instructions `portable`"),
    ];
    for (change, variable, code, said) in cases {
        let machines = [Workplace::with_pictures(), Workplace::with_pictures()];
        let mut changed = Command::new("sh");
        changed.args(["-c", change]).current_dir(machines[1].path("."));
        assert!(changed.status().unwrap().success(), "{change}");
        let mut both = mpirun();
        for (rank, machine) in machines.iter().enumerate() {
            let variable = if rank == 1 { variable } else { "" };
            let script =
                format!("cd {} && {variable} exec \"$0\" \"$@\"", machine.path(".").display());
            both.args(if rank == 0 { &[][..] } else { &[":"] });
            both.args(["-n", "1", "sh", "-c", &script, env!("CARGO_BIN_EXE_mixer")]);
            both.args(["pretrain", "folder.toml", "--device=flex", "--run-dir=run"]);
            both.args(["--set", "train.microbatch_size=2"]);
        }
        let output = end(both.spawn().unwrap());
        assert_eq!(output.status.code(), Some(code), "{change}: {}", stderr(&output));
        let errors = stderr(&output).matches("error: rank 1 on ").count();
        assert_eq!(errors, usize::from(code != 0), "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{change}: {}", stderr(&output));
        // Only the first one needs the run directory.
        assert_eq!(machines[0].path("run/final.safetensors").exists(), code == 0);
        assert!(!machines[1].path("run").exists());
    }
}
