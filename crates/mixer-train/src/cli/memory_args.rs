//! Options by which training takes less memory: `mixer summary` counts it, `mixer bench train` measures it.

use clap::Args;
use clap::builder::TypedValueParser;
use mixer_model::MixerConfig;

use crate::error::TrainError;
use crate::update::optimizer::FirstMomentDtype;

#[derive(Debug, Clone, Default, Args)]
pub(super) struct MemoryArgs {
    /// Blocks whose hidden units the backward pass computes again (`train.recompute_blocks`).
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) recompute_blocks: usize,
    /// Type of the first moment (`optimizer.first_moment_dtype`).
    #[arg(long, value_parser = first_moment_dtype(), default_value = "f32", value_name = "TYPE")]
    pub(super) first_moment_dtype: FirstMomentDtype,
}

/// Takes a type of the first moment.
fn first_moment_dtype() -> impl TypedValueParser<Value = FirstMomentDtype> {
    super::one_of(&[
        (FirstMomentDtype::F32, "f32", "Not rounded"),
        (FirstMomentDtype::Bf16, "bf16", "Half the bytes, on CPUs"),
    ])
}

impl MemoryArgs {
    /// Refuses what a network cannot follow.
    pub(super) fn check(&self, config: &MixerConfig) -> Result<(), TrainError> {
        let blocks = self.recompute_blocks;
        if blocks > 0 && !config.has_tokens() {
            return Err(TrainError::usage(format!(
                "`--recompute-blocks` has no effect in {config}, which has no channel mixing"
            )));
        }
        if blocks > config.num_blocks {
            return Err(TrainError::usage(format!(
                "`--recompute-blocks` is {blocks}, expected at most the {} blocks of the network",
                config.num_blocks
            )));
        }
        Ok(())
    }
}
