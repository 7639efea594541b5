//! The tensors of a dense layer, by name.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};

/// The tensors that a dense layer reads.
#[derive(Debug, Clone, ExtensionType)]
pub struct Dense<B: Backend> {
    /// `[N, I]`.
    pub x: FloatTensor<B>,
    /// `[I, O]`.
    pub weight: FloatTensor<B>,
    /// `[O]`.
    pub bias: FloatTensor<B>,
}

/// The tensors that its backward passes read.
#[derive(Debug, Clone, ExtensionType)]
pub struct DenseBackward<B: Backend> {
    /// `[N, I]`.
    pub x: FloatTensor<B>,
    /// `[I, O]`.
    pub weight: FloatTensor<B>,
    /// The gradient of the result, `[N, O]`.
    pub grad: FloatTensor<B>,
}

/// The gradients of a dense layer's input and parameters.
#[derive(Debug, Clone, ExtensionType)]
pub struct DenseGradients<B: Backend> {
    /// Of the input, `[N, I]`.
    pub x: FloatTensor<B>,
    /// Of its parameters.
    #[extension_type]
    pub parameters: DenseParameters<B>,
}

/// A dense layer's parameters, or their gradients.
#[derive(Debug, Clone, ExtensionType)]
pub struct DenseParameters<B: Backend> {
    /// `[I, O]`.
    pub weight: FloatTensor<B>,
    /// `[O]`.
    pub bias: FloatTensor<B>,
}
