//! The batch, which a loader hands out.

use crate::stream::batch_mix::BatchMix;

/// A batch of examples, cut into patches.
///
/// Nothing is normalised: the device casts and scales, so that a quarter of the bytes of `f32`
/// crosses the bus.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[B, S, P·P·3]`; tokens in raster order, values in (row, column, colour) order. Rows from
    /// `num_examples` on are zero.
    pub patches: Vec<u8>,
    /// `[B]`; 0 from `num_examples` on.
    pub labels: Vec<u32>,
    /// Leading rows that are real.
    pub num_examples: usize,
    /// Index into the source of each real row.
    pub indices: Vec<u64>,
    /// Position in the stream of the first example.
    pub first_position: u64,
    /// Epoch of the first example; a training batch may straddle two.
    pub epoch: u64,
    /// Tokens per example, `S`.
    pub num_tokens: usize,
    /// Values per token, `P·P·3`.
    pub patch_dim: usize,
    /// The mixing that [`MixSpec::apply`](crate::MixSpec::apply) drew; absent before it, and without one.
    pub mix: Option<BatchMix>,
    /// `true` where the last row is no example of this batch but the partner of its first one.
    pub is_led: bool,
    /// Unreadable examples that this loader met for the first time in this batch.
    pub skipped: Vec<SkippedExample>,
}

/// An example that could not be read and was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedExample {
    /// Its index in the source.
    pub index: u64,
    /// One line that says why, with the path.
    pub reason: String,
}
