//! The room of what a model and an optimizer call: plain tensors in, plain tensors out, the same on every
//! device. Each function hands its tensors to an operation of `MixerOps`; `pixels` works on slices.

pub(crate) mod dense;
pub(crate) mod gelu;
pub(crate) mod layer_norm;
pub(crate) mod mixing;
pub(crate) mod pixels;
pub(crate) mod update;
