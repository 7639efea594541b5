//! Host data as tensors: the one place where bytes of pictures become the network's input.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mixer_data::Batch;
use mixer_kernels::{mix_rows, normalise_pixels};
use mixer_model::MixerConfig;
use mixer_model::weights::Preprocessing;

use crate::device::is_host;

/// Turns bytes into the network's input.
#[derive(Debug, Clone)]
pub struct Normaliser {
    /// `1 / (255 std)` and `−mean / std` of every value of a patch, `P·P·3`.
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// The same where the network is, `[1, 1, P·P·3]`.
    tensors: [Tensor<3>; 2],
    /// The pixel of the picture that each pixel of the input is, `[S·P·P]`; absent where none is shuffled.
    order: Option<Arc<[usize]>>,
    device: Device,
}

/// Patches before they are normalised, `[B, S, P·P·3]`.
#[derive(Debug, Clone)]
pub enum Pixels {
    /// Bytes where they were decoded, for the CPU.
    Host(Vec<u8>, [usize; 3]),
    /// As they were decoded, on a device.
    Bytes(Tensor<3, Int>),
    /// The same numbers where a device has no bytes.
    Floats(Tensor<3>),
}

impl Normaliser {
    /// For the network's pictures, on `device`.
    #[must_use]
    pub fn new(preprocessing: &Preprocessing, network: &MixerConfig, device: &Device) -> Self {
        let row = |f: &dyn Fn(usize) -> f32| -> Vec<f32> {
            (0..network.patch_dim()).map(|i| f(i % 3)).collect()
        };
        let (mean, std) = (preprocessing.mean, preprocessing.std);
        let scale = row(&|colour| 1.0 / (255.0 * std[colour]));
        let shift = row(&|colour| -mean[colour] / std[colour]);
        let tensor = |values: &Vec<f32>| {
            Tensor::from_data(TensorData::new(values.clone(), [1, 1, values.len()]), device)
        };
        let tensors = [tensor(&scale), tensor(&shift)];
        let order = preprocessing.shuffle.patchwise(network.image_size, network.patch_size);
        Self { scale, shift, tensors, order: order.map(Arc::from), device: device.clone() }
    }

    /// The bytes of pictures, each picture shuffled where it is to be: behind everything else that is done to
    /// bytes. (Mixup comes later, and does the same to every pixel.)
    fn bytes(&self, patches: &[u8]) -> Vec<u8> {
        let Some(order) = &self.order else { return patches.to_vec() };
        let mut bytes = Vec::with_capacity(patches.len());
        for picture in patches.chunks_exact(3 * order.len()) {
            let (pixels, _) = picture.as_chunks::<3>();
            bytes.extend(order.iter().flat_map(|&from| pixels[from]));
        }
        bytes
    }

    /// The batch on the device, as bytes: a quarter of what `f32` would be crosses the bus. Devices
    /// without bytes (WebGPU's shading language has none) get `f32`.
    ///
    /// Rows that only fill a batch up keep the shapes of a GPU's kernels from changing. A CPU has no use for
    /// them: there they are left out, but for one where there is no other.
    #[must_use]
    pub fn upload(&self, batch: &Batch) -> Pixels {
        let row = (batch.num_tokens * batch.patch_dim).max(1);
        let dims = |bytes: &[u8]| [bytes.len() / row, batch.num_tokens, batch.patch_dim];
        if is_host(&self.device) {
            let end = batch.num_examples.max(1) * row;
            let patches = &batch.patches[..end.min(batch.patches.len())];
            return Pixels::Host(self.bytes(patches), dims(patches));
        }
        let dims = dims(&batch.patches);
        // Of one axis: a GPU would pad every row of more, and copy row by row.
        let mut bytes = TensorData::new(self.bytes(&batch.patches), [batch.patches.len()]);
        if self.device.supports_dtype(DType::U8) {
            // Into memory that a GPU reads by itself, where it has such.
            self.device.staging(std::iter::once(&mut bytes));
            let bytes = Tensor::<1, Int>::from_data(bytes, (&self.device, DType::U8));
            Pixels::Bytes(bytes.reshape(dims))
        } else {
            let floats = Tensor::<1>::from_data(bytes.convert::<f32>(), &self.device);
            Pixels::Floats(floats.reshape(dims))
        }
    }

    /// The network's input of what was uploaded: `pixel · scale + shift`, in two roundings.
    ///
    /// # Shapes
    /// - output: `[B, S, P·P·3]`
    #[must_use]
    pub fn normalised(&self, pixels: &Pixels) -> Tensor<3> {
        let pixels = match pixels {
            Pixels::Host(bytes, dims) => {
                let values = normalise_pixels(bytes, &self.scale, &self.shift);
                return Tensor::from_data(TensorData::new(values, *dims), &self.device);
            }
            Pixels::Bytes(bytes) => bytes.clone().float(),
            Pixels::Floats(floats) => floats.clone(),
        };
        let [scale, shift] = &self.tensors;
        pixels * scale.clone() + shift.clone()
    }

    /// Mixup (Zhang et al. 2018): `share` of each example and the rest of its partner.
    ///
    /// # Shapes
    /// - `patches`: `[R, S, P·P·3]`, of which the first `B` are mixed
    /// - `partners`: `[B]`, each below `R`
    /// - output: `[B, S, P·P·3]`
    #[must_use]
    pub fn mixed(&self, patches: Tensor<3>, partners: &[usize], share: f32) -> Tensor<3> {
        if is_host(&self.device) {
            let [_, tokens, dim] = patches.dims();
            let rows = patches.into_data();
            let rows = rows.as_slice::<f32>().unwrap_or_else(|error| {
                unreachable!("the network's input is f32: {error:?}");
            });
            let mixed = mix_rows(rows, tokens * dim, partners, share);
            let dims = [partners.len(), tokens, dim];
            return Tensor::from_data(TensorData::new(mixed, dims), &self.device);
        }
        let indices: Vec<i32> = partners.iter().map(|partner| *partner as i32).collect();
        let indices = TensorData::new(indices, [partners.len()]);
        let indices = Tensor::<1, Int>::from_data(indices, &self.device);
        let others = patches.clone().select(0, indices);
        let own = if patches.dims()[0] == partners.len() {
            patches
        } else {
            patches.narrow(0, 0, partners.len())
        };
        own * share + others * (1.0 - share)
    }

    /// A row-major matrix of host values on the device.
    #[must_use]
    pub fn matrix(&self, values: Vec<f32>, rows: usize) -> Tensor<2> {
        let columns = values.len() / rows;
        Tensor::from_data(TensorData::new(values, [rows, columns]), &self.device)
    }
}

#[cfg(test)]
mod tests {
    use mixer_model::weights::Shuffle;
    use mixer_model::{Gelu, Variant};

    use super::*;

    #[test]
    fn every_picture_is_shuffled_by_one_order_and_colours_stay_together() {
        let network = MixerConfig {
            image_size: 6,
            patch_size: 2,
            hidden_dim: 1,
            tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 1 },
            channels_mlp_dim: 1,
            num_blocks: 1,
            num_classes: 2,
            gelu: Gelu::Tanh,
        };
        let patches: Vec<u8> = (0..216).collect();
        let batch = Batch {
            patches: patches.clone(),
            labels: vec![0; 2],
            num_examples: 2,
            num_tokens: 9,
            patch_dim: 12,
            ..Batch::default()
        };
        let device = Device::flex();
        let values = |shuffle| {
            // Values are those of the bytes.
            let preprocessing = Preprocessing {
                mean: [0.0; 3],
                std: [1.0 / 255.0; 3],
                shuffle,
                ..Preprocessing::default()
            };
            let normaliser = Normaliser::new(&preprocessing, &network, &device);
            let values = normaliser.normalised(&normaliser.upload(&batch));
            assert_eq!(values.dims(), [2, 9, 12]);
            values.into_data().iter::<f32>().map(|value| value.round() as u8).collect::<Vec<u8>>()
        };
        assert_eq!(values(Shuffle::None), patches);
        for shuffle in [Shuffle::Patches { seed: 7 }, Shuffle::Pixels { seed: 7 }] {
            let order = shuffle.patchwise(6, 2).unwrap();
            let expected: Vec<u8> = [0, 36]
                .iter()
                .flat_map(|first| order.iter().map(move |pixel| first + pixel))
                .flat_map(|pixel| patches[3 * pixel..3 * pixel + 3].to_vec())
                .collect();
            assert_eq!(values(shuffle), expected);
            assert_ne!(expected, patches);
        }
    }

    #[test]
    fn a_cpu_is_spared_rows_that_are_no_examples() {
        let network = Variant::parse("S/32").unwrap().config(32, 10, Gelu::Tanh);
        let normaliser = Normaliser::new(&Preprocessing::default(), &network, &Device::flex());
        let row = 32 * 32 * 3;
        let rows = |num_examples| {
            let batch = Batch {
                patches: vec![7; 4 * row],
                labels: vec![0; 4],
                num_examples,
                num_tokens: 1,
                patch_dim: row,
                ..Batch::default()
            };
            normaliser.normalised(&normaliser.upload(&batch)).dims()
        };
        assert_eq!(rows(4), [4, 1, row]);
        assert_eq!(rows(3), [3, 1, row]);
        assert_eq!(rows(0), [1, 1, row], "no tensor is empty");
    }
}
