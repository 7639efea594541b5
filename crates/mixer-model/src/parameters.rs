//! The parameters of a network: one table for each kind, from which everything else about them follows.
//!
//! The tensors that a weights file must hold, their names in it and in the module, initialisation,
//! weight decay, learning rates by layer, freezing and change of resolution are read off these rows. A
//! parameter more, or one less, is a row here and a field of its module.
//!
//! # Source
//! `timm/models/mlp_mixer.py`, `timm/models/vision_transformer.py`, `timm/models/resnetv2.py` (names and
//! layouts of files);
//! `vit_jax/models_mixer.py@c6de1e5`, `vit_jax/models_vit.py@c6de1e5` (official names);
//! `big_vision/models/mlp_mixer.py` (`load`: legacy names).

use crate::mixer::config::{MixerConfig, TokenLayer};
use crate::mixer::stage::Stage;
use crate::tensor::HostTensor;

use Axis::{
    BlockInputs, Bottleneck, Channels, ChannelsHidden, Classes, Colours, One, Patch, Positions,
    Qkv, StageChannels, StemChannels, Taps, Tokens, TokensHidden,
};
use Layout::{PatchRows, Pointwise, Same, Transposed};
use Role::{
    Bias, ClassToken, HeadBias, HeadKernel, Kernel, Position, Scale, Shift, SmallBias,
    UniformKernel,
};

/// The quantity that an axis of a parameter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Axis {
    /// Side P of a patch, px.
    Patch,
    /// Red, green, blue.
    Colours,
    /// Channels C.
    Channels,
    /// Tokens S.
    Tokens,
    /// Hidden width D_S of token mixing.
    TokensHidden,
    /// Hidden width D_C of channel mixing.
    ChannelsHidden,
    /// Classes K.
    Classes,
    /// Tokens T of a residual stream with positions: S, and before them the class token where there is one.
    Positions,
    /// Queries, keys and values of all heads, `3 C`.
    Qkv,
    /// Nothing: examples, in a parameter that all of them share; places, in a kernel of one tap.
    One,
    /// Side of a convolution's kernel.
    Taps(usize),
    /// Channels of a BiT-ResNet's first convolution.
    StemChannels,
    /// Channels that a block of a stage is given.
    BlockInputs,
    /// Channels of a stage.
    StageChannels,
    /// Channels between the convolutions of a block of a stage.
    Bottleneck,
}

impl Axis {
    /// The size in a parameter of a network, and of a block of a stage where it has such.
    fn size(self, config: &MixerConfig, place: Option<(&Stage, usize)>) -> usize {
        match self {
            Self::Patch => config.patch_size,
            Self::Colours => 3,
            Self::Channels => config.hidden_dim,
            Self::Tokens => config.num_tokens(),
            Self::TokensHidden => config.tokens.mlp_dim().unwrap_or_default(),
            Self::ChannelsHidden => config.channels_mlp_dim,
            Self::Classes => config.num_classes,
            Self::Positions => config.num_positions(),
            Self::Qkv => config.hidden_dim.saturating_mul(3),
            Self::One => 1,
            Self::Taps(side) => side,
            Self::StemChannels => config.stem_width(),
            Self::BlockInputs => place.map_or(0, |(stage, block)| match block {
                0 => stage.inputs,
                _ => stage.width,
            }),
            Self::StageChannels => place.map_or(0, |(stage, _)| stage.width),
            Self::Bottleneck => place.map_or(0, |(stage, _)| stage.bottleneck),
        }
    }
}

/// The part that a parameter plays, which says how it begins and whether it decays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Weights of a product, which begin normal; outputs are the first axis, inputs all others.
    Kernel,
    /// Weights of a product in a transformer's block, which begin uniform.
    UniformKernel,
    /// Added to a product.
    Bias,
    /// Added to a product in a transformer's MLP; it begins near zero rather than there.
    SmallBias,
    /// Added to a token for where it stands.
    Position,
    /// The token that is no patch, which begins at zero.
    ClassToken,
    /// Multiplies what was normalised.
    Scale,
    /// Added to what was normalised.
    Shift,
    /// Kernel of the classifier, which begins at zero.
    HeadKernel,
    /// Bias of the classifier, which begins at a value of the user's choice.
    HeadBias,
}

impl Role {
    /// Membership among the kernels: the parameters that weight decay is for.
    #[must_use]
    pub fn is_kernel(self) -> bool {
        matches!(self, Self::Kernel | Self::UniformKernel | Self::HeadKernel)
    }
}

/// The way from the layout of a file to that of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The same in both.
    Same,
    /// `[outputs, inputs]` in a file, `[inputs, outputs]` in the module.
    Transposed,
    /// `[C, 3, P, P]` in a file, `[P·P·3, C]` in the module: rows in the order of a patch's values.
    PatchRows,
    /// `[outputs, inputs, 1, 1]` in a file, `[inputs, outputs]` in the module.
    Pointwise,
}

/// One parameter of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Name in weights files, timm's: `blocks.3.mlp_tokens.fc1.weight`.
    pub name: String,
    /// Path in the module, as a visitor sees it: `blocks.3.token_mixing.weight1`.
    pub path: String,
    /// Shape in weights files.
    pub shape: Vec<usize>,
    /// The part that it plays.
    pub role: Role,
    /// Layer: 0 for the stem, `i + 1` for block `i`, `L + 1` for the last normalisation and the head.
    pub layer: usize,
    pub(crate) axes: &'static [Axis],
    pub(crate) layout: Layout,
}

impl ParameterSpec {
    /// Number of values.
    #[must_use]
    pub fn num_values(&self) -> u64 {
        self.shape.iter().fold(1, |n, &size| n.saturating_mul(size as u64))
    }

    /// `true` where the module may hold the transpose of what is in a file as a view of it: in a mixing
    /// operation.
    pub(crate) fn may_be_view(&self) -> bool {
        self.layout == Layout::Transposed && self.path.contains(".channel_mixing.")
    }

    /// A tensor of a file in the layout of the module.
    pub(crate) fn to_module(&self, tensor: HostTensor) -> HostTensor {
        match self.layout {
            Layout::Same => tensor,
            Layout::Transposed => tensor.permuted(&[1, 0]),
            Layout::PatchRows => {
                let mut rows = tensor.permuted(&[2, 3, 1, 0]);
                rows.shape = vec![rows.shape[..3].iter().product(), rows.shape[3]];
                rows
            }
            Layout::Pointwise => {
                let mut matrix = tensor;
                matrix.shape.truncate(2);
                matrix.permuted(&[1, 0])
            }
        }
    }

    /// A tensor of the module in the layout of a file.
    pub(crate) fn to_file(&self, mut tensor: HostTensor) -> HostTensor {
        match self.layout {
            Layout::Same => tensor,
            Layout::Transposed => tensor.permuted(&[1, 0]),
            // Of another size only where a caller has put another layer.
            Layout::PatchRows if tensor.data.len() as u64 != self.num_values() => tensor,
            Layout::PatchRows => {
                let shape = &self.shape;
                tensor.shape = vec![shape[2], shape[3], shape[1], shape[0]];
                tensor.permuted(&[3, 2, 0, 1])
            }
            Layout::Pointwise => {
                let mut kernel = tensor.permuted(&[1, 0]);
                kernel.shape.extend([1, 1]);
                kernel
            }
        }
    }
}

/// A parameter of the table. In the rows of a block, names and paths begin after the block's.
#[derive(Debug)]
pub(crate) struct Row {
    /// timm's name.
    name: &'static str,
    /// Path in the module.
    path: &'static str,
    /// Official name, and that of checkpoints from before the names changed.
    flax: [&'static str; 2],
    /// Axes in timm's layout.
    pub(crate) axes: &'static [Axis],
    layout: Layout,
    role: Role,
}

impl Row {
    /// Membership of a name of the official code in the legacy layout and in no other.
    pub(crate) fn is_legacy(&self, key: &str) -> bool {
        let [official, legacy] = self.flax;
        key.ends_with(legacy) && !key.ends_with(official)
    }

    /// The way from Flax's layout to timm's: axis `k` of a file of timm is axis `flax_axes()[k]`.
    /// Flax has `[in, out]` and `[height, width, in, out]`, PyTorch `[out, in]` and `[out, in, height,
    /// width]`.
    pub(crate) fn flax_axes(&self) -> &'static [usize] {
        match self.axes.len() {
            4 => &[3, 2, 0, 1],
            2 => &[1, 0],
            _ => &[],
        }
    }

    /// The way back: axis `k` of a file of Flax is axis `timm_axes()[k]` of one of timm.
    pub(crate) fn timm_axes(&self) -> &'static [usize] {
        match self.axes.len() {
            4 => &[2, 3, 1, 0],
            2 => &[1, 0],
            _ => &[],
        }
    }
}

/// The rows of a kind of network.
#[derive(Debug)]
pub(crate) struct Table {
    stem: &'static [Row],
    block: &'static [Row],
    head: &'static [Row],
    /// The beginning of a block's name in the official code, and in checkpoints from before the names
    /// changed.
    flax_blocks: [&'static str; 2],
}

/// The parameters of a Mixer.
pub(crate) static MIXER: Table = Table {
    stem: &MIXER_STEM,
    block: &MIXER_BLOCK,
    head: &MIXER_HEAD,
    flax_blocks: ["MixerBlock_", "Mixer/encoderblock_"],
};

/// The parameters of a Vision Transformer. Its queries, keys and values are three tensors in the official
/// code, which `names.rs` joins.
pub(crate) static VIT: Table = Table {
    stem: &VIT_STEM,
    block: &VIT_BLOCK,
    head: &VIT_HEAD,
    flax_blocks: ["Transformer/encoderblock_"; 2],
};

/// The parameters of a BiT-ResNet. They have no official names here: files of the official code are not read.
static BIT: Table =
    Table { stem: &BIT_STEM, block: &BIT_BLOCK, head: &BIT_HEAD, flax_blocks: [UNNAMED; 2] };

/// The official name of a parameter that has none.
const UNNAMED: &str = "-";

#[rustfmt::skip]
static MIXER_STEM: [Row; 2] = [
    row("stem.proj.weight", "stem.weight", ["stem/kernel", "embedding/kernel"], &[Channels, Colours, Patch, Patch], PatchRows, Kernel),
    row("stem.proj.bias", "stem.bias", ["stem/bias", "embedding/bias"], &[Channels], Same, Bias),
];

#[rustfmt::skip]
static MIXER_BLOCK: [Row; 12] = [
    row("norm1.weight", "norm_tokens.gamma", ["LayerNorm_0/scale"; 2], &[Channels], Same, Scale),
    row("norm1.bias", "norm_tokens.beta", ["LayerNorm_0/bias"; 2], &[Channels], Same, Shift),
    row("mlp_tokens.fc1.weight", "token_mixing.weight1", ["token_mixing/Dense_0/kernel", "token_mixing_phase_0/kernel1"], &[TokensHidden, Tokens], Same, Kernel),
    row("mlp_tokens.fc1.bias", "token_mixing.bias1", ["token_mixing/Dense_0/bias", "token_mixing_phase_0/bias1"], &[TokensHidden], Same, Bias),
    row("mlp_tokens.fc2.weight", "token_mixing.weight2", ["token_mixing/Dense_1/kernel", "token_mixing_phase_0/kernel2"], &[Tokens, TokensHidden], Same, Kernel),
    row("mlp_tokens.fc2.bias", "token_mixing.bias2", ["token_mixing/Dense_1/bias", "token_mixing_phase_0/bias2"], &[Tokens], Same, Bias),
    row("norm2.weight", "norm_channels.gamma", ["LayerNorm_1/scale"; 2], &[Channels], Same, Scale),
    row("norm2.bias", "norm_channels.beta", ["LayerNorm_1/bias"; 2], &[Channels], Same, Shift),
    row("mlp_channels.fc1.weight", "channel_mixing.weight1", ["channel_mixing/Dense_0/kernel", "channel_mixing_phase_0/kernel1"], &[ChannelsHidden, Channels], Transposed, Kernel),
    row("mlp_channels.fc1.bias", "channel_mixing.bias1", ["channel_mixing/Dense_0/bias", "channel_mixing_phase_0/bias1"], &[ChannelsHidden], Same, Bias),
    row("mlp_channels.fc2.weight", "channel_mixing.weight2", ["channel_mixing/Dense_1/kernel", "channel_mixing_phase_0/kernel2"], &[Channels, ChannelsHidden], Transposed, Kernel),
    row("mlp_channels.fc2.bias", "channel_mixing.bias2", ["channel_mixing/Dense_1/bias", "channel_mixing_phase_0/bias2"], &[Channels], Same, Bias),
];

#[rustfmt::skip]
static MIXER_HEAD: [Row; 4] = [
    row("norm.weight", "pre_head_layer_norm.gamma", ["pre_head_layer_norm/scale", "Mixer/encoder_norm/scale"], &[Channels], Same, Scale),
    row("norm.bias", "pre_head_layer_norm.beta", ["pre_head_layer_norm/bias", "Mixer/encoder_norm/bias"], &[Channels], Same, Shift),
    row("head.weight", "head.weight", ["head/kernel"; 2], &[Classes, Channels], Transposed, HeadKernel),
    row("head.bias", "head.bias", ["head/bias"; 2], &[Classes], Same, HeadBias),
];

#[rustfmt::skip]
static VIT_STEM: [Row; 4] = [
    row("patch_embed.proj.weight", "stem.weight", ["embedding/kernel"; 2], &[Channels, Colours, Patch, Patch], PatchRows, Kernel),
    row("patch_embed.proj.bias", "stem.bias", ["embedding/bias"; 2], &[Channels], Same, Bias),
    row("cls_token", "positions.class_token", ["cls"; 2], &[One, One, Channels], Same, ClassToken),
    row("pos_embed", "positions.embedding", ["Transformer/posembed_input/pos_embedding"; 2], &[One, Positions, Channels], Same, Position),
];

#[rustfmt::skip]
static VIT_BLOCK: [Row; 12] = [
    row("norm1.weight", "norm_tokens.gamma", ["LayerNorm_0/scale"; 2], &[Channels], Same, Scale),
    row("norm1.bias", "norm_tokens.beta", ["LayerNorm_0/bias"; 2], &[Channels], Same, Shift),
    row("attn.qkv.weight", "attention.qkv.weight", ["MultiHeadDotProductAttention_1/qkv/kernel"; 2], &[Qkv, Channels], Transposed, UniformKernel),
    row("attn.qkv.bias", "attention.qkv.bias", ["MultiHeadDotProductAttention_1/qkv/bias"; 2], &[Qkv], Same, Bias),
    row("attn.proj.weight", "attention.output.weight", ["MultiHeadDotProductAttention_1/out/kernel"; 2], &[Channels, Channels], Transposed, UniformKernel),
    row("attn.proj.bias", "attention.output.bias", ["MultiHeadDotProductAttention_1/out/bias"; 2], &[Channels], Same, Bias),
    row("norm2.weight", "norm_channels.gamma", ["LayerNorm_2/scale"; 2], &[Channels], Same, Scale),
    row("norm2.bias", "norm_channels.beta", ["LayerNorm_2/bias"; 2], &[Channels], Same, Shift),
    row("mlp.fc1.weight", "channel_mixing.weight1", ["MlpBlock_3/Dense_0/kernel"; 2], &[ChannelsHidden, Channels], Transposed, UniformKernel),
    row("mlp.fc1.bias", "channel_mixing.bias1", ["MlpBlock_3/Dense_0/bias"; 2], &[ChannelsHidden], Same, SmallBias),
    row("mlp.fc2.weight", "channel_mixing.weight2", ["MlpBlock_3/Dense_1/kernel"; 2], &[Channels, ChannelsHidden], Transposed, UniformKernel),
    row("mlp.fc2.bias", "channel_mixing.bias2", ["MlpBlock_3/Dense_1/bias"; 2], &[Channels], Same, SmallBias),
];

#[rustfmt::skip]
static VIT_HEAD: [Row; 4] = [
    row("norm.weight", "pre_head_layer_norm.gamma", ["Transformer/encoder_norm/scale"; 2], &[Channels], Same, Scale),
    row("norm.bias", "pre_head_layer_norm.beta", ["Transformer/encoder_norm/bias"; 2], &[Channels], Same, Shift),
    row("head.weight", "head.weight", ["head/kernel"; 2], &[Classes, Channels], Transposed, HeadKernel),
    row("head.bias", "head.bias", ["head/bias"; 2], &[Classes], Same, HeadBias),
];

#[rustfmt::skip]
static BIT_STEM: [Row; 1] = [
    row("stem.conv.weight", "resnet.stem.weight", [UNNAMED; 2], &[StemChannels, Colours, Taps(7), Taps(7)], Same, Kernel),
];

#[rustfmt::skip]
static BIT_BLOCK: [Row; 10] = [
    row(DOWNSAMPLE, "downsample.weight", [UNNAMED; 2], &[StageChannels, BlockInputs, One, One], Same, Kernel),
    row("norm1.weight", "norm1.gamma", [UNNAMED; 2], &[BlockInputs], Same, Scale),
    row("norm1.bias", "norm1.beta", [UNNAMED; 2], &[BlockInputs], Same, Shift),
    row("conv1.weight", "conv1.weight", [UNNAMED; 2], &[Bottleneck, BlockInputs, One, One], Same, Kernel),
    row("norm2.weight", "norm2.gamma", [UNNAMED; 2], &[Bottleneck], Same, Scale),
    row("norm2.bias", "norm2.beta", [UNNAMED; 2], &[Bottleneck], Same, Shift),
    row("conv2.weight", "conv2.weight", [UNNAMED; 2], &[Bottleneck, Bottleneck, Taps(3), Taps(3)], Same, Kernel),
    row("norm3.weight", "norm3.gamma", [UNNAMED; 2], &[Bottleneck], Same, Scale),
    row("norm3.bias", "norm3.beta", [UNNAMED; 2], &[Bottleneck], Same, Shift),
    row("conv3.weight", "conv3.weight", [UNNAMED; 2], &[StageChannels, Bottleneck, One, One], Same, Kernel),
];

/// The convolution of the shortcut, in the first block of a stage only.
const DOWNSAMPLE: &str = "downsample.conv.weight";

#[rustfmt::skip]
static BIT_HEAD: [Row; 4] = [
    row("norm.weight", "resnet.norm.gamma", [UNNAMED; 2], &[Channels], Same, Scale),
    row("norm.bias", "resnet.norm.beta", [UNNAMED; 2], &[Channels], Same, Shift),
    row("head.fc.weight", "head.weight", [UNNAMED; 2], &[Classes, Channels, One, One], Pointwise, HeadKernel),
    row("head.fc.bias", "head.bias", [UNNAMED; 2], &[Classes], Same, HeadBias),
];

const fn row(
    name: &'static str,
    path: &'static str,
    flax: [&'static str; 2],
    axes: &'static [Axis],
    layout: Layout,
    role: Role,
) -> Row {
    Row { name, path, flax, axes, layout, role }
}

/// All parameters of a network, in the order of its layers; `12 L + 6` of them, and in a Vision Transformer
/// positions and the class token. A BiT-ResNet has `9 L + 5`, and one more for each stage.
///
/// ```
/// use mixer_model::{Gelu, Variant, parameters};
///
/// let config = Variant::parse("S/32")?.config(224, 1000, Gelu::Tanh);
/// let parameters = parameters(&config);
/// assert_eq!(parameters.len(), 12 * 8 + 6);
/// assert_eq!(parameters[4].name, "blocks.0.mlp_tokens.fc1.weight");
/// assert_eq!(parameters[4].shape, [256, 49]);
/// # Ok::<(), mixer_model::ModelError>(())
/// ```
#[must_use]
pub fn parameters(config: &MixerConfig) -> Vec<ParameterSpec> {
    let table = Table::of(config);
    let last_layer = config.num_blocks.saturating_add(1);
    let is_there = |row: &&Row| row.role != ClassToken || config.has_class_token();
    let stem = table.stem.iter().filter(is_there);
    let stem = stem.map(|row| spec(config, row, "", "", 0, None));
    let head = table.head.iter().map(|row| spec(config, row, "", "", last_layer, None));
    stem.chain(blocks(config, table.block)).chain(head).collect()
}

/// The parameters of all blocks.
fn blocks(config: &MixerConfig, rows: &'static [Row]) -> Vec<ParameterSpec> {
    let stages = config.stages();
    let mut specs = Vec::new();
    if stages.is_empty() {
        for i in 0..config.num_blocks {
            let prefix = format!("blocks.{i}.");
            specs.extend(rows.iter().map(|row| spec(config, row, &prefix, &prefix, i + 1, None)));
        }
    }
    let mut layer = 0;
    for (s, stage) in stages.iter().enumerate() {
        for block in 0..stage.depth {
            let (name, path) =
                (format!("stages.{s}.blocks.{block}."), format!("resnet.blocks.{layer}."));
            layer += 1;
            let is_there = |row: &&Row| block == 0 || row.name != DOWNSAMPLE;
            let rows = rows.iter().filter(is_there);
            let place = Some((stage, block));
            specs.extend(rows.map(|row| spec(config, row, &name, &path, layer, place)));
        }
    }
    specs
}

/// The parameter of a row.
fn spec(
    config: &MixerConfig,
    row: &'static Row,
    name: &str,
    path: &str,
    layer: usize,
    place: Option<(&Stage, usize)>,
) -> ParameterSpec {
    ParameterSpec {
        name: format!("{name}{}", row.name),
        path: format!("{path}{}", row.path),
        shape: row.axes.iter().map(|axis| axis.size(config, place)).collect(),
        role: row.role,
        layer,
        axes: row.axes,
        layout: row.layout,
    }
}

/// The row of a parameter outside of the blocks, or the number of a block and a row of its own.
pub(crate) type Found = (Option<usize>, &'static Row);

impl Table {
    /// That of a network.
    pub(crate) fn of(config: &MixerConfig) -> &'static Self {
        match config.tokens {
            TokenLayer::Mlp { .. } => &MIXER,
            TokenLayer::Attention { .. } => &VIT,
            TokenLayer::Convolution { .. } => &BIT,
        }
    }

    /// Parameters of a block, but for one that only some blocks have.
    pub(crate) fn block_len(&self) -> usize {
        self.block.iter().filter(|row| row.name != DOWNSAMPLE).count()
    }

    /// The parameter with a name of timm.
    pub(crate) fn by_name(&self, name: &str) -> Option<Found> {
        self.find(name, ["blocks."; 2], '.', |row| [row.name; 2])
    }

    /// The parameter with a name of the official code, present or legacy.
    pub(crate) fn by_flax(&self, key: &str) -> Option<Found> {
        self.find(key, self.flax_blocks, '/', |row| row.flax)
    }

    /// The official name of a parameter that was found.
    pub(crate) fn flax_name_of(&self, (block, row): Found) -> String {
        let [official, _] = row.flax;
        match block {
            Some(block) => format!("{}{block}/{official}", self.flax_blocks[0]),
            None => official.to_owned(),
        }
    }

    fn find(
        &self,
        text: &str,
        blocks: [&str; 2],
        separator: char,
        keys: impl Fn(&Row) -> [&'static str; 2],
    ) -> Option<Found> {
        match blocks.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            Some(rest) => {
                let (block, rest) = rest.split_once(separator)?;
                let row = self.block.iter().find(|row| keys(row).contains(&rest))?;
                Some((Some(block.parse().ok()?), row))
            }
            None => {
                let mut rows = self.stem.iter().chain(self.head);
                Some((None, rows.find(|row| keys(row).contains(&text))?))
            }
        }
    }
}

/// timm's name of a parameter that was found.
pub(crate) fn name_of((block, row): Found) -> String {
    match block {
        Some(block) => format!("blocks.{block}.{}", row.name),
        None => row.name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixer::Depths;
    use crate::mixer::config::{Gelu, Pool};

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

    fn tiny_vit(pool: Pool) -> MixerConfig {
        MixerConfig { tokens: TokenLayer::Attention { num_heads: 5, pool }, ..tiny() }
    }

    fn tiny_bit() -> MixerConfig {
        let tokens =
            TokenLayer::Convolution { depths: Depths::new(&[1, 1]).unwrap(), num_groups: 3 };
        let (hidden_dim, channels_mlp_dim) = (48, 18);
        MixerConfig { image_size: 36, hidden_dim, channels_mlp_dim, tokens, ..tiny() }
    }

    fn all() -> [MixerConfig; 4] {
        [tiny(), tiny_vit(Pool::ClassToken), tiny_vit(Pool::Average), tiny_bit()]
    }

    #[test]
    fn stages_have_the_names_and_widths_of_the_reference() {
        let config = tiny_bit();
        config.validate().unwrap();
        let found: Vec<(String, Vec<usize>)> =
            parameters(&config).into_iter().map(|spec| (spec.name, spec.shape)).collect();
        assert_eq!(found.len(), 9 * 2 + 5 + 2);
        for (name, shape) in [
            ("stem.conv.weight", &[6, 3, 7, 7][..]),
            ("stages.0.blocks.0.downsample.conv.weight", &[24, 6, 1, 1]),
            ("stages.0.blocks.0.conv1.weight", &[9, 6, 1, 1]),
            ("stages.1.blocks.0.downsample.conv.weight", &[48, 24, 1, 1]),
            ("stages.1.blocks.0.conv2.weight", &[18, 18, 3, 3]),
            ("stages.1.blocks.0.conv3.weight", &[48, 18, 1, 1]),
            ("head.fc.weight", &[7, 48, 1, 1]),
        ] {
            assert!(found.contains(&(name.to_owned(), shape.to_vec())), "{name}: {found:?}");
        }
        for spec in parameters(&config) {
            assert_eq!(config.weights_name(&spec.path), Some(spec.name));
        }
    }

    #[test]
    fn names_and_paths_are_found_again() {
        for config in [tiny(), tiny_vit(Pool::ClassToken), tiny_vit(Pool::Average)] {
            let table = Table::of(&config);
            for spec in parameters(&config) {
                let found = table.by_name(&spec.name).unwrap();
                assert_eq!(name_of(found), spec.name);
                let flax = table.flax_name_of(found);
                assert_eq!(table.by_flax(&flax).map(name_of), Some(spec.name.clone()));
                let (there, back) = (found.1.flax_axes(), found.1.timm_axes());
                assert!(there.iter().enumerate().all(|(axis, &from)| back[from] == axis));
                assert_eq!(found.1.axes, spec.axes);
                assert_eq!(config.weights_name(&spec.path), Some(spec.name));
            }
        }
    }

    #[test]
    fn only_kernels_have_inputs_and_all_of_them_do() {
        for spec in all().iter().flat_map(parameters) {
            let is_token = matches!(spec.role, Position | ClassToken);
            assert_eq!(spec.role.is_kernel() || is_token, spec.shape.len() > 1, "{}", spec.name);
        }
    }

    #[test]
    fn a_tensor_goes_to_the_module_and_back() {
        for spec in all().iter().flat_map(parameters) {
            let mut tensor = HostTensor::filled(&spec.shape, 0.0);
            for (i, value) in tensor.data.iter_mut().enumerate() {
                *value = i as f32;
            }
            assert_eq!(spec.to_file(spec.to_module(tensor.clone())), tensor, "{}", spec.name);
        }
    }

    #[test]
    fn layers_count_from_the_stem_to_the_head() {
        for (config, (stem, block)) in all().iter().zip([(2, 12), (4, 12), (3, 12), (1, 10)]) {
            let layers: Vec<usize> = parameters(config).iter().map(|spec| spec.layer).collect();
            let expected = [(0, stem), (1, block), (2, block), (3, 4)];
            let expected = expected.into_iter().flat_map(|(layer, n)| vec![layer; n]);
            assert_eq!(layers, expected.collect::<Vec<_>>());
        }
    }
}
