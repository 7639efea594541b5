//! The layers of a BiT-ResNet between pictures and head.

use burn::module::Module;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::{MaxPoolOptions, PadMode};
use burn::tensor::{Device, Tensor};
use mixer_kernels::Precision;

use super::config::MixerConfig;
use super::depths::Depths;
use super::group_norm::GroupNorm;
use super::resnet_block::ResNetBlock;
use super::standardised_conv::StandardisedConv;

/// A ResNet of pre-activation bottlenecks with group normalisation and standardised weights (BiT).
///
/// # Source
/// Kolesnikov et al. 2020, section 3.2; `timm/models/resnetv2.py` (`ResNetV2`, `stem_type='fixed'`).
#[derive(Module, Debug)]
pub struct ResNet {
    /// 7×7 convolution with stride 2, `[C₀, 3, 7, 7]`; its outputs are pooled 3×3 with stride 2.
    pub stem: StandardisedConv,
    /// The blocks of all stages.
    pub blocks: Vec<ResNetBlock>,
    /// Before the places are averaged.
    pub norm: GroupNorm,
}

impl ResNet {
    /// The layers of these dimensions, without values.
    pub(super) fn unfilled(depths: Depths, device: &Device) -> Self {
        let block = |i| ResNetBlock::unfilled(i == 0, device);
        Self {
            stem: StandardisedConv::unfilled(device),
            blocks: depths.iter().flat_map(|depth| (0..depth).map(block)).collect(),
            norm: GroupNorm::unfilled(device),
        }
    }

    /// The average over all places after the last normalisation; `observe` is shown each stage of the pass.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, H, W]`
    /// - `branch_scale`: that of block `i`, `[B]`
    /// - output: `[B, C]`; observed: `[B, places, channels]`
    pub(super) fn forward(
        &self,
        images: Tensor<4>,
        config: &MixerConfig,
        precision: Precision,
        branch_scale: impl Fn(usize) -> Option<Tensor<1>>,
        mut observe: impl FnMut(String, &dyn Fn() -> Tensor<3>),
    ) -> Tensor<2> {
        let (_, num_groups) = config.tokens.dimension();
        let x = self.stem.forward(images, 2, precision);
        // PARITY: padded with zeros, which a negative maximum loses against.
        let x = x.pad((1, 1, 1, 1), PadMode::Constant(0.0));
        let mut x = max_pool2d(x, MaxPoolOptions::new([3; 2]).with_stride([2; 2]));
        observe("stem".to_owned(), &|| places(&x));
        for (i, block) in self.blocks.iter().enumerate() {
            let (stage, index) = config.place_of_block(i).unwrap_or_default();
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            x = block.forward(x, stride, num_groups, branch_scale(i), precision);
            observe(format!("block{i}"), &|| places(&x));
        }
        let normal = places(&self.norm.forward(x, num_groups));
        observe("norm".to_owned(), &|| normal.clone());
        normal.mean_dim(1).squeeze_dim::<2>(1)
    }
}

/// Places in raster order, `[B, H W, C]`.
fn places(x: &Tensor<4>) -> Tensor<3> {
    x.clone().flatten::<3>(2, 3).swap_dims(1, 2)
}
