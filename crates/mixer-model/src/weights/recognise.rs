//! The architecture of a network read off the names and shapes of its tensors, and the list of
//! everything in which a set of tensors differs from an architecture.

use std::collections::BTreeMap;

use crate::config::{Gelu, MixerConfig};

/// Shapes by timm name.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// Lines of a list of differences that are shown; the rest is counted.
const MAX_SHOWN_DIFFERENCES: usize = 20;

/// Largest dimension that is believed. Far above any Mixer; low enough that products of three
/// dimensions fit 64 bits.
const MAX_DIMENSION: usize = 1 << 20;

/// Names and shapes of all tensors of a Mixer, in the order of its layers; `12 L + 6` of them.
pub(super) fn expected_tensors(config: &MixerConfig) -> Vec<(String, Vec<usize>)> {
    let s = config.num_tokens();
    let (c, p) = (config.hidden_dim, config.patch_size);
    let (d_s, d_c, k) = (config.tokens_mlp_dim, config.channels_mlp_dim, config.num_classes);
    let mut tensors = Vec::with_capacity(12 * config.num_blocks + 6);
    let mut push = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));
    push("stem.proj.weight".to_owned(), &[c, 3, p, p]);
    push("stem.proj.bias".to_owned(), &[c]);
    for i in 0..config.num_blocks {
        push(format!("blocks.{i}.norm1.weight"), &[c]);
        push(format!("blocks.{i}.norm1.bias"), &[c]);
        push(format!("blocks.{i}.mlp_tokens.fc1.weight"), &[d_s, s]);
        push(format!("blocks.{i}.mlp_tokens.fc1.bias"), &[d_s]);
        push(format!("blocks.{i}.mlp_tokens.fc2.weight"), &[s, d_s]);
        push(format!("blocks.{i}.mlp_tokens.fc2.bias"), &[s]);
        push(format!("blocks.{i}.norm2.weight"), &[c]);
        push(format!("blocks.{i}.norm2.bias"), &[c]);
        push(format!("blocks.{i}.mlp_channels.fc1.weight"), &[d_c, c]);
        push(format!("blocks.{i}.mlp_channels.fc1.bias"), &[d_c]);
        push(format!("blocks.{i}.mlp_channels.fc2.weight"), &[c, d_c]);
        push(format!("blocks.{i}.mlp_channels.fc2.bias"), &[c]);
    }
    push("norm.weight".to_owned(), &[c]);
    push("norm.bias".to_owned(), &[c]);
    push("head.weight".to_owned(), &[k, c]);
    push("head.bias".to_owned(), &[k]);
    tensors
}

/// Checks dimensions that a file claims, before anything is computed from them.
pub(super) fn check_claimed(config: &MixerConfig, num_tensors: usize) -> Result<(), String> {
    config.validate().map_err(|error| error.to_string())?;
    for (name, value) in [
        ("image_size", config.image_size),
        ("patch_size", config.patch_size),
        ("hidden_dim", config.hidden_dim),
        ("tokens_mlp_dim", config.tokens_mlp_dim),
        ("channels_mlp_dim", config.channels_mlp_dim),
        ("num_classes", config.num_classes),
    ] {
        if value > MAX_DIMENSION {
            return Err(format!("`{name}` is {value}, expected at most {MAX_DIMENSION}"));
        }
    }
    // Some may be missing, and are named then; but not so many that their list is longer than the file.
    if config.num_blocks.saturating_mul(6) > num_tensors {
        return Err(format!(
            "`num_blocks` is {}, which makes 12 tensors each; the file has {num_tensors}",
            config.num_blocks
        ));
    }
    Ok(())
}

/// What the tensors say about each dimension. A damaged tensor is outvoted by the others, and then
/// shows up as a difference.
#[derive(Default)]
struct Evidence {
    patch: Vec<usize>,
    c: Vec<usize>,
    s: Vec<usize>,
    d_s: Vec<usize>,
    d_c: Vec<usize>,
    k: Vec<usize>,
    blocks: Vec<usize>,
}

impl Evidence {
    fn gather(shapes: &Shapes) -> Evidence {
        let mut e = Evidence::default();
        for (name, shape) in shapes {
            let (part, block) = match block_part(name) {
                Some((block, part)) => (part, Some(block)),
                None => (name.as_str(), None),
            };
            let known = match (block.is_some(), part, shape.as_slice()) {
                (false, "stem.proj.weight", &[c, _, height, width]) => {
                    e.c.push(c);
                    e.patch.extend([height, width]);
                    true
                }
                (false, "head.weight", &[k, c]) => {
                    e.k.push(k);
                    e.c.push(c);
                    true
                }
                (false, "head.bias", &[k]) => {
                    e.k.push(k);
                    true
                }
                (true, "mlp_tokens.fc1.weight", &[d_s, s])
                | (true, "mlp_tokens.fc2.weight", &[s, d_s]) => {
                    e.d_s.push(d_s);
                    e.s.push(s);
                    true
                }
                (true, "mlp_tokens.fc1.bias", &[d_s]) => {
                    e.d_s.push(d_s);
                    true
                }
                (true, "mlp_tokens.fc2.bias", &[s]) => {
                    e.s.push(s);
                    true
                }
                (true, "mlp_channels.fc1.weight", &[d_c, c])
                | (true, "mlp_channels.fc2.weight", &[c, d_c]) => {
                    e.d_c.push(d_c);
                    e.c.push(c);
                    true
                }
                (true, "mlp_channels.fc1.bias", &[d_c]) => {
                    e.d_c.push(d_c);
                    true
                }
                (true, "norm1.weight" | "norm1.bias" | "norm2.weight" | "norm2.bias", &[c]) => {
                    e.c.push(c);
                    true
                }
                _ => false,
            };
            if let Some(block) = block
                && known
            {
                e.blocks.push(block);
            }
        }
        e.blocks.sort_unstable();
        e.blocks.dedup();
        e
    }
}

/// `blocks.7.norm1.weight` to `(7, "norm1.weight")`.
fn block_part(name: &str) -> Option<(usize, &str)> {
    let (block, part) = name.strip_prefix("blocks.")?.split_once('.')?;
    Some((block.parse().ok()?, part))
}

/// The value that most tensors agree on; of equally frequent ones, the first seen.
fn majority(votes: &[usize]) -> Option<usize> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for vote in votes {
        *counts.entry(*vote).or_default() += 1;
    }
    let most = counts.values().max()?;
    votes.iter().copied().find(|vote| counts.get(vote) == Some(most))
}

/// Reads the architecture off the shapes. GELU leaves no trace in them, so it is given.
///
/// The image size follows from the number of tokens, which must be a square: `√S · P`.
pub(super) fn infer(shapes: &Shapes, gelu: Gelu) -> Result<MixerConfig, String> {
    if shapes.is_empty() {
        return Err("the file holds no tensors".to_owned());
    }
    if let Some(net) = lookalike(shapes) {
        return Err(format!("the tensors are those of {net}"));
    }
    let e = Evidence::gather(shapes);
    let (Some(patch_size), Some(s), Some(d_s)) =
        (majority(&e.patch), majority(&e.s), majority(&e.d_s))
    else {
        let found: Vec<&str> = shapes.keys().take(3).map(String::as_str).collect();
        let more = if shapes.len() > found.len() { ", ..." } else { "" };
        return Err(format!(
            "no `stem.proj.weight` with `blocks.*.mlp_tokens` among {} tensors ({}{more})",
            shapes.len(),
            found.join(", ")
        ));
    };
    let (Some(c), Some(d_c)) = (majority(&e.c), majority(&e.d_c)) else {
        return Err("no `blocks.*.mlp_channels`".to_owned());
    };
    let Some(k) = majority(&e.k) else {
        return Err("no `head.weight`: the file was saved without a classifier".to_owned());
    };
    let grid = s.isqrt();
    if grid * grid != s {
        return Err(format!("{s} tokens do not form a square grid"));
    }
    // An absurd block index must not make a list of that many missing tensors.
    let num_blocks = match e.blocks.last() {
        Some(&last) if last < shapes.len() => last + 1,
        _ => e.blocks.len(),
    };
    let config = MixerConfig {
        image_size: grid.checked_mul(patch_size).ok_or("the image size overflows")?,
        patch_size,
        hidden_dim: c,
        tokens_mlp_dim: d_s,
        channels_mlp_dim: d_c,
        num_blocks,
        num_classes: k,
        gelu,
    };
    check_claimed(&config, shapes.len())?;
    Ok(config)
}

/// Names the relatives and the well-known nets that people confuse with a Mixer.
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
    if any(&|n| {
        n.contains("pos_embed")
            || n.contains("posembed_input")
            || n.contains("cls_token")
            || n.contains("MultiHeadDotProductAttention")
    }) {
        return Some("a Vision Transformer");
    }
    if any(&|n| n.ends_with("layer1.0.conv1.weight")) {
        return Some("a ResNet");
    }
    None
}

/// Everything in which `shapes` is not the set of tensors of `config`, one line each: first missing
/// and misshapen tensors in the order of the layers, then the unexpected ones.
pub(super) fn differences(config: &MixerConfig, shapes: &Shapes) -> Vec<String> {
    let expected = expected_tensors(config);
    let mut lines = Vec::new();
    for (name, shape) in &expected {
        match shapes.get(name) {
            None => lines.push(format!("missing {name} {shape:?}")),
            Some(found) if found != shape => {
                lines.push(format!("{name} is {found:?}, expected {shape:?}"));
            }
            Some(_) => {}
        }
    }
    let expected: BTreeMap<String, Vec<usize>> = expected.into_iter().collect();
    for (name, shape) in shapes {
        if !expected.contains_key(name) {
            lines.push(format!("unexpected {name} {shape:?}"));
        }
    }
    lines
}

/// The lines as shown, cut off with a count.
pub(super) fn shown(lines: &[String]) -> String {
    let mut text = lines
        .iter()
        .take(MAX_SHOWN_DIFFERENCES)
        .map(|line| format!("  {}", super::one_line(line)))
        .collect::<Vec<_>>()
        .join("\n");
    if lines.len() > MAX_SHOWN_DIFFERENCES {
        text.push_str(&format!("\n  ... and {} more", lines.len() - MAX_SHOWN_DIFFERENCES));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VARIANTS;

    fn shapes(config: &MixerConfig) -> Shapes {
        expected_tensors(config).into_iter().collect()
    }

    fn tiny() -> MixerConfig {
        MixerConfig {
            image_size: 24,
            patch_size: 4,
            hidden_dim: 10,
            tokens_mlp_dim: 14,
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
            assert_eq!(infer(&shapes, Gelu::Tanh), Ok(config.clone()));
            assert!(differences(&config, &shapes).is_empty());
        }
    }

    #[test]
    fn one_damaged_tensor_is_outvoted_and_named() {
        let mut shapes = shapes(&tiny());
        shapes.insert("blocks.0.mlp_tokens.fc1.weight".to_owned(), vec![14, 30]);
        shapes.remove("blocks.1.norm1.weight");
        shapes.insert("foo.bar".to_owned(), vec![3]);
        let config = infer(&shapes, Gelu::Erf).unwrap();
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
        for (net, name) in [(gmixer, "gMixer"), (resmlp, "ResMLP"), (vit, "Vision Transformer")] {
            assert!(infer(&net, Gelu::Erf).unwrap_err().contains(name), "{name}");
        }
    }

    #[test]
    fn absurd_claims_are_refused_without_allocating() {
        let mut shapes = shapes(&tiny());
        shapes.insert("blocks.99999999999999.norm1.weight".to_owned(), vec![10]);
        let config = infer(&shapes, Gelu::Erf).unwrap();
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
        assert!(infer(&shapes, Gelu::Erf).unwrap_err().contains("no `head.weight`"));
    }

    #[test]
    fn a_long_list_of_differences_is_cut_with_a_count() {
        let lines: Vec<String> = (0..34).map(|i| format!("missing {i}")).collect();
        let text = shown(&lines);
        assert_eq!(text.lines().count(), 21);
        assert!(text.ends_with("  ... and 14 more"), "{text}");
    }
}
