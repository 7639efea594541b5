//! Foreign tensor names: the one place that knows what the official JAX code calls its parameters, in
//! its present and its legacy layout, and which prefixes PyTorch wrappers add. Everything else sees
//! timm's names and layouts.
//!
//! # Source
//! `vit_jax/models_mixer.py` (names of the Flax modules), `big_vision/models/mlp_mixer.py` (`load`: the
//! legacy layout), `timm/models/mlp_mixer.py`.

use super::{TensorInfo, WeightsFormat};

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

/// What a Flax parameter is, which fixes its rank and how it turns into PyTorch's layout.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Convolution kernel, `[height, width, in, out]` to `[out, in, height, width]`.
    ConvKernel,
    /// Dense kernel, `[in, out]` to `[out, in]`.
    DenseKernel,
    /// Bias or scale.
    Vector,
}

impl Kind {
    fn axes(self) -> &'static [usize] {
        match self {
            Kind::ConvKernel => &[3, 2, 0, 1],
            Kind::DenseKernel => &[1, 0],
            Kind::Vector => &[],
        }
    }

    fn rank(self) -> usize {
        match self {
            Kind::ConvKernel => 4,
            Kind::DenseKernel => 2,
            Kind::Vector => 1,
        }
    }
}

fn from_flax(index: usize, key: &str, shape: &[usize]) -> Placement {
    let as_stored = |name: &str| Placement {
        index,
        name: name.to_owned(),
        stored_shape: shape.to_vec(),
        axes: &[],
    };
    let Some((name, kind, legacy)) = timm_from_flax(key) else {
        return as_stored(key);
    };
    let stored_shape = if legacy { squeezed(shape, kind.rank()) } else { shape.to_vec() };
    if stored_shape.len() != kind.rank() {
        // Reported with the shape that it has, as a difference.
        return as_stored(&name);
    }
    Placement { index, name, stored_shape, axes: kind.axes() }
}

/// Drops axes of size 1, from the front, until the rank is `rank`.
fn squeezed(shape: &[usize], rank: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    while shape.len() > rank {
        let Some(axis) = shape.iter().position(|&size| size == 1) else { break };
        shape.remove(axis);
    }
    shape
}

/// timm's name of an official parameter, its kind, and whether it is of the legacy layout's MLPs,
/// which carry extra axes of size 1.
fn timm_from_flax(key: &str) -> Option<(String, Kind, bool)> {
    let parts: Vec<&str> = key.split('/').collect();
    let plain = |module: &str, leaf: &str, kernel: Kind| {
        let (parameter, kind) = match leaf {
            "kernel" => ("weight", kernel),
            "bias" => ("bias", Kind::Vector),
            _ => return None,
        };
        Some((format!("{module}.{parameter}"), kind, false))
    };
    let norm = |module: &str, leaf: &str| {
        let parameter = match leaf {
            "scale" => "weight",
            "bias" => "bias",
            _ => return None,
        };
        Some((format!("{module}.{parameter}"), Kind::Vector, false))
    };
    match parts.as_slice() {
        ["stem" | "embedding", leaf] => plain("stem.proj", leaf, Kind::ConvKernel),
        ["head", leaf] => plain("head", leaf, Kind::DenseKernel),
        ["pre_head_layer_norm", leaf] | ["Mixer", "encoder_norm", leaf] => norm("norm", leaf),
        ["Mixer", block, rest @ ..] if block.starts_with("encoderblock_") => {
            timm_from_flax_block(block.strip_prefix("encoderblock_")?, rest)
        }
        [block, rest @ ..] => timm_from_flax_block(block.strip_prefix("MixerBlock_")?, rest),
        [] => None,
    }
}

fn timm_from_flax_block(block: &str, rest: &[&str]) -> Option<(String, Kind, bool)> {
    let block: usize = block.parse().ok()?;
    let mlp = |mixing: &str| match mixing {
        "token_mixing" | "token_mixing_phase_0" => Some("mlp_tokens"),
        "channel_mixing" | "channel_mixing_phase_0" => Some("mlp_channels"),
        _ => None,
    };
    let (path, kind, legacy) = match rest {
        ["LayerNorm_0", "scale"] => ("norm1.weight".to_owned(), Kind::Vector, false),
        ["LayerNorm_0", "bias"] => ("norm1.bias".to_owned(), Kind::Vector, false),
        ["LayerNorm_1", "scale"] => ("norm2.weight".to_owned(), Kind::Vector, false),
        ["LayerNorm_1", "bias"] => ("norm2.bias".to_owned(), Kind::Vector, false),
        [mixing @ ("token_mixing" | "channel_mixing"), dense, leaf] => {
            let fc = match *dense {
                "Dense_0" => "fc1",
                "Dense_1" => "fc2",
                _ => return None,
            };
            let (parameter, kind) = match *leaf {
                "kernel" => ("weight", Kind::DenseKernel),
                "bias" => ("bias", Kind::Vector),
                _ => return None,
            };
            (format!("{}.{fc}.{parameter}", mlp(mixing)?), kind, false)
        }
        [mixing, leaf] => {
            let (parameter, kind) = match *leaf {
                "kernel1" => ("fc1.weight", Kind::DenseKernel),
                "bias1" => ("fc1.bias", Kind::Vector),
                "kernel2" => ("fc2.weight", Kind::DenseKernel),
                "bias2" => ("fc2.bias", Kind::Vector),
                _ => return None,
            };
            (format!("{}.{parameter}", mlp(mixing)?), kind, true)
        }
        _ => return None,
    };
    Some((format!("blocks.{block}.{path}"), kind, legacy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timm(key: &str) -> Option<String> {
        timm_from_flax(key).map(|(name, _, _)| name)
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
