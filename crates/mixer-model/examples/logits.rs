//! The logits of a weights file for one picture, a made-up one.
//!
//! `cargo run --release --example logits -- FILE`. Without a file it makes weights of its own.

use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData};
use mixer_model::{Gelu, Mixer, ModelError, Variant, Weights, init};

fn main() -> Result<(), ModelError> {
    let path = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => made_up_weights()?,
    };
    let weights = Weights::read(&path, None)?;
    let classes = weights.metadata.classes.clone().unwrap_or_default();
    let device = Device::flex();
    let mixer = Mixer::from_weights(weights, &device)?;
    println!("{} from {}", mixer.config(), path.display());

    // Waves, as a picture [B, 3, H, W] with values from -1 to 1.
    let side = mixer.config().image_size;
    let pixels: Vec<f32> = (0..3 * side * side).map(|i| (i as f32 / 50.0).sin()).collect();
    let image = Tensor::<4>::from_data(TensorData::new(pixels, [1, 3, side, side]), &device);
    let logits = mixer.forward(mixer.patches(image)?).into_data();

    let mut ranked: Vec<(usize, f32)> = logits.iter::<f32>().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (class, logit) in ranked.into_iter().take(5) {
        println!("{logit:9.4}  {}", classes.get(class).unwrap_or(&format!("class {class}")));
    }
    Ok(())
}

/// A fresh S/32 for ten classes in a file, with a head that is not zero.
fn made_up_weights() -> Result<PathBuf, ModelError> {
    let config = Variant::parse("S/32")?.config(64, 10, Gelu::Tanh);
    let mut weights = init::weights(&config, 0, 0.0)?;
    if let Some(head) = weights.tensors.get_mut("head.weight") {
        head.data.iter_mut().enumerate().for_each(|(i, value)| *value = (i as f32).cos() / 10.0);
    }
    let path = std::env::temp_dir().join("made_up.safetensors");
    weights.write_safetensors(&path)?;
    Ok(path)
}
