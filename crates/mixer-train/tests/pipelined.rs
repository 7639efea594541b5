//! A GPU is given the next update before the values of the last one are read. Here the CPU is called a GPU
//! to have its run take that path: it must come to the same end as the other one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "flex")]

use std::path::Path;

use burn::tensor::Device;
use mixer_model::{Weights, init};
use mixer_train::TrainError;
use mixer_train::backend::DeviceEntry;
use mixer_train::config::RunConfig;
use mixer_train::dataset::Dataset;
use mixer_train::plan::{DataFacts, RunPlan, Task};
use mixer_train::run_dir::{Environment, RunDir};
use mixer_train::trainer::{Outcome, Trainer};

const CONFIG: &str = r#"
    [model]
    image_size = 16
    patch_size = 4
    hidden_dim = 16
    num_blocks = 1

    [data]
    source = "builtin"
    train_examples = 96
    val_examples = 32

    [train]
    batch_size = 16
    steps = 11
    log_every_steps = 2
    eval_every_steps = 4
    ema_decay = 0.9
"#;

/// A run on Flex under another name.
fn run(name: &str, text: &str, directory: &Path) -> Result<Outcome, TrainError> {
    let path = directory.join("config.toml");
    std::fs::write(&path, text).unwrap();
    let (config, text) = RunConfig::read(&path, &[]).unwrap();
    let dataset = Dataset::open(&config.data, 16).unwrap();
    let plan = RunPlan::resolve(&config, Task::Pretrain, None, DataFacts::of(&dataset)).unwrap();
    let run_dir = RunDir::new(directory.join("run"));
    let _lock = run_dir.create(&text, &plan, &Environment::current(name)).unwrap();
    let device = DeviceEntry { name: name.to_owned(), description: "", device: Device::flex() };
    let (model, seed, bias) = (plan.model.clone(), plan.seed, plan.head_bias);
    let (workers, queue_bytes, time_limit) = (1, 1 << 20, None);
    let trainer = Trainer { plan, dataset, run_dir, device, workers, queue_bytes, time_limit };
    trainer.run(|| Ok(init::weights(&model, seed, bias)?), None)
}

/// Every line of metrics, without what is a matter of time.
fn metrics(directory: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(directory.join("run/metrics.jsonl")).unwrap();
    let mut lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        line.remove("images_per_sec");
        line.remove("data_wait");
    }
    lines
}

#[test]
fn a_run_whose_values_are_read_late_is_the_same_run() {
    let (at_once, late) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run("flex", CONFIG, at_once.path()).unwrap();
    run("cuda:0", CONFIG, late.path()).unwrap();
    assert_eq!(metrics(late.path()), metrics(at_once.path()));
    let weights = |directory: &Path| {
        Weights::read(&directory.join("run/final.safetensors"), None).unwrap().tensors
    };
    assert!(weights(late.path()) == weights(at_once.path()));
}

#[test]
fn a_loss_that_is_not_finite_is_found_before_anything_of_it_is_written() {
    let diverging = format!(
        "{CONFIG}\n    clip_norm = 0\n\n    [optimizer]\n    kind = \"sgd\"\n    learning_rate = 1e30\n"
    );
    for name in ["flex", "cuda:0"] {
        let directory = tempfile::tempdir().unwrap();
        let error = run(name, &diverging, directory.path()).unwrap_err();
        assert!(matches!(error, TrainError::Diverged { .. }), "{name}: {error}");
        let written: Vec<_> = std::fs::read_dir(directory.path().join("run/checkpoints"))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
            .unwrap_or_default();
        assert!(written.is_empty(), "{name}: {written:?}");
        assert!(!directory.path().join("run/best.safetensors").exists(), "{name}");
    }
}
