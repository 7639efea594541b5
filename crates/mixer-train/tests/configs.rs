//! Every shipped configuration resolves against the facts of its data set, and means what its header
//! says.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use mixer_data::{AutoAugmentPolicy, RandAugment, TrainCrop};
use mixer_model::weights::ResizeMethod;
use mixer_model::{Gelu, Metadata, MixerConfig, Variant};
use mixer_train::config::RunConfig;
use mixer_train::plan::{DataFacts, InitFacts, RunPlan, Task};
use mixer_train::update::loss::Loss;
use mixer_train::update::optimizer::Rule;
use mixer_train::update::sam::Sam;
use mixer_train::update::schedule::{Decay, LearningRate, Schedule};

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

/// Fine-tuning of weights of the paper, as the published ones: of ImageNet-21k at 224 px, without names.
fn finetune(name: &str, variant: &str, data: DataFacts) -> RunPlan {
    let config = Variant::parse(variant).unwrap().config(224, 21_843, Gelu::Tanh);
    let init = InitFacts::assumed(config, Metadata::default());
    RunPlan::resolve(&read(name), Task::Finetune, Some(&init), data).unwrap()
}

/// What the paper's table 4 says of a pre-training, and what follows from it and the data.
struct Pretraining {
    file: &'static str,
    /// Examples to train on and to evaluate on, and classes.
    data: (u64, u64, usize),
    variant: &'static str,
    /// mixer-facts: the paper's dimensions with that many classes.
    num_params: u64,
    /// Passes over the data by its size, in batches of 4096.
    steps: u64,
    learning_rate: f64,
    weight_decay: f64,
    /// Magnitude of RandAugment and `p` of mixup.
    augmentation: Option<(f64, f64)>,
    drop_path_rate: f64,
}

/// 99 % of 1,281,167, as big_vision takes it.
const IMAGENET: (u64, u64, usize) = (1_268_355, 12_812, 1000);
/// 14,197,122, of which big_vision holds 51,200 back.
const IMAGENET21K: (u64, u64, usize) = (14_145_922, 51_200, 21_843);
/// Not public. The size is ViT's, the classes are BiT's.
const JFT: (u64, u64, usize) = (303_000_000, 50_000, 18_291);

const fn imagenet(
    file: &'static str,
    variant: &'static str,
    num_params: u64,
    steps: u64,
) -> Pretraining {
    Pretraining {
        file,
        data: IMAGENET,
        variant,
        num_params,
        steps,
        learning_rate: 0.001,
        weight_decay: 0.1,
        augmentation: Some((15.0, 0.5)),
        drop_path_rate: 0.1,
    }
}

const fn imagenet21k(
    file: &'static str,
    variant: &'static str,
    num_params: u64,
    augmentation: (f64, f64),
) -> Pretraining {
    Pretraining {
        data: IMAGENET21K,
        augmentation: Some(augmentation),
        ..imagenet(file, variant, num_params, 1_036_078)
    }
}

const fn jft(
    file: &'static str,
    variant: &'static str,
    num_params: u64,
    steps: u64,
    learning_rate: f64,
) -> Pretraining {
    Pretraining {
        data: JFT,
        learning_rate,
        weight_decay: 0.03,
        augmentation: None,
        drop_path_rate: 0.0,
        ..imagenet(file, variant, num_params, steps)
    }
}

const PRETRAINING: [Pretraining; 13] = [
    imagenet("pretrain/imagenet1k_mixer_b16.toml", "B/16", 59_880_472, 92_897),
    imagenet("pretrain/imagenet1k_mixer_b16_60ep.toml", "B/16", 59_880_472, 18_579),
    imagenet("pretrain/imagenet1k_mixer_l16.toml", "L/16", 208_196_168, 92_897),
    imagenet21k("pretrain/imagenet21k_mixer_b16.toml", "B/16", 75_908_739, (10.0, 0.2)),
    imagenet21k("pretrain/imagenet21k_mixer_l16.toml", "L/16", 229_560_243, (20.0, 0.5)),
    // Without head as in the paper's table 1, and (C + 1) · 18,291 for the head.
    jft("pretrain/jft_mixer_s32.toml", "S/32", 18_591_624 + 513 * 18_291, 369_873, 0.003),
    jft("pretrain/jft_mixer_s16.toml", "S/16", 18_015_264 + 513 * 18_291, 369_873, 0.003),
    jft("pretrain/jft_mixer_b32.toml", "B/32", 59_524_428 + 769 * 18_291, 517_822, 0.003),
    jft("pretrain/jft_mixer_b16.toml", "B/16", 59_111_472 + 769 * 18_291, 517_822, 0.003),
    jft("pretrain/jft_mixer_l32.toml", "L/32", 205_914_264 + 1025 * 18_291, 517_822, 0.001),
    jft("pretrain/jft_mixer_l16_7ep.toml", "L/16", 207_171_168 + 1025 * 18_291, 517_822, 0.001),
    jft("pretrain/jft_mixer_l16.toml", "L/16", 207_171_168 + 1025 * 18_291, 1_035_645, 0.001),
    jft("pretrain/jft_mixer_h14.toml", "H/14", 431_069_952 + 1281 * 18_291, 1_035_645, 0.001),
];

/// The published training with SAM or GSAM: file, variant, parameters by mixer-facts, radius, least radius, `alpha`.
type Sharpness = (&'static str, &'static str, u64, f64, Option<f64>, f64);

const SHARPNESS: [Sharpness; 7] = [
    ("pretrain/imagenet1k_mixer_b16_sam.toml", "B/16", 59_880_472, 0.6, None, 0.0),
    ("pretrain/imagenet1k_mixer_b32_sam.toml", "B/32", 60_293_428, 0.6, None, 0.0),
    ("pretrain/imagenet1k_mixer_s32_gsam.toml", "S/32", 19_104_624, 0.5, Some(0.0), 0.2),
    ("pretrain/imagenet1k_mixer_s16_gsam.toml", "S/16", 18_528_264, 0.5, Some(0.0), 0.6),
    ("pretrain/imagenet1k_mixer_s8_gsam.toml", "S/8", 20_646_504, 0.5, Some(0.1), 0.1),
    ("pretrain/imagenet1k_mixer_b32_gsam.toml", "B/32", 60_293_428, 0.7, Some(0.2), 0.05),
    ("pretrain/imagenet1k_mixer_b16_gsam.toml", "B/16", 59_880_472, 0.5, Some(0.2), 0.01),
];

/// What section 3 of the paper, and table 4 of ViT's, say of a fine-tuning.
struct Finetuning {
    file: &'static str,
    data: (u64, u64, usize),
    steps: u64,
    warmup_steps: u64,
    /// The same in its own file at 448 px.
    larger: &'static str,
}

const FINETUNING: [Finetuning; 6] = [
    Finetuning {
        file: "finetune/imagenet1k.toml",
        data: IMAGENET,
        steps: 20_000,
        warmup_steps: 500,
        larger: "finetune/imagenet1k_448.toml",
    },
    Finetuning {
        file: "finetune/cifar10.toml",
        data: (49_000, 1000, 10),
        steps: 10_000,
        warmup_steps: 500,
        larger: "finetune/cifar10_448.toml",
    },
    Finetuning {
        file: "finetune/cifar100.toml",
        data: (49_000, 1000, 100),
        steps: 10_000,
        warmup_steps: 500,
        larger: "finetune/cifar100_448.toml",
    },
    Finetuning {
        file: "finetune/pets.toml",
        data: (3312, 368, 37),
        steps: 500,
        warmup_steps: 100,
        larger: "finetune/pets_448.toml",
    },
    Finetuning {
        file: "finetune/flowers102.toml",
        data: (918, 102, 102),
        steps: 500,
        warmup_steps: 100,
        larger: "finetune/flowers102_448.toml",
    },
    Finetuning {
        file: "finetune/vtab1k.toml",
        // Caltech101, one of its tasks.
        data: (800, 200, 102),
        steps: 2500,
        warmup_steps: 500,
        larger: "finetune/vtab1k_448.toml",
    },
];

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Millions of training examples, `4,243.8`.
fn millions(plan: &RunPlan) -> String {
    let tenths = (plan.train.steps * plan.train.batch_size as u64 + 50_000) / 100_000;
    format!("{}.{}", grouped(tenths / 10), tenths % 10)
}

/// Floating-point operations of the run, `2.9e19`.
fn flops(plan: &RunPlan) -> String {
    let examples = plan.train.steps * plan.train.batch_size as u64;
    format!(
        "{:.1e}",
        examples as f64 * mixer_model::count::training_flops(&plan.model.network) as f64
    )
}

fn assert_header_has(file: &str, line: &str) {
    let text = std::fs::read_to_string(configs_directory().join(file)).unwrap();
    assert!(text.contains(line), "{file} has no `{line}`");
}

#[test]
fn every_shipped_configuration_is_tested_here() {
    let mut tested = vec![
        "finetune/cifar10_64px.toml",
        "pretrain/cifar10_gpu.toml",
        "pretrain/cifar10_mixer.toml",
        "pretrain/imagenet1k_bit_r50x1.toml",
        "pretrain/imagenet1k_vit_b16.toml",
        "pretrain/imagenet1k_vit_s16.toml",
        "pretrain/cifar10_mixer_nano.toml",
        "quickstart.toml",
    ];
    tested.extend(PRETRAINING.iter().map(|recipe| recipe.file));
    tested.extend(SHARPNESS.iter().map(|(file, ..)| *file));
    tested.extend(FINETUNING.iter().flat_map(|recipe| [recipe.file, recipe.larger]));
    tested.sort_unstable();
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
fn pre_training_recipes_are_those_of_the_papers_table() {
    for recipe in &PRETRAINING {
        let file = recipe.file;
        let (train, val, classes) = recipe.data;
        let plan = pretrain(file, facts(train, val, classes));
        assert_eq!(plan.model.network.variant_name(), Some(recipe.variant), "{file}");
        assert_eq!(
            (plan.model.network.image_size, plan.model.network.gelu),
            (224, Gelu::Tanh),
            "{file}"
        );
        assert_eq!(
            mixer_model::count::num_params(&plan.model.network),
            recipe.num_params,
            "{file}"
        );
        assert_eq!((plan.train.batch_size, plan.train.steps), (4096, recipe.steps), "{file}");
        assert_eq!(plan.optimizer.learning_rate, recipe.learning_rate, "{file}");
        assert_eq!((plan.schedule.decay, plan.schedule.warmup_steps), (Decay::Linear, 10_000));
        assert_eq!((plan.train.clip_norm, plan.train.loss), (Some(1.0), Loss::Sigmoid), "{file}");
        // About -ln K, at which the sigmoid loss starts from the frequency of a class.
        assert!(
            (plan.model.head_bias.unwrap_or_default() + (classes as f32).ln()).abs() < 0.05,
            "{file}"
        );
        let adamw = Rule::Adamw {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: recipe.weight_decay,
        };
        assert_eq!(plan.optimizer.rule, adamw, "{file}");
        assert_eq!(plan.model.drop_path().rate, recipe.drop_path_rate, "{file}");
        let magnitude = recipe.augmentation.map(|(magnitude, _)| magnitude);
        let randaugment = plan.train_transform().randaugment.as_ref().map(|ours| match ours {
            RandAugment::BigVision { layers: 2, magnitude } => *magnitude,
            other => panic!("{file}: {other:?}"),
        });
        assert_eq!(randaugment, magnitude, "{file}");
        let mixup = plan.data.mix.as_ref().map(|mix| mix.mixup_alpha);
        assert_eq!(mixup, recipe.augmentation.map(|(_, p)| p), "{file}");
        let (low, high) = (0.05, 1.0);
        let crop = &plan.train_transform().crop;
        assert!(
            matches!(crop, TrainCrop::Inception { area, .. } if *area == (low, high)),
            "{file}"
        );
        assert_eq!(plan.warnings(), Vec::<String>::new(), "{file}");
        let cost = format!(
            "# Cost    {} updates of 4,096: {} M images, {} FLOP\n",
            grouped(recipe.steps),
            millions(&plan),
            flops(&plan)
        );
        assert_header_has(file, &cost);
    }
}

/// The fair pair: the two plans are the same but for network, decay and stochastic depth.
#[test]
fn the_vision_transformer_differs_from_the_mixer_where_augreg_does() {
    let file = "pretrain/imagenet1k_vit_b16.toml";
    let data = || facts(IMAGENET.0, IMAGENET.1, IMAGENET.2);
    let (mixer, vit) =
        (pretrain("pretrain/imagenet1k_mixer_b16.toml", data()), pretrain(file, data()));
    assert_eq!(vit.model.network.variant_name(), Some("ViT-B/16"));
    assert_eq!(mixer_model::count::num_params(&vit.model.network), 86_567_656);
    assert_eq!((vit.schedule.decay, vit.schedule.warmup_steps), (Decay::Cosine, 10_000));
    assert_eq!((vit.model.drop_path().rate, mixer.model.drop_path().rate), (0.0, 0.1));
    assert_eq!(vit.model.head_bias, mixer.model.head_bias);
    assert_eq!(
        (&vit.data, &vit.optimizer, &vit.train),
        (&mixer.data, &mixer.optimizer, &mixer.train)
    );
    assert_eq!(vit.warnings(), Vec::<String>::new());
    let cost =
        format!("92,897 updates of 4,096: {} M images, {} FLOP", millions(&vit), flops(&vit));
    assert_header_has(file, &cost);

    let file = "pretrain/imagenet1k_vit_s16.toml";
    let plan = pretrain(file, data());
    assert_eq!(mixer_model::count::num_params(&plan.model.network), 22_049_896);
    assert_eq!((plan.train.batch_size, plan.train.loss), (1024, Loss::Softmax));
    assert_eq!(plan.data.mix.as_ref().map(|mix| mix.mixup_alpha), Some(0.2));
    let steps = grouped(plan.train.steps);
    let cost =
        format!("{steps} updates of 1,024: {} M images, {} FLOP", millions(&plan), flops(&plan));
    assert_header_has(file, &cost);
    assert_eq!(plan.warnings(), Vec::<String>::new());
}

#[test]
fn vision_transformers_take_the_keys_that_are_theirs() {
    let resolve = |model: &[&str], init: Option<&InitFacts>| {
        let overrides: Vec<String> = model.iter().map(ToString::to_string).collect();
        let path = configs_directory().join("quickstart.toml");
        let mut config = RunConfig::read(&path, &overrides).unwrap().0;
        if init.is_some() {
            config.model = mixer_train::config::ModelConfig {
                variant: config.model.variant,
                tokens_mlp_dim: config.model.tokens_mlp_dim,
                pool: config.model.pool,
                ..Default::default()
            };
        }
        let task = if init.is_some() { Task::Finetune } else { Task::Pretrain };
        RunPlan::resolve(&config, task, init, facts(20_000, 2000, 10))
    };
    let plan = resolve(&["model.num_heads=4", "model.pool=\"average\""], None).unwrap();
    assert_eq!(plan.model.network.family(), "ViT");
    assert!(!plan.model.network.has_class_token());
    let of = |name: &str| {
        let config = Variant::parse(name).unwrap().config(224, 10, Gelu::Tanh);
        InitFacts::assumed(config, Metadata::default())
    };
    let line = |model: &[&str], init: Option<&InitFacts>| {
        let error = resolve(model, init).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    let error = line(&["model.num_heads=5"], None);
    assert!(error.contains("not divisible by 5 heads"), "{error}");
    let error = line(&["model.num_heads=4", "model.tokens_mlp_dim=8"], None);
    assert!(error.contains("both `model.tokens_mlp_dim` and `model.num_heads`"), "{error}");
    let error = line(&["model.pool=\"average\""], None);
    assert!(error.contains("`model.pool`") && error.contains("Mixer"), "{error}");
    let error = line(&["model.variant=\"S/16\""], Some(&of("ViT-S/16")));
    assert!(error.contains("S/16, but the weights are ViT-S/16"), "{error}");
    let error = line(&["model.variant=\"ViT-S/16\""], Some(&of("S/16")));
    assert!(error.contains("ViT-S/16, but the weights are Mixer-S/16"), "{error}");
    let error = line(&["model.tokens_mlp_dim=8"], Some(&of("ViT-S/16")));
    assert!(error.contains("which has none"), "{error}");
}

#[test]
fn the_recipe_of_the_bit_resnet_is_big_visions() {
    let file = "pretrain/imagenet1k_bit_r50x1.toml";
    let plan = pretrain(file, facts(IMAGENET.0, IMAGENET.1, IMAGENET.2));
    assert_eq!(plan.model.network.variant_name(), Some("BiT-R50x1"));
    assert_eq!(mixer_model::count::num_params(&plan.model.network), 25_549_352);
    assert_eq!((plan.train.batch_size, plan.train.loss), (4096, Loss::Softmax));
    assert_eq!((plan.schedule.decay, plan.schedule.warmup_steps), (Decay::Cosine, 1000));
    let (rate, decay) = (0.1 / 256.0 * 4096.0, 1e-4 / 256.0 * 4096.0);
    assert_eq!(plan.optimizer.learning_rate, rate);
    assert_eq!(plan.optimizer.rule, Rule::Sgd { momentum: 0.9, weight_decay: decay / rate });
    let transform = plan.train_transform();
    assert!(matches!(&transform.crop, TrainCrop::Inception { area, .. } if *area == (0.05, 1.0)));
    assert!(transform.flip && transform.randaugment.is_none() && plan.data.mix.is_none());
    let steps = grouped(plan.train.steps);
    let cost =
        format!("{steps} updates of 4,096: {} M images, {} FLOP", millions(&plan), flops(&plan));
    assert_header_has(file, &cost);
    assert_eq!(plan.warnings(), Vec::<String>::new());
}

#[test]
fn bit_resnets_take_the_keys_that_are_theirs() {
    let narrow = "[model]\nimage_size = 32\npatch_size = 8\nhidden_dim = 128\ndepths = [2, 1]\n\
                  num_groups = 8\n";
    let resolve = |model: &str, init: Option<&InitFacts>| {
        let text = format!("{model}[train]\nepochs = 1\n");
        let config = RunConfig::parse(&text, &[]).unwrap().0;
        let task = if init.is_some() { Task::Finetune } else { Task::Pretrain };
        RunPlan::resolve(&config, task, init, facts(20_000, 2000, 10))
    };
    let plan = resolve(narrow, None).unwrap();
    let network = &plan.model.network;
    assert_eq!((network.family(), network.num_blocks, network.channels_mlp_dim), ("BiT", 3, 32));
    // The configuration that has every value resolves to the same plan.
    let all = plan.configuration().unwrap();
    assert_eq!((all.model.depths.as_deref(), all.model.gelu), (Some(&[2, 1][..]), None));
    let again = RunPlan::resolve(&all, Task::Pretrain, None, plan.facts.clone()).unwrap();
    assert_eq!(again.model, plan.model);
    let init = InitFacts::assumed(network.clone(), Metadata::default());
    let line = |model: &str, init: Option<&InitFacts>| {
        let error = resolve(model, init).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    for (keys, expected) in [
        ("tokens_mlp_dim = 8", "both `model.tokens_mlp_dim` and `model.depths`"),
        ("num_heads = 8", "both `model.num_heads` and `model.depths`"),
        ("num_blocks = 4", "expected 4 blocks together"),
        ("pool = \"average\"", "`model.pool` has no effect"),
        ("gelu = \"erf\"", "`model.gelu` has no effect"),
        ("channels_mlp_dim = 24", "expected a multiple of 16"),
    ] {
        let error = line(&format!("{narrow}{keys}\n"), None);
        assert!(error.contains(expected), "{keys}: {error}");
    }
    let changed = |from: &str, to: &str| line(&narrow.replace(from, to), None);
    assert!(changed("32", "24").contains("too small for a BiT-ResNet"));
    assert!(changed("[2, 1]", "[2, 0]").contains("one to four stages"));
    assert!(changed("128", "96").contains("expected a multiple of 64"));
    let recompute = format!("{narrow}[train]\nrecompute_blocks = 1\n");
    let config = RunConfig::parse(&(recompute + "epochs = 1\n"), &[]).unwrap().0;
    let error = RunPlan::resolve(&config, Task::Pretrain, None, facts(20_000, 2000, 10));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("`train.recompute_blocks` has no effect"), "{error}");
    let mixer = "[model]\nvariant = \"S/16\"\n";
    let of_mixer = InitFacts::assumed(
        Variant::parse("S/16").unwrap().config(224, 10, Gelu::Tanh),
        Metadata::default(),
    );
    for (model, init, expected) in [
        ("[model]\nvariant = \"S/16\"\nnum_groups = 4\n", None, "both `model.variant"),
        ("[model]\nvariant = \"S/16\"\ndepths = [1]\n", None, "`model.depths` are set"),
        ("[model]\ndepths = [1, 2]\n", Some(&init), "`model.depths` is [1, 2], but the weights"),
        ("[model]\ndepths = [1, 2]\n", Some(&of_mixer), "but the weights are Mixer-S/16"),
        ("[model]\nnum_groups = 4\n", Some(&of_mixer), "which has none"),
        (
            "[model]\nnum_groups = 4\n",
            Some(&init),
            "`model.num_groups` is 4, but the weights have 8",
        ),
        ("[model]\nnum_heads = 4\n", Some(&init), "which has none"),
        (mixer, Some(&init), "S/16, but the weights are BiT("),
    ] {
        let error = line(model, init);
        assert!(error.contains(expected), "{model}: {error}");
    }
    // A larger picture needs no other weights, and so nothing is said about them.
    let larger = resolve("[model]\nimage_size = 64\n", Some(&init)).unwrap();
    assert_eq!((larger.model.network.image_size, larger.warnings()), (64, Vec::new()));
}

#[test]
fn sharpness_aware_recipes_are_big_visions_with_the_radii_of_the_papers() {
    for (file, variant, num_params, rho, rho_min, alpha) in SHARPNESS {
        let (train, val, classes) = IMAGENET;
        let plan = pretrain(file, facts(train, val, classes));
        let network = &plan.model.network;
        assert_eq!(network.variant_name(), Some(variant), "{file}");
        assert_eq!(mixer_model::count::num_params(network), num_params, "{file}");
        let sam = Sam { rho, rho_min, adaptive: false, every: 1, alpha };
        assert_eq!(plan.optimizer.sam, Some(sam), "{file}");
        assert_eq!((plan.train.batch_size, plan.train.steps), (4096, 92_897), "{file}");
        assert_eq!((plan.train.clip_norm, plan.train.loss), (Some(1.0), Loss::Sigmoid), "{file}");
        assert_eq!(plan.model.head_bias, Some(-10.0), "{file}");
        assert_eq!(
            (plan.data.mix.as_ref(), plan.data.randaugment.as_ref()),
            (None, None),
            "{file}"
        );
        let adamw = Rule::Adamw { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.3 };
        assert_eq!(plan.optimizer.rule, adamw, "{file}");
        // big_vision: `lr=0.003`, `warmup_steps=10_000`, `decay_type='linear'`, `linear_end=0.01`.
        let rates = LearningRate::of(Schedule {
            base: 0.003,
            decay: Decay::Linear,
            warmup_steps: 10_000,
            total_steps: 92_897,
            linear_end: 0.01,
        });
        for step in [0, 9_999, 10_000, 50_000, 92_896] {
            let (found, expected) = (plan.learning_rate().rate(step), rates.rate(step));
            assert!((found - expected).abs() < 1e-12, "{file}: {step}");
        }
        let operations = 2.0 * mixer_model::count::training_flops(network) as f64;
        let cost = format!(
            "# Cost    92,897 updates of 4,096: 380.5 M images in two passes, {:.1e} FLOP\n",
            operations * 92_897.0 * 4096.0
        );
        assert_header_has(file, &cost);
    }
}

#[test]
fn fine_tuning_recipes_are_those_of_the_paper_at_both_resolutions() {
    // Without head at 224 px, what exact expansion to 448 px adds, and channels.
    for (variant, at_224, added, hidden_dim) in
        [("B/16", 59_111_472, 27_115_920, 768), ("L/16", 207_171_168, 72_304_416, 1024)]
    {
        for recipe in &FINETUNING {
            for (file, image_size) in [(recipe.file, 224), (recipe.larger, 448)] {
                let (train, val, classes) = recipe.data;
                let plan = finetune(file, variant, facts(train, val, classes));
                let what = format!("{file} with {variant}");
                let head = (hidden_dim + 1) * classes as u64;
                let expanded = if image_size == 448 { added } else { 0 };
                let found = mixer_model::count::num_params(&plan.model.network);
                assert_eq!(found, at_224 + expanded + head, "{what}");
                assert_eq!(plan.model.network.image_size, image_size, "{what}");
                assert_eq!((plan.train.batch_size, plan.train.steps), (512, recipe.steps));
                assert_eq!(plan.optimizer.learning_rate, 0.03, "{what}");
                assert_eq!(plan.schedule.decay, Decay::Cosine, "{what}");
                assert_eq!(plan.schedule.warmup_steps, recipe.warmup_steps, "{what}");
                let sgd = Rule::Sgd { momentum: 0.9, weight_decay: 0.0 };
                assert_eq!(
                    (plan.optimizer.rule.clone(), plan.train.clip_norm),
                    (sgd, Some(1.0)),
                    "{what}"
                );
                assert_eq!(
                    (plan.train.loss, plan.train.label_smoothing),
                    (Loss::Softmax, 0.0),
                    "{what}"
                );
                let start = plan.init.as_ref().unwrap();
                assert!(start.resets_head(), "{what}");
                let resolution = if image_size == 448 { "exact ×2" } else { "unchanged" };
                assert_eq!(start.resolution(&plan.model.network).to_string(), resolution, "{what}");
                assert_eq!(plan.warnings(), Vec::<String>::new(), "{what}");
                let cost = match variant {
                    "B/16" => format!(
                        "# Cost    {} updates of 512 with B/16: {} M images, {} FLOP; L/16: ",
                        grouped(recipe.steps),
                        millions(&plan),
                        flops(&plan)
                    ),
                    _ => format!("; L/16: {} FLOP", flops(&plan)),
                };
                assert_header_has(file, &cost);
            }
        }
    }
}

#[test]
fn learning_rates_of_the_fine_tuning_recipes_can_be_compared_on_pictures_held_back() {
    for recipe in &FINETUNING {
        for file in [recipe.file, recipe.larger] {
            let data = read(file).data;
            let (train, val) = (data.train.unwrap(), data.val.unwrap());
            let bound = train.strip_prefix("train[:").and_then(|rest| rest.strip_suffix(']'));
            assert_eq!(val, format!("train[{}:]", bound.unwrap()), "{file}");
        }
    }
}

#[test]
fn quick_start_is_five_epochs_of_a_small_mixer() {
    let plan = pretrain("quickstart.toml", facts(20_000, 2000, 10));
    assert_eq!(plan.train.steps, 781);
    assert_eq!(
        (plan.model.network.num_tokens(), plan.model.network.tokens.mlp_dim()),
        (64, Some(32))
    );
    assert_eq!(plan.warnings(), Vec::<String>::new());
}

#[test]
fn the_learning_rate_of_the_imagenet_recipe_is_big_visions() {
    let plan = pretrain("pretrain/imagenet1k_mixer_b16.toml", facts(1_268_355, 50_000, 1000));
    assert!((plan.learning_rate().rate(10_000) - 0.001).abs() < 1e-12);
    assert!((plan.learning_rate().rate(92_897) - 1e-8).abs() < 1e-15);
}

#[test]
fn cifar_on_a_gpu_is_150_epochs_in_bf16() {
    let plan = pretrain("pretrain/cifar10_gpu.toml", facts(50_000, 10_000, 10));
    assert_eq!(plan.train.steps, 14_648);
    assert_eq!(mixer_model::count::num_params(&plan.model.network), 4_360_970);
    assert_eq!(
        (plan.model.network.num_tokens(), plan.train.precision.to_string().as_str()),
        (64, "bf16")
    );
    assert!(plan.data.mix.is_some() && plan.train.ema_decay.is_some());
    assert_eq!(plan.warnings(), Vec::<String>::new());
}

#[test]
fn the_smallest_mixer_for_cifar_is_the_published_one() {
    let plan = pretrain("pretrain/cifar10_mixer_nano.toml", facts(50_000, 10_000, 10));
    assert_eq!(mixer_model::count::num_params(&plan.model.network), 1_132_170);
    assert_eq!((plan.train.steps, plan.schedule.warmup_steps), (117_188, 1953));
    let Some(RandAugment::AutoAugment { policy, fill }) = plan.data.randaugment else {
        panic!("{:?}", plan.data.randaugment);
    };
    assert_eq!((policy, fill), (AutoAugmentPolicy::Cifar10, [0; 3]));
    assert_eq!(plan.warnings(), Vec::<String>::new());
}

#[test]
fn cifar_fine_tuning_doubles_the_resolution_exactly_and_keeps_the_head() {
    let data = facts(50_000, 10_000, 10);
    let weights = pretrain("pretrain/cifar10_mixer.toml", data.clone());
    let metadata = Metadata { classes: Some(data.classes.clone()), ..Metadata::default() };
    let init = InitFacts::assumed(weights.model.network.clone(), metadata);
    let config = read("finetune/cifar10_64px.toml");
    let plan = RunPlan::resolve(&config, Task::Finetune, Some(&init), data).unwrap();
    let start = plan.init.as_ref().unwrap();
    assert_eq!(
        (start.from.config.image_size, start.resolution(&plan.model.network), start.resets_head()),
        (32, ResizeMethod::Exact { factor: 2 }, false)
    );
    let width = |network: &MixerConfig| network.tokens.mlp_dim().unwrap();
    assert_eq!(width(&plan.model.network), 4 * width(&weights.model.network));
    assert_eq!(plan.model.network.num_tokens(), 256);
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
    assert_eq!((plain.train.steps, repeated.train.steps), (781, 2344));
    assert_eq!((plain.train.eval_every_steps, repeated.train.eval_every_steps), (157, 469));
    assert_eq!(repeated.steps_per_epoch(), 3.0 * plain.steps_per_epoch());
    assert_eq!(repeated.warnings(), Vec::<String>::new());
    let again = resolve(&["data.repeats=3", "train.steps=2344"]).unwrap();
    assert_eq!(again, repeated);
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
        let written = serde_json::to_value(plan.preprocessing()).unwrap();
        assert_eq!(written["interpolation"], timms);
        let read = serde_json::from_value(written).unwrap();
        let size = plan.model.network.image_size;
        assert_eq!(
            mixer_train::input::preprocessing::eval_transform(&read, size),
            plan.eval_transform()
        );
    }
}

#[test]
fn a_plan_survives_its_file() {
    let plan = pretrain("pretrain/imagenet1k_mixer_b16.toml", facts(1_268_355, 50_000, 1000));
    let text = plan.to_toml().unwrap();
    let read = RunPlan::from_toml(&text, || panic!("the format has a number"));
    assert_eq!(read.unwrap(), plan, "{text}");
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

/// The configuration that has every value of a plan resolves to it.
fn assert_round_trip(file: &str, plan: &RunPlan) {
    let config = plan.configuration().unwrap();
    let text = toml::to_string(&config).unwrap();
    let (read, _) = RunConfig::parse(&text, &[]).unwrap();
    let init = plan.init.as_ref().map(|init| &init.from);
    let again = RunPlan::resolve(&read, plan.task, init, plan.facts.clone()).unwrap();
    assert_eq!(&again, plan, "{file}: {text}");
    let read = RunPlan::from_toml(&plan.to_toml().unwrap(), || panic!("the format has a number"));
    assert_eq!(&read.unwrap(), plan, "{file}");
}

#[test]
fn every_shipped_configuration_survives_being_shown() {
    for recipe in &PRETRAINING {
        let (train, val, classes) = recipe.data;
        assert_round_trip(recipe.file, &pretrain(recipe.file, facts(train, val, classes)));
    }
    for recipe in &FINETUNING {
        let (train, val, classes) = recipe.data;
        for file in [recipe.file, recipe.larger] {
            assert_round_trip(file, &finetune(file, "B/16", facts(train, val, classes)));
        }
    }
    let cifar = facts(50_000, 10_000, 10);
    for file in ["cifar10_gpu", "cifar10_mixer", "cifar10_mixer_nano"] {
        let file = &format!("pretrain/{file}.toml");
        assert_round_trip(file, &pretrain(file, cifar.clone()));
    }
    assert_round_trip("quickstart.toml", &pretrain("quickstart.toml", facts(20_000, 2000, 10)));
}

#[test]
fn the_documentation_of_the_keys_is_what_is_said_beside_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let found = std::fs::read_to_string(path).unwrap();
    let expected = mixer_train::config::schema::markdown();
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "docs/configuration.md is out of date, at {differs:?}: run `mixer config docs > docs/configuration.md`"
    );
}

#[test]
fn epochs_are_passes_over_the_data_also_where_a_batch_is_larger() {
    let steps = |train: u64, epochs: &str, batch: &str| {
        let warmup = "schedule.warmup_steps=0".to_owned();
        let length = format!("train.epochs={epochs}");
        let overrides = [warmup, length, format!("train.batch_size={batch}")];
        let path = configs_directory().join("quickstart.toml");
        let (config, _) = RunConfig::read(&path, &overrides).unwrap();
        let plan = RunPlan::resolve(&config, Task::Pretrain, None, facts(train, 10, 10)).unwrap();
        plan.train.steps
    };
    assert_eq!(steps(720, "12", "5000"), 2);
    assert_eq!(steps(280, "300", "4096"), 21);
    assert_eq!(steps(10, "1", "5000"), 1);
    assert_eq!(steps(20_000, "5", "128"), 781);
}
