//! The state that a run begins with, from rank 0 to all: one decision, and no race for files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mixer_model::{HostTensor, Metadata, MixerConfig, Weights};
use serde::{Deserialize, Serialize};

use crate::disk::checkpoint::{Checkpoint, RunState};
use crate::error::TrainError;
use crate::group::{Group, is_first};
use crate::run::job::Start;
use crate::update::optimizer::FirstMomentDtype;

/// A state without the values of its tensors, which follow in this order.
#[derive(Serialize, Deserialize)]
struct Label {
    checkpoint: Option<(PathBuf, RunState, u64)>,
    weights: Vec<(String, Vec<usize>)>,
    moments: Vec<(String, Vec<usize>)>,
}

/// The state of rank 0, on every rank; that of others is not looked at. `network` is the one that is trained.
///
/// # Errors
/// [`TrainError::Model`] where what arrives does not make up the network.
pub(crate) fn share(
    group: &dyn Group,
    own: Option<Start>,
    network: &MixerConfig,
) -> Result<Start, TrainError> {
    match own {
        Some(start) if is_first(group) => {
            if group.size() > 1 {
                send(group, &start)?;
            }
            Ok(start)
        }
        _ => receive(group, network),
    }
}

fn send(group: &dyn Group, start: &Start) -> Result<(), TrainError> {
    let none = BTreeMap::new();
    let (checkpoint, weights, moments) = match start {
        Start::Weights(weights) => (None, &weights.tensors, &none),
        Start::Checkpoint(path, checkpoint) => {
            let Checkpoint { state, weights, moments, optimizer_step, .. } = &**checkpoint;
            (Some((path.clone(), state.clone(), *optimizer_step)), &weights.tensors, moments)
        }
    };
    let shapes = |tensors: &BTreeMap<String, HostTensor>| {
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect()
    };
    let label = Label { checkpoint, weights: shapes(weights), moments: shapes(moments) };
    group.broadcast(serde_json::to_vec(&label).map_err(std::io::Error::other)?);
    for tensor in weights.values().chain(moments.values()) {
        group.broadcast(tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    Ok(())
}

fn receive(group: &dyn Group, network: &MixerConfig) -> Result<Start, TrainError> {
    let label = group.broadcast(Vec::new());
    let label: Label = serde_json::from_slice(&label).map_err(std::io::Error::other)?;
    let tensors = |shapes: Vec<(String, Vec<usize>)>| -> BTreeMap<String, HostTensor> {
        let tensor = |(name, shape)| {
            let value = |four: &[u8]| four.try_into().map_or(f32::NAN, f32::from_le_bytes);
            let data = group.broadcast(Vec::new()).chunks_exact(4).map(value).collect();
            (name, HostTensor { shape, data })
        };
        shapes.into_iter().map(tensor).collect()
    };
    let Label { checkpoint, weights, moments } = label;
    let weights = Weights::new(network.clone(), tensors(weights), Metadata::default())?;
    let moments = tensors(moments);
    Ok(match checkpoint {
        Some((path, state, optimizer_step)) => {
            let first_moment_dtype = FirstMomentDtype::F32;
            let checkpoint =
                Checkpoint { state, weights, moments, first_moment_dtype, optimizer_step };
            Start::Checkpoint(path, Box::new(checkpoint))
        }
        None => Start::Weights(Box::new(weights)),
    })
}
