//! Numbers of NumPy and scikit-learn, see `scripts/analysis_golden.py`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mixer_analysis::filters::{frequency, pairs};
use mixer_analysis::{
    LinearProbe, NumpyRandom, Tally, few_shot_support, nearest_neighbours, temperature,
};
use serde_json::Value;

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|v| v as f32).collect()
}

fn indices(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

fn rows<T>(value: &Value, row: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().unwrap().iter().map(row).collect()
}

fn assert_close(found: f64, wanted: &Value, tolerance: f64) {
    let wanted = wanted.as_f64().unwrap();
    assert!((found - wanted).abs() <= tolerance * wanted.abs().max(1.0), "{found} {wanted}");
}

#[test]
fn measures_are_scikit_learns() {
    let golden = golden("measures");
    let (logits, labels) = (rows(&golden["logits"], floats), indices(&golden["labels"]));
    let mut tally = Tally::new(6);
    for (logits, &label) in logits.iter().zip(&labels) {
        tally.add(logits, label);
    }
    let measures = tally.measures();
    for (found, name) in [
        (measures.top1, "top1"),
        (measures.top5, "top5"),
        (measures.loss, "loss"),
        (measures.brier, "brier"),
        (measures.ece, "ece"),
        (measures.mce, "mce"),
        (measures.mean_per_class(), "mean_per_class"),
    ] {
        assert_close(found, &golden[name], 1e-12);
    }
    assert_eq!(serde_json::to_value(&measures.confusion).unwrap(), golden["confusion"]);
    assert_eq!(measures.per_class[5].top1, None);
    let found = temperature(&logits.concat(), &labels).unwrap();
    assert_close(found, &golden["temperature"], 1e-6);
    let loss_at = |temperature: f64| {
        let mut tally = Tally::new(6);
        for (logits, &label) in logits.iter().zip(&labels) {
            let logits: Vec<f32> =
                logits.iter().map(|&x| (f64::from(x) / temperature) as f32).collect();
            tally.add(&logits, label);
        }
        tally.measures().loss
    };
    assert!(loss_at(found) < loss_at(found * 1.01) && loss_at(found) < loss_at(found / 1.01));
}

/// The features of the script.
fn features(golden: &Value) -> (Vec<f32>, Vec<u32>) {
    let mut state = golden["seed"].as_u64().unwrap();
    let mut number = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    let (classes, dim) = (7, 24);
    let mut noise = |terms: usize| (0..terms).fold(0.0, |sum, _| sum + number());
    let centres: Vec<Vec<f64>> =
        (0..classes).map(|_| (0..dim).map(|_| noise(4)).collect()).collect();
    let scale: Vec<f64> = (0..dim).map(|_| 0.05 + noise(1).abs() * 3.0).collect();
    let labels: Vec<u32> = (0..350).map(|i| (i * 7 + i / 5) % classes as u32).collect();
    let mut values = Vec::new();
    for &label in &labels {
        for j in 0..dim {
            let value = (0.45 * centres[label as usize][j] + noise(4)) * scale[j] + 0.3 * scale[j];
            values.push(value as f32);
        }
    }
    (values, labels)
}

#[test]
fn the_probe_is_big_visions() {
    let golden = golden("probe");
    let (features, labels) = features(&golden);
    let (train, test) = features.split_at(140 * 24);
    let (train_labels, test_labels) = labels.split_at(140);
    for case in golden["cases"].as_array().unwrap() {
        let (seed, shots) = (case["seed"].as_u64().unwrap(), case["shots"].as_u64().unwrap());
        let support = few_shot_support(train_labels, 7, seed, shots as usize);
        assert_eq!(support, indices(&case["support"]), "seed {seed}, {shots} shots");
        let x: Vec<f32> = support.iter().flat_map(|i| train[i * 24..][..24].to_vec()).collect();
        let y: Vec<u32> = support.iter().map(|&i| train_labels[i]).collect();
        let probe = LinearProbe::fit(&x, &y, 7, case["l2"].as_f64().unwrap()).unwrap();
        let right = probe.accuracy(test, test_labels) * 210.0;
        assert_eq!(right.round() as u64, case["correct"].as_u64().unwrap());
        if let Some(wanted) = case.get("weights") {
            let wanted: Vec<f64> = rows(wanted, numbers).concat();
            let largest = wanted.iter().fold(0.0f64, |a, b| a.max(b.abs()));
            for (found, wanted) in probe.weights().iter().zip(&wanted) {
                assert!((found - wanted).abs() <= 1e-9 * largest, "{found} {wanted}");
            }
        }
    }
}

#[test]
fn neighbours_and_permutations_are_numpys() {
    let golden = golden("probe");
    let (features, labels) = features(&golden);
    let (train, test) = features.split_at(140 * 24);
    for case in golden["neighbours"].as_array().unwrap() {
        let k = case["k"].as_u64().unwrap() as usize;
        let temperature = case["temperature"].as_f64();
        let found = nearest_neighbours((train, &labels[..140]), test, 7, k, temperature);
        assert_eq!(found, indices(&case["predictions"]), "k {k}");
    }
    for case in golden["permutations"].as_array().unwrap() {
        let n = case["n"].as_u64().unwrap() as usize;
        let mut random = NumpyRandom::new(case["seed"].as_u64().unwrap());
        assert_eq!(random.permutation((0..n).collect()), indices(&case["values"]));
    }
}

#[test]
fn filters_are_ordered_as_numpy_does() {
    let golden = golden("filters");
    let units = rows(&golden["units"], floats);
    let found: Vec<f64> = units.iter().map(|unit| frequency(unit, 7)).collect();
    assert_eq!(found, numbers(&golden["frequency"]));
    let shown: Vec<usize> = pairs(&units, 7)
        .into_iter()
        .flat_map(|pair| std::iter::once(pair.unit).chain(pair.inverse.map(|(unit, _)| unit)))
        .collect();
    assert_eq!(shown, indices(&golden["shown"]));
}
