//! The stages of a BiT-ResNet: widths and sides, as they follow from its dimensions.

use super::config::{MixerConfig, TokenLayer};

/// A stage: blocks of one width on a grid of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stage {
    /// Blocks.
    pub(crate) depth: usize,
    /// Channels of its input: of the stem, or of the stage before.
    pub(crate) inputs: usize,
    /// Channels.
    pub(crate) width: usize,
    /// Channels between the convolutions of a block.
    pub(crate) bottleneck: usize,
    /// Side of its input.
    pub(crate) side_before: usize,
    /// Side of its grid: half of that, rounded up, in all stages but the first.
    pub(crate) side: usize,
}

impl MixerConfig {
    /// The stages, from the picture to the head; none of a network of tokens.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        let TokenLayer::Convolution { depths, .. } = self.tokens else { return Vec::new() };
        let num_stages = depths.num_stages();
        let mut side_before = self.stem_side().div_ceil(2);
        let mut inputs = self.stem_width();
        let stage = |(i, depth): (usize, usize)| {
            let above = num_stages - 1 - i;
            let (width, bottleneck) = (self.hidden_dim >> above, self.channels_mlp_dim >> above);
            let side = if i == 0 { side_before } else { side_before.div_ceil(2) };
            let stage = Stage { depth, inputs, width, bottleneck, side_before, side };
            (inputs, side_before) = (width, side);
            stage
        };
        depths.iter().enumerate().map(stage).collect()
    }

    /// Channels of a BiT-ResNet's first convolution: a quarter of the first stage; 0 without stages.
    pub(crate) fn stem_width(&self) -> usize {
        match self.tokens {
            TokenLayer::Convolution { depths, .. } => self.hidden_dim >> (depths.num_stages() + 1),
            _ => 0,
        }
    }

    /// Side of the grid behind a BiT-ResNet's first convolution, before it is pooled.
    pub(crate) fn stem_side(&self) -> usize {
        self.image_size.div_ceil(2)
    }

    /// Stage of a block, and its number there.
    pub(crate) fn place_of_block(&self, block: usize) -> Option<(usize, usize)> {
        let mut before = 0;
        for (i, stage) in self.stages().iter().enumerate() {
            if block < before + stage.depth {
                return Some((i, block - before));
            }
            before += stage.depth;
        }
        None
    }
}
