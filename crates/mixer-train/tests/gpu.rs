//! A training from its beginning to its end on every GPU that is there, beside the same on the CPU. Where there
//! is none, nothing is compared, and with `MIXER_EXPECT_GPU` set that is a failure.

#![cfg(all(feature = "flex", any(feature = "wgpu", feature = "cuda")))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::Workplace;
use mixer_model::Precision;
use mixer_train::device;
use serde_json::Value;

/// Relative error of a loss that a GPU may have: its products may be TF32.
const TOLERANCE: f64 = 1e-2;
/// Autotuning and compiling, of which a program that plays a GPU does a lot.
const LIMIT: Duration = Duration::from_secs(900);
/// The exit code of a device that cannot.
const DEVICE: i32 = 7;

/// The name of the first GPU of every kind.
fn gpus() -> Vec<String> {
    let entries = device::available();
    let sound = entries.into_iter().filter(|entry| entry.is_gpu() && entry.flaw.is_none());
    let names = sound.map(|entry| entry.name);
    let gpus: Vec<String> = names.filter(|name| name.ends_with(":0")).collect();
    let expected = std::env::var_os("MIXER_EXPECT_GPU").is_some();
    assert!(!expected || !gpus.is_empty(), "MIXER_EXPECT_GPU is set, and there is no GPU");
    gpus
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The losses of a run by update, of training and of evaluation.
fn losses(place: &Workplace, run: &str) -> Vec<(u64, f64)> {
    let text = place.text(&format!("{run}/metrics.jsonl"));
    let lines = text.lines().map(json);
    lines.map(|line| (line["step"].as_u64().unwrap(), line["loss"].as_f64().unwrap())).collect()
}

fn assert_near(found: &[(u64, f64)], expected: &[(u64, f64)], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: {found:?} {expected:?}");
    for ((step, found), (expected_step, expected)) in found.iter().zip(expected) {
        assert_eq!(step, expected_step, "{what}");
        let error = (found - expected).abs() / expected;
        assert!(error < tolerance, "{what}, step {step}: {found}, on the CPU {expected}");
    }
}

#[test]
fn a_run_on_a_gpu_is_the_run_on_the_cpu() {
    for gpu in gpus() {
        let mut place = Workplace::with_pictures();
        place.limit = LIMIT;
        let on = |device: &str, args: &[&str]| {
            place.mixer(&[args, &["--device", device]].concat()).succeeds()
        };

        // Twelve updates of two microbatches each, with an average.
        let pretrain = |device: &str, run: &str| {
            let settings = ["train.steps=12", "train.microbatch_size=2", "train.ema_decay=0.9"];
            let mut args = vec!["pretrain", "folder.toml", "--run-dir", run];
            settings.iter().for_each(|entry| args.extend(["--set", entry]));
            on(device, &args)
        };
        pretrain("flex", "cpu");
        pretrain(&gpu, "gpu");
        let (found, expected) = (losses(&place, "gpu"), losses(&place, "cpu"));
        assert!(expected[0].1 > 1.2 * expected[expected.len() - 1].1, "it learns: {expected:?}");
        assert_near(&found, &expected, TOLERANCE, &format!("{gpu}, training"));

        // Continued from the checkpoint before the last.
        let last = place.path("gpu/checkpoints/step_00000012");
        std::fs::remove_dir_all(last).unwrap();
        pretrain(&gpu, "gpu");
        assert_near(&losses(&place, "gpu"), &found, TOLERANCE, &format!("{gpu}, continued"));

        // At twice the resolution, from the weights of the GPU.
        let finetune = |device: &str, run: &str| {
            let args = ["finetune", "folder.toml", "--init", "gpu", "--run-dir", run];
            on(device, &[&args[..], &["--set", "model.image_size=16"]].concat())
        };
        finetune("flex", "cpu_16");
        finetune(&gpu, "gpu_16");
        let (found, expected) = (losses(&place, "gpu_16"), losses(&place, "cpu_16"));
        assert_near(&found, &expected, TOLERANCE, &format!("{gpu}, fine-tuning"));

        // The same weights on both.
        let evaluate = |device: &str| {
            json(&on(device, &["evaluate", "gpu_16", "--data", "data", "--format", "json"]))
        };
        let (found, expected) = (evaluate(&gpu), evaluate("flex"));
        assert_eq!((&found["n"], &found["top1"]), (&expected["n"], &expected["top1"]), "{gpu}");
        let loss = |value: &Value| vec![(0, value["loss"].as_f64().unwrap())];
        assert_near(&loss(&found), &loss(&expected), TOLERANCE, &format!("{gpu}, evaluation"));
        let predict = |device: &str| {
            let pictures = ["data/val/blue", "data/val/red"];
            let args = [&["predict", "gpu_16"], &pictures[..], &["--format", "json"]].concat();
            let answers = json(&on(device, &args));
            let best = |answer: &Value| answer["predictions"][0]["class"].clone();
            answers.as_array().unwrap().iter().map(best).collect::<Vec<Value>>()
        };
        assert_eq!(predict(&gpu), predict("flex"), "{gpu}");
        println!("{gpu}: {:?}, on the CPU {:?}", losses(&place, "gpu"), losses(&place, "cpu"));
    }
}

#[test]
fn half_precision_trains_or_is_refused_in_one_line() {
    for gpu in gpus() {
        let mut place = Workplace::new();
        place.limit = LIMIT;
        place.mixer(&["pretrain", "builtin.toml", "--run-dir", "cpu"]).succeeds();
        for precision in [Precision::Bf16, Precision::F16] {
            let name = precision.name();
            let setting = format!("train.precision='{name}'");
            let args = ["pretrain", "builtin.toml", "--device", &gpu, "--set", &setting];
            let outcome = place.mixer(&[&args[..], &["--run-dir", name]].concat());
            if device::open(&gpu).unwrap().multiplies(precision) {
                outcome.succeeds();
                let (found, expected) = (losses(&place, name), losses(&place, "cpu"));
                assert_near(&found, &expected, 2.0 * TOLERANCE, &format!("{gpu} in {name}"));
            } else {
                let words = format!("precision `{name}` is not supported on device `{gpu}`");
                outcome.fails(DEVICE, &[&words]);
                assert!(!place.path(name).exists());
            }
        }
    }
}
