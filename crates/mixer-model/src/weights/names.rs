//! Foreign tensor names: where the official JAX code puts its parameters, in its present and its legacy
//! layout, and which prefixes PyTorch wrappers add. Everything else sees timm's names and layouts.
//!
//! # Source
//! `vit_jax/models_mixer.py` (names of the Flax modules), `big_vision/models/mlp_mixer.py` (`load`: the
//! legacy layout), `timm/models/mlp_mixer.py`.

use super::format::WeightsFormat;
use super::tensor_info::TensorInfo;
use crate::parameters;

/// One stored tensor, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placement {
    /// Index of the tensor in the file's listing.
    pub(super) index: usize,
    /// timm's name; the stored name, less wrappers, when it belongs to no Mixer.
    pub(super) name: String,
    /// Shape as stored, less axes of size 1 that the legacy layout adds.
    pub(super) stored_shape: Vec<usize>,
    /// Output axis `k` is stored axis `axes[k]`; empty when the layouts agree.
    pub(super) axes: &'static [usize],
}

impl Placement {
    /// Shape in timm's layout.
    pub(super) fn shape(&self) -> Vec<usize> {
        if self.axes.is_empty() {
            self.stored_shape.clone()
        } else {
            self.axes.iter().map(|&axis| self.stored_shape[axis]).collect()
        }
    }
}

/// Gives every tensor of a file its place. Tensors beside the weights (optimizer state, a second copy
/// of the weights) are left out.
pub(super) fn placements(format: WeightsFormat, tensors: &[TensorInfo]) -> Vec<Placement> {
    let named: Vec<(usize, &str)> =
        tensors.iter().enumerate().map(|(index, tensor)| (index, tensor.name.as_str())).collect();
    match format {
        WeightsFormat::Npz => {
            // big_vision saves parameters under `params/`, and before that under `opt/target/`.
            let chosen = choose_container(named, &["params/", "opt/target/"]);
            chosen.into_iter().map(|(i, name)| from_flax(i, name, &tensors[i].shape)).collect()
        }
        WeightsFormat::Pytorch | WeightsFormat::Safetensors => {
            let chosen = if format == WeightsFormat::Pytorch {
                // timm's own order: a training checkpoint's averaged weights before its raw ones.
                let containers =
                    ["state_dict_ema.", "model_ema.", "state_dict.", "model_state_dict.", "model."];
                choose_container(named, &containers)
            } else {
                named
            };
            strip_wrappers(chosen)
                .into_iter()
                .map(|(index, name)| Placement {
                    index,
                    name: name.to_owned(),
                    stored_shape: tensors[index].shape.clone(),
                    axes: &[],
                })
                .collect()
        }
    }
}

/// Keeps what lies in the first container that holds anything; all, when none does.
fn choose_container<'a>(
    tensors: Vec<(usize, &'a str)>,
    containers: &[&str],
) -> Vec<(usize, &'a str)> {
    for container in containers {
        let inside: Vec<(usize, &str)> = tensors
            .iter()
            .filter_map(|(index, name)| Some((*index, name.strip_prefix(container)?)))
            .collect();
        if !inside.is_empty() {
            return inside;
        }
    }
    tensors
}

/// Strips prefixes of wrapping modules, where every tensor has them: DistributedDataParallel's
/// `module.`, a wrapper class's `model.`, `torch.compile`'s `_orig_mod.`, in any nesting.
fn strip_wrappers(mut tensors: Vec<(usize, &str)>) -> Vec<(usize, &str)> {
    if tensors.is_empty() {
        return tensors;
    }
    'again: loop {
        for wrapper in ["module.", "model.", "_orig_mod."] {
            if tensors.iter().all(|(_, name)| name.starts_with(wrapper)) {
                for (_, name) in &mut tensors {
                    *name = &name[wrapper.len()..];
                }
                continue 'again;
            }
        }
        return tensors;
    }
}

/// The place of a tensor of the official code. The legacy layout has extra axes of size 1.
fn from_flax(index: usize, key: &str, shape: &[usize]) -> Placement {
    let as_stored =
        |name: String| Placement { index, name, stored_shape: shape.to_vec(), axes: &[] };
    let Some(found) = parameters::by_flax(key) else {
        return as_stored(key.to_owned());
    };
    let (name, row) = (parameters::name_of(found), found.1);
    let rank = row.axes.len();
    let stored_shape = if row.is_legacy(key) { squeezed(shape, rank) } else { shape.to_vec() };
    if stored_shape.len() != rank {
        // Reported with the shape that it has, as a difference.
        return as_stored(name);
    }
    Placement { index, name, stored_shape, axes: row.flax_axes() }
}

/// The shape less axes of size 1, from the front, until the rank is `rank`.
fn squeezed(shape: &[usize], rank: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    while shape.len() > rank {
        let Some(axis) = shape.iter().position(|&size| size == 1) else { break };
        shape.remove(axis);
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timm(key: &str) -> Option<String> {
        parameters::by_flax(key).map(parameters::name_of)
    }

    #[test]
    fn official_and_legacy_names_meet_in_timms() {
        for (official, legacy, expected) in [
            ("stem/kernel", "embedding/kernel", "stem.proj.weight"),
            ("stem/bias", "embedding/bias", "stem.proj.bias"),
            ("pre_head_layer_norm/scale", "Mixer/encoder_norm/scale", "norm.weight"),
            ("head/kernel", "head/kernel", "head.weight"),
            (
                "MixerBlock_11/LayerNorm_1/bias",
                "Mixer/encoderblock_11/LayerNorm_1/bias",
                "blocks.11.norm2.bias",
            ),
            (
                "MixerBlock_3/token_mixing/Dense_0/kernel",
                "Mixer/encoderblock_3/token_mixing_phase_0/kernel1",
                "blocks.3.mlp_tokens.fc1.weight",
            ),
            (
                "MixerBlock_3/channel_mixing/Dense_1/bias",
                "Mixer/encoderblock_3/channel_mixing_phase_0/bias2",
                "blocks.3.mlp_channels.fc2.bias",
            ),
        ] {
            assert_eq!(timm(official).as_deref(), Some(expected), "{official}");
            assert_eq!(timm(legacy).as_deref(), Some(expected), "{legacy}");
        }
    }

    #[test]
    fn names_of_other_nets_are_not_mapped() {
        for key in [
            "Transformer/encoder_norm/scale",
            "MixerBlock_x/LayerNorm_0/scale",
            "MixerBlock_0/token_mixing/Dense_2/kernel",
            "head/scale",
            "cls",
            "",
        ] {
            assert_eq!(timm(key), None, "{key}");
        }
    }

    #[test]
    fn legacy_axes_of_size_one_are_dropped_and_real_ones_kept() {
        assert_eq!(squeezed(&[1, 36, 14], 2), [36, 14]);
        assert_eq!(squeezed(&[36, 1, 14], 2), [36, 14]);
        assert_eq!(squeezed(&[1, 1, 14], 2), [1, 14], "a grid of a single token");
        assert_eq!(squeezed(&[1, 1, 14, 1], 1), [14]);
        assert_eq!(squeezed(&[2, 3, 4], 2), [2, 3, 4]);
    }

    fn info(name: &str) -> TensorInfo {
        TensorInfo { name: name.to_owned(), shape: vec![1], dtype: "f32".to_owned() }
    }

    fn placed(format: WeightsFormat, names: &[&str]) -> Vec<String> {
        let tensors: Vec<TensorInfo> = names.iter().map(|name| info(name)).collect();
        placements(format, &tensors).into_iter().map(|placement| placement.name).collect()
    }

    #[test]
    fn wrapper_prefixes_are_stripped_only_when_all_tensors_have_them() {
        let format = WeightsFormat::Safetensors;
        assert_eq!(placed(format, &["module.model.a", "module.model.b"]), ["a", "b"]);
        assert_eq!(placed(format, &["module.a", "b"]), ["module.a", "b"]);
        assert_eq!(placed(format, &["_orig_mod.a"]), ["a"]);
    }

    #[test]
    fn averaged_weights_of_a_training_checkpoint_win() {
        let names = ["state_dict.a", "state_dict_ema.module.a", "optimizer.state.0.exp_avg"];
        assert_eq!(placed(WeightsFormat::Pytorch, &names), ["a"]);
        let tensors: Vec<TensorInfo> = names.iter().map(|name| info(name)).collect();
        assert_eq!(placements(WeightsFormat::Pytorch, &tensors)[0].index, 1);
    }

    #[test]
    fn parameters_of_a_big_vision_checkpoint_are_found() {
        assert_eq!(
            placed(WeightsFormat::Npz, &["opt/0/count", "params/stem/bias"]),
            ["stem.proj.bias"]
        );
    }
}
