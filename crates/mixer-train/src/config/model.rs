//! `[model]`: the network.

use mixer_model::{Gelu, Pool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::limits::MAX_IMAGE_SIZE;
use crate::update::drop_path::DropPathScaling;

/// Side of the input of a network that starts from scratch, px.
pub const IMAGE_SIZE: usize = 224;

/// Form of GELU of a network that starts from scratch: that of the official code.
pub const GELU: Gelu = Gelu::Tanh;

/// Groups of channels that a BiT-ResNet normalises: those of every published one.
pub const NUM_GROUPS: usize = 32;

/// Probability of dropping a branch of the last block.
pub const DROP_PATH_RATE: f64 = 0.0;

/// Treatment of kept branches: that of the paper's code.
pub const DROP_PATH_SCALING: DropPathScaling = DropPathScaling::None;

/// Initial bias of the head.
pub const HEAD_BIAS: f32 = 0.0;

/// The network.
///
/// In pre-training, set either `variant`, or `patch_size`, `hidden_dim` and `num_blocks` (of a BiT-ResNet
/// `depths` in place of the last). In fine-tuning all
/// dimensions come from the weights; a key that repeats them is allowed, one that contradicts them is an
/// error. The number of classes is that of the data, and is never set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Variant of the paper, in place of the dimensions below.
    ///
    /// `S/32`, `S/16`, `S/8`, `B/32`, `B/16`, `L/32`, `L/16`, `H/14`, or such a letter with another patch
    /// side; for a Vision Transformer `ViT-Ti/16`, `ViT-S/32`, `ViT-S/16`, `ViT-B/32`, `ViT-B/16`, `ViT-L/32`,
    /// `ViT-L/16`, `ViT-H/14`; for a BiT-ResNet `BiT-R50x1`, `BiT-R50x3`, `BiT-R101x1`, `BiT-R101x3`,
    /// `BiT-R152x2`, `BiT-R152x4`. It excludes `patch_size`, `hidden_dim`, `num_blocks`, `tokens_mlp_dim`,
    /// `num_heads`, `depths`, `num_groups` and `channels_mlp_dim`.
    #[schemars(extend("x-unit" = "name"))]
    pub variant: Option<String>,
    /// Side of the square input, a multiple of the patch side.
    ///
    /// In fine-tuning, another size than that of the weights expands token mixing: exactly for a whole
    /// multiple, by interpolation else. The positions of a Vision Transformer are interpolated; the weights of
    /// a BiT-ResNet, which needs at least 32 px, stay as they are.
    #[schemars(extend("x-unit" = "px", "minimum" = 1, "maximum" = MAX_IMAGE_SIZE, "default" = IMAGE_SIZE, "x-from" = "weights"))]
    pub image_size: Option<usize>,
    /// Side of a patch.
    ///
    /// A BiT-ResNet puts the patches together again: for it, they are those that `data.shuffle` moves.
    #[schemars(extend("x-unit" = "px", "minimum" = 1, "x-from" = "weights"))]
    pub patch_size: Option<usize>,
    /// Channels of a token; of a BiT-ResNet, those of its last stage.
    #[schemars(extend("x-unit" = "channels", "minimum" = 1, "x-from" = "weights"))]
    pub hidden_dim: Option<usize>,
    /// Number of blocks.
    #[schemars(extend("x-unit" = "blocks", "minimum" = 1, "x-from" = "weights"))]
    pub num_blocks: Option<usize>,
    /// Hidden width of the token-mixing MLP; the default is the ratio of every paper variant.
    #[schemars(extend("x-unit" = "units", "minimum" = 1, "x-default" = "`hidden_dim / 2`", "x-from" = "weights"))]
    pub tokens_mlp_dim: Option<usize>,
    /// Heads of self-attention, which divide `hidden_dim`: a Vision Transformer in place of a Mixer.
    ///
    /// It excludes `tokens_mlp_dim`.
    #[schemars(extend("x-unit" = "heads", "minimum" = 1, "x-from" = "weights"))]
    pub num_heads: Option<usize>,
    /// Blocks by stage, from one to four stages: a BiT-ResNet in place of a Mixer.
    ///
    /// Each stage has twice the channels of the one before, and half its grid; `[3, 4, 6, 3]` is ResNet-50. It
    /// excludes `tokens_mlp_dim` and `num_heads`.
    #[schemars(extend("x-unit" = "blocks", "x-from" = "weights"))]
    pub depths: Option<Vec<usize>>,
    /// Groups of channels that a BiT-ResNet normalises.
    ///
    /// They divide the channels of every layer, also of the narrowest: in four stages `hidden_dim / 32`.
    #[schemars(extend("x-unit" = "groups", "minimum" = 1, "default" = NUM_GROUPS, "x-from" = "weights"))]
    pub num_groups: Option<usize>,
    /// Token that the head of a Vision Transformer reads: `class_token`, or the `average` of all others.
    #[schemars(extend("default" = Pool::ClassToken, "x-from" = "weights"))]
    pub pool: Option<Pool>,
    /// Hidden width of the channel-mixing MLP; the default is the ratio of every paper variant.
    ///
    /// Of a BiT-ResNet, the bottleneck of the last stage, which is `hidden_dim / 4`.
    #[schemars(extend("x-unit" = "units", "minimum" = 1, "x-default" = "`4 · hidden_dim`", "x-from" = "weights"))]
    pub channels_mlp_dim: Option<usize>,
    /// Form of GELU: `tanh` as the official code, `erf` as timm. A BiT-ResNet has none.
    #[schemars(extend("default" = GELU, "x-from" = "weights"))]
    pub gelu: Option<Gelu>,
    /// Stochastic depth: probability of dropping a branch of the last block, linear from 0 at the first.
    #[schemars(extend("x-unit" = "probability", "minimum" = 0, "exclusiveMaximum" = 1, "default" = DROP_PATH_RATE))]
    pub drop_path_rate: Option<f64>,
    /// Treatment of kept branches: divided by their probability (`keep`, timm) or not (`none`, the paper's code).
    #[schemars(extend("default" = DROP_PATH_SCALING))]
    pub drop_path_scaling: Option<DropPathScaling>,
    /// Initial bias of the head; an error when fine-tuning keeps the head.
    ///
    /// `-6.9` (about -ln 1000) goes with `loss = "sigmoid"` on 1000 classes.
    #[schemars(extend("x-unit" = "logit", "default" = HEAD_BIAS))]
    pub head_bias: Option<f32>,
}
