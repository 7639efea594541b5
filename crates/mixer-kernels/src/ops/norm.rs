//! The tensors of a layer normalisation, by name.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};

/// The tensors that a normalisation reads.
#[derive(Debug, Clone, ExtensionType)]
pub struct Norm<B: Backend> {
    /// `[…, C]`.
    pub x: FloatTensor<B>,
    /// Scale, `[C]`.
    pub gamma: FloatTensor<B>,
    /// Shift, `[C]`.
    pub beta: FloatTensor<B>,
}

/// The tensors that its backward pass reads.
#[derive(Debug, Clone, ExtensionType)]
pub struct NormBackward<B: Backend> {
    /// `[…, C]`.
    pub x: FloatTensor<B>,
    /// Scale, `[C]`.
    pub gamma: FloatTensor<B>,
    /// The gradient of the result.
    pub grad: FloatTensor<B>,
}

/// The gradients that it gives.
#[derive(Debug, Clone, ExtensionType)]
pub struct NormGradients<B: Backend> {
    /// Of the input, `[…, C]`.
    pub x: FloatTensor<B>,
    /// Of the scale, `[C]`.
    pub gamma: FloatTensor<B>,
    /// Of the shift, `[C]`.
    pub beta: FloatTensor<B>,
}
