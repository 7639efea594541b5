//! The network of a run.

use mixer_model::weights::{MAX_PARAMS, ResizeMethod};
use mixer_model::{MixerConfig, TokenLayer, Variant, count};
use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;
use crate::config::limits::check_image_size;
use crate::config::model::{DROP_PATH_RATE, DROP_PATH_SCALING, GELU, HEAD_BIAS, IMAGE_SIZE};
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
    let dimensions = [
        ("model.patch_size", config.patch_size),
        ("model.hidden_dim", config.hidden_dim),
        ("model.num_blocks", config.num_blocks),
        ("model.tokens_mlp_dim", config.tokens_mlp_dim),
        ("model.num_heads", config.num_heads),
        ("model.channels_mlp_dim", config.channels_mlp_dim),
    ];
    let given = dimensions.iter().find(|(_, value)| value.is_some());
    if let Some(init) = init {
        return finetuned(config, init, num_classes, &dimensions);
    }
    let image_size = config.image_size.unwrap_or(IMAGE_SIZE);
    let gelu = config.gelu.unwrap_or(GELU);
    let mut resolved = match (&config.variant, given) {
        (Some(variant), Some((key, _))) => {
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
            let tokens = match (config.tokens_mlp_dim, config.num_heads) {
                (Some(_), Some(_)) => {
                    return Err(TrainError::config(
                        "both `model.tokens_mlp_dim` and `model.num_heads` are set, expected one of them",
                    )
                    .with_hint("the first makes a Mixer, the second a Vision Transformer"));
                }
                (None, Some(num_heads)) => {
                    TokenLayer::Attention { num_heads, pool: config.pool.unwrap_or_default() }
                }
                (tokens_mlp_dim, None) => TokenLayer::Mlp {
                    tokens_mlp_dim: tokens_mlp_dim.unwrap_or((hidden_dim / 2).max(1)),
                },
            };
            MixerConfig {
                image_size,
                patch_size: need(("model.patch_size", config.patch_size))?,
                hidden_dim,
                tokens,
                channels_mlp_dim: config.channels_mlp_dim.unwrap_or(hidden_dim.saturating_mul(4)),
                num_blocks: need(("model.num_blocks", config.num_blocks))?,
                num_classes,
                gelu,
            }
        }
    };
    match (&mut resolved.tokens, config.pool) {
        (TokenLayer::Attention { pool, .. }, Some(wanted)) => *pool = wanted,
        (TokenLayer::Mlp { .. }, Some(_)) => return Err(no_pool()),
        _ => {}
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

/// The key chooses between tokens that a Mixer has not.
fn no_pool() -> TrainError {
    TrainError::no_effect("model.pool", "in a Mixer, whose head reads the average of all tokens")
}

/// The architecture is that of the weights; the configuration may change resolution, classes and
/// GELU, and may repeat what it is.
fn finetuned(
    config: &ModelConfig,
    init: &InitFacts,
    num_classes: usize,
    dimensions: &[(&str, Option<usize>)],
) -> Result<MixerConfig, TrainError> {
    let weights = &init.config;
    let image_size = config.image_size.unwrap_or(weights.image_size);
    let mut resolved = ResizeMethod::config(weights, image_size)?;
    resolved.num_classes = num_classes;
    resolved.gelu = config.gelu.unwrap_or(weights.gelu);
    let (tokens_mlp_dim, num_heads) = match resolved.tokens {
        TokenLayer::Mlp { tokens_mlp_dim } => (Some(tokens_mlp_dim), None),
        TokenLayer::Attention { num_heads, .. } => (None, Some(num_heads)),
    };
    let actual = [
        Some(resolved.patch_size),
        Some(resolved.hidden_dim),
        Some(resolved.num_blocks),
        tokens_mlp_dim,
        num_heads,
        Some(resolved.channels_mlp_dim),
    ];
    let contradiction = |line: String| {
        let hint = "fine-tuning takes the architecture from the weights: leave the key out";
        Err(TrainError::config(line).with_hint(hint))
    };
    for ((key, wanted), actual) in dimensions.iter().zip(actual) {
        let Some(wanted) = wanted.filter(|wanted| Some(*wanted) != actual) else { continue };
        return contradiction(match actual {
            Some(actual) => format!("`{key}` is {wanted}, but the weights have {actual}"),
            None => format!("`{key}` is {wanted}, but the weights are {weights}, which has none"),
        });
    }
    match (resolved.tokens, config.pool) {
        (TokenLayer::Mlp { .. }, Some(_)) => return Err(no_pool()),
        (TokenLayer::Attention { pool, .. }, Some(wanted)) if wanted != pool => {
            return contradiction(format!(
                "`model.pool` is another than that of the weights, which are {weights}"
            ));
        }
        _ => {}
    }
    if let Some(name) = &config.variant {
        let variant = Variant::parse(name)?;
        if (variant.patch_size, variant.hidden_dim, variant.num_blocks, variant.num_heads)
            != (resolved.patch_size, resolved.hidden_dim, resolved.num_blocks, num_heads)
        {
            return contradiction(format!(
                "`model.variant` is {name}, but the weights are {weights}"
            ));
        }
    }
    Ok(resolved)
}
