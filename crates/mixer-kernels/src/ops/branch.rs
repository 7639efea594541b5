//! The tensors of a half of a block, by name. The order that arrays of them have, for Burn's graph and for
//! kernels, is written here and nowhere else.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};

/// The tensors that a mixing operation reads.
#[derive(Debug, Clone, ExtensionType)]
pub struct Branch<B: Backend> {
    /// The residual stream, `[B, S, C]`.
    pub x: FloatTensor<B>,
    /// Scale of the normalisation, `[C]`.
    pub gamma: FloatTensor<B>,
    /// Shift of the normalisation, `[C]`.
    pub beta: FloatTensor<B>,
    /// `[D_S, S]` to mix tokens, `[C, D_C]` to mix channels.
    pub weight1: FloatTensor<B>,
    /// `[D_S]` or `[D_C]`.
    pub bias1: FloatTensor<B>,
    /// `[S, D_S]` or `[D_C, C]`.
    pub weight2: FloatTensor<B>,
    /// `[S]` or `[C]`.
    pub bias2: FloatTensor<B>,
    /// The factor of each example's branch, `[B]`. It gets no gradient.
    pub branch_scale: FloatTensor<B>,
}

/// The gradients that the backward pass of a mixing operation gives.
#[derive(Debug, Clone, ExtensionType)]
pub struct BranchGradients<B: Backend> {
    /// Of the residual stream, `[B, S, C]`.
    pub x: FloatTensor<B>,
    /// Of the normalisation's scale, `[C]`.
    pub gamma: FloatTensor<B>,
    /// Of the normalisation's shift, `[C]`.
    pub beta: FloatTensor<B>,
    /// Of the first weight, in its shape.
    pub weight1: FloatTensor<B>,
    /// Of the first bias.
    pub bias1: FloatTensor<B>,
    /// Of the second weight, in its shape.
    pub weight2: FloatTensor<B>,
    /// Of the second bias.
    pub bias2: FloatTensor<B>,
}

/// The hidden units of channel mixing before GELU, as its backward pass finds them.
#[derive(Debug, Clone, ExtensionType)]
pub enum Hidden<B: Backend> {
    /// Kept by the forward pass, in the layout of the backend.
    Kept(FloatTensor<B>),
    /// To be computed again.
    Again,
}

/// The output of channel mixing, with what its backward pass can use.
#[derive(Debug, Clone, ExtensionType)]
pub struct Keeping<B: Backend> {
    /// The output, `[B, S, C]`.
    pub y: FloatTensor<B>,
    /// The hidden units before GELU, in the layout of the backend.
    pub hidden: FloatTensor<B>,
}

impl<B: Backend> Branch<B> {
    /// The tensors that get a gradient, in the order of [`BranchGradients::into_array`], and the branch scale.
    pub(crate) fn into_array(self) -> ([FloatTensor<B>; 7], FloatTensor<B>) {
        let Self { x, gamma, beta, weight1, bias1, weight2, bias2, branch_scale } = self;
        ([x, gamma, beta, weight1, bias1, weight2, bias2], branch_scale)
    }

    /// The inverse of [`Branch::into_array`].
    pub(crate) fn from_array(tensors: [FloatTensor<B>; 7], branch_scale: FloatTensor<B>) -> Self {
        let [x, gamma, beta, weight1, bias1, weight2, bias2] = tensors;
        Self { x, gamma, beta, weight1, bias1, weight2, bias2, branch_scale }
    }
}

impl<B: Backend> BranchGradients<B> {
    /// The gradients in the order of [`Branch::into_array`].
    pub(crate) fn into_array(self) -> [FloatTensor<B>; 7] {
        let Self { x, gamma, beta, weight1, bias1, weight2, bias2 } = self;
        [x, gamma, beta, weight1, bias1, weight2, bias2]
    }

    /// The inverse of [`BranchGradients::into_array`].
    #[cfg(feature = "cuda")]
    pub(crate) fn from_array(gradients: [FloatTensor<B>; 7]) -> Self {
        let [x, gamma, beta, weight1, bias1, weight2, bias2] = gradients;
        Self { x, gamma, beta, weight1, bias1, weight2, bias2 }
    }
}
