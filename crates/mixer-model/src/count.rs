//! The costs of a network: parameters, multiply-accumulates. Exact integers from the dimensions alone; nothing is
//! measured. Memory is in `training_memory.rs`.

use crate::mixer::config::{MixerConfig, TokenLayer};
use crate::mixer::stage::Stage;

/// Product in 64 bits. Saturates: a cost that overflows is too large by any measure.
pub(crate) fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1_u64, |n, &factor| n.saturating_mul(factor as u64))
}

pub(crate) fn sum(terms: &[u64]) -> u64 {
    terms.iter().fold(0_u64, |n, &term| n.saturating_add(term))
}

/// Trainable parameters, the head included.
///
/// Per block `4 C + (2 S D_S + D_S + S) + (2 C D_C + D_C + C)`; in a Vision Transformer `4 C² + 4 C` in place
/// of the second term, and once `T C` positions and a class token of `C`. In a block of a BiT-ResNet that is
/// given I channels, with W and M those of its stage, `I M + 9 M² + M W + 2 I + 4 M`, and `I W` in the first of
/// a stage; `147 C₀` in the stem.
///
/// # Source
/// Agrees with `vit_jax/models_test.py` for B/16, B/32 and L/16 with 1000 classes, and for its Vision
/// Transformers; with timm for BiT-ResNets.
#[must_use]
pub fn num_params(config: &MixerConfig) -> u64 {
    let head = sum(&[product(&[config.hidden_dim, config.num_classes]), config.num_classes as u64]);
    num_params_without_head(config).saturating_add(head)
}

/// Trainable parameters without the head: what the paper's Table 1 counts.
#[must_use]
pub fn num_params_without_head(config: &MixerConfig) -> u64 {
    let (c, s) = (config.hidden_dim, config.num_tokens());
    let d_c = config.channels_mlp_dim;
    let stem = sum(&[product(&[config.patch_dim(), c]), c as u64]);
    let norms = product(&[4, c]);
    let (tokens, positions) = match config.tokens {
        TokenLayer::Mlp { tokens_mlp_dim: d_s } => {
            (sum(&[product(&[2, s, d_s]), d_s as u64, s as u64]), 0)
        }
        TokenLayer::Convolution { .. } => return resnet_params_without_head(config),
        TokenLayer::Attention { .. } => {
            let class_token = if config.has_class_token() { c as u64 } else { 0 };
            let positions = product(&[config.num_positions(), c]);
            (sum(&[product(&[4, c, c]), product(&[4, c])]), sum(&[positions, class_token]))
        }
    };
    let channels = sum(&[product(&[2, c, d_c]), d_c as u64, c as u64]);
    let blocks = sum(&[norms, tokens, channels]).saturating_mul(config.num_blocks as u64);
    sum(&[stem, positions, blocks, product(&[2, c])])
}

/// Multiply-accumulates of a forward pass of one image: all matrix products, the head's included.
/// Normalisation, activation, biases and pooling are not counted, as is usual; they are linear in
/// the activations.
///
/// `S P² 3 C + L (2 S D_S C + 2 S C D_C) + C K`; in a Vision Transformer T in place of S behind the stem, and
/// `4 T C² + 2 T² C` in place of token mixing; in a BiT-ResNet the weights of each convolution at every place of
/// its outputs.
#[must_use]
pub fn macs(config: &MixerConfig) -> u64 {
    let (c, s, t) = (config.hidden_dim, config.num_tokens(), config.num_positions());
    let blocks = config.num_blocks;
    let stem = product(&[s, config.patch_dim(), c]);
    let tokens = match config.tokens {
        TokenLayer::Mlp { tokens_mlp_dim } => product(&[2, blocks, s, tokens_mlp_dim, c]),
        TokenLayer::Convolution { .. } => return resnet_macs(config),
        TokenLayer::Attention { .. } => {
            sum(&[product(&[4, blocks, t, c, c]), product(&[2, blocks, t, t, c])])
        }
    };
    let channels = product(&[2, blocks, t, c, config.channels_mlp_dim]);
    sum(&[stem, tokens, channels, product(&[c, config.num_classes])])
}

/// Taps of the first convolution of a BiT-ResNet, and of the second one of its blocks.
const STEM_TAPS: usize = 7 * 7;
const TAPS: usize = 3 * 3;

/// Trainable parameters of a BiT-ResNet without the head.
fn resnet_params_without_head(config: &MixerConfig) -> u64 {
    let norms = |inputs, bottleneck| sum(&[product(&[2, inputs]), product(&[4, bottleneck])]);
    let of_stage = |stage: &Stage| {
        let first = norms(stage.inputs, stage.bottleneck);
        let others = norms(stage.width, stage.bottleneck).saturating_mul(stage.depth as u64 - 1);
        sum(&[convolutions(stage, 1, 1), first, others])
    };
    let stages: Vec<u64> = config.stages().iter().map(of_stage).collect();
    let stem = product(&[STEM_TAPS, 3, config.stem_width()]);
    sum(&[stem, sum(&stages), product(&[2, config.hidden_dim])])
}

/// Multiply-accumulates of a BiT-ResNet.
fn resnet_macs(config: &MixerConfig) -> u64 {
    let area = |side: usize| side.saturating_mul(side);
    let of_stage = |stage: &Stage| convolutions(stage, area(stage.side_before), area(stage.side));
    let stages: Vec<u64> = config.stages().iter().map(of_stage).collect();
    let stem = product(&[area(config.stem_side()), STEM_TAPS, 3, config.stem_width()]);
    sum(&[stem, sum(&stages), product(&[config.hidden_dim, config.num_classes])])
}

/// The weights of a stage's convolutions, each as often as it is applied: the first one of the stage at
/// `places_before` places, all others at `places`.
fn convolutions(stage: &Stage, places_before: usize, places: usize) -> u64 {
    let Stage { depth, inputs, width, bottleneck, .. } = *stage;
    sum(&[
        product(&[places_before, inputs, bottleneck]),
        product(&[places, inputs, width]),
        product(&[depth - 1, places, width, bottleneck]),
        product(&[depth, places, TAPS, bottleneck, bottleneck]),
        product(&[depth, places, bottleneck, width]),
    ])
}

/// Floating-point operations of a training step per image: `3 · 2 ·` [`macs`]. The backward pass has
/// two products for each one of the forward pass, and a multiply-accumulate is two operations. (The
/// stem needs no gradient of its input, so this is slightly too much.)
#[must_use]
pub fn training_flops(config: &MixerConfig) -> u64 {
    macs(config).saturating_mul(6)
}

/// Bytes of the weights in `f32`.
#[must_use]
pub fn weights_bytes(config: &MixerConfig) -> u64 {
    num_params(config).saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixer::config::{Gelu, Pool};
    use crate::mixer::variants::{BIT_VARIANTS, VARIANTS, VIT_VARIANTS, Variant};
    use crate::parameters::{ParameterSpec, parameters};

    /// Name, parameters without head, with 1000 and with 21843 classes, GMACs with 1000 classes, all
    /// at 224 px, computed by hand from the dimensions. What others published bears them out: the
    /// paper's Table 1 in whole millions (without head), `vit_jax/models_test.py` for B/32, B/16 and
    /// L/16 with 1000 classes to the last digit, timm's GMACs to half a percent (below).
    const TABLE: [(&str, u64, u64, u64, &str); 8] = [
        ("S/32", 18_591_624, 19_104_624, 29_797_083, "1.002"),
        ("S/16", 18_015_264, 18_528_264, 29_220_723, "3.777"),
        ("B/32", 59_524_428, 60_293_428, 76_321_695, "3.238"),
        ("B/16", 59_111_472, 59_880_472, 75_908_739, "12.602"),
        ("L/32", 205_914_264, 206_939_264, 228_303_339, "11.253"),
        ("L/16", 207_171_168, 208_196_168, 229_560_243, "44.548"),
        ("H/14", 431_069_952, 432_350_952, 459_050_835, "120.990"),
        ("S/8", 20_133_504, 20_646_504, 31_338_963, "14.875"),
    ];

    #[test]
    fn parameter_counts_are_those_of_the_paper() {
        for (name, without_head, classes_1000, classes_21843, _) in TABLE {
            let variant = Variant::parse(name).unwrap();
            let config = variant.config(224, 1000, Gelu::Tanh);
            assert_eq!(num_params_without_head(&config), without_head, "{name}");
            assert_eq!(num_params(&config), classes_1000, "{name}");
            let config = variant.config(224, 21843, Gelu::Tanh);
            assert_eq!(num_params_without_head(&config), without_head, "{name}");
            assert_eq!(num_params(&config), classes_21843, "{name}");
        }
    }

    #[test]
    fn every_variant_is_in_the_table() {
        for variant in VARIANTS {
            assert!(TABLE.iter().any(|row| row.0 == variant.name), "{}", variant.name);
        }
    }

    #[test]
    fn parameters_are_the_values_of_all_tensors() {
        for (name, ..) in TABLE {
            let config = Variant::parse(name).unwrap().config(224, 1000, Gelu::Tanh);
            let values: u64 = parameters(&config).iter().map(ParameterSpec::num_values).sum();
            assert_eq!(num_params(&config), values, "{name}");
            assert_eq!(weights_bytes(&config), 4 * values, "{name}");
        }
    }

    #[test]
    fn multiply_accumulates_are_those_of_the_table() {
        for (name, .., gmacs) in TABLE {
            let config = Variant::parse(name).unwrap().config(224, 1000, Gelu::Tanh);
            assert_eq!(format!("{:.3}", macs(&config) as f64 / 1e9), gmacs, "{name}");
            assert_eq!(training_flops(&config), 6 * macs(&config));
        }
    }

    /// timm's benchmark files count a little more than the matrix products.
    #[test]
    fn multiply_accumulates_agree_with_timms_measurement() {
        for (name, gmacs) in [
            ("S/32", 1.00),
            ("S/16", 3.79),
            ("B/32", 3.24),
            ("B/16", 12.62),
            ("L/32", 11.27),
            ("L/16", 44.6),
        ] {
            let config = Variant::parse(name).unwrap().config(224, 1000, Gelu::Erf);
            let ours = macs(&config) as f64 / 1e9;
            assert!((ours / gmacs - 1.0).abs() < 5e-3, "{name}: {ours}, timm {gmacs}");
        }
    }

    #[test]
    fn the_paper_rounds_to_the_same_millions() {
        for variant in VARIANTS {
            let Some(millions) = variant.paper_millions else { continue };
            let params = num_params_without_head(&variant.config(224, 1000, Gelu::Tanh));
            assert_eq!((params as f64 / 1e6).round(), millions as f64, "{}", variant.name);
        }
    }

    /// Name, parameters with a class token and with an average token, GMACs with a class token and
    /// without head, at 224 px and with 1000 classes. `vit_jax/models_test.py` has the first, timm both for S/16, B/16, B/32 and L/16.
    const VIT_TABLE: [(&str, u64, u64, &str); 8] = [
        ("ViT-Ti/16", 5_717_416, 5_717_032, "1.253"),
        ("ViT-S/32", 22_878_952, 22_878_184, "1.143"),
        ("ViT-S/16", 22_050_664, 22_049_896, "4.598"),
        ("ViT-B/32", 88_224_232, 88_222_696, "4.408"),
        ("ViT-B/16", 86_567_656, 86_566_120, "17.563"),
        ("ViT-L/32", 306_535_400, 306_533_352, "15.377"),
        ("ViT-L/16", 304_326_632, 304_324_584, "61.554"),
        ("ViT-H/14", 632_045_800, 632_043_240, "167.294"),
    ];

    #[test]
    fn vision_transformers_have_the_counts_of_the_official_code() {
        assert_eq!(VIT_TABLE.map(|row| row.0), VIT_VARIANTS.map(|variant| variant.name));
        for (name, class_token, average, gmacs) in VIT_TABLE {
            let mut config = Variant::parse(name).unwrap().config(224, 1000, Gelu::Tanh);
            assert_eq!(num_params(&config), class_token, "{name}");
            let without_head = macs(&config) - 1000 * config.hidden_dim as u64;
            assert_eq!(format!("{:.3}", without_head as f64 / 1e9), gmacs, "{name}");
            let values = |config: &MixerConfig| -> u64 {
                parameters(config).iter().map(ParameterSpec::num_values).sum()
            };
            assert_eq!(values(&config), class_token, "{name}");
            if let TokenLayer::Attention { pool, .. } = &mut config.tokens {
                *pool = Pool::Average;
            }
            assert_eq!(num_params(&config), average, "{name}");
            assert_eq!(values(&config), average, "{name}");
        }
    }

    /// Name, parameters and GMACs with 1000 classes at 224 px: sums over the parameters of timm's networks, and
    /// over the outputs of their convolutions.
    const BIT_TABLE: [(&str, u64, &str); 6] = [
        ("BiT-R50x1", 25_549_352, "4.089"),
        ("BiT-R50x3", 217_319_080, "36.082"),
        ("BiT-R101x1", 44_541_480, "7.801"),
        ("BiT-R101x3", 387_934_888, "69.492"),
        ("BiT-R152x2", 236_335_208, "45.814"),
        ("BiT-R152x4", 936_533_224, "182.777"),
    ];

    #[test]
    fn bit_resnets_have_the_counts_of_timm() {
        assert_eq!(BIT_TABLE.map(|row| row.0), BIT_VARIANTS.map(|variant| variant.name));
        for (name, expected, gmacs) in BIT_TABLE {
            let config = Variant::parse(name).unwrap().config(224, 1000, Gelu::Tanh);
            config.validate().unwrap();
            assert_eq!(num_params(&config), expected, "{name}");
            let values: u64 = parameters(&config).iter().map(ParameterSpec::num_values).sum();
            assert_eq!(values, expected, "{name}");
            assert_eq!(format!("{:.3}", macs(&config) as f64 / 1e9), gmacs, "{name}");
        }
    }

    #[test]
    fn absurd_dimensions_saturate() {
        let config = MixerConfig {
            image_size: 1 << 30,
            patch_size: 1,
            hidden_dim: 1 << 40,
            tokens: crate::mixer::TokenLayer::Mlp { tokens_mlp_dim: 1 << 40 },
            channels_mlp_dim: 1 << 40,
            num_blocks: 1 << 40,
            num_classes: 1 << 40,
            gelu: Gelu::Tanh,
        };
        assert_eq!(num_params(&config), u64::MAX);
        assert_eq!(macs(&config), u64::MAX);
    }
}
