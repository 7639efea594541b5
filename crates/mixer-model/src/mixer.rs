//! The network: its dimensions, and what they mean for patches on their way to logits.
//!
//! From the outside in: `mixer` is the whole, `block` one of its layers, `mlp`, `attention` and
//! `layer_norm` what a block is made of, `positions` what a Vision Transformer adds to its tokens. `resnet`
//! is what a BiT-ResNet has instead of all these, made of `resnet_block`, `standardised_conv` and
//! `group_norm`, which both make `standardised_rows`. `config` has the dimensions (`depths`, and `stage`, which follows from them), `variants`
//! their names, `compute` what may be chosen about arithmetic. Nothing here knows of weights files: `transfer.rs` fills a network.

mod attention;
mod block;
pub(crate) mod compute;
pub(crate) mod config;
pub(crate) mod depths;
mod group_norm;
pub(crate) mod layer_norm;
#[expect(clippy::module_inception, reason = "a file is named after what it defines")]
pub(crate) mod mixer;
mod mlp;
mod parameter;
mod positions;
mod resnet;
mod resnet_block;
pub(crate) mod stage;
mod standardised_conv;
mod standardised_rows;
pub(crate) mod variants;

pub use attention::Attention;
pub use block::MixerBlock;
pub use compute::Compute;
pub use config::{Gelu, MixerConfig, Pool, TokenLayer};
pub use depths::Depths;
pub use group_norm::GroupNorm;
pub use layer_norm::LayerNorm;
pub use mixer::{Intermediates, Mixer};
pub use mlp::{ChannelMixing, TokenMixing};
pub use positions::Positions;
pub use resnet::ResNet;
pub use resnet_block::ResNetBlock;
pub use standardised_conv::StandardisedConv;
pub use variants::{BIT_VARIANTS, VARIANTS, VIT_VARIANTS, Variant};
