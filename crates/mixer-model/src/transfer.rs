//! A parameter between host memory and a device.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

use crate::weights::HostTensor;

impl HostTensor {
    /// The tensor as a parameter on `device`, without a copy where that is the host; it is given a new
    /// identity.
    pub(crate) fn into_param<const D: usize>(self, device: &Device) -> Param<Tensor<D>> {
        let data = TensorData::new(self.data, self.shape);
        // Records that it is to be trained, also where the device cannot differentiate.
        Param::from_tensor(Tensor::from_data(data, device))
    }

    /// Copies a tensor to the host. SYNC: waits for the device.
    #[must_use]
    pub fn from_device<const D: usize>(tensor: Tensor<D>) -> HostTensor {
        let shape = tensor.dims().to_vec();
        let data = tensor.into_data();
        // One copy of the whole where it is of this type, which on a CPU is a checkpoint's cost.
        let values = data.as_slice::<f32>().map(<[f32]>::to_vec);
        HostTensor { shape, data: values.unwrap_or_else(|_| data.iter::<f32>().collect()) }
    }
}
