//! What products are computed in.

use burn::tensor::DType;

/// What the operands of a product are rounded to. Sums, parameters, their gradients, and what is computed
/// inside normalisation and activation stay f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// bf16: eight bits of fraction. Twice the products per second on processors that multiply it
    /// by themselves ([`bf16_is_native`](crate::bf16_is_native)), several times as many on GPUs, where
    /// activations between the stem and the last block are kept in it as well.
    Bf16,
    /// f16: eleven bits of fraction, but nothing above 65504, and ever fewer bits below 6.1e-5: losses have
    /// to be scaled for their gradients to lie between. On GPUs as bf16; there are no kernels for CPUs,
    /// where it is far slower than f32.
    F16,
}

impl Precision {
    /// The type of what is rounded.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
        }
    }

    /// The precision whose type this is.
    #[cfg(feature = "cuda")]
    pub(crate) fn of(dtype: DType) -> Option<Precision> {
        [Precision::F32, Precision::Bf16, Precision::F16]
            .into_iter()
            .find(|precision| precision.dtype() == dtype)
    }
}
