//! Data on its way into the network. A `Layout` says which splits a folder has; a `Dataset` opens what a configuration names,
//! `loading` says with how many threads it is read; `stream` brings batches to the device, one ahead;
//! the `Normaliser` makes tensors of them, and nothing else does.

pub(crate) mod dataset;
pub(crate) mod layout;
pub(crate) mod loading;
pub(crate) mod normaliser;
pub mod preprocessing;
pub(crate) mod stream;
