//! Sharpness-aware updates follow their formulas as PyTorch computes them, update by update; and runs with them go on
//! with the same bits, whatever a batch is cut into, and leave out what is not finite. The references are made by
//! `scripts/export_update_golden.py`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use common::Workplace;
use common::references::{fixture, floats, labels, tolerance};
use common::run::{CONFIG, Fixture, assert_same_run, assert_success, metrics, wait_for_checkpoint};
use mixer_model::{Metadata, Mixer, Weights};
use mixer_train::device::DeviceEntry;
use mixer_train::update::loss::{Loss, smoothed_targets};
use mixer_train::update::optimizer::{Clip, GradientSum, GradientTree, Optimizer, Rule};
use mixer_train::update::sam::Sam;
use mixer_train::update::schedule::{Decay, LearningRate, Schedule};
use safetensors::SafeTensors;
use serde_json::Value;

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sam.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// The batch of the fixture, as the network takes it.
struct Examples {
    patches: Tensor<3>,
    targets: Tensor<2>,
}

impl Examples {
    fn new(weights: &Weights, device: &DeviceEntry) -> Self {
        let bytes = std::fs::read(fixture("timm_tiny_io.safetensors")).unwrap();
        let io = SafeTensors::deserialize(&bytes).unwrap();
        let (patches, labels) = (floats(&io, "patches"), labels(&io));
        let (config, device) = (&weights.config, device.device.clone().autodiff());
        let shape = [labels.len(), config.num_tokens(), config.patch_dim()];
        let targets = smoothed_targets(&labels, config.num_classes, 0.0);
        let targets = TensorData::new(targets, [labels.len(), config.num_classes]);
        Self {
            patches: Tensor::from_data(TensorData::new(patches, shape), &device),
            targets: Tensor::from_data(targets, &device),
        }
    }

    /// Loss and gradient of the batch in microbatches of one example, by a loss with a factor.
    fn gradient(&self, mixer: &Mixer, is_gpu: bool, loss_scale: f64) -> (f64, GradientSum) {
        let mut tree = GradientTree::new(loss_scale, is_gpu);
        let examples = self.targets.dims()[0];
        for i in 0..examples {
            let logits = mixer.forward_training(self.patches.clone().narrow(0, i, 1), None);
            let targets = self.targets.clone().narrow(0, i, 1);
            let mean = Loss::Softmax.per_example(logits, targets).mean() / examples as f64;
            tree.add(mixer, mean.clone().inner(), &(mean * loss_scale).backward());
        }
        let (loss, sum) = tree.finish().unwrap();
        (f64::from(loss.into_scalar::<f32>()), sum)
    }
}

fn rule(run: &Value) -> Rule {
    let weight_decay = number(&run["weight_decay"]);
    match run["kind"].as_str().unwrap() {
        "sgd" => Rule::Sgd { momentum: number(&run["momentum"]), weight_decay },
        _ => Rule::Adamw { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay },
    }
}

/// The relative error, which has to be small.
fn near(what: &str, found: f64, expected: f64, tolerance: f64) -> f64 {
    let error = (found - expected).abs() / expected.abs().max(1e-3);
    assert!(error <= tolerance, "{what}: {found}, expected {expected}");
    error
}

#[test]
fn sam_asam_and_gsam_follow_their_formulas_in_pytorch_with_clipping_and_decay() {
    let golden = golden();
    let devices = mixer_train::device::available().into_iter().filter(|entry| entry.flaw.is_none());
    for device in devices {
        let weights = Weights::read(&fixture("timm_tiny.safetensors"), None).unwrap();
        let examples = Examples::new(&weights, &device);
        let (is_gpu, tolerance) = (device.is_gpu(), tolerance(&device.name));
        let mut worst = [0.0f64; 3];
        for (name, run) in golden["runs"].as_object().unwrap() {
            let sam: Sam = serde_json::from_value(run["sam"].clone()).unwrap();
            let rates = LearningRate::of(Schedule {
                base: number(&run["learning_rate"]),
                decay: Decay::Linear,
                warmup_steps: golden["warmup_steps"].as_u64().unwrap(),
                total_steps: golden["steps"].as_u64().unwrap(),
                linear_end: 0.0,
            });
            let autodiff = device.device.clone().autodiff();
            let mut mixer = Mixer::from_weights(weights.clone(), &autodiff).unwrap();
            let mut optimizer = Optimizer::new(rule(run), None);
            let agreed = |number| number;
            for (step, expected) in (0..).zip(run["losses"].as_array().unwrap()) {
                // A factor of the loss changes nothing.
                let factor = if step % 2 == 0 { 1.0 } else { 1024.0 };
                let (loss, mut gradient) = examples.gradient(&mixer, is_gpu, factor);
                if sam.acts(step) {
                    let radius = sam.radius(step, &rates);
                    let moved = sam.ascended(&mixer, &gradient, radius, agreed);
                    let (_, second) = examples.gradient(&moved, is_gpu, factor);
                    gradient = sam.descent(Some(gradient), second, agreed);
                }
                let what = format!("{name} on {}, update {step}", device.name);
                worst[0] = worst[0].max(near(&what, loss, number(expected), tolerance));
                let squared_norm = gradient.squared_norm().unwrap();
                let norm = f64::from(squared_norm.clone().into_scalar::<f32>()).sqrt();
                let expected = number(&run["grad_norms"][step as usize]);
                worst[1] = worst[1].max(near(&what, norm, expected, tolerance));
                let clip = Clip { squared_norm, limit: number(&golden["clip_norm"]) };
                mixer = optimizer.update(mixer, gradient, Some(&clip), rates.rate(step));
            }
            let found = mixer.to_weights(Metadata::default()).unwrap().tensors;
            for (parameter, expected) in run["final"].as_object().unwrap() {
                // Its true gradient is zero, so Adam makes full-size steps of rounding noise.
                if parameter.ends_with("mlp_tokens.fc2.bias") {
                    continue;
                }
                let (after, before) = (&found[parameter].data, &weights.tensors[parameter].data);
                let squares: f64 =
                    after.iter().zip(before).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                let what = format!("{name} on {}, {parameter}", device.name);
                let way = near(&what, squares.sqrt(), number(&expected[0]), 5.0 * tolerance);
                worst[2] = worst[2].max(way);
                let largest = after.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
                for (value, expected) in
                    [(after.first(), &expected[1]), (after.last(), &expected[2])]
                {
                    let error = (f64::from(*value.unwrap()) - number(expected)).abs() / largest;
                    assert!(error <= 5.0 * tolerance, "{what}: {value:?}, expected {expected}");
                }
            }
        }
        let [loss, norm, way] = worst;
        println!(
            "{}: largest relative error of the loss {loss:.1e}, of the gradient norm {norm:.1e}, of the way of a parameter {way:.1e}",
            device.name
        );
    }
}

/// A gradient of zeros, as of a network whose head is new and whose classes are alike, moves nothing.
#[test]
fn a_gradient_of_zeros_moves_no_weight() {
    let device = mixer_train::device::open("cpu").unwrap();
    let weights = Weights::read(&fixture("timm_tiny.safetensors"), None).unwrap();
    let examples = Examples::new(&weights, &device);
    let autodiff = device.device.clone().autodiff();
    let mixer = Mixer::from_weights(weights.clone(), &autodiff).unwrap();
    let nothing = || {
        let logits = mixer.forward_training(examples.patches.clone(), None);
        GradientSum::of(&mixer, &(logits * 0.0).sum().backward())
    };
    for adaptive in [false, true] {
        let sam = Sam { rho: 0.5, rho_min: None, adaptive, every: 1, alpha: 0.5 };
        let moved = sam.ascended(&mixer, &nothing(), 0.5, |number| number);
        let moved = moved.to_weights(Metadata::default()).unwrap();
        assert!(moved.tensors == weights.tensors);
        let applied = sam.descent(Some(nothing()), nothing(), |number| number);
        assert_eq!(applied.squared_norm().unwrap().into_scalar::<f32>(), 0.0);
    }
}

const GSAM: &str =
    "[optimizer]\nsam = { rho = 0.1, rho_min = 0.01, adaptive = true, every = 2, alpha = 0.3 }";

/// With mixup, CutMix, stochastic depth, augmentation, an average and overflows: see `common/run.rs`.
fn gsam_fixture() -> Fixture {
    Fixture::with(&CONFIG.replace("[optimizer]", GSAM))
}

#[test]
fn killed_sharpness_aware_run_matches_uninterrupted_run() {
    let fixture = gsam_fixture();
    let expected = fixture.uninterrupted();
    let plain = Fixture::new();
    assert_ne!(metrics(&expected), metrics(&plain.uninterrupted()), "it is another training");
    let run = fixture.runs.join("killed");
    for step in [9, 72] {
        let mut child = fixture.command(&run).spawn().unwrap();
        wait_for_checkpoint(&mut child, &run, step);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_success(&fixture.command(&run).arg("--resume=must").output().unwrap());
    assert_same_run(&run, &expected);
    // Another radius is another run.
    let other = fixture.command(&run).arg("--set=optimizer.sam.rho=0.2").output().unwrap();
    assert_eq!(other.status.code(), Some(3));
    let says = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(says.contains("`optimizer.sam.rho` is 0.2 here and 0.1 there"), "{says}");
}

/// The second pass takes the same examples with the same draws: along a way too short to round to anything it finds
/// the same gradient.
#[test]
fn a_second_pass_at_the_same_weights_changes_no_bit() {
    let run = |optimizer: &str| {
        let text = CONFIG.replace("[optimizer]", optimizer).replace("epochs = 15", "steps = 21");
        let fixture = Fixture::with(&text.replace("7.378697629483821e19", "1024"));
        let lines = metrics(&fixture.uninterrupted());
        assert!(lines.iter().any(|line| line["kind"] == "train"));
        lines
    };
    let plain = run("[optimizer]");
    for options in ["rho = 1e-30", "rho = 1e-30, adaptive = true"] {
        assert_eq!(run(&format!("[optimizer]\nsam = {{ {options} }}")), plain, "{options}");
    }
}

#[test]
fn options_that_make_no_sense_are_refused_in_a_line() {
    let place = Workplace::new();
    for (options, words) in [
        ("optimizer.sam.rho=0", "`optimizer.sam.rho` is 0, expected a finite value above 0"),
        ("optimizer.sam.rho=-0.1", "`optimizer.sam.rho` is -0.1"),
        ("optimizer.sam.rho=nan", "`optimizer.sam.rho` is NaN"),
        ("optimizer.sam.rho=inf", "`optimizer.sam.rho` is inf"),
        ("optimizer.sam={}", "`rho`"),
        ("optimizer.sam.alpha=0.4", "`rho`"),
        ("optimizer.sam=0.1", "optimizer.sam"),
        (
            "optimizer.sam={ rho = 0.1, every = 0 }",
            "`optimizer.sam.every` is 0, expected at least 1",
        ),
        ("optimizer.sam={ rho = 0.1, every = -1 }", "every"),
        ("optimizer.sam={ rho = 0.1, alpha = -1 }", "`optimizer.sam.alpha` is -1"),
        (
            "optimizer.sam={ rho = 0.1, rho_min = 0.1 }",
            "`optimizer.sam.rho_min` is 0.1, expected at least 0 and below `rho`, 0.1",
        ),
        ("optimizer.sam={ rho = 0.1, gamma = 1 }", "gamma"),
    ] {
        let args = ["config", "check", "builtin.toml", "--set", options];
        place.mixer(&args).fails(3, &[words]);
    }
    place
        .mixer(&[
            "config",
            "check",
            "builtin.toml",
            "--set",
            "optimizer.sam={ rho = 0.1, rho_min = 0.01 }",
            "--set",
            "schedule.decay=constant",
        ])
        .fails(3, &["`optimizer.sam.rho_min` has no effect", "does not decay"]);
}

/// A way uphill that ends where nothing is finite: the loss at the weights is sound, the gradient that would be
/// applied is not.
#[test]
fn a_second_gradient_that_is_not_finite_is_not_applied_but_replayed_or_left_out() {
    const DIVERGED: i32 = 6;
    let place = Workplace::with_pictures();
    let run = |directory: &str, settings: &[&str]| {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let args = ["pretrain", "folder.toml", "--run-dir", directory];
        place.mixer(&args.into_iter().chain(settings).collect::<Vec<_>>())
    };
    let far = "optimizer.sam={ rho = 1e30, every = 3 }";
    let stopped =
        run("run", &[far]).fails(DIVERGED, &["at step 0", "gradient norm", "not applied"]);
    let file = stopped.stderr.split("--replay ").nth(1).unwrap().split('`').next().unwrap();
    let args = ["pretrain", "folder.toml", "--run-dir", "run", "--replay", file, "--set", far];
    let report = place.mixer(&args).succeeds();
    assert!(report.starts_with("update 0: loss 0.69"), "{report}");
    assert!(
        report.contains("gradient norm inf") || report.contains("gradient norm NaN"),
        "{report}"
    );
    assert!(report.contains("stem.proj.weight"), "{report}");
    // Of six updates two take a second pass.
    let two = run("two", &[far, "train.on_divergence.skip.at_most=2"]);
    assert!(two.stderr.contains("left out"), "{two:?}");
    two.succeeds();
    run("one", &[far, "train.on_divergence.skip.at_most=1"]).fails(DIVERGED, &["at step 3"]);
}
