//! The inside as far as fuzz targets reach it. Not part of the interface.
//!
//! Each function takes bytes that may be anything, and must neither panic nor allocate more than
//! they justify.

use std::collections::BTreeMap;
use std::path::Path;

use mixer_model::{Gelu, HostTensor, Metadata, MixerConfig, Weights, parameters};
use sha2::{Digest, Sha256};

use crate::config::RunConfig;
use crate::disk::checkpoint::{Checkpoint, RunState};
use crate::plan::{DataFacts, InitFacts, RunPlan, Task};
use crate::update::optimizer::FirstMomentDtype;

/// Reads a configuration and makes the plans of it: everything up to a NUL is the file, what follows
/// are overrides, one between two NULs. Says whether it was parsed.
pub fn config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let overrides: Vec<String> = parts.map(str::to_owned).collect();
    let Ok((config, text)) = RunConfig::parse(file, &overrides) else { return false };
    // What is kept with a run means the same.
    let again = RunConfig::parse(&text, &[]).map(|(config, _)| format!("{config:?}"));
    assert_eq!(
        again.ok(),
        Some(format!("{config:?}")),
        "the text of a configuration is another one"
    );
    let init = InitFacts::assumed(tiny(), Metadata::default());
    for (task, init) in [(Task::Pretrain, None), (Task::Finetune, Some(&init))] {
        if let Ok(plan) = RunPlan::resolve(&config, task, init, facts()) {
            drop(plan.warnings());
            drop(plan.to_toml());
            // What is shown of a plan is a configuration that resolves to it.
            if let Ok(shown) = plan.configuration() {
                let again = RunPlan::resolve(&shown, task, init, facts());
                assert_eq!(again.ok(), Some(plan), "what is shown of a plan is another one");
            }
        }
    }
    true
}

/// Reads a checkpoint that is sound but for one file. The first byte says which it is, whether it is the
/// whole file or an end of the sound one, and whether the manifest has the checksum of what is there;
/// the rest is what it holds. Says whether it was read.
pub fn checkpoint(bytes: &[u8]) -> bool {
    const FILES: [&str; 4] =
        ["state.json", "optimizer.safetensors", "model.safetensors", "manifest.json"];
    let Some((&choice, content)) = bytes.split_first() else { return false };
    let folder = scratch();
    let Some(path) = sound_checkpoint(&folder) else { return false };
    let name = FILES[usize::from(choice & 3)];
    drop(std::fs::write(path.join(name), content));
    if name != "manifest.json" && choice & 4 == 0 {
        let listed: BTreeMap<&str, (u64, String)> = FILES[..3]
            .iter()
            .map(|name| {
                let bytes = std::fs::read(path.join(name)).unwrap_or_default();
                let checksum = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
                (*name, (bytes.len() as u64, checksum))
            })
            .collect();
        let manifest = serde_json::to_vec(&listed).unwrap_or_default();
        drop(std::fs::write(path.join("manifest.json"), manifest));
    }
    let read = Checkpoint::read(&path).is_ok();
    drop(std::fs::remove_dir_all(&folder));
    read
}

/// A folder of this thread's own, in memory where the system has such a place.
fn scratch() -> std::path::PathBuf {
    let shm = Path::new("/dev/shm");
    let root = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    root.join(format!("mixer-fuzz-{}-{:?}", std::process::id(), std::thread::current().id()))
}

fn sound_checkpoint(folder: &Path) -> Option<std::path::PathBuf> {
    let tensors = parameters(&tiny())
        .into_iter()
        .map(|spec| (spec.name, HostTensor::filled(&spec.shape, 0.5)))
        .collect();
    let weights = Weights::new(tiny(), tensors, Metadata::default()).ok()?;
    let moments = BTreeMap::from([("head.bias.m".to_owned(), HostTensor::filled(&[2], 0.0))]);
    // The update of the seeds, which has to be that of the directory's name.
    let state = RunState { step: 6, ..RunState::default() };
    std::fs::create_dir_all(folder).ok()?;
    let first_moment_dtype = FirstMomentDtype::F32;
    let checkpoint = Checkpoint { state, weights, moments, first_moment_dtype, optimizer_step: 0 };
    checkpoint.write(folder).ok()
}

fn tiny() -> MixerConfig {
    MixerConfig {
        image_size: 4,
        patch_size: 2,
        hidden_dim: 2,
        tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 2 },
        channels_mlp_dim: 2,
        num_blocks: 1,
        num_classes: 2,
        gelu: Gelu::Tanh,
    }
}

fn facts() -> DataFacts {
    DataFacts {
        train_examples: 100,
        val_examples: 10,
        val_split: "val".to_owned(),
        train_fingerprint: "0".repeat(16),
        val_fingerprint: "0".repeat(16),
        classes: vec!["cat".to_owned(), "dog".to_owned()],
    }
}
