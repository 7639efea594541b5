//! Data of a configuration on its way into the network. A [`Dataset`](dataset::Dataset) opens it;
//! [`uploads`] brings batches to the device, one ahead; the [`Normaliser`](normaliser::Normaliser) makes
//! tensors of them, and nothing else does.

pub mod dataset;
pub mod normaliser;
pub mod preprocessing;
pub(crate) mod uploads;
