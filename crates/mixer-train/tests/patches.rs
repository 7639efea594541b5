//! The data crate cuts pictures into patches and so does the model: both in the same order.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use burn::tensor::{Tensor, TensorData};
use mixer_model::{Gelu, MixerConfig, ModelError};

const CONFIG: MixerConfig = MixerConfig {
    image_size: 12,
    patch_size: 4,
    hidden_dim: 2,
    tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 2 },
    channels_mlp_dim: 2,
    num_blocks: 1,
    num_classes: 2,
    gelu: Gelu::Tanh,
};

#[test]
fn both_crates_lay_patches_out_alike() {
    let (side, patch) = (CONFIG.image_size, CONFIG.patch_size);
    // 432 values, no two neighbours alike along any axis.
    let picture: Vec<u8> = (0..side * side * 3).map(|i| (i * 89 % 251) as u8).collect();
    let mut expected = vec![0; picture.len()];
    mixer_data::patchify(&picture, side as u32, patch as u32, &mut expected).unwrap();

    for device in mixer_train::device::available() {
        let device = device.device;
        let values: Vec<f32> = picture.iter().copied().map(f32::from).collect();
        let rows = Tensor::<4>::from_data(TensorData::new(values, [1, side, side, 3]), &device);
        let mixer = CONFIG.init(&device).unwrap();
        let patches = mixer.patches(rows.permute([0, 3, 1, 2])).unwrap();
        assert_eq!(patches.dims(), [1, 9, 48]);
        let found: Vec<u8> = patches.into_data().iter::<f32>().map(|value| value as u8).collect();
        assert_eq!(found, expected);

        let other = mixer.patches(Tensor::zeros([2, 3, 12, 16], &device)).unwrap_err();
        assert!(matches!(other, ModelError::ImageShape { found: [2, 3, 12, 16], image_size: 12 }));
        assert_eq!(other.to_string(), "pictures of shape [2, 3, 12, 16], expected [B, 3, 12, 12]");
    }
}
