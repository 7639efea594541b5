//! One launch for all parameters: the update, and the norm that clipping needs.

use crate::precision::Precision;
use crate::update::{AdamwConstants, AdamwStep, SgdStep};

use super::gpu::{Arg, Error, Gpu, Kernel};

/// Elements that a block of threads updates; as in `kernels.cu`.
const CHUNK: usize = 8192;
/// Bytes of an entry of the table; as `struct Parameter` in `kernels.cu`.
const ENTRY: usize = 56;

/// Addresses of a parameter and of what belongs to it; those that a kernel does not use are 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entry {
    pub(super) value: u64,
    pub(super) gradient: u64,
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) len: usize,
    /// What the parameter is multiplied by.
    pub(super) decay: f64,
    /// Its learning rate.
    pub(super) rate: f64,
}

fn kernel(name: &'static str) -> Kernel {
    Kernel { name, element: Precision::F32, lanes: 1 }
}

/// The table as the kernels read it, and the number of blocks.
fn table(entries: &[Entry]) -> (Vec<u8>, usize) {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
    let mut blocks = 0;
    for entry in entries {
        for address in [entry.value, entry.gradient, entry.first, entry.second] {
            bytes.extend(address.to_ne_bytes());
        }
        bytes.extend((entry.len as i64).to_ne_bytes());
        bytes.extend((blocks as i64).to_ne_bytes());
        bytes.extend((entry.decay as f32).to_ne_bytes());
        bytes.extend((entry.rate as f32).to_ne_bytes());
        blocks += entry.len.div_ceil(CHUNK);
    }
    (bytes, blocks)
}

impl Gpu {
    /// Updates every parameter in place, each with its own rate and decay.
    pub(super) fn adamw(
        &mut self,
        entries: &[Entry],
        (squared_norm, limit): (u64, f64),
        step: AdamwStep,
    ) -> Result<(), Error> {
        let (bytes, blocks) = table(entries);
        let [address] = self.scratch([bytes.len()])?;
        self.upload(address, &bytes)?;
        let constants: AdamwConstants = step.constants();
        let args = [
            Arg::Pointer(address),
            Arg::Int(entries.len()),
            Arg::Pointer(squared_norm),
            Arg::Float(limit),
            Arg::Float(constants.gradient_scale),
            Arg::Float(constants.beta1),
            Arg::Float(constants.beta2),
            Arg::Float(constants.rest1),
            Arg::Float(constants.rest2),
            Arg::Float(constants.correct1),
            Arg::Float(constants.correct2),
            Arg::Float(constants.epsilon),
        ];
        self.launch(kernel("adamw"), (blocks, 1), (256, 1), 0, &args)
    }

    /// As [`Gpu::adamw`], by gradient descent with momentum.
    pub(super) fn sgd(
        &mut self,
        entries: &[Entry],
        (squared_norm, limit): (u64, f64),
        step: SgdStep,
    ) -> Result<(), Error> {
        let (bytes, blocks) = table(entries);
        let [address] = self.scratch([bytes.len()])?;
        self.upload(address, &bytes)?;
        let args = [
            Arg::Pointer(address),
            Arg::Int(entries.len()),
            Arg::Pointer(squared_norm),
            Arg::Float(limit),
            Arg::Float(step.gradient_scale),
            Arg::Float(step.momentum),
        ];
        self.launch(kernel("sgd"), (blocks, 1), (256, 1), 0, &args)
    }

    /// Moves every average (`value`) towards its parameter (`gradient`), in place.
    pub(super) fn average(&mut self, entries: &[Entry], decay: f64) -> Result<(), Error> {
        let (bytes, blocks) = table(entries);
        let [address] = self.scratch([bytes.len()])?;
        self.upload(address, &bytes)?;
        let args = [Arg::Pointer(address), Arg::Int(entries.len()), Arg::Float(1.0 - decay)];
        self.launch(kernel("average"), (blocks, 1), (256, 1), 0, &args)
    }

    /// `Σ g²` over the gradients of all entries.
    pub(super) fn squared_norm(&mut self, entries: &[Entry], out: u64) -> Result<(), Error> {
        let (bytes, blocks) = table(entries);
        let [address, partials] = self.scratch([bytes.len(), blocks * 4])?;
        self.upload(address, &bytes)?;
        let args = [Arg::Pointer(address), Arg::Int(entries.len()), Arg::Pointer(partials)];
        self.launch(kernel("squares"), (blocks, 1), (256, 1), 0, &args)?;
        let args = [Arg::Pointer(partials), Arg::Pointer(out), Arg::Int(blocks)];
        self.launch(kernel("total"), (1, 1), (1024, 1), 0, &args)
    }
}
