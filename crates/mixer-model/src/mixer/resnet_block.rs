//! One block of a BiT-ResNet.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mixer_kernels::Precision;

use super::group_norm::GroupNorm;
use super::standardised_conv::StandardisedConv;

/// A bottleneck that normalises before each convolution: `Y = shortcut + conv3(N(conv2(N(conv1(N(X))))))`, where
/// N is a normalisation with ReLU. The shortcut is X, or in the first block of a stage a convolution of N(X).
///
/// # Source
/// He et al. 2016; Kolesnikov et al. 2020; `timm/models/resnetv2.py` (`PreActBottleneck`): the second
/// convolution has the stride.
#[derive(Module, Debug)]
pub struct ResNetBlock {
    /// To the width and the grid of the stage, `[W, I, 1, 1]`; in its first block only.
    pub downsample: Option<StandardisedConv>,
    /// Before the first convolution and that of the shortcut.
    pub norm1: GroupNorm,
    /// To the bottleneck, `[M, I, 1, 1]`.
    pub conv1: StandardisedConv,
    /// Before the second convolution.
    pub norm2: GroupNorm,
    /// Over neighbours, `[M, M, 3, 3]`.
    pub conv2: StandardisedConv,
    /// Before the third convolution.
    pub norm3: GroupNorm,
    /// Back to the width of the stage, `[W, M, 1, 1]`.
    pub conv3: StandardisedConv,
}

impl ResNetBlock {
    /// A block without values.
    pub(super) fn unfilled(is_first: bool, device: &Device) -> Self {
        let (norm, conv) = (|| GroupNorm::unfilled(device), || StandardisedConv::unfilled(device));
        Self {
            downsample: is_first.then(conv),
            norm1: norm(),
            conv1: conv(),
            norm2: norm(),
            conv2: conv(),
            norm3: norm(),
            conv3: conv(),
        }
    }

    /// The sum of shortcut and branch.
    ///
    /// # Shapes
    /// - input: `[B, I, H, W]`; output: `[B, W, ⌈H / stride⌉, ⌈W / stride⌉]`
    /// - `branch_scale`: `[B]`, what each example's branch is multiplied by (stochastic depth)
    pub(super) fn forward(
        &self,
        x: Tensor<4>,
        stride: usize,
        num_groups: usize,
        branch_scale: Option<Tensor<1>>,
        precision: Precision,
    ) -> Tensor<4> {
        let normal = self.norm1.forward(x.clone(), num_groups);
        let shortcut = match &self.downsample {
            Some(conv) => conv.forward(normal.clone(), stride, precision),
            None => x,
        };
        let branch = self.conv1.forward(normal, 1, precision);
        let branch = self.norm2.forward(branch, num_groups);
        let branch = self.conv2.forward(branch, stride, precision);
        let branch = self.norm3.forward(branch, num_groups);
        let branch = self.conv3.forward(branch, 1, precision);
        match branch_scale {
            Some(scale) => shortcut + branch * scale.reshape([-1, 1, 1, 1]),
            None => shortcut + branch,
        }
    }
}
