//! A run that has a bit of everything, and the comparison of two runs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mixer_train::disk::metrics::Metric;

/// A run of 141 updates with all that is random, and all that has a state.
pub const CONFIG: &str = r#"
seed = 5
[model]
image_size = 16
patch_size = 4
hidden_dim = 16
num_blocks = 2
drop_path_rate = 0.2
[data]
source = "builtin"
train_examples = 150
val_examples = 40
repeats = 2
crop = { pad = { pixels = 2 } }
eval_resize = "squash"
randaugment = { flavour = "big_vision", layers = 2, magnitude = 10 }
erasing = { probability = 0.25 }
mix = { mixup_alpha = 0.5, cutmix_alpha = 1.0 }
[optimizer]
learning_rate = 0.003
[schedule]
warmup_steps = 5
[train]
batch_size = 32
microbatch_size = 16
epochs = 15
label_smoothing = 0.1
ema_decay = 0.98
# 2^66: the first updates overflow.
loss_scale = { initial = 7.378697629483821e19, growth_every_steps = 25 }
log_every_steps = 7
eval_every_steps = 20
checkpoint_every_steps = 9
"#;

/// A configuration, and a directory for its runs.
pub struct Fixture {
    _directory: tempfile::TempDir,
    config: PathBuf,
    pub runs: PathBuf,
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture::with(CONFIG)
    }

    pub fn with(text: &str) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("run.toml");
        std::fs::write(&config, text).unwrap();
        Fixture { config, runs: directory.path().to_owned(), _directory: directory }
    }

    pub fn command(&self, run: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mixer"));
        let fine_tunes = std::fs::read_to_string(&self.config).unwrap().contains("[init]");
        let task = if fine_tunes { "finetune" } else { "pretrain" };
        command.arg(task).arg(&self.config).arg("--run-dir").arg(run).arg("--device=flex");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn uninterrupted(&self) -> PathBuf {
        let run = self.runs.join("uninterrupted");
        assert_success(&self.command(&run).output().unwrap());
        run
    }
}

pub fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The metrics without what a clock decides.
pub fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            let object = value.as_object_mut().unwrap();
            for of_a_clock in ["images_per_sec", "data_wait", "exchange", "elapsed_secs", "time"] {
                object.remove(of_a_clock);
            }
            value
        })
        .collect()
}

/// The training time of each line that has it, over all lives of the run.
fn elapsed(run: &Path) -> Vec<f64> {
    let lines = mixer_train::disk::metrics::read(&run.join("metrics.jsonl")).unwrap();
    let elapsed = lines.into_iter().filter_map(|line| match line {
        Metric::Train { elapsed_secs, .. } | Metric::Eval { elapsed_secs, .. } => elapsed_secs,
        _ => None,
    });
    elapsed.collect()
}

pub fn assert_same_run(found: &Path, expected: &Path) {
    assert_eq!(metrics(found), metrics(expected));
    let elapsed = elapsed(found);
    assert!(elapsed.is_sorted() && elapsed.first() > Some(&0.0), "{elapsed:?}");
    for file in ["final.safetensors", "final_unaveraged.safetensors", "best.safetensors"] {
        let (a, b) = (std::fs::read(found.join(file)), std::fs::read(expected.join(file)));
        assert!(a.unwrap() == b.unwrap(), "{file} differs");
    }
    let last =
        mixer_train::disk::checkpoint::list(&expected.join("checkpoints")).unwrap().remove(0);
    let found = found.join("checkpoints").join(last.file_name().unwrap());
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let (a, b) = (std::fs::read(found.join(file)), std::fs::read(last.join(file)));
        assert!(a.unwrap() == b.unwrap(), "{file} of the last checkpoint differs");
    }
    assert_eq!(state(&found), state(&last));
}

/// The counters of a checkpoint without what a clock decides: how many digits a rate has.
fn state(checkpoint: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(checkpoint.join("state.json")).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    for of_a_clock in ["metrics_bytes", "elapsed_secs"] {
        value.as_object_mut().unwrap().remove(of_a_clock);
    }
    value
}

/// Waits until the run has a checkpoint of at least `step` updates.
pub fn wait_for_checkpoint(child: &mut Child, run: &Path, step: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let reached = mixer_train::disk::checkpoint::list(&run.join("checkpoints"))
            .unwrap_or_default()
            .iter()
            .filter_map(|path| {
                path.file_name()?.to_str()?.strip_prefix("step_")?.parse::<u64>().ok()
            })
            .any(|found| found >= step);
        if reached {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the run ended before step {step}");
        assert!(Instant::now() < deadline, "no checkpoint of step {step} after a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn signal(child: &Child, name: &str) {
    // The shell's own `kill`: the program is not part of every system.
    let command = format!("kill {name} {}", child.id());
    let status = Command::new("bash").args(["-c", &command]).status().unwrap();
    assert!(status.success());
}
