//! Everything that can be wrong with an architecture or a weights file.

use std::path::PathBuf;

use crate::weights::Shuffle;

/// An architecture that cannot be built, or weights that cannot be read, written or fitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No variant has that name.
    #[error("unknown variant `{found}`, expected one of {expected}")]
    UnknownVariant {
        /// The name that was asked for.
        found: String,
        /// The names that there are.
        expected: String,
    },
    /// A dimension is zero.
    #[error("`{name}` is 0, expected at least 1")]
    ZeroDimension {
        /// Name of the dimension.
        name: &'static str,
    },
    /// Patches do not tile the image.
    #[error("image size {image_size} is not divisible by the patch size {patch_size}")]
    IndivisibleImage {
        /// Image side, px.
        image_size: usize,
        /// Patch side, px.
        patch_size: usize,
    },
    /// Heads do not divide the channels.
    #[error("{hidden_dim} channels are not divisible by {num_heads} heads of attention")]
    IndivisibleHeads {
        /// Channels of a token.
        hidden_dim: usize,
        /// Heads.
        num_heads: usize,
    },
    /// Pictures that vanish before the last stage of a BiT-ResNet.
    #[error("image size {image_size} is too small for a BiT-ResNet, expected at least {least}")]
    SmallImage {
        /// Image side, px.
        image_size: usize,
        /// Least side, px.
        least: usize,
    },
    /// Stages that are none, too many, or empty.
    #[error("`depths` is {found:?}, expected one to four stages of at least one block each")]
    Stages {
        /// Blocks by stage.
        found: Vec<usize>,
    },
    /// Blocks by stage that are another number together.
    #[error("`depths` is {depths:?}, expected {num_blocks} blocks together, as `num_blocks` says")]
    BlocksByStage {
        /// Blocks by stage.
        depths: Vec<usize>,
        /// Blocks of the network.
        num_blocks: usize,
    },
    /// Channels that stages and groups do not divide.
    #[error(
        "`{name}` is {value}, expected a multiple of {parts}: stages halve it, and every layer has {num_groups} groups"
    )]
    IndivisibleChannels {
        /// Name of the dimension.
        name: &'static str,
        /// Its value.
        value: usize,
        /// Number that has to divide it.
        parts: usize,
        /// Groups of a normalisation.
        num_groups: usize,
    },
    /// Something that there is not for networks of this kind.
    #[error("{subject} cannot be written for {network}")]
    NotForNetwork {
        /// The file or the operation that was asked for.
        subject: &'static str,
        /// The network.
        network: String,
    },
    /// The file could not be read or written; the source names the path.
    #[error("{source}")]
    Io {
        /// The failing operation and its path.
        #[source]
        source: std::io::Error,
    },
    /// The file is no weights file, or a damaged one.
    #[error("not a readable {format} weights file: {reason}: {}", path.display())]
    Unreadable {
        /// `npz`, `safetensors` or `pth`.
        format: &'static str,
        /// The fault.
        reason: String,
        /// The file.
        path: PathBuf,
        /// The way out, where there is one.
        hint: Option<&'static str>,
    },
    /// Its tensors are not those of a Mixer, of a Vision Transformer, nor of a BiT-ResNet.
    #[error("not the weights of an MLP-Mixer, a ViT or a BiT: {reason}: {}", path.display())]
    NotAMixer {
        /// Every difference, one phrase each.
        reason: String,
        /// The file.
        path: PathBuf,
    },
    /// Nearly the tensors of a Mixer.
    #[error("incomplete weights of {network}: {}\n{differences}", path.display())]
    TensorMismatch {
        /// The network that most of its tensors, or its metadata, say it is.
        network: String,
        /// The file.
        path: PathBuf,
        /// Every difference, one line each.
        differences: String,
    },
    /// A model that is larger than ONNX takes.
    #[error("the model has {} MiB, an ONNX file takes 2048", bytes >> 20)]
    TooLargeForOnnx {
        /// Its size.
        bytes: u64,
    },
    /// Class names that are not one for each output of the head.
    #[error("{found} class names for a head of {expected} classes")]
    ClassCount {
        /// Number of names.
        found: usize,
        /// Outputs of the head.
        expected: usize,
    },
    /// Weights that are not written, since they hold NaN or infinity.
    #[error(
        "weights that are not finite are not written: {count} values of `{name}`, and some of {others} other parameters"
    )]
    NotFinite {
        /// The first such parameter.
        name: String,
        /// Its values that are NaN or infinite.
        count: usize,
        /// Number of further such parameters.
        others: usize,
    },
    /// A class name that cannot stand on a line of a list.
    #[error(
        "the class name {name:?} cannot stand on a line, expected no line break and no space around it"
    )]
    ClassName {
        /// The name.
        name: String,
    },
    /// A change of resolution to a network that no machine holds.
    #[error(
        "at {image_size} px the network would have {num_params} parameters, expected at most {max_params}"
    )]
    ResizeTooLarge {
        /// The image side asked for, px.
        image_size: usize,
        /// Its parameters; saturated.
        num_params: u64,
        /// Most parameters of a network.
        max_params: u64,
    },
    /// Weights for pictures whose pixels are shuffled, where nothing shuffles them.
    #[error("these weights are for pictures with shuffled pixels, {why}")]
    Shuffled {
        /// The reason why nothing does.
        why: &'static str,
    },
    /// Weights for shuffled pictures at another image size.
    #[error(
        "these weights are for pictures of {found} px that are shuffled ({shuffle}): they have no order for {image_size} px"
    )]
    ShuffledResolution {
        /// Their shuffling.
        shuffle: Shuffle,
        /// Their image side, px.
        found: usize,
        /// The image side asked for, px.
        image_size: usize,
    },
    /// Pictures that are not of the network's size.
    #[error("pictures of shape {found:?}, expected [B, 3, {image_size}, {image_size}]")]
    ImageShape {
        /// Their shape.
        found: [usize; 4],
        /// The image side that the network is for, px.
        image_size: usize,
    },
    /// The tensors do not fit the model that was asked for.
    #[error("weights do not fit {network}:\n{differences}")]
    Mismatch {
        /// The model.
        network: String,
        /// Every difference, one line each.
        differences: String,
    },
}
