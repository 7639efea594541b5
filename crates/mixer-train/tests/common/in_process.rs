//! A training inside the test's own process, on Flex under whatever name: what the command line would not
//! allow.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use mixer_model::{HostTensor, Weights, init};
use mixer_train::TrainError;
use mixer_train::config::RunConfig;
use mixer_train::device::DeviceEntry;
use mixer_train::disk::run_dir::{Environment, RunDir};
use mixer_train::input::dataset::Dataset;
use mixer_train::plan::{RunPlan, Task};
use mixer_train::run::trainer::{Outcome, Trainer};

/// A run on Flex under another name.
pub fn run(name: &str, text: &str, directory: &Path) -> Result<Outcome, TrainError> {
    let path = directory.join("config.toml");
    std::fs::write(&path, text).unwrap();
    let (config, text) = RunConfig::read(&path, &[]).unwrap();
    let dataset = Dataset::open(&config.data, 16).unwrap();
    let plan = RunPlan::resolve(&config, Task::Pretrain, None, dataset.facts()).unwrap();
    let run_dir = RunDir::new(directory.join("run"));
    let _lock = run_dir.create(&text, &plan, &Environment::current(name)).unwrap();
    let device = DeviceEntry::new(name.to_owned(), String::new(), Device::flex());
    let (model, seed, bias) =
        (plan.model.network.clone(), plan.seed, plan.model.head_bias.unwrap_or_default());
    let (workers, queue_bytes, time_limit) = (1, 1 << 20, None);
    let trainer = Trainer { plan, dataset, run_dir, device, workers, queue_bytes, time_limit };
    trainer.run(|| Ok(init::weights(&model, seed, bias)?), None)
}

/// The tensors that it ended with.
pub fn weights(directory: &Path) -> BTreeMap<String, HostTensor> {
    Weights::read(&directory.join("run/final.safetensors"), None).unwrap().tensors
}

/// Every line of metrics, without what is a matter of time.
pub fn metrics(directory: &Path) -> Vec<serde_json::Value> {
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
