//! A GPU is given the next update before the values of the last one are read. Here the CPU is called a GPU
//! to have its run take that path: it must come to the same end as the other one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "flex")]

mod common;

use common::in_process::{metrics, run, weights};
use mixer_train::TrainError;
use mixer_train::device::DeviceKind;

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

#[test]
fn a_run_whose_values_are_read_late_is_the_same_run() {
    let sharpness = "[optimizer]\nsam = { rho = 0.1, every = 2, alpha = 0.2 }\n";
    for config in [CONFIG.to_owned(), format!("{CONFIG}{sharpness}")] {
        let (at_once, late) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run(DeviceKind::Flex, &config, at_once.path()).unwrap();
        run(DeviceKind::Cuda(0), &config, late.path()).unwrap();
        assert_eq!(metrics(late.path()), metrics(at_once.path()));
        assert!(weights(late.path()) == weights(at_once.path()));
    }
}

#[test]
fn a_loss_that_is_not_finite_is_found_before_anything_of_it_is_written() {
    let diverging = format!(
        "{CONFIG}\n    clip_norm = 0\n\n    [optimizer]\n    kind = \"sgd\"\n    learning_rate = 1e30\n"
    );
    for kind in [DeviceKind::Flex, DeviceKind::Cuda(0)] {
        let directory = tempfile::tempdir().unwrap();
        let error = run(kind, &diverging, directory.path()).unwrap_err();
        assert!(matches!(error, TrainError::Diverged { .. }), "{kind:?}: {error}");
        let written: Vec<_> = std::fs::read_dir(directory.path().join("run/checkpoints"))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
            .unwrap_or_default();
        assert!(written.is_empty(), "{kind:?}: {written:?}");
        assert!(!directory.path().join("run/best.safetensors").exists(), "{kind:?}");
    }
}
