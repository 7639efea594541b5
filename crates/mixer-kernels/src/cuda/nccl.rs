//! Sums over the GPUs of several processes, by NCCL: in place, and on the stream of our kernels, so that they
//! are in order with the backward pass before and the update after. The one file that names NCCL.

use std::ffi::c_char;
use std::fmt;
use std::sync::PoisonError;

use burn::tensor::DType;
use cudarc::nccl::result as nccl;
use cudarc::nccl::sys;

use super::bridge::{Buffer, Output, register};
use super::gpu::{Error, Gpu, open};
use super::{Float, any_tensor, gpu_of, primitive};
use crate::any_tensor::AnyTensor;

/// Bytes of the name of a group of GPUs.
const ID: usize = 128;

/// A GPU's membership of a group. It ends with the process: to leave a group whose members have gone may hang.
pub(super) struct Communicator(sys::ncclComm_t);

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Communicator")
    }
}

fn nccl_error(what: &str) -> impl Fn(nccl::NcclError) -> Error + '_ {
    move |error| format!("{what}: {:?}", error.0)
}

/// `true` where NCCL can be loaded.
#[must_use]
pub fn has_nccl() -> bool {
    // SAFETY: asks the loader for the library's names, and runs nothing of its.
    unsafe { sys::is_culib_present() }
}

/// A name for a group of GPUs, which one process makes and all of the group are told.
///
/// # Errors
/// The words of NCCL, or that it was not found.
pub fn cuda_group_id() -> Result<Vec<u8>, Error> {
    if !has_nccl() {
        return Err("NCCL was not found".to_owned());
    }
    let id = nccl::get_uniqueid().map_err(nccl_error("ncclGetUniqueId"))?;
    Ok(id.internal.iter().map(|byte| byte.to_ne_bytes()[0]).collect())
}

/// Makes the CUDA device `index` of this process the member `rank` of `size` of the group of that name. All
/// members have to, and wait for each other.
///
/// # Errors
/// The words of NCCL, or that it was not found.
pub fn cuda_group_join(index: usize, id: &[u8], rank: usize, size: usize) -> Result<(), Error> {
    if !has_nccl() {
        return Err("NCCL was not found".to_owned());
    }
    let bytes: [u8; ID] = id
        .try_into()
        .map_err(|_| format!("the name of a group has {} bytes, expected {ID}", id.len()))?;
    let id = sys::ncclUniqueId { internal: bytes.map(|byte| c_char::from_ne_bytes([byte])) };
    let number = |found: usize| i32::try_from(found).map_err(|_| format!("{found} GPUs"));
    let (rank, size) = (number(rank)?, number(size)?);
    let gpu = open(index)?;
    let mut gpu = gpu.lock().unwrap_or_else(PoisonError::into_inner);
    gpu.make_current()?;
    let mut communicator = std::ptr::null_mut();
    // SAFETY: NCCL writes the communicator, of the device whose context is current.
    unsafe { nccl::comm_init_rank(&raw mut communicator, size, id, rank) }
        .map_err(nccl_error("ncclCommInitRank"))?;
    gpu.communicator = Some(Communicator(communicator));
    Ok(())
}

/// The sums of tensors over all members of the group that their GPU is in, in their memory; given back where it
/// is in none.
///
/// # Errors
/// The tensors.
pub fn sum_over_gpus(tensors: Vec<AnyTensor>) -> Result<Vec<AnyTensor>, Vec<AnyTensor>> {
    let first = tensors.first().cloned().and_then(primitive);
    let Some(gpu) = first.as_ref().and_then(gpu_of) else { return Err(tensors) };
    if gpu.lock().unwrap_or_else(PoisonError::into_inner).communicator.is_none() {
        return Err(tensors);
    }
    let inputs: Vec<Float> = tensors.into_iter().filter_map(primitive).collect();
    let outputs = (0..inputs.len()).map(Output::Changed).collect();
    let sums =
        register("sum_over_gpus", gpu, inputs, outputs, |gpu, _, outputs| gpu.all_reduce(outputs));
    Ok(sums.into_iter().map(any_tensor).collect())
}

impl Gpu {
    /// All sums as one operation of NCCL.
    fn all_reduce(&mut self, buffers: &[Buffer]) -> Result<(), Error> {
        let stream = self.stream.cast();
        let Some(Communicator(communicator)) = &self.communicator else {
            return Err("the GPU is in no group".to_owned());
        };
        let mut found = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator lives as long as the process.
        unsafe { sys::ncclCommGetAsyncError(*communicator, &raw mut found) }
            .result()
            .map_err(nccl_error("ncclCommGetAsyncError"))?;
        found.result().map_err(nccl_error("an earlier sum over GPUs"))?;
        nccl::group_start().map_err(nccl_error("ncclGroupStart"))?;
        for buffer in buffers {
            let (elements, kind) = match buffer.dtype {
                DType::BF16 => (buffer.shape.num_elements(), sys::ncclDataType_t::ncclBfloat16),
                DType::F32 => (buffer.shape.num_elements(), sys::ncclDataType_t::ncclFloat32),
                other => return Err(format!("a sum over GPUs of {other:?}")),
            };
            let address = buffer.address.get() as *mut std::ffi::c_void;
            // SAFETY: the buffer has that many elements, and nobody else reads it until our stream has passed.
            unsafe {
                nccl::all_reduce(
                    address,
                    address,
                    elements,
                    kind,
                    sys::ncclRedOp_t::ncclSum,
                    *communicator,
                    stream,
                )
            }
            .map_err(nccl_error("ncclAllReduce"))?;
        }
        nccl::group_end().map_err(nccl_error("ncclGroupEnd"))?;
        Ok(())
    }
}
