//! The floats of contiguous tensors.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Element, Shape, TensorData, bf16};

/// Elements per piece: 64 KiB of f32, so that a piece stays in the second-level cache.
pub(super) const PIECE: usize = 16 * 1024;

/// A type that kernels store: its slices of a tensor, whose bound burn-flex does not name.
pub(super) trait Stored: Element + Send + Sync {
    /// All that the tensor's memory holds.
    fn stored(tensor: &FlexTensor) -> &[Self];

    /// The same, to be written to.
    fn stored_mut(tensor: &mut FlexTensor) -> &mut [Self];
}

macro_rules! stored {
    ($($element:ty),*) => {$(
        impl Stored for $element {
            fn stored(tensor: &FlexTensor) -> &[Self] {
                tensor.storage()
            }

            fn stored_mut(tensor: &mut FlexTensor) -> &mut [Self] {
                tensor.storage_mut()
            }
        }
    )*};
}

stored!(f32, bf16);

/// A tensor that owns exactly its elements, in order, so that it may be written to.
pub(super) fn owned<E: Stored>(tensor: FlexTensor) -> FlexTensor {
    let tensor = tensor.to_contiguous();
    match tensor.layout().contiguous_offsets() {
        // A contiguous view into a larger buffer.
        Some((start, end)) if E::stored(&tensor).len() != end - start => {
            let part = E::stored(&tensor)[start..end].to_vec();
            FlexTensor::from_data(TensorData::new(part, tensor.shape()))
        }
        _ => tensor,
    }
}

/// The elements of a contiguous tensor.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    let (start, end) = tensor
        .layout()
        .contiguous_offsets()
        .unwrap_or_else(|| unreachable!("the tensor was made contiguous"));
    &tensor.storage::<f32>()[start..end]
}

/// The tensor of these values, in order.
pub(super) fn from_vec(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}
