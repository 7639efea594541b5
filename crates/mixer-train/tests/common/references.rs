//! Fixtures that hold what other programs computed.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

/// Relative error of a loss or gradient norm, and of a final weight relative to the largest of its tensor or to the
/// way that it went; more where a GPU multiplies in TF32.
pub fn tolerance(device: &str) -> f64 {
    match device {
        "flex" | "ndarray" => 1e-4,
        _ => 1e-2,
    }
}

/// A fixture of mixer-model.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../mixer-model/tests/fixtures").join(name)
}

/// An f32 tensor of a file.
pub fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap().data().to_vec();
    data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The labels of a fixture.
pub fn labels(io: &SafeTensors) -> Vec<u32> {
    let bytes = io.tensor("labels").unwrap().data().to_vec();
    bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect()
}
