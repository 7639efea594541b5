//! The CUDA devices of a run's processes as one group, so that gradients go from GPU to GPU.

use crate::device::DeviceEntry;
use crate::error::TrainError;
use crate::group::{Group, is_first, verdict};
use crate::show::progress::say;

/// Makes the devices one group, where all are CUDA devices and every process has NCCL. Otherwise gradients go by
/// way of the host, which is slower and gives the same result.
///
/// # Errors
/// [`TrainError::Device`] with the words of NCCL.
pub(crate) fn join(group: &dyn Group, device: &DeviceEntry) -> Result<(), TrainError> {
    let Some(index) = device.cuda_index() else { return Ok(()) };
    let has_nccl =
        mixer_kernels::has_nccl() && mixer_kernels::cuda_fallback_reason(index).is_none();
    let all = group.gather(&[u8::from(has_nccl)]);
    if let Some(rank) = all.iter().position(|has_nccl| has_nccl.as_slice() != [1]) {
        say(format_args!(
            "note: gradients go by way of the host, which is slower: NCCL was not found by rank {rank} on {}; \
             it is looked for as `libnccl.so`, which the package libnccl-dev has, or a link to `libnccl.so.2`",
            group.host(rank)
        ));
        return Ok(());
    }
    let failed = |reason: String| TrainError::device(format!("NCCL: {reason}"));
    let id = is_first(group).then(|| mixer_kernels::cuda_group_id().map_err(failed)).transpose();
    let id = group.broadcast(verdict::all(group, id)?.unwrap_or_default());
    let joined = mixer_kernels::cuda_group_join(index, &id, group.rank(), group.size());
    verdict::all(group, joined.map_err(failed))
}
