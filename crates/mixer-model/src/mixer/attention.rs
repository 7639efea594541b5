//! Self-attention: tokens exchange information by how alike they are.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor};
use mixer_kernels::{MixingSpec, dense};

use super::layer_norm::LayerNorm;
use super::parameter::unfilled_linear;

/// Multi-head self-attention: `softmax(Q Kᵀ / √(C / heads)) V` in each head, and a product over all of them.
///
/// # Source
/// Dosovitskiy et al. 2021, appendix A; `vit_jax/models_vit.py@c6de1e5` (`Encoder1DBlock`).
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries, keys and values of all heads, `[C, 3 C]`.
    pub qkv: Linear,
    /// From the heads to the residual stream, `[C, C]`.
    pub output: Linear,
}

impl Attention {
    /// A layer without values.
    pub(super) fn unfilled(device: &Device) -> Self {
        Self { qkv: unfilled_linear(device), output: unfilled_linear(device) }
    }

    /// `x + branch_scale · attention(norm(x))`.
    ///
    /// # Shapes
    /// - input and output: `[B, T, C]`
    /// - `branch_scale`: `[B]`
    pub(super) fn forward(
        &self,
        x_btc: Tensor<3>,
        norm: &LayerNorm,
        num_heads: usize,
        branch_scale: Tensor<1>,
        spec: MixingSpec,
    ) -> Tensor<3> {
        let [b, t, c] = x_btc.dims();
        let linear = |layer: &Linear, x: Tensor<2>| {
            let weight = layer.weight.val();
            let bias = match &layer.bias {
                Some(bias) => bias.val(),
                None => Tensor::zeros([weight.dims()[1]], &x.device()),
            };
            dense(x, weight, bias, spec.precision)
        };
        let normal = norm.forward(x_btc.clone()).reshape([b * t, c]);
        let heads = linear(&self.qkv, normal).reshape([b, t, 3, num_heads, c / num_heads]);
        let part = |i| heads.clone().narrow(2, i, 1).squeeze_dim::<4>(2).swap_dims(1, 2);
        let options = AttentionModuleOptions::default();
        let mixed = attention(part(0), part(1), part(2), None, None, options);
        let mixed = mixed.swap_dims(1, 2).reshape([b * t, c]);
        let branch = linear(&self.output, mixed).reshape([b, t, c]);
        if !spec.scaled {
            return x_btc + branch;
        }
        // GPUs keep the residual stream in the type of the precision.
        let scale = branch_scale.reshape([b, 1, 1]).cast(branch.dtype());
        x_btc + branch * scale
    }
}
