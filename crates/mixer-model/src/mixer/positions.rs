//! Learned positions of tokens, and the token that is no patch.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::parameter::unfilled;

/// The positions of a Vision Transformer, whose layers by themselves know no order of tokens.
///
/// # Source
/// `vit_jax/models_vit.py@c6de1e5` (`AddPositionEmbs`): positions are added after the class token has
/// been put before the others.
#[derive(Module, Debug)]
pub struct Positions {
    /// Token before those of the patches, `[1, 1, C]`; `None` where the head reads their average.
    pub class_token: Option<Param<Tensor<3>>>,
    /// Added to the tokens, `[1, T, C]`, that of the class token first.
    pub embedding: Param<Tensor<3>>,
}

impl Positions {
    /// Positions without values.
    pub(super) fn unfilled(has_class_token: bool, device: &Device) -> Self {
        let class_token = has_class_token.then(|| unfilled(device));
        Self { class_token, embedding: unfilled(device) }
    }

    /// The tokens with their positions.
    ///
    /// # Shapes
    /// - input: `[B, S, C]`; output: `[B, T, C]`, where T is S, or S + 1 with a class token
    pub(super) fn forward(&self, x_bsc: Tensor<3>) -> Tensor<3> {
        let [b, _, c] = x_bsc.dims();
        let dtype = x_bsc.dtype();
        let x_btc = match &self.class_token {
            Some(token) => Tensor::cat(vec![token.val().cast(dtype).expand([b, 1, c]), x_bsc], 1),
            None => x_bsc,
        };
        x_btc + self.embedding.val().cast(dtype)
    }
}
