//! Fine-tuning in a run directory: a small Mixer is trained at 32 px, and goes on at 64 px with its weights.
//! Stopped in the middle and run again, it continues.
//!
//! ```sh
//! cargo run --release --example finetune -- runs/example
//! ```

use std::path::{Path, PathBuf};

use mixer_train::device;
use mixer_train::plan::Task;
use mixer_train::run::trainer::Outcome;
use mixer_train::{Options, Recipe, Session};

const SHARED: &str = r#"
[data]
source = "builtin"
train_examples = 4000
val_examples = 500
crop = { pad = { pixels = 2 } }
"#;

const SMALL: &str = r#"
[model]
image_size = 32
patch_size = 8
hidden_dim = 64
num_blocks = 2
[train]
batch_size = 100
epochs = 5
[optimizer]
learning_rate = 0.003
"#;

/// Runs a configuration in a directory, and gives how it ended.
fn run(text: &str, task: Task, run_dir: &Path) -> Result<Outcome, Box<dyn std::error::Error>> {
    let options = Options::new(run_dir, device::open("auto")?);
    let session = Session::open(&Recipe::parse(text)?, task, options)?;
    println!("{}: {}", run_dir.display(), session.job().plan.model.network);
    Ok(session.train()?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or("runs/example".to_owned()));
    let (small, large) = (folder.join("32px"), folder.join("64px"));
    run(&format!("{SMALL}{SHARED}"), Task::Pretrain, &small)?;

    // Token mixing is expanded to four times as many tokens; everything else is taken over.
    let weights = toml::Value::from(small.display().to_string());
    let finetuning = format!(
        "init.weights = {weights}\n{SHARED}
        [model]\nimage_size = 64\n[train]\nbatch_size = 100\nepochs = 1\n[optimizer]\nlearning_rate = 0.01"
    );
    let outcome = run(&finetuning, Task::Finetune, &large)?;
    if let Some((step, best)) = outcome.best {
        println!("top-1 {:.1} % after update {step}", 100.0 * best.top1);
    }
    Ok(())
}
