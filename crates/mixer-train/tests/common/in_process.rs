//! A training inside the test's own process, on Flex under whatever name: what the command line would not
//! allow.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use mixer_model::{HostTensor, Weights};
use mixer_train::TrainError;
use mixer_train::device::{DeviceEntry, DeviceKind};
use mixer_train::plan::Task;
use mixer_train::run::trainer::Outcome;
use mixer_train::{Options, Recipe, Session};

/// A run on Flex that is taken for a device of another kind.
pub fn run(kind: DeviceKind, text: &str, directory: &Path) -> Result<Outcome, TrainError> {
    let device = DeviceEntry::new(kind, "flex".to_owned(), String::new(), Device::flex());
    let options = Options::new(directory.join("run"), device);
    Session::open(&Recipe::parse(text)?, Task::Pretrain, options)?.train()
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
        for of_a_clock in ["images_per_sec", "data_wait", "exchange", "elapsed_secs", "time"] {
            line.remove(of_a_clock);
        }
    }
    lines
}
