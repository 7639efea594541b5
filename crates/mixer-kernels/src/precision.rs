//! What products are computed in.

/// What the operands of a product are rounded to. Sums, parameters and what is computed inside
/// normalisation and activation stay f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// bf16: eight bits of fraction. Twice the products per second on processors that multiply it
    /// by themselves ([`bf16_is_native`](crate::bf16_is_native)), several times as many on NVIDIA GPUs, where
    /// activations between the stem and the last block are kept in it as well. Flex and CUDA have
    /// kernels for it; other backends compute in f32.
    Bf16,
}
