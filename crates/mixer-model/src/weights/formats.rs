//! The file formats that weights come in, each read by itself.
//!
//! A file may come from anybody: no claim of it is believed before it was compared with what the file
//! holds, nothing in it is run, and what a reader holds is a small multiple of the file. `npz` and
//! `pytorch` lie in the archives of `zip`; `pickle` is what `pytorch` finds its tensors by; `element`
//! turns stored numbers into `f32`; `refusal` is what all of them answer where they do not read on.

pub(super) mod element;
pub(super) mod npz;
mod pickle;
pub(super) mod pytorch;
pub(super) mod refusal;
pub(super) mod safetensors;
pub(super) mod zip;
