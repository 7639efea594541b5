//! Foreign tensor names: where the official JAX code puts its parameters, in its present and its legacy
//! layout, and what PyTorch wrappers put into names. Everything else sees timm's names and layouts.
//!
//! # Source
//! `vit_jax/models_mixer.py` and `vit_jax/models_vit.py` (names of the Flax modules),
//! `big_vision/models/mlp_mixer.py` (`load`: the legacy layout), `timm/models/mlp_mixer.py`,
//! `timm/models/vision_transformer.py`, `timm/models/resnetv2.py`.

use super::format::WeightsFormat;
use super::one_line::one_line;
use super::tensor_info::TensorInfo;
use crate::mixer::config::TokenLayer;
use crate::parameters::{self, MIXER, Table, VIT};
use crate::tensor::HostTensor;

/// The place of a tensor, and the stored one that it is, or the stored ones that it is put together from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placement {
    /// Indices of the stored tensors in the file's listing, which follow each other along the first axis.
    pub(super) indices: Vec<usize>,
    /// timm's name; the stored name, less wrappers, when it belongs to no network that is known.
    pub(super) name: String,
    /// Shape of each as stored, less axes of size 1 that the legacy layout adds, and with heads and their
    /// channels as one axis.
    pub(super) stored_shape: Vec<usize>,
    /// Output axis `k` is stored axis `axes[k]`; empty when the layouts agree.
    pub(super) axes: &'static [usize],
}

impl Placement {
    /// Shape in timm's layout.
    pub(super) fn shape(&self) -> Vec<usize> {
        let mut shape: Vec<usize> = if self.axes.is_empty() {
            self.stored_shape.clone()
        } else {
            self.axes.iter().map(|&axis| self.stored_shape[axis]).collect()
        };
        if let [first, ..] = shape.as_mut_slice() {
            *first = first.saturating_mul(self.indices.len());
        }
        shape
    }

    /// The tensor in timm's layout, of the stored ones in the order of `indices`.
    pub(super) fn assemble(&self, stored: Vec<HostTensor>) -> HostTensor {
        let mut parts = stored.into_iter().map(|mut tensor| {
            tensor.shape.clone_from(&self.stored_shape);
            if self.axes.is_empty() { tensor } else { tensor.permuted(self.axes) }
        });
        let mut whole = parts.next().unwrap_or_else(|| HostTensor::filled(&[0], 0.0));
        for part in parts {
            whole.data.extend(part.data);
        }
        HostTensor { shape: self.shape(), data: whole.data }
    }
}

/// Names that wrapping modules put into those of tensors, wherever they stand: `torch.compile`,
/// checkpointed activations, FullyShardedDataParallel, DeepSpeed, DistributedDataParallel.
const WRAPPERS: [&str; 5] = [
    "_orig_mod",
    "_checkpoint_wrapped_module",
    "_fsdp_wrapped_module",
    "_forward_module",
    "module",
];

/// Tensors that every network of a kind has. Where the first of them stands says where the network is; the
/// others are for a file that lacks it.
const ANCHORS: [&str; 8] = [
    "stem.proj.weight",
    "stem.proj.bias",
    "blocks.0.mlp_tokens.fc1.weight",
    "patch_embed.proj.weight",
    "patch_embed.proj.bias",
    "blocks.0.attn.qkv.weight",
    "stem.conv.weight",
    "stages.0.blocks.0.conv1.weight",
];

/// Queries, keys and values of the official code, in timm's order.
const PROJECTIONS: [&str; 3] = ["query", "key", "value"];

/// Places of a network in the order in which they are taken; averages come before all of them.
const CONTAINERS: [&str; 3] = ["state_dict.", "model_state_dict.", "model."];

/// Most networks in one file among which one is chosen: a trainer keeps a few copies.
const MAX_NETWORKS: usize = 64;

/// The tensors of a file's network, each with its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) placements: Vec<Placement>,
    /// Heads of attention, which only the layout of the official code tells.
    pub(super) num_heads: Option<usize>,
    /// The network that was taken, and the others, where the file holds several.
    pub(super) note: Option<String>,
}

/// Gives every tensor of a file's network its place. Tensors beside it (the state of an optimizer, a
/// second copy of the weights) are left out.
///
/// # Errors
/// The networks in the file, where nothing says which of them is meant.
pub(super) fn placements(format: WeightsFormat, tensors: &[TensorInfo]) -> Result<Placed, String> {
    let named: Vec<(usize, &str)> =
        tensors.iter().enumerate().map(|(index, tensor)| (index, tensor.name.as_str())).collect();
    match format {
        WeightsFormat::Npz => {
            // big_vision saves parameters under `params/`, and before that under `opt/target/`.
            let chosen = choose_container(named, &["params/", "opt/target/"]);
            Ok(from_flax(&chosen, tensors))
        }
        WeightsFormat::Pytorch | WeightsFormat::Safetensors => {
            let (anchor, prefixes) = networks(&named);
            let chosen = choose_network(anchor, &prefixes)?;
            let belongs = |name: &str| match chosen {
                // No network: what is there is shown as it is.
                None => Some(name.to_owned()),
                // Among networks within each other a tensor is of the innermost.
                Some(chosen) => (prefix_of(name, &prefixes) == Some(chosen))
                    .then(|| unwrapped(&name[chosen.len()..]))
                    .filter(|name| !is_of_trainer(name)),
            };
            let place = |(index, name): (usize, &str)| {
                let stored_shape = tensors[index].shape.clone();
                belongs(name).map(|name| Placement {
                    indices: vec![index],
                    name,
                    stored_shape,
                    axes: &[],
                })
            };
            let placements = named.into_iter().filter_map(place).collect();
            Ok(Placed { placements, num_heads: None, note: note(anchor, chosen, &prefixes) })
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

/// The first anchor that is there, and the prefixes under which it stands, sorted.
fn networks<'a>(tensors: &[(usize, &'a str)]) -> (&'static str, Vec<&'a str>) {
    for anchor in ANCHORS {
        let mut prefixes: Vec<&str> =
            tensors.iter().filter_map(|(_, name)| prefix_before(name, anchor)).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        if !prefixes.is_empty() {
            return (anchor, prefixes);
        }
    }
    (ANCHORS[0], Vec::new())
}

/// The text before the words of `anchor`, between which wrappers may stand.
fn prefix_before<'a>(name: &'a str, anchor: &str) -> Option<&'a str> {
    let mut words = anchor.rsplit('.').peekable();
    let mut rest = name;
    while let Some(word) = words.peek() {
        let last = rest.rsplit('.').next()?;
        rest = &rest[..rest.len() - last.len()];
        if last == *word {
            words.next();
        } else if !WRAPPERS.contains(&last) {
            return None;
        }
        if words.peek().is_some() {
            rest = rest.strip_suffix('.')?;
        }
    }
    (!is_of_trainer(rest)).then_some(rest)
}

/// True for a name that begins in the state of a trainer rather than in a network.
fn is_of_trainer(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    name.contains('.') && (first.starts_with("optim") || first.contains("scheduler"))
}

/// The longest of the prefixes that a name begins with.
fn prefix_of<'a>(name: &str, prefixes: &[&'a str]) -> Option<&'a str> {
    prefixes.iter().copied().filter(|prefix| name.starts_with(prefix)).max_by_key(|p| p.len())
}

/// The name without the words of wrappers.
fn unwrapped(name: &str) -> String {
    let words: Vec<&str> = name.split('.').filter(|word| !WRAPPERS.contains(word)).collect();
    words.join(".")
}

/// True for the place of averaged weights.
fn is_average(prefix: &str) -> bool {
    prefix.split('.').any(|word| {
        let word = word.to_lowercase();
        let mut parts = word.split('_');
        word.starts_with("ema")
            || parts.any(|part| {
                matches!(part, "ema" | "swa" | "avg" | "average" | "averaged" | "averaging")
            })
    })
}

/// The network that is meant: averages first, as timm has it.
fn choose_network<'a>(anchor: &str, prefixes: &[&'a str]) -> Result<Option<&'a str>, String> {
    let rank = |prefix: &str| match prefix {
        _ if is_average(prefix) => 0,
        _ => 1 + CONTAINERS.iter().position(|c| *c == prefix).unwrap_or(CONTAINERS.len()),
    };
    if prefixes.len() > MAX_NETWORKS {
        let reason = format!("{} networks in one file, expected one: ", prefixes.len());
        return Err(reason + &listed(anchor, prefixes));
    }
    let Some(best) = prefixes.iter().map(|prefix| rank(prefix)).min() else { return Ok(None) };
    let first: Vec<&str> = prefixes.iter().copied().filter(|p| rank(p) == best).collect();
    match first.as_slice() {
        [one] => Ok(Some(one)),
        _ => Err(format!(
            "{} networks in one file, expected one: {}",
            first.len(),
            listed(anchor, &first)
        )),
    }
}

/// The sentence about a choice among several networks.
fn note(anchor: &str, chosen: Option<&str>, prefixes: &[&str]) -> Option<String> {
    let chosen = chosen?;
    let others: Vec<&str> = prefixes.iter().copied().filter(|p| *p != chosen).collect();
    if others.is_empty() {
        return None;
    }
    let what = if is_average(chosen) { "the averaged weights" } else { "the weights" };
    Some(format!("{what} {} are taken, not {}", listed(anchor, &[chosen]), listed(anchor, &others)))
}

/// Prefixes as a message shows them, the first few.
fn listed(anchor: &str, prefixes: &[&str]) -> String {
    const MAX_SHOWN: usize = 6;
    let shown = prefixes.iter().take(MAX_SHOWN).map(|prefix| format!("`{prefix}{anchor}`"));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if prefixes.len() > MAX_SHOWN {
        text += &format!(" and {} more", prefixes.len() - MAX_SHOWN);
    }
    one_line(&text)
}

/// The places of the tensors of the official code.
fn from_flax(chosen: &[(usize, &str)], tensors: &[TensorInfo]) -> Placed {
    let is_vit = chosen.iter().any(|(_, key)| key.starts_with("Transformer/"));
    let table = if is_vit { &VIT } else { &MIXER };
    let mut placements: Vec<Placement> = Vec::new();
    let mut num_heads = None;
    for &(index, key) in chosen {
        let shape = &tensors[index].shape;
        let Some((key, projection)) = fused(key) else {
            placements.push(placed(table, index, key, shape));
            continue;
        };
        // Kernels are [C, heads, size] on the way in and [heads, size, C] on the way out, biases
        // [heads, size] and [C].
        let (heads, flat) = match (shape[..].as_ref(), projection) {
            (&[c, heads, size], Some(_)) => (heads, vec![c, heads.saturating_mul(size)]),
            (&[heads, size], Some(_)) => (heads, vec![heads.saturating_mul(size)]),
            (&[heads, size, c], None) => (heads, vec![heads.saturating_mul(size), c]),
            _ => {
                placements.push(placed(table, index, &key, shape));
                continue;
            }
        };
        num_heads = num_heads.or(Some(heads));
        let place = placed(table, index, &key, &flat);
        if projection.is_none() {
            placements.push(place);
            continue;
        }
        let known = placements.iter_mut().find(|known| {
            known.name == place.name && known.stored_shape == flat && known.indices.len() < 3
        });
        match known {
            Some(known) => known.indices.push(index),
            None => placements.push(place),
        }
    }
    // Queries before keys before values, whatever the order of the file.
    for place in placements.iter_mut().filter(|place| place.indices.len() > 1) {
        place.indices.sort_by_key(|&index| {
            PROJECTIONS.iter().position(|name| tensors[index].name.contains(&format!("/{name}/")))
        });
    }
    Placed { placements, num_heads, note: None }
}

/// The key of attention in the table, where queries, keys and values are one parameter, and which of the
/// three it is; `None` for other tensors.
fn fused(key: &str) -> Option<(String, Option<usize>)> {
    let (layer, rest) = key.split_once("/MultiHeadDotProductAttention_1/")?;
    let (part, what) = rest.split_once('/')?;
    let projection = PROJECTIONS.iter().position(|name| *name == part);
    let part = if projection.is_some() { "qkv" } else { part };
    Some((format!("{layer}/MultiHeadDotProductAttention_1/{part}/{what}"), projection))
}

/// The place of a tensor of the official code. The legacy layout has extra axes of size 1.
fn placed(table: &Table, index: usize, key: &str, shape: &[usize]) -> Placement {
    let as_stored = |name: String| Placement {
        indices: vec![index],
        name,
        stored_shape: shape.to_vec(),
        axes: &[],
    };
    let Some(found) = table.by_flax(key) else {
        return as_stored(key.to_owned());
    };
    let (name, row) = (parameters::name_of(found), found.1);
    let rank = row.axes.len();
    let stored_shape = if row.is_legacy(key) { squeezed(shape, rank) } else { shape.to_vec() };
    if stored_shape.len() != rank {
        // Reported with the shape that it has, as a difference.
        return as_stored(name);
    }
    Placement { indices: vec![index], name, stored_shape, axes: row.flax_axes() }
}

/// A tensor under the official code's name and in its layout; queries, keys and values of a fused one.
pub(super) fn to_flax(
    tokens: TokenLayer,
    table: &Table,
    name: &str,
    tensor: &HostTensor,
) -> Vec<(String, HostTensor)> {
    let Some(found) = table.by_name(name) else { return Vec::new() };
    let key = table.flax_name_of(found);
    let in_layout = |tensor: &HostTensor| match found.1.timm_axes() {
        [] => tensor.clone(),
        axes => tensor.permuted(axes),
    };
    let TokenLayer::Attention { num_heads, .. } = tokens else {
        return vec![(key, in_layout(tensor))];
    };
    let split = |size: usize| [num_heads, size / num_heads.max(1)];
    if key.contains("/qkv/") {
        let width = tensor.shape[0] / 3;
        let mut shape = tensor.shape.clone();
        shape[0] = width;
        let parts = tensor.data.chunks_exact((tensor.data.len() / 3).max(1));
        let parts = PROJECTIONS.iter().zip(parts).map(|(part, data)| {
            let mut part_of = in_layout(&HostTensor { shape: shape.clone(), data: data.to_vec() });
            part_of.shape.pop();
            part_of.shape.extend(split(width));
            (key.replace("/qkv/", &format!("/{part}/")), part_of)
        });
        return parts.collect();
    }
    let mut tensor = in_layout(tensor);
    if key.ends_with("/out/kernel") {
        let [rows, columns] = [tensor.shape[0], tensor.shape[1]];
        let [heads, size] = split(rows);
        tensor.shape = vec![heads, size, columns];
    }
    vec![(key, tensor)]
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
        MIXER.by_flax(key).map(parameters::name_of)
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

    fn infos(names: &[&str]) -> Vec<TensorInfo> {
        names.iter().map(|name| info(name)).collect()
    }

    fn placed(format: WeightsFormat, names: &[&str]) -> Vec<String> {
        let placed = placements(format, &infos(names)).unwrap();
        placed.placements.into_iter().map(|placement| placement.name).collect()
    }

    #[test]
    fn the_place_of_the_stem_is_that_of_the_network() {
        for (names, expected) in [
            (vec!["module.model.stem.proj.weight", "module.model.norm.bias"], 2),
            (vec!["net.stem.proj.weight", "net.norm.bias", "criterion.weight"], 2),
            (vec!["n_averaged", "module.stem.proj.weight", "module.norm.bias"], 2),
            (vec!["state_dict.model.stem.proj.weight", "state_dict.model.norm.bias"], 2),
            (vec!["stem._orig_mod.proj.weight", "_fsdp_wrapped_module.norm.bias"], 2),
            (vec!["_orig_mod.stem.proj._forward_module.weight", "_orig_mod.norm.module.bias"], 2),
            (vec!["stem.proj.weight", "norm.bias", "optimizer.state.0.exp_avg"], 2),
            (vec!["a.stem.proj.weight", "a.norm.bias", "optimizer.stem.proj.weight"], 2),
        ] {
            for format in [WeightsFormat::Safetensors, WeightsFormat::Pytorch] {
                let mut found = placed(format, &names);
                found.sort();
                assert_eq!(found, ["norm.bias", "stem.proj.weight"], "{names:?}");
                assert_eq!(found.len(), expected);
            }
        }
        // What lies within the network belongs to it, known or not; where there is none, names stay.
        let names = ["a.stem.proj.weight", "a.blocks.1.module.ls1"];
        assert_eq!(placed(WeightsFormat::Pytorch, &names)[1], "blocks.1.ls1");
        assert_eq!(placed(WeightsFormat::Safetensors, &["module.a", "b"]), ["module.a", "b"]);
        // A file without its stem still has a place.
        let names = ["x.stem.proj.bias", "x.norm.bias"];
        assert_eq!(placed(WeightsFormat::Pytorch, &names), ["stem.proj.bias", "norm.bias"]);
    }

    #[test]
    fn averages_come_first_and_it_is_said() {
        for (names, index) in [
            (["state_dict.", "state_dict_ema.module."], 1),
            (["model.", "model_ema.module."], 1),
            (["", "ema_model.module."], 1),
            (["current_model_state.model.", "averaged.model."], 1),
            (["state_dict.", "model."], 0),
            (["model.", "teacher."], 0),
        ] {
            let names = names.map(|prefix| format!("{prefix}stem.proj.weight"));
            let infos = infos(&names.each_ref().map(String::as_str));
            let placed = placements(WeightsFormat::Pytorch, &infos).unwrap();
            assert_eq!(placed.placements.len(), 1);
            assert_eq!(placed.placements[0].indices, [index], "{names:?}");
            assert_eq!(placed.placements[0].name, "stem.proj.weight");
            let note = placed.note.unwrap();
            assert!(note.contains("are taken, not") && note.contains(&names[1 - index]), "{note}");
            assert_eq!(note.contains("averaged weights"), index == 1, "{note}");
        }
    }

    #[test]
    fn several_networks_are_listed() {
        let names = ["student.stem.proj.weight", "teacher.stem.proj.weight", "student.norm.bias"];
        let error = placements(WeightsFormat::Pytorch, &infos(&names)).unwrap_err();
        assert_eq!(
            error,
            "2 networks in one file, expected one: `student.stem.proj.weight`, \
             `teacher.stem.proj.weight`"
        );
    }

    #[test]
    fn parameters_of_a_big_vision_checkpoint_are_found() {
        assert_eq!(
            placed(WeightsFormat::Npz, &["opt/0/count", "params/stem/bias"]),
            ["stem.proj.bias"]
        );
    }
}
