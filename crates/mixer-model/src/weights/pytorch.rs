//! Reader of PyTorch checkpoints (`.pth`, `.pt`, `.bin`), through Burn's reader. Pickles are parsed,
//! never run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn_store::pytorch_reader::{DType, PytorchReader, Tensor};

use super::element::{ByteOrder, Element};
use super::{HostTensor, TensorInfo};

/// An open checkpoint, with its pickle read and its tensors still in the file.
pub(super) struct PytorchFile {
    tensors: Vec<Tensor>,
}

impl PytorchFile {
    /// Parses the pickle. Tensors of nested dictionaries get dotted names, sorted.
    pub(super) fn open(path: &Path) -> Result<PytorchFile, String> {
        let reader = guarded(|| PytorchReader::new(path).map_err(|error| error.to_string()))?;
        let mut tensors: Vec<Tensor> = reader
            .into_tensors()
            .into_iter()
            .map(|(name, mut tensor)| {
                tensor.name = name;
                tensor
            })
            .collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(PytorchFile { tensors })
    }

    /// The tensors, sorted by name.
    pub(super) fn tensors(&self) -> Vec<TensorInfo> {
        self.tensors
            .iter()
            .map(|tensor| TensorInfo {
                name: tensor.name.clone(),
                shape: tensor.shape().to_vec(),
                dtype: format!("{:?}", tensor.dtype()).to_lowercase(),
            })
            .collect()
    }

    /// Checks that the tensors could lie in a file of this size. A view can declare far more values
    /// than its storage holds (`expand`), so the file alone bounds nothing.
    pub(super) fn check_sizes(
        &self,
        indices: impl Iterator<Item = usize>,
        file_bytes: u64,
    ) -> Result<(), String> {
        let claimed = indices.fold(0_u64, |bytes, index| {
            let tensor = &self.tensors[index];
            tensor
                .shape()
                .iter()
                .fold(tensor.dtype().size() as u64, |n, &size| n.saturating_mul(size as u64))
                .saturating_add(bytes)
        });
        if claimed > file_bytes {
            return Err(format!("tensors of {claimed} bytes in a file of {file_bytes}"));
        }
        Ok(())
    }

    /// Reads one tensor, in C order whatever its strides.
    pub(super) fn load(&mut self, index: usize) -> Result<HostTensor, String> {
        let tensor = &self.tensors[index];
        let element = match tensor.dtype() {
            DType::F16 => Element::F16,
            DType::BF16 => Element::BF16,
            DType::F32 => Element::F32,
            DType::F64 => Element::F64,
            other => {
                return Err(format!(
                    "tensor `{}` is {}, expected f16, bf16, f32 or f64",
                    tensor.name,
                    format!("{other:?}").to_lowercase()
                ));
            }
        };
        let bytes = guarded(|| tensor.read().map_err(|error| error.to_string()))?;
        if bytes.len() != tensor.byte_len() {
            return Err(format!(
                "tensor `{}` has {} bytes, expected {}",
                tensor.name,
                bytes.len(),
                tensor.byte_len()
            ));
        }
        let mut data = Vec::with_capacity(bytes.len() / element.size());
        element.decode_into(&bytes, ByteOrder::NATIVE, &mut data);
        Ok(HostTensor { shape: tensor.shape().to_vec(), data })
    }
}

/// Turns a panic of the reader into an error: a damaged file must not end the program.
fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err("the PyTorch reader failed on it".to_owned()))
}
