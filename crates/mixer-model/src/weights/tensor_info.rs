//! A tensor in the listing of a file.

/// Most axes of a tensor in a file. Convolutions over volumes have 5.
pub(super) const MAX_RANK: usize = 8;

/// A tensor as a file lists it, under the file's own name and layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the file.
    pub name: String,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// Element type: `f32`, `bf16`, ...; of other than floating-point arrays the file's own name.
    pub dtype: String,
}
