//! A training loop of one's own: batches of the data crate, the network of the model crate, and the
//! optimizer of this one. No configuration, no run directory.
//!
//! ```sh
//! cargo run --release --example own_loop
//! ```

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use mixer_data::{
    Batch, BuiltinKind, BuiltinSource, BuiltinSplit, Interpolation, Loader, LoaderConfig,
    OnCorrupt, TrainCrop, TrainTransform,
};
use mixer_model::{Gelu, Mixer, MixerConfig};
use mixer_train::update::optimizer::{Clip, GradientSum, Optimizer, Rule};

/// Pixels as the network takes them, `[B, S, P·P·3]`, in [-1, 1].
fn input(batch: &Batch, device: &Device) -> Tensor<3> {
    let pixels: Vec<f32> =
        batch.patches.iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
    let shape = [batch.num_examples, batch.num_tokens, batch.patch_dim];
    Tensor::from_data(TensorData::new(pixels, shape), device)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = mixer_train::device::open("auto")?.device.autodiff();
    let config = MixerConfig {
        image_size: 32,
        patch_size: 8,
        hidden_dim: 64,
        tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 32 },
        channels_mlp_dim: 256,
        num_blocks: 2,
        num_classes: 10,
        gelu: Gelu::Tanh,
    };
    let source = BuiltinSource::new(BuiltinKind::Shapes, BuiltinSplit::Train, 4000, 32, 0)?;
    let transform = TrainTransform {
        image_size: 32,
        crop: TrainCrop::Pad { pixels: 2 },
        flip: true,
        interpolation: Interpolation::Bilinear,
        randaugment: None,
        erasing: None,
        jpeg_scaling: false,
    };
    let loading = LoaderConfig {
        batch_size: 100,
        patch_size: 8,
        workers: 2,
        queue_bytes: 64 << 20,
        on_corrupt: OnCorrupt::Stop,
    };
    let mut loader = Loader::train(Arc::new(source), transform, 0, 0, loading)?;
    let mut mixer = Mixer::init(&config, 0, 0.0, &device)?;
    let rule = Rule::Adamw { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    let mut optimizer = Optimizer::new(rule, None);
    for step in 1..=200 {
        let Some(batch) = loader.next_batch()? else { break };
        let log_probabilities = log_softmax(mixer.forward(input(&batch, &device)), 1);
        let labels: Vec<i32> = batch.labels.iter().map(|&label| label as i32).collect();
        let labels = TensorData::new(labels, [batch.num_examples, 1]);
        let labels = Tensor::<2, Int>::from_data(labels, &device);
        let loss = log_probabilities.gather(1, labels).mean().neg();
        let gradients = GradientSum::of(&mixer, &loss.backward());
        let clip = gradients.squared_norm().map(|squared_norm| Clip { squared_norm, limit: 1.0 });
        mixer = optimizer.update(mixer, gradients, clip.as_ref(), 1e-3);
        if step % 50 == 0 {
            println!("update {step}: loss {:.3}", loss.into_scalar::<f32>());
        }
        loader.recycle(batch);
    }
    Ok(())
}
