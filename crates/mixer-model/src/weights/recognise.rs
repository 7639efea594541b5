//! The architecture of a network read off the names and shapes of its tensors.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use super::differences::{Shapes, differences, shown};
use super::metadata::{HEADER_KEY, MixerHeader};
use super::names::{self, Placed};
use super::one_line::one_line;
use super::tensor_info::TensorInfo;
use super::weights_file::WeightsFile;
use crate::error::ModelError;
use crate::mixer::config::{Gelu, MixerConfig, NO_GELU, Pool, TokenLayer};
use crate::mixer::depths::{Depths, MAX_STAGES};
use crate::mixer::variants::{BIT_GROUPS, VIT_VARIANTS};
use crate::parameters::{Axis, MIXER, Table, VIT};

/// The beginning of the reason where the tensors are those of another network.
const RELATIVE: &str = "the tensors are those of ";

/// Largest dimension that is believed. Far above any Mixer; low enough that products of three
/// dimensions fit 64 bits.
const MAX_DIMENSION: usize = 1 << 20;

/// The network in a file: its architecture, and the tensors that are of it, each with its place.
pub(super) fn recognise<R: Read + Seek>(
    file: &WeightsFile<R>,
    tensors: &[TensorInfo],
    header: Option<&MixerHeader>,
) -> Result<(MixerConfig, Placed), ModelError> {
    let placed = names::placements(file.format, tensors)
        .map_err(|reason| ModelError::NotAMixer { reason, path: file.path.clone() })?;
    match architecture(file, &placed, header) {
        Ok(config) => Ok((config, placed)),
        Err(ModelError::NotAMixer { reason, path }) if reason.starts_with(RELATIVE) => {
            Err(ModelError::NotAMixer { reason, path })
        }
        // What was passed over may be what is missing.
        Err(error) => Err(file.fault().unwrap_or(error)),
    }
}

/// The architecture in a file: what its metadata says, else what its shapes say, and then every tensor
/// as it must be.
fn architecture<R: Read + Seek>(
    file: &WeightsFile<R>,
    placed: &Placed,
    header: Option<&MixerHeader>,
) -> Result<MixerConfig, ModelError> {
    let not_a_mixer = |reason: String| ModelError::NotAMixer {
        reason: one_line(&reason),
        path: file.path.clone(),
    };
    let mut shapes = Shapes::new();
    for placement in &placed.placements {
        if shapes.insert(placement.name.clone(), placement.shape()).is_some() {
            return Err(not_a_mixer(format!("`{}` is there twice", placement.name)));
        }
    }
    let config = match header {
        Some(header) => {
            check_claimed(&header.config, shapes.len()).map_err(|reason| {
                file.unreadable(format!("bad `{HEADER_KEY}` metadata: {reason}"))
            })?;
            header.config.clone()
        }
        None => {
            infer(&shapes, placed.num_heads, file.format.default_gelu()).map_err(not_a_mixer)?
        }
    };
    let differences = differences(&config, &shapes);
    if differences.is_empty() {
        return Ok(config);
    }
    Err(ModelError::TensorMismatch {
        network: config.to_string(),
        path: file.path.clone(),
        differences: shown(&differences),
    })
}

/// Checks dimensions that a file claims, before anything is computed from them.
fn check_claimed(config: &MixerConfig, num_tensors: usize) -> Result<(), String> {
    config.validate().map_err(|error| error.to_string())?;
    for (name, value) in [
        ("image_size", config.image_size),
        ("patch_size", config.patch_size),
        ("hidden_dim", config.hidden_dim),
        config.tokens.dimension(),
        ("channels_mlp_dim", config.channels_mlp_dim),
        ("num_classes", config.num_classes),
    ] {
        if value > MAX_DIMENSION {
            return Err(format!("`{name}` is {value}, expected at most {MAX_DIMENSION}"));
        }
    }
    // Some may be missing, and are named then; but not so many that their list is longer than the file.
    let of_block = Table::of(config).block_len();
    if config.num_blocks.saturating_mul(of_block / 2) > num_tensors {
        return Err(format!(
            "`num_blocks` is {}, which makes {of_block} tensors each; the file has {num_tensors}",
            config.num_blocks
        ));
    }
    Ok(())
}

/// Channels of a head where nothing else is known.
const HEAD_CHANNELS: usize = 64;

/// The values that the tensors have for each dimension. A damaged tensor is outvoted by the others, and
/// then shows up as a difference.
#[derive(Default)]
struct Evidence {
    votes: BTreeMap<Axis, Vec<usize>>,
    blocks: Vec<usize>,
}

impl Evidence {
    fn gather(table: &Table, shapes: &Shapes) -> Self {
        let mut evidence = Self::default();
        for (name, shape) in shapes {
            let Some((block, row)) = table.by_name(name) else { continue };
            if row.axes.len() != shape.len() {
                continue;
            }
            for (&axis, &size) in row.axes.iter().zip(shape) {
                evidence.votes.entry(axis).or_default().push(size);
            }
            evidence.blocks.extend(block);
        }
        evidence.blocks.sort_unstable();
        evidence.blocks.dedup();
        evidence
    }

    /// The size that most tensors agree on; of equally frequent ones, the first seen.
    fn majority(&self, axis: Axis) -> Option<usize> {
        let votes = self.votes.get(&axis)?;
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for vote in votes {
            *counts.entry(*vote).or_default() += 1;
        }
        let most = counts.values().max()?;
        votes.iter().copied().find(|vote| counts.get(vote) == Some(most))
    }
}

/// The architecture that the shapes are of. GELU leaves no trace in them, so it is given.
///
/// The image size follows from the number of tokens, which must be a square: `√S · P`.
///
/// So are the heads of attention, where the file does not tell them: those of the variant, else one for 64
/// channels, as every ViT of the official code but H/14 has them.
fn infer(shapes: &Shapes, num_heads: Option<usize>, gelu: Gelu) -> Result<MixerConfig, String> {
    if shapes.is_empty() {
        return Err("the file holds no tensors".to_owned());
    }
    if let Some(net) = lookalike(shapes) {
        return Err(format!("{RELATIVE}{net}"));
    }
    if shapes.keys().any(|name| name.starts_with("stages.0.blocks.0.")) {
        return infer_resnet(shapes);
    }
    let is_vit = shapes.contains_key("pos_embed")
        || shapes.keys().any(|name| name.ends_with("attn.qkv.weight"));
    let e = Evidence::gather(if is_vit { &VIT } else { &MIXER }, shapes);
    let (mlp, tokens_axis) =
        if is_vit { ("mlp", Axis::Positions) } else { ("mlp_channels", Axis::Tokens) };
    let tokens = if is_vit { Some(0) } else { e.majority(Axis::TokensHidden) };
    let (Some(patch_size), Some(s), Some(d_s)) =
        (e.majority(Axis::Patch), e.majority(tokens_axis), tokens)
    else {
        let found: Vec<&str> = shapes.keys().take(3).map(String::as_str).collect();
        let more = if shapes.len() > found.len() { ", ..." } else { "" };
        let expected = if is_vit {
            "no `patch_embed.proj.weight` with `pos_embed`"
        } else {
            "no `stem.proj.weight` with `blocks.*.mlp_tokens`"
        };
        return Err(format!(
            "{expected} among {} tensors ({}{more})",
            shapes.len(),
            found.join(", ")
        ));
    };
    let (Some(c), Some(d_c)) = (e.majority(Axis::Channels), e.majority(Axis::ChannelsHidden))
    else {
        return Err(format!("no `blocks.*.{mlp}`"));
    };
    let Some(k) = e.majority(Axis::Classes) else {
        return Err("no `head.weight`: the file was saved without a classifier".to_owned());
    };
    let has_class_token = shapes.contains_key("cls_token");
    let s = if has_class_token { s.saturating_sub(1) } else { s };
    let grid = s.isqrt();
    if grid * grid != s {
        return Err(format!(
            "{s} tokens do not form a square grid, and a network here is for square pictures"
        ));
    }
    // An absurd block index must not make a list of that many missing tensors.
    let num_blocks = match e.blocks.last() {
        Some(&last) if last < shapes.len() => last + 1,
        _ => e.blocks.len(),
    };
    let tokens = if is_vit {
        let variant = VIT_VARIANTS.iter().find(|v| (v.hidden_dim, v.num_blocks) == (c, num_blocks));
        let num_heads = match num_heads.or(variant.map(|variant| variant.tokens.dimension().1)) {
            Some(num_heads) => num_heads,
            None if c.is_multiple_of(HEAD_CHANNELS) => c / HEAD_CHANNELS,
            None => {
                return Err(format!(
                    "the number of heads of a ViT of {c} channels is not in the file: its names and \
                     shapes do not tell it"
                ));
            }
        };
        let pool = if has_class_token { Pool::ClassToken } else { Pool::Average };
        TokenLayer::Attention { num_heads, pool }
    } else {
        TokenLayer::Mlp { tokens_mlp_dim: d_s }
    };
    let config = MixerConfig {
        image_size: grid.checked_mul(patch_size).ok_or("the image size overflows")?,
        patch_size,
        hidden_dim: c,
        tokens,
        channels_mlp_dim: d_c,
        num_blocks,
        num_classes: k,
        gelu,
    };
    check_claimed(&config, shapes.len())?;
    Ok(config)
}

/// Side of the pictures of a BiT-ResNet that does not tell it, and of the patches that they arrive in: timm's
/// preparation for it, and the patches of its variants.
const RESNET_SIZES: (usize, usize) = (224, 16);

/// The architecture of a BiT-ResNet. Groups leave no trace in shapes, nor does the side of pictures: those of
/// the published networks are taken.
fn infer_resnet(shapes: &Shapes) -> Result<MixerConfig, String> {
    let first = |name: &str| {
        let shape = shapes.get(name).and_then(|shape| shape.first()).copied();
        shape.ok_or_else(|| format!("no `{name}`"))
    };
    let mut depths = Vec::new();
    // One stage more than there may be is enough to refuse them.
    while depths.len() <= MAX_STAGES {
        let stage = format!("stages.{}.blocks.", depths.len());
        let blocks = shapes.range(stage.clone()..).map_while(|(name, _)| {
            let (block, _) = name.strip_prefix(&stage)?.split_once('.')?;
            Some(block.parse::<usize>().ok())
        });
        // An absurd number of a block must not make a list of that many missing tensors.
        let last = blocks.flatten().filter(|block| *block < shapes.len()).max();
        let Some(last) = last else { break };
        depths.push(last + 1);
    }
    let last_stage = depths.len().saturating_sub(1);
    let depths = Depths::new(&depths).map_err(|error| error.to_string())?;
    let num_classes = first("head.fc.bias")
        .map_err(|_| "no `head.fc.bias`: the file was saved without a classifier".to_owned())?;
    let (image_size, patch_size) = RESNET_SIZES;
    let config = MixerConfig {
        image_size,
        patch_size,
        hidden_dim: first("norm.weight")?,
        tokens: TokenLayer::Convolution { depths, num_groups: BIT_GROUPS },
        channels_mlp_dim: first(&format!("stages.{last_stage}.blocks.0.conv1.weight"))?,
        num_blocks: depths.num_blocks(),
        num_classes,
        gelu: NO_GELU,
    };
    check_claimed(&config, shapes.len())?;
    Ok(config)
}

/// Names the relatives and the well-known nets that people confuse with a Mixer or a ViT of this kind.
fn lookalike(shapes: &Shapes) -> Option<&'static str> {
    let any = |test: &dyn Fn(&str) -> bool| shapes.keys().any(|name| test(name));
    if any(&|n| n.contains("linear_tokens") || n.ends_with(".ls1") || n.ends_with(".gamma_1")) {
        return Some("a ResMLP");
    }
    if any(&|n| n.contains("mlp_channels.gate.")) {
        return Some("a gMLP");
    }
    let glu = |mlp: &str| {
        let fc1 = shapes.get(&format!("blocks.0.{mlp}.fc1.weight"));
        let fc2 = shapes.get(&format!("blocks.0.{mlp}.fc2.weight"));
        matches!((fc1.map(Vec::as_slice), fc2.map(Vec::as_slice)),
            (Some(&[hidden, _]), Some(&[_, gated])) if gated > 0 && hidden == gated.saturating_mul(2))
    };
    if glu("mlp_tokens") && glu("mlp_channels") {
        return Some("a gMixer: its MLPs are gated (SwiGLU), which this model is not");
    }
    if any(&|n| n.contains("token_mix.layers.")) {
        return Some("a Mixer under mmpretrain's names, which are not read; convert from timm's");
    }
    if any(&|n| n == "dist_token") {
        return Some("a distilled DeiT, which has a second head");
    }
    if any(&|n| n == "reg_token" || n == "register_tokens") {
        return Some("a ViT with register tokens, which this model has not");
    }
    if any(&|n| n.starts_with("fc_norm.")) {
        return Some("a ViT that averages tokens before its last normalisation (timm's `fc_norm`)");
    }
    if any(&|n| n.starts_with("vit.embeddings.") || n.starts_with("embeddings.cls_token")) {
        return Some(
            "a ViT under the names of transformers, which are not read; convert from timm's",
        );
    }
    if any(&|n| n.contains("encoder.layers.encoder_layer_0.")) {
        return Some("a ViT under torchvision's names, which are not read; convert from timm's");
    }
    if any(&|n| n == "pos_embedding" || n.starts_with("Transformer/encoderblock_0/LayerNorm_1/")) {
        return Some("a ViT of big_vision, which adds positions before the class token");
    }
    if any(&|n| n.ends_with("layer1.0.conv1.weight")) {
        return Some("a ResNet");
    }
    if any(&|n| n.contains("root_block/standardized_conv2d")) {
        return Some("a BiT under the official names, which are not read; convert from timm's");
    }
    let is_stage = |n: &str| n.starts_with("stages.0.blocks.0.");
    if any(&|n| is_stage(n) && n.ends_with(".running_mean")) {
        return Some("a ResNet with batch normalisation; a BiT has groups");
    }
    if any(&is_stage) && !any(&|n| n == "stages.0.blocks.0.conv1.weight") {
        return Some("another network of stages than a BiT");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixer::variants::{BIT_VARIANTS, VARIANTS};

    fn shapes(config: &MixerConfig) -> Shapes {
        crate::parameters::parameters(config)
            .into_iter()
            .map(|spec| (spec.name, spec.shape))
            .collect()
    }

    fn tiny() -> MixerConfig {
        MixerConfig {
            image_size: 24,
            patch_size: 4,
            hidden_dim: 10,
            tokens: crate::mixer::TokenLayer::Mlp { tokens_mlp_dim: 14 },
            channels_mlp_dim: 22,
            num_blocks: 2,
            num_classes: 7,
            gelu: Gelu::Erf,
        }
    }

    #[test]
    fn every_variant_is_recognised_from_its_shapes() {
        for variant in VARIANTS {
            let config = variant.config(224, 1000, Gelu::Tanh);
            let shapes = shapes(&config);
            assert_eq!(shapes.len(), 12 * config.num_blocks + 6);
            assert_eq!(infer(&shapes, None, Gelu::Tanh), Ok(config.clone()));
            assert!(differences(&config, &shapes).is_empty());
        }
    }

    #[test]
    fn every_vision_transformer_is_recognised_with_its_heads() {
        for variant in VIT_VARIANTS {
            let mut config = variant.config(224, 1000, Gelu::Erf);
            assert_eq!(infer(&shapes(&config), None, Gelu::Erf), Ok(config.clone()));
            let (_, num_heads) = variant.tokens.dimension();
            config.tokens = TokenLayer::Attention { num_heads, pool: Pool::Average };
            assert_eq!(infer(&shapes(&config), None, Gelu::Erf), Ok(config.clone()));
            config.tokens = TokenLayer::Attention { num_heads: 2, pool: Pool::Average };
            assert_eq!(infer(&shapes(&config), Some(2), Gelu::Erf), Ok(config));
        }
    }

    #[test]
    fn every_bit_resnet_is_recognised_from_its_shapes() {
        for variant in BIT_VARIANTS {
            let config = variant.config(224, 1000, Gelu::Erf);
            let shapes = shapes(&config);
            assert_eq!(infer(&shapes, None, Gelu::Erf), Ok(config.clone()));
            assert!(differences(&config, &shapes).is_empty());
        }
    }

    #[test]
    fn damaged_bit_resnets_and_their_relatives_are_named() {
        let whole = shapes(&BIT_VARIANTS[0].config(224, 10, Gelu::Erf));
        let refused = |change: &dyn Fn(&mut Shapes), expected: &str| {
            let mut shapes = whole.clone();
            change(&mut shapes);
            let error = infer(&shapes, None, Gelu::Erf).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        refused(&|net| drop(net.remove("head.fc.bias")), "without a classifier");
        refused(&|net| drop(net.remove("norm.weight")), "no `norm.weight`");
        // Widths that 32 groups do not divide: theirs are others, and nothing tells them.
        refused(&|net| drop(net.insert("norm.weight".to_owned(), vec![256])), "32 groups");
        refused(
            &|net| drop(net.insert("stages.0.blocks.0.norm1.running_mean".to_owned(), vec![64])),
            "batch normalisation",
        );
        let absurd = "stages.3.blocks.99999999999999999999.conv1.weight";
        let mut shapes = whole.clone();
        shapes.insert(absurd.to_owned(), vec![1]);
        shapes.insert("stages.3.blocks.999999.conv1.weight".to_owned(), vec![1]);
        let config = infer(&shapes, None, Gelu::Erf).unwrap();
        assert_eq!(config.num_blocks, 16);
        assert_eq!(differences(&config, &shapes).len(), 2);
    }

    #[test]
    fn one_damaged_tensor_is_outvoted_and_named() {
        let mut shapes = shapes(&tiny());
        shapes.insert("blocks.0.mlp_tokens.fc1.weight".to_owned(), vec![14, 30]);
        shapes.remove("blocks.1.norm1.weight");
        shapes.insert("foo.bar".to_owned(), vec![3]);
        let config = infer(&shapes, None, Gelu::Erf).unwrap();
        assert_eq!(config, tiny());
        assert_eq!(
            differences(&config, &shapes),
            [
                "blocks.0.mlp_tokens.fc1.weight is [14, 30], expected [14, 36]",
                "missing blocks.1.norm1.weight [10]",
                "unexpected foo.bar [3]",
            ]
        );
    }

    #[test]
    fn relatives_of_the_mixer_are_named() {
        let mut gmixer = shapes(&tiny());
        for i in 0..2 {
            gmixer.insert(format!("blocks.{i}.mlp_tokens.fc2.weight"), vec![36, 7]);
            gmixer.insert(format!("blocks.{i}.mlp_channels.fc2.weight"), vec![10, 11]);
        }
        let mut resmlp = shapes(&tiny());
        resmlp.insert("blocks.0.ls1".to_owned(), vec![10]);
        let vit: Shapes = [("pos_embed".to_owned(), vec![1, 197, 768])].into();
        for (net, name) in
            [(gmixer, "gMixer"), (resmlp, "ResMLP"), (vit, "no `patch_embed.proj.weight`")]
        {
            assert!(infer(&net, None, Gelu::Erf).unwrap_err().contains(name), "{name}");
        }
    }

    #[test]
    fn absurd_claims_are_refused_without_allocating() {
        let mut shapes = shapes(&tiny());
        shapes.insert("blocks.99999999999999.norm1.weight".to_owned(), vec![10]);
        let config = infer(&shapes, None, Gelu::Erf).unwrap();
        assert_eq!(config.num_blocks, 3);
        let claimed = MixerConfig { num_blocks: usize::MAX, ..tiny() };
        assert!(check_claimed(&claimed, 30).unwrap_err().contains("num_blocks"));
        let claimed = MixerConfig { image_size: 1 << 40, ..tiny() };
        assert!(check_claimed(&claimed, 30).unwrap_err().contains("image_size"));
    }

    #[test]
    fn a_file_without_classifier_says_so() {
        let mut shapes = shapes(&tiny());
        shapes.remove("head.weight");
        shapes.remove("head.bias");
        assert!(infer(&shapes, None, Gelu::Erf).unwrap_err().contains("no `head.weight`"));
    }
}
