//! How a network is computed, as opposed to what it computes.

use mixer_kernels::{Gelu, MixingSpec, Precision};

use crate::layer_norm::EPSILON;

/// What a network's results differ in by no more than rounding. It is no part of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compute {
    /// What the operands of the blocks' products are rounded to. On a CPU, stem, head and everything
    /// between the products are f32; on a CUDA device, activations from the stem to the last block are
    /// kept in it too.
    pub precision: Precision,
    /// In how many blocks, from the first on, the backward pass computes hidden units of channel
    /// mixing again instead of finding them kept: less memory for more time.
    pub recompute_blocks: usize,
}

impl Compute {
    /// For block `block` of a network; `scaled` says whether stochastic depth is on.
    pub(crate) fn spec(self, gelu: Gelu, block: usize, scaled: bool) -> MixingSpec {
        let Compute { precision, recompute_blocks } = self;
        let recompute = block < recompute_blocks;
        MixingSpec { gelu, epsilon: EPSILON, recompute, precision, scaled }
    }
}
