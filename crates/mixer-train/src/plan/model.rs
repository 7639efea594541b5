//! The network of a run.

use mixer_model::weights::{MAX_PARAMS, ResizeMethod};
use mixer_model::{MixerConfig, Variant, count};
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
        ("model.channels_mlp_dim", config.channels_mlp_dim),
    ];
    let given = dimensions.iter().find(|(_, value)| value.is_some());
    if let Some(init) = init {
        return finetuned(config, init, num_classes, &dimensions);
    }
    let image_size = config.image_size.unwrap_or(IMAGE_SIZE);
    let gelu = config.gelu.unwrap_or(GELU);
    let resolved = match (&config.variant, given) {
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
            MixerConfig {
                image_size,
                patch_size: need(("model.patch_size", config.patch_size))?,
                hidden_dim,
                tokens_mlp_dim: config.tokens_mlp_dim.unwrap_or((hidden_dim / 2).max(1)),
                channels_mlp_dim: config.channels_mlp_dim.unwrap_or(hidden_dim.saturating_mul(4)),
                num_blocks: need(("model.num_blocks", config.num_blocks))?,
                num_classes,
                gelu,
            }
        }
    };
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
    let actual = [
        resolved.patch_size,
        resolved.hidden_dim,
        resolved.num_blocks,
        resolved.tokens_mlp_dim,
        resolved.channels_mlp_dim,
    ];
    for ((key, wanted), actual) in dimensions.iter().zip(actual) {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != actual) {
            return Err(TrainError::config(format!(
                "`{key}` is {wanted}, but the weights have {actual}"
            ))
            .with_hint("fine-tuning takes the architecture from the weights: leave the key out"));
        }
    }
    if let Some(name) = &config.variant {
        let variant = Variant::parse(name)?;
        if (variant.patch_size, variant.hidden_dim, variant.num_blocks)
            != (resolved.patch_size, resolved.hidden_dim, resolved.num_blocks)
        {
            return Err(TrainError::config(format!(
                "`model.variant` is {name}, but the weights are {weights}"
            ))
            .with_hint("fine-tuning takes the architecture from the weights: leave the key out"));
        }
    }
    Ok(resolved)
}
