//! The choices about how a network is computed, which change nothing of what it computes.

use mixer_kernels::{Gelu, MixingSpec, Precision};

use super::layer_norm::EPSILON;

/// A choice between ways to compute a network, whose results differ by no more than rounding. It is no
/// part of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compute {
    /// Format to which the operands of the blocks' products are rounded. On a CPU, stem, head and everything
    /// between the products are f32; on a CUDA device, activations from the stem to the last block are
    /// kept in it too.
    pub precision: Precision,
    /// Number of blocks, from the first on, in which the backward pass computes hidden units of channel
    /// mixing again instead of finding them kept: less memory for more time.
    pub recompute_blocks: usize,
}

impl Compute {
    /// The constants of block `block`; `scaled` says whether stochastic depth is on.
    pub(super) fn spec(self, gelu: Gelu, block: usize, scaled: bool) -> MixingSpec {
        let Self { precision, recompute_blocks } = self;
        let recompute = block < recompute_blocks;
        MixingSpec { gelu, epsilon: EPSILON, recompute, precision, scaled }
    }
}
