//! The network of a run.

use mixer_model::weights::{MAX_PARAMS, ResizeMethod};
use mixer_model::{Depths, MixerConfig, TokenLayer, Variant, count};
use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;
use crate::config::limits::check_image_size;
use crate::config::model::{
    DROP_PATH_RATE, DROP_PATH_SCALING, GELU, HEAD_BIAS, IMAGE_SIZE, NUM_GROUPS,
};
use crate::error::TrainError;
use crate::plan::facts::InitFacts;
use crate::update::drop_path::{DropPath, DropPathScaling};

/// The network of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelPlan {
    /// Its dimensions.
    #[serde(flatten)]
    pub network: MixerConfig,
    /// Probability of dropping a branch of the last block.
    pub drop_path_rate: f64,
    /// Treatment of kept branches; absent where none is dropped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drop_path_scaling: Option<DropPathScaling>,
    /// Initial bias of the head; absent where the head of the weights is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub head_bias: Option<f32>,
}

impl ModelPlan {
    /// Resolves the section for a network.
    pub(super) fn resolve(
        config: &ModelConfig,
        network: MixerConfig,
        keeps_head: bool,
    ) -> Result<Self, TrainError> {
        let drop_path_rate = config.drop_path_rate.unwrap_or(DROP_PATH_RATE);
        if config.drop_path_scaling.is_some() && drop_path_rate == 0.0 {
            return Err(TrainError::no_effect(
                "model.drop_path_scaling",
                "unless `model.drop_path_rate` is above 0",
            ));
        }
        if config.head_bias.is_some() && keeps_head {
            return Err(TrainError::no_effect(
                "model.head_bias",
                "when the head of the weights is kept",
            ));
        }
        let scaling = config.drop_path_scaling.unwrap_or(DROP_PATH_SCALING);
        Ok(Self {
            network,
            drop_path_rate,
            drop_path_scaling: (drop_path_rate > 0.0).then_some(scaling),
            head_bias: (!keeps_head).then_some(config.head_bias.unwrap_or(HEAD_BIAS)),
        })
    }

    /// Stochastic depth.
    #[must_use]
    pub fn drop_path(&self) -> DropPath {
        let scaling = self.drop_path_scaling.unwrap_or(DROP_PATH_SCALING);
        DropPath { rate: self.drop_path_rate, scaling }
    }
}

/// The dimensions of the network.
pub(super) fn network(
    config: &ModelConfig,
    init: Option<&InitFacts>,
    num_classes: usize,
) -> Result<MixerConfig, TrainError> {
    if let Some(init) = init {
        return finetuned(config, init, num_classes);
    }
    let image_size = config.image_size.unwrap_or(IMAGE_SIZE);
    let gelu = config.gelu.unwrap_or(GELU);
    let given = dimensions(config).into_iter().find(|(_, value)| value.is_some());
    let given = given.map(|(key, _)| key).or(config.depths.as_ref().map(|_| "model.depths"));
    let mut resolved = match (&config.variant, given) {
        (Some(variant), Some(key)) => {
            return Err(TrainError::config(format!(
                "both `model.variant = \"{variant}\"` and `{key}` are set, expected one of them"
            )));
        }
        (Some(variant), None) => Variant::parse(variant)?.config(image_size, num_classes, gelu),
        (None, _) => {
            let need = |(key, value): (&str, Option<usize>)| {
                value.ok_or_else(|| {
                    TrainError::config(format!("`{key}` is missing"))
                        .with_hint("or name a variant, for example `model.variant = \"S/16\"`")
                })
            };
            let hidden_dim = need(("model.hidden_dim", config.hidden_dim))?;
            let tokens = token_layer(config, hidden_dim)?;
            let num_blocks = match tokens {
                TokenLayer::Convolution { depths, .. } => {
                    config.num_blocks.unwrap_or(depths.num_blocks())
                }
                _ => need(("model.num_blocks", config.num_blocks))?,
            };
            MixerConfig {
                image_size,
                patch_size: need(("model.patch_size", config.patch_size))?,
                hidden_dim,
                tokens,
                channels_mlp_dim: config
                    .channels_mlp_dim
                    .unwrap_or(tokens.usual_mlp_dim(hidden_dim)),
                num_blocks,
                num_classes,
                gelu,
            }
        }
    };
    refuse_keys_of_others(config, &resolved)?;
    if !resolved.has_tokens() {
        resolved.gelu = GELU;
    }
    if let (TokenLayer::Attention { pool, .. }, Some(wanted)) = (&mut resolved.tokens, config.pool)
    {
        *pool = wanted;
    }
    resolved.validate()?;
    check_image_size("model.image_size", resolved.image_size)?;
    let num_params = count::num_params(&resolved);
    if num_params > MAX_PARAMS {
        return Err(TrainError::config(format!(
            "the network would have {num_params} parameters, expected at most {MAX_PARAMS}"
        )));
    }
    Ok(resolved)
}

/// The numbers that a variant stands for, by their keys.
fn dimensions(config: &ModelConfig) -> [(&'static str, Option<usize>); 7] {
    [
        ("model.patch_size", config.patch_size),
        ("model.hidden_dim", config.hidden_dim),
        ("model.num_blocks", config.num_blocks),
        ("model.tokens_mlp_dim", config.tokens_mlp_dim),
        ("model.num_heads", config.num_heads),
        ("model.num_groups", config.num_groups),
        ("model.channels_mlp_dim", config.channels_mlp_dim),
    ]
}

/// The layer over tokens that the keys of one kind of network ask for.
fn token_layer(config: &ModelConfig, hidden_dim: usize) -> Result<TokenLayer, TrainError> {
    let kinds = [
        ("model.tokens_mlp_dim", config.tokens_mlp_dim.is_some()),
        ("model.num_heads", config.num_heads.is_some()),
        ("model.depths", config.depths.is_some()),
    ];
    let mut set = kinds.into_iter().filter(|(_, is_set)| *is_set);
    if let (Some((one, _)), Some((other, _))) = (set.next(), set.next()) {
        return Err(TrainError::config(format!(
            "both `{one}` and `{other}` are set, expected one of them"
        ))
        .with_hint(
            "`tokens_mlp_dim` makes a Mixer, `num_heads` a Vision Transformer, `depths` a BiT-ResNet",
        ));
    }
    if let Some(depths) = &config.depths {
        let num_groups = config.num_groups.unwrap_or(NUM_GROUPS);
        return Ok(TokenLayer::Convolution { depths: Depths::new(depths)?, num_groups });
    }
    Ok(match config.num_heads {
        Some(num_heads) => {
            TokenLayer::Attention { num_heads, pool: config.pool.unwrap_or_default() }
        }
        None => TokenLayer::Mlp {
            tokens_mlp_dim: config.tokens_mlp_dim.unwrap_or((hidden_dim / 2).max(1)),
        },
    })
}

/// Refuses keys that mean nothing in this kind of network.
fn refuse_keys_of_others(config: &ModelConfig, network: &MixerConfig) -> Result<(), TrainError> {
    let is_resnet = matches!(network.tokens, TokenLayer::Convolution { .. });
    let no_effect = |key, because| Err(TrainError::no_effect(key, because));
    match network.tokens {
        TokenLayer::Mlp { .. } if config.pool.is_some() => {
            no_effect("model.pool", "in a Mixer, whose head reads the average of all tokens")
        }
        TokenLayer::Convolution { .. } if config.pool.is_some() => {
            no_effect("model.pool", "in a BiT-ResNet, whose head reads the average of all places")
        }
        TokenLayer::Convolution { .. } if config.gelu.is_some() => {
            no_effect("model.gelu", "in a BiT-ResNet, which has ReLU")
        }
        _ if config.num_groups.is_some() && !is_resnet => {
            no_effect("model.num_groups", "unless `model.depths` makes a BiT-ResNet")
        }
        _ => Ok(()),
    }
}

/// The architecture is that of the weights; the configuration may change resolution, classes and
/// GELU, and may repeat what it is.
fn finetuned(
    config: &ModelConfig,
    init: &InitFacts,
    num_classes: usize,
) -> Result<MixerConfig, TrainError> {
    let weights = &init.config;
    let image_size = config.image_size.unwrap_or(weights.image_size);
    let mut resolved = ResizeMethod::config(weights, image_size)?;
    resolved.num_classes = num_classes;
    resolved.gelu = config.gelu.unwrap_or(weights.gelu);
    let depths = match resolved.tokens {
        TokenLayer::Convolution { depths, .. } => Some(depths),
        _ => None,
    };
    let actual = [
        Some(resolved.patch_size),
        Some(resolved.hidden_dim),
        Some(resolved.num_blocks),
        resolved.tokens.mlp_dim(),
        resolved.tokens.num_heads(),
        depths.map(|_| resolved.tokens.dimension().1),
        Some(resolved.channels_mlp_dim),
    ];
    let contradiction = |line: String| {
        let hint = "fine-tuning takes the architecture from the weights: leave the key out";
        Err(TrainError::config(line).with_hint(hint))
    };
    for ((key, wanted), actual) in dimensions(config).into_iter().zip(actual) {
        let Some(wanted) = wanted.filter(|wanted| Some(*wanted) != actual) else { continue };
        return contradiction(match actual {
            Some(actual) => format!("`{key}` is {wanted}, but the weights have {actual}"),
            None => format!("`{key}` is {wanted}, but the weights are {weights}, which has none"),
        });
    }
    if let Some(wanted) = &config.depths
        && depths.map(Vec::from).as_ref() != Some(wanted)
    {
        return contradiction(format!(
            "`model.depths` is {wanted:?}, but the weights are {weights}"
        ));
    }
    refuse_keys_of_others(config, &resolved)?;
    match (resolved.tokens, config.pool) {
        (TokenLayer::Attention { pool, .. }, Some(wanted)) if wanted != pool => {
            return contradiction(format!(
                "`model.pool` is another than that of the weights, which are {weights}"
            ));
        }
        _ => {}
    }
    if let Some(name) = &config.variant {
        let variant = Variant::parse(name)?;
        // A change of resolution has widened what a variant does not compare.
        if !variant.is_of(&resolved) {
            return contradiction(format!(
                "`model.variant` is {name}, but the weights are {weights}"
            ));
        }
    }
    Ok(resolved)
}
