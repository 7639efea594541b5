//! Loss scaling: a power of two changes nothing but what can be represented, overflows are passed over, and f16
//! trains with it. Here f16 is computed by the CPU, which the command line refuses for being slow.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "flex")]

mod common;

use std::path::Path;

use common::in_process::{metrics, run, weights};
use mixer_train::TrainError;
use mixer_train::device::DeviceKind;
use serde_json::Value;

const CONFIG: &str = r#"
    [model]
    image_size = 16
    patch_size = 4
    hidden_dim = 16
    num_blocks = 2

    [data]
    source = "builtin"
    train_examples = 96
    val_examples = 32

    [optimizer]
    learning_rate = 0.01

    [train]
    batch_size = 16
    microbatch_size = 8
    steps = 40
    log_every_steps = 4
    eval_every_steps = 20
"#;

fn of_kind<'a>(metrics: &'a [Value], kind: &str) -> Vec<&'a Value> {
    metrics.iter().filter(|line| line["kind"] == kind).collect()
}

fn factors(directory: &Path) -> Vec<(u64, f64)> {
    let metrics = metrics(directory);
    let lines = of_kind(&metrics, "loss_scale");
    let both = |line: &&Value| (line["step"].as_u64().unwrap(), line["factor"].as_f64().unwrap());
    lines.iter().map(both).collect()
}

#[test]
fn a_factor_that_overflows_nothing_changes_no_bit() {
    let (plain, scaled) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(DeviceKind::Flex, CONFIG, plain.path()).unwrap();
    run(
        DeviceKind::Flex,
        &format!("{CONFIG}\n    loss_scale = {{ initial = 1024 }}"),
        scaled.path(),
    )
    .unwrap();
    assert_eq!(metrics(scaled.path()), metrics(plain.path()));
    assert!(weights(scaled.path()) == weights(plain.path()));
}

#[test]
fn an_overflow_leaves_the_update_out_and_halves_the_factor() {
    // The squares of gradients that are multiplied by 2^70 are more than f32 holds.
    let config = format!(
        "{CONFIG}\n    loss_scale = {{ initial = {:e}, growth_every_steps = 8 }}",
        2.0_f64.powi(70)
    );
    let mut all = Vec::new();
    // As on a GPU, where an update that may be left out is waited for.
    for kind in [DeviceKind::Flex, DeviceKind::Cuda(0)] {
        let directory = tempfile::tempdir().unwrap();
        run(kind, &config, directory.path()).unwrap();
        let factors = factors(directory.path());
        assert_eq!(factors[0], (1, 2.0_f64.powi(69)));
        let grown = factors.windows(2).filter(|pair| pair[1].1 == 2.0 * pair[0].1).count();
        let fallen = factors.windows(2).filter(|pair| pair[1].1 == 0.5 * pair[0].1).count();
        assert_eq!(grown + fallen, factors.len() - 1, "{factors:?}");
        assert!(grown > 0 && fallen > 2, "{factors:?}");
        assert!(of_kind(&metrics(directory.path()), "diverged").is_empty());
        all.push((metrics(directory.path()), weights(directory.path())));
    }
    assert!(all[0] == all[1]);
    let losses = of_kind(&all[0].0, "train");
    let loss = |line: &Value| line["loss"].as_f64().unwrap();
    assert!(loss(losses[losses.len() - 1]) < loss(losses[0]), "{losses:?}");
}

#[test]
fn a_gradient_that_overflows_without_any_factor_ends_the_run() {
    let config = format!(
        "{CONFIG}\n    loss_scale = {{ initial = 2 }}\n    clip_norm = 0\n    [optimizer]\n    kind = \"sgd\"\n    learning_rate = 1e30"
    )
    .replacen("[optimizer]\n    learning_rate = 0.01\n", "", 1);
    let directory = tempfile::tempdir().unwrap();
    let error = run(DeviceKind::Flex, &config, directory.path()).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
}

#[test]
fn f16_follows_f32_with_scaling_by_default() {
    let (exact, half) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(DeviceKind::Flex, CONFIG, exact.path()).unwrap();
    // The default factor would grow no further in so few updates.
    let config = format!("{CONFIG}\n    precision = \"f16\"");
    // No CPU multiplies f16, but tensors of it there are.
    run(DeviceKind::Graphics, &config, half.path()).unwrap();
    let plan = std::fs::read_to_string(half.path().join("run/plan.toml")).unwrap();
    let plan: toml::Table = plan.parse().unwrap();
    assert_eq!(plan["train"]["loss_scale"]["initial"].as_float(), Some(65536.0));
    let left_out = factors(half.path()).len();
    let (half, exact) = (metrics(half.path()), metrics(exact.path()));
    let (half, exact) = (of_kind(&half, "eval"), of_kind(&exact, "eval"));
    assert_eq!(half.len(), exact.len());
    for (half, exact) in half.iter().zip(exact) {
        let (found, expected) = (half["loss"].as_f64().unwrap(), exact["loss"].as_f64().unwrap());
        println!("f16 {found}, f32 {expected}, {left_out} updates left out");
        assert!(found != expected, "nothing was rounded");
        assert!((found - expected).abs() < 0.02 * expected, "{found} {expected}");
    }
}
