//! A parameter with what its optimizer keeps of it, by name.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};

/// The state of a parameter under AdamW; all of one shape.
#[derive(Debug, Clone, ExtensionType)]
pub struct AdamwState<B: Backend> {
    /// The parameter.
    pub parameter: FloatTensor<B>,
    /// The moving average of its gradient; it may be kept in bf16.
    pub first: FloatTensor<B>,
    /// The moving average of its gradient's square.
    pub second: FloatTensor<B>,
}

/// The state of a parameter under gradient descent with momentum; both of one shape.
#[derive(Debug, Clone, ExtensionType)]
pub struct SgdState<B: Backend> {
    /// The parameter.
    pub parameter: FloatTensor<B>,
    /// The velocity; it may be kept in bf16.
    pub velocity: FloatTensor<B>,
}
