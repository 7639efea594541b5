//! Ordered batches from a source. The `loader` decodes on its own threads and hands out `batch`es;
//! `mix` draws mixup and CutMix of a batch.

pub(crate) mod batch;
pub(crate) mod batch_mix;
pub(crate) mod in_order;
pub(crate) mod loader;
pub(crate) mod mix;
