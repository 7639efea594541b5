//! Tensors of whatever rank in one list. An update treats every element alike and needs no shape; on a GPU,
//! giving every parameter another one, and back, would take longer than the update.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Dispatch, TensorMetadata};
use burn::tensor::{DType, Shape, Tensor, TensorData};

/// Burn's type of a tensor of any backend and rank.
pub(crate) type Primitive = burn::backend::tensor::FloatTensor<Dispatch>;

/// A tensor of floats without autodiff, of any rank.
#[derive(Debug, Clone)]
pub struct AnyTensor(pub(crate) Primitive);

impl<const D: usize> From<Tensor<D>> for AnyTensor {
    fn from(tensor: Tensor<D>) -> Self {
        Self(tensor.into_dispatch())
    }
}

impl AnyTensor {
    /// The size of every axis.
    #[must_use]
    pub fn dims(&self) -> Vec<usize> {
        self.0.shape().to_vec()
    }

    /// The same as a tensor of rank `D`.
    ///
    /// # Panics
    /// When it has another rank.
    #[must_use]
    pub fn into_tensor<const D: usize>(self) -> Tensor<D> {
        assert_eq!(self.0.shape().num_dims(), D, "the rank of a tensor");
        Tensor::from_dispatch(self.0)
    }

    /// The same values in another shape.
    #[must_use]
    pub fn reshaped(self, dims: &[usize]) -> Self {
        if self.0.shape().to_vec() == dims {
            return self;
        }
        Self(Dispatch::float_reshape(self.0, Shape::from(dims.to_vec())))
    }

    /// Zeros of the same shape and type in the same place.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        let (shape, device, dtype) = (self.0.shape(), self.0.device(), self.0.dtype());
        Self(Dispatch::float_zeros(shape, &device, dtype.into()))
    }

    /// The same values in another type of floats.
    #[must_use]
    pub fn cast(self, dtype: DType) -> Self {
        if self.0.dtype() == dtype {
            return self;
        }
        Self(Dispatch::float_cast(self.0, dtype.into()))
    }

    /// The sum with another one of the same shape, in its memory where nobody else holds it.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(Dispatch::float_add(self.0, other.0))
    }

    /// Every element times one number, `[1]`, which is not waited for.
    #[must_use]
    pub fn times(self, factor: &Tensor<1>) -> Self {
        let ones = Shape::from(vec![1; self.0.shape().num_dims()]);
        let factor = Dispatch::float_reshape(factor.clone().into_dispatch(), ones);
        Self(Dispatch::float_mul(self.0, factor))
    }

    /// Copies it to the host. SYNC: waits for the device.
    #[must_use]
    pub fn into_data(self) -> TensorData {
        let elements = self.0.shape().num_elements();
        self.reshaped(&[elements]).into_tensor::<1>().into_data()
    }
}
