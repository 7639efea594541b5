//! A student learns from a teacher: loss and gradient are those of the formula as PyTorch computes it, the teacher
//! knows the pictures whatever its normalisation, patches and order of classes, runs go on with the same bits, and a
//! student comes closer to its teacher. The references are made by `scripts/export_update_golden.py`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use common::Workplace;
use common::references::fixture;
use common::run::{CONFIG, Fixture, assert_same_run, assert_success, metrics, wait_for_checkpoint};
use mixer_model::weights::Preprocessing;
use mixer_model::{MixerConfig, Weights};
use mixer_train::update::distillation::Distillation;
use mixer_train::update::loss::Loss;
use mixer_train::update::teacher::{Student, Teacher};
use safetensors::SafeTensors;
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

fn rule(temperature: f64, weight: f64) -> Distillation {
    Distillation { weights: PathBuf::new(), temperature, weight, precision: None }
}

#[test]
fn loss_and_gradient_are_those_of_pytorch() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/distillation.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    let rows = cases[0]["losses"].as_array().unwrap().len();
    for device in mixer_train::device::available().into_iter().filter(|entry| entry.flaw.is_none())
    {
        let autodiff = device.device.clone().autodiff();
        let matrix = |name: &str| {
            let values = numbers(&golden[name]);
            let columns = values.len() / rows;
            Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), &autodiff)
        };
        for case in cases {
            let number = |name: &str| case[name].as_f64().unwrap();
            let rule = rule(number("temperature"), number("weight"));
            let logits = matrix("logits").require_grad();
            let hard = Loss::Softmax.per_example(logits.clone(), matrix("targets"));
            let of_teacher = matrix("teacher") / rule.temperature;
            let of_teacher = burn::tensor::activation::log_softmax(of_teacher, 1);
            let losses = rule.losses(hard, logits.clone(), of_teacher);
            let gradients = losses.clone().mean().backward();
            for (what, found, expected) in [
                ("losses", losses.into_data(), numbers(&case["losses"])),
                (
                    "gradient",
                    logits.grad(&gradients).unwrap().into_data(),
                    numbers(&case["gradient"]),
                ),
            ] {
                assert_eq!(found.num_elements(), expected.len());
                for (found, expected) in found.iter::<f32>().zip(expected) {
                    let error = (found - expected).abs() / expected.abs().max(0.1);
                    assert!(error < 1e-5, "{what} on {}: {found}, not {expected}", device.name);
                }
            }
        }
    }
}

/// Square pictures `[B, H, W, 3]` in patches of a side.
fn patches(pictures: &[f32], side: usize, patch: usize) -> Vec<f32> {
    let grid = side / patch;
    let mut values = Vec::with_capacity(pictures.len());
    for picture in pictures.chunks_exact(side * side * 3) {
        for (row, column) in (0..grid * grid).map(|i| (i / grid, i % grid)) {
            for y in row * patch..(row + 1) * patch {
                let first = (y * side + column * patch) * 3;
                values.extend_from_slice(&picture[first..first + patch * 3]);
            }
        }
    }
    values
}

#[test]
fn a_teacher_of_another_normalisation_patch_size_and_order_of_classes_sees_the_same_pictures() {
    const TEMPERATURE: f64 = 2.0;
    let bytes = std::fs::read(fixture("timm_tiny_io.safetensors")).unwrap();
    let io = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let data = io.tensor(name).unwrap().data().to_vec();
        data.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
    };
    let (pictures, logits) = (floats("images"), floats("logits"));
    let mut weights = Weights::read(&fixture("timm_tiny.safetensors"), None).unwrap();
    let names = |order: &[usize]| order.iter().map(|i| format!("class {i}")).collect::<Vec<_>>();
    let of_teacher = [0, 1, 2, 3, 4, 5, 6];
    weights.metadata.classes = Some(names(&of_teacher));
    // The pictures of the fixture are normalised so.
    weights.metadata.preprocessing =
        Some(Preprocessing { mean: [0.5; 3], std: [0.5; 3], ..Preprocessing::default() });
    let (side, num_classes) = (weights.config.image_size, weights.config.num_classes);
    let device = mixer_train::device::open("cpu").unwrap();
    let other =
        Preprocessing { mean: [0.3, 0.45, 0.6], std: [0.2, 0.3, 0.25], ..Preprocessing::default() };
    let same = weights.metadata.preprocessing.unwrap();
    for (preprocessing, patch_size, order) in [
        (same, 4, of_teacher),
        (other, 4, of_teacher),
        (same, 6, of_teacher),
        (other, 8, [3, 6, 0, 5, 1, 2, 4]),
    ] {
        let network = MixerConfig { patch_size, ..weights.config.clone() };
        let classes = names(&order);
        let student =
            Student { network: &network, preprocessing: &preprocessing, classes: &classes };
        let rule = rule(TEMPERATURE, 1.0);
        let teacher = Teacher::new(weights.clone(), &rule, student, &device.device).unwrap();
        let seen: Vec<f32> = pictures
            .iter()
            .enumerate()
            .map(|(i, value)| {
                let pixel = 0.5 * value + 0.5;
                (pixel - preprocessing.mean[i % 3]) / preprocessing.std[i % 3]
            })
            .collect();
        let shape = [pictures.len() / (side * side * 3), network.num_tokens(), network.patch_dim()];
        let seen = TensorData::new(patches(&seen, side, patch_size), shape);
        let found = teacher.log_probabilities(Tensor::from_data(seen, &device.device)).into_data();
        let found: Vec<f32> = found.iter::<f32>().collect();
        for (found, logits) in found.chunks_exact(num_classes).zip(logits.chunks_exact(num_classes))
        {
            let scaled: Vec<f64> = logits.iter().map(|z| f64::from(*z) / TEMPERATURE).collect();
            let sum: f64 = scaled.iter().map(|z| z.exp()).sum();
            for (found, place) in found.iter().zip(order) {
                let expected = scaled[place] - sum.ln();
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 1e-4, "patch {patch_size}: {found}, not {expected}");
            }
        }
    }
}

const TEACHER: &str = r#"
[model]
image_size = 16
patch_size = 4
hidden_dim = 32
num_blocks = 2
[data]
source = "builtin"
train_examples = 2000
val_examples = 300
[optimizer]
learning_rate = 0.003
[schedule]
warmup_steps = 20
[train]
batch_size = 50
steps = 250
eval_every_steps = 250
"#;

/// A folder with a teacher, trained for a moment; `run` is the file of a student.
fn with_teacher(student: &str) -> (Fixture, PathBuf) {
    let fixture = Fixture::with(student);
    let teacher = Fixture::with(TEACHER);
    let run = fixture.runs.join("teacher");
    assert_success(&teacher.command(&run).output().unwrap());
    (fixture, run)
}

#[test]
fn killed_student_matches_an_uninterrupted_one_and_wants_its_own_teacher() {
    let student = CONFIG.replace("[optimizer]", "[optimizer]\nsam = { rho = 0.05, every = 2 }");
    let (fixture, teacher) = with_teacher(&student);
    let taught = |path: &Path| {
        let path = path.join("final.safetensors");
        format!("--set=train.teacher={{ weights = '{}', temperature = 3 }}", path.display())
    };
    let setting = taught(&teacher);
    let start = |run: &Path, setting: &str| {
        let mut command = fixture.command(run);
        command.arg(setting);
        command
    };
    let expected = fixture.runs.join("uninterrupted");
    assert_success(&start(&expected, &setting).output().unwrap());
    let run = fixture.runs.join("killed");
    let mut child = start(&run, &setting).spawn().unwrap();
    wait_for_checkpoint(&mut child, &run, 45);
    child.kill().unwrap();
    child.wait().unwrap();

    // Another teacher is refused, and so is none; the same one may have moved.
    let other = fixture.runs.join("other");
    let short =
        ["--set=train.steps=2", "--set=train.eval_every_steps=2", "--set=schedule.warmup_steps=1"];
    assert_success(&Fixture::with(TEACHER).command(&other).args(short).output().unwrap());
    for (setting, words) in [
        (taught(&other), "the teacher has SHA-256"),
        (setting.replace("temperature = 3", "temperature = 4"), "`train.teacher.temperature` is 4"),
        (
            "--set=train.teacher={ weights = 'nowhere.npz', temperature = 3 }".to_owned(),
            "nowhere.npz",
        ),
        ("--set=seed=5".to_owned(), "`train.teacher` is not set here"),
    ] {
        let output = start(&run, &setting).output().unwrap();
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && says.contains(words), "{setting}: {says}");
    }
    let moved = fixture.runs.join("moved");
    std::fs::rename(&teacher, &moved).unwrap();
    let output = start(&run, &taught(&moved)).arg("--resume=must").output().unwrap();
    assert_success(&output);
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(says.contains("train.teacher.weights: ") && says.contains("continuing at"), "{says}");
    assert_same_run(&run, &expected);
    // The weights say by whom they were taught.
    let weights = Weights::read(&run.join("final.safetensors"), None).unwrap();
    assert_eq!(weights.metadata.provenance["teacher_sha256"].len(), 64);
    // What has come to its end needs no teacher.
    std::fs::remove_dir_all(&moved).unwrap();
    assert_success(&start(&run, &taught(&moved)).output().unwrap());
}

/// Loss and top-1 of the last evaluation.
fn result(run: &Path) -> (f64, f64) {
    let lines = metrics(run);
    let last = lines.iter().rfind(|line| line["kind"] == "eval").unwrap();
    (last["loss"].as_f64().unwrap(), last["top1"].as_f64().unwrap())
}

/// Of 120 pictures a student learns more of the others where a teacher of 2,000 says what it holds for likely.
#[test]
fn a_student_with_a_teacher_is_better_than_one_without() {
    let student = TEACHER
        .replace("hidden_dim = 32", "hidden_dim = 16\ntokens_mlp_dim = 8")
        .replace("train_examples = 2000", "train_examples = 120");
    let (fixture, teacher) = with_teacher(&student);
    let (alone, taught) = (fixture.runs.join("alone"), fixture.runs.join("taught"));
    assert_success(&fixture.command(&alone).output().unwrap());
    let setting = format!(
        "--set=train.teacher={{ weights = '{}', temperature = 2, weight = 0.9 }}",
        teacher.display()
    );
    assert_success(&fixture.command(&taught).arg(setting).output().unwrap());
    let ((loss, top1), (taught_loss, taught_top1)) = (result(&alone), result(&taught));
    println!(
        "teacher {:?}, alone {loss} {top1}, taught {taught_loss} {taught_top1}",
        result(&teacher)
    );
    assert!(taught_loss < 0.9 * loss && taught_top1 > top1, "{taught_loss} {taught_top1}");
}

#[test]
fn teachers_that_do_not_fit_are_refused_in_a_line() {
    let place = Workplace::with_run();
    place.pictures("three", &["red", "green", "blue"]);
    place.pictures("others", &["red", "green"]);
    place
        .mixer(&["weights", "resize", "run", "--image-size", "16", "--out", "larger.safetensors"])
        .succeeds();
    let check = |settings: &[&str]| {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let args: Vec<&str> =
            ["config", "check", "folder.toml"].into_iter().chain(settings).collect();
        place.mixer(&args)
    };
    check(&["train.teacher.weights=run"]).succeeds();
    for (settings, words) in [
        (&["train.teacher={}"][..], "`weights`"),
        (&["train.teacher.temperature=2"], "`weights`"),
        (
            &["train.teacher={ weights = 'run', temperature = 0 }"],
            "`train.teacher.temperature` is 0, expected at least",
        ),
        (
            &["train.teacher={ weights = 'run', temperature = nan }"],
            "`train.teacher.temperature` is NaN",
        ),
        (
            &["train.teacher={ weights = 'run', weight = 0 }"],
            "`train.teacher.weight` is 0, expected above 0 and at most 1",
        ),
        (&["train.teacher={ weights = 'run', weight = 1.5 }"], "`train.teacher.weight` is 1.5"),
        (&["train.teacher={ weights = 'run', precision = 'f8' }"], "f8"),
        (&["train.teacher={ weights = 'run', alpha = 1 }"], "alpha"),
        (
            &["train.teacher.weights=run", "train.loss=sigmoid"],
            "`train.loss` is \"sigmoid\", expected \"softmax\"",
        ),
        (
            &["train.teacher.weights=run", "data.path=three"],
            "the teacher has 2 classes, the data 3",
        ),
        (&["train.teacher.weights=run", "data.path=others"], "does not know class `green`"),
        (&["train.teacher.weights=larger.safetensors"], "pictures of 16 px, the student of 8 px"),
        (
            &["train.teacher.weights=run", "data.shuffle={ patches = { seed = 1 } }"],
            "the teacher was trained with none",
        ),
    ] {
        check(settings).fails(3, &[words]);
    }
    // The hints work, for a smaller and for a larger student.
    for (teacher, size) in [("larger.safetensors", "8"), ("run", "16")] {
        let weights = format!("train.teacher.weights={teacher}");
        let image_size = format!("model.image_size={size}");
        let command = format!("mixer weights resize {teacher} --image-size {size} --out FILE");
        check(&[&weights, &image_size]).fails(3, &["pictures of"]).hints(&command);
        let out = format!("{size}.safetensors");
        place
            .mixer(&["weights", "resize", teacher, "--image-size", size, "--out", &out])
            .succeeds();
        check(&[&format!("train.teacher.weights={out}"), &image_size]).succeeds();
    }
    let missing = check(&["train.teacher.weights=nowhere"]);
    assert!(missing.code != Some(0) && missing.stderr.contains("nowhere"), "{missing:?}");
}
