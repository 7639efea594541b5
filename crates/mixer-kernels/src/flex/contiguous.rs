//! The floats of contiguous tensors.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Shape, TensorData};

/// Elements per piece: 64 KiB of f32, so that a piece stays in the second-level cache.
pub(super) const PIECE: usize = 16 * 1024;

/// A tensor that owns exactly its elements, in order, so that it may be written to.
pub(super) fn owned(tensor: FlexTensor) -> FlexTensor {
    let tensor = tensor.to_contiguous();
    let elements = tensor.layout().num_elements();
    if tensor.storage::<f32>().len() == elements {
        return tensor;
    }
    // A contiguous view into a larger buffer.
    from_vec(values(&tensor).to_vec(), tensor.shape())
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
