//! Every shipped configuration resolves against the facts of its data set, and means what its header
//! says.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use mixer_model::Metadata;
use mixer_train::config::RunConfig;
use mixer_train::loss::Loss;
use mixer_train::optimizer::Rule;
use mixer_train::plan::{DataFacts, InitFacts, RunPlan, Task};

fn configs_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

fn read(name: &str) -> RunConfig {
    RunConfig::read(&configs_directory().join(name), &[]).unwrap().0
}

fn facts(train: u64, val: u64, classes: usize) -> DataFacts {
    DataFacts {
        train_examples: train,
        val_examples: val,
        val_split: "val".to_owned(),
        train_fingerprint: String::new(),
        val_fingerprint: String::new(),
        classes: (0..classes).map(|i| format!("class {i}")).collect(),
    }
}

fn pretrain(name: &str, data: DataFacts) -> RunPlan {
    RunPlan::resolve(&read(name), Task::Pretrain, None, data).unwrap()
}

#[test]
fn every_shipped_configuration_is_tested_here() {
    let tested = [
        "finetune/cifar10_64px.toml",
        "pretrain/cifar10_gpu.toml",
        "pretrain/cifar10_mixer.toml",
        "pretrain/imagenet1k_mixer_b16.toml",
        "quickstart.toml",
    ];
    let root = configs_directory();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
                let text = std::fs::read_to_string(&path).unwrap();
                for part in ["# Run ", "# Expect ", "# Source "] {
                    assert!(text.contains(part), "{name} has no line `{part}`");
                }
                found.push(name);
            }
        }
    }
    found.sort();
    assert_eq!(found, tested);
}

#[test]
fn quick_start_is_five_epochs_of_a_small_mixer() {
    let plan = pretrain("quickstart.toml", facts(20_000, 2000, 10));
    assert_eq!(plan.schedule.total_steps, 781);
    assert_eq!((plan.model.num_tokens(), plan.model.tokens_mlp_dim), (64, 32));
    assert_eq!(plan.warnings(), Vec::<String>::new());
}

#[test]
fn imagenet_recipe_is_the_papers() {
    // 99 % of 1,281,167, as big_vision takes it: 92.9 thousand updates.
    let plan = pretrain("pretrain/imagenet1k_mixer_b16.toml", facts(1_268_355, 50_000, 1000));
    assert_eq!(mixer_model::count::num_params(&plan.model), 59_880_472);
    assert_eq!(plan.schedule.total_steps, 92_897);
    assert_eq!(plan.loss, Loss::Sigmoid);
    assert_eq!(plan.clip_norm, Some(1.0));
    assert!((plan.schedule.rate(10_000) - 0.001).abs() < 1e-12);
    assert!((plan.schedule.rate(92_897) - 1e-8).abs() < 1e-15);
    let Rule::Adamw { weight_decay, beta2, epsilon, .. } = plan.optimizer else { panic!() };
    assert_eq!((weight_decay, beta2, epsilon), (0.1, 0.999, 1e-8));
}

#[test]
fn cifar_on_a_gpu_is_150_epochs_in_bf16() {
    let plan = pretrain("pretrain/cifar10_gpu.toml", facts(50_000, 10_000, 10));
    assert_eq!(plan.schedule.total_steps, 14_648);
    assert_eq!(mixer_model::count::num_params(&plan.model), 4_360_970);
    assert_eq!((plan.model.num_tokens(), plan.precision.name()), (64, "bf16"));
    assert!(plan.mix.is_some() && plan.ema_decay.is_some());
    assert_eq!(plan.warnings(), Vec::<String>::new());
}

#[test]
fn cifar_fine_tuning_doubles_the_resolution_exactly_and_keeps_the_head() {
    let data = facts(50_000, 10_000, 10);
    let weights = pretrain("pretrain/cifar10_mixer.toml", data.clone());
    let init = InitFacts {
        config: weights.model.clone(),
        metadata: Metadata { classes: Some(data.classes.clone()), ..Metadata::default() },
    };
    let config = read("finetune/cifar10_64px.toml");
    let plan = RunPlan::resolve(&config, Task::Finetune, Some(&init), data).unwrap();
    let start = plan.init.as_ref().unwrap();
    assert_eq!(
        (start.image_size, start.resolution.as_str(), start.reset_head),
        (32, "exact ×2", false)
    );
    assert_eq!(plan.model.tokens_mlp_dim, 4 * weights.model.tokens_mlp_dim);
    assert_eq!(plan.model.num_tokens(), 256);
}

#[test]
fn repeats_lengthen_an_epoch_and_are_refused_or_warned_of_where_they_make_no_sense() {
    let resolve = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|entry| (*entry).to_owned()).collect();
        let path = configs_directory().join("quickstart.toml");
        let (config, _) = RunConfig::read(&path, &overrides).unwrap();
        RunPlan::resolve(&config, Task::Pretrain, None, facts(20_000, 2000, 10))
    };
    let plain = resolve(&[]).unwrap();
    let repeated = resolve(&["data.repeats=3"]).unwrap();
    assert_eq!((plain.schedule.total_steps, repeated.schedule.total_steps), (781, 2344));
    assert_eq!((plain.eval_every_steps, repeated.eval_every_steps), (157, 469));
    assert_eq!(repeated.steps_per_epoch(), 3.0 * plain.steps_per_epoch());
    assert_eq!(repeated.warnings(), Vec::<String>::new());
    let read: RunPlan = toml::from_str(&repeated.to_toml().unwrap()).unwrap();
    assert_eq!(read, repeated);
    // The plan of a run from before there were repeats has no such line.
    assert!(!plain.to_toml().unwrap().contains("repeats"));
    assert_eq!(resolve(&["data.repeats=1"]).unwrap(), plain);

    let message = |overrides: &[&str]| resolve(overrides).unwrap_err().to_string();
    assert!(message(&["data.repeats=0"]).contains("`data.repeats` is 0, expected at least 1"));
    assert!(message(&["data.repeats=129"]).contains("at most `train.batch_size`, 128"));
    let nothing_random = ["data.repeats=2", "data.crop=none", "data.flip=false"];
    let warnings = resolve(&nothing_random).unwrap().warnings();
    assert!(warnings[0].contains("nothing in the augmentation is random"), "{warnings:?}");
}

#[test]
fn every_interpolation_survives_the_weights_file_under_the_name_that_timm_has_for_it() {
    for (ours, timms) in [("bilinear", "bilinear"), ("bicubic", "bicubic"), ("area", "box")] {
        let path = configs_directory().join("quickstart.toml");
        let overrides = [format!("data.interpolation={ours}")];
        let (config, _) = RunConfig::read(&path, &overrides).unwrap();
        let data = facts(20_000, 2000, 10);
        let plan = RunPlan::resolve(&config, Task::Pretrain, None, data).unwrap();
        let written = serde_json::to_value(plan.preprocessing).unwrap();
        assert_eq!(written["interpolation"], timms);
        let read = serde_json::from_value(written).unwrap();
        let size = plan.model.image_size;
        assert_eq!(mixer_train::input::eval_transform(&read, size), plan.eval_transform);
    }
}

#[test]
fn a_plan_survives_its_file() {
    let plan = pretrain("pretrain/imagenet1k_mixer_b16.toml", facts(1_268_355, 50_000, 1000));
    let text = plan.to_toml().unwrap();
    assert_eq!(toml::from_str::<RunPlan>(&text).unwrap(), plan, "{text}");
}

#[test]
fn distortions_that_move_pictures_out_of_sight_are_warned_of() {
    let plan = |size: usize| {
        let mut config = read("pretrain/imagenet1k_mixer_b16.toml");
        config.model.image_size = Some(size);
        RunPlan::resolve(&config, Task::Pretrain, None, facts(1_268_355, 50_000, 1000)).unwrap()
    };
    assert_eq!(plan(224).warnings(), Vec::<String>::new());
    let warnings = plan(64).warnings();
    assert!(warnings[0].contains("moves pictures by 150 px, out of the 64 px"), "{warnings:?}");
}
