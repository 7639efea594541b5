//! Host data as tensors: the one place where bytes of pictures become the network's input.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mixer_data::Batch;
use mixer_kernels::{mix_rows, normalise_pixels};
use mixer_model::weights::Preprocessing;

use crate::device::is_host;

/// Turns bytes into the network's input.
#[derive(Debug, Clone)]
pub struct Normaliser {
    /// `1 / (255 std)` and `−mean / std` of every value of a patch, `P·P·3`.
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// The same on a device, `[1, 1, P·P·3]`; absent on the CPU.
    on_device: Option<[Tensor<3>; 2]>,
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
    /// For patches of `patch_size` on `device`.
    #[must_use]
    pub fn new(preprocessing: &Preprocessing, patch_size: usize, device: &Device) -> Self {
        let row = |f: &dyn Fn(usize) -> f32| -> Vec<f32> {
            (0..patch_size * patch_size * 3).map(|i| f(i % 3)).collect()
        };
        let (mean, std) = (preprocessing.mean, preprocessing.std);
        let scale = row(&|colour| 1.0 / (255.0 * std[colour]));
        let shift = row(&|colour| -mean[colour] / std[colour]);
        let tensor = |values: &Vec<f32>| {
            Tensor::from_data(TensorData::new(values.clone(), [1, 1, values.len()]), device)
        };
        let on_device = (!is_host(device)).then(|| [tensor(&scale), tensor(&shift)]);
        Self { scale, shift, on_device, device: device.clone() }
    }

    /// The batch on the device, as bytes: a quarter of what `f32` would be crosses the bus. Devices
    /// without bytes (WebGPU's shading language has none) get `f32`.
    #[must_use]
    pub fn upload(&self, batch: &Batch) -> Pixels {
        let rows = batch.patches.len() / (batch.num_tokens * batch.patch_dim).max(1);
        let dims = [rows, batch.num_tokens, batch.patch_dim];
        if is_host(&self.device) {
            return Pixels::Host(batch.patches.clone(), dims);
        }
        // Of one axis: a GPU would pad every row of more, and copy row by row.
        let mut bytes = TensorData::new(batch.patches.clone(), [batch.patches.len()]);
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
    pub fn normalised(&self, pixels: Pixels) -> Tensor<3> {
        let pixels = match pixels {
            Pixels::Host(bytes, dims) => {
                let values = normalise_pixels(&bytes, &self.scale, &self.shift);
                return Tensor::from_data(TensorData::new(values, dims), &self.device);
            }
            Pixels::Bytes(bytes) => bytes.float(),
            Pixels::Floats(floats) => floats,
        };
        match &self.on_device {
            Some([scale, shift]) => pixels * scale.clone() + shift.clone(),
            None => unreachable!("what lies on a device was uploaded to one"),
        }
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
