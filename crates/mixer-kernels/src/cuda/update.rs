//! One launch for all parameters: the update, and the norm that clipping needs.

use crate::spec::{AdamwConstants, AdamwStep, Precision, SgdStep};

use super::address::Address;
use super::gpu::{Arg, Error, Gpu, Kernel};

/// Elements that a block of threads updates; as in `kernels.cu`.
const CHUNK: usize = 8192;
/// Bytes of an entry of the table; as `struct Parameter` in `kernels.cu`.
const ENTRY: usize = 56;

/// Addresses of a parameter and of what belongs to it; a kernel need not use all of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entry {
    pub(super) value: Option<Address>,
    pub(super) gradient: Option<Address>,
    pub(super) first: Option<Address>,
    pub(super) second: Option<Address>,
    pub(super) len: usize,
    /// The factor that the parameter is multiplied by.
    pub(super) decay: f64,
    /// Its learning rate.
    pub(super) rate: f64,
}

/// The largest norm of all gradients together. Without one, nothing is clipped.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limit {
    /// The square of the norm, as `squared_norm` found it.
    pub(super) squared_norm: Option<Address>,
    pub(super) limit: f64,
}

fn kernel(name: &'static str) -> Kernel {
    Kernel { name, element: Precision::F32, lanes: 1 }
}

/// The entries where kernels find them.
struct Table {
    address: Address,
    entries: usize,
    /// Blocks of threads that all entries together take.
    blocks: usize,
    /// Room for a float of each block.
    partials: Address,
}

impl Gpu {
    /// In scratch memory.
    fn place(&mut self, entries: &[Entry]) -> Result<Table, Error> {
        let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
        let mut blocks = 0;
        for entry in entries {
            for address in [entry.value, entry.gradient, entry.first, entry.second] {
                bytes.extend(address.map_or(0, Address::get).to_ne_bytes());
            }
            bytes.extend((entry.len as i64).to_ne_bytes());
            bytes.extend((blocks as i64).to_ne_bytes());
            bytes.extend((entry.decay as f32).to_ne_bytes());
            bytes.extend((entry.rate as f32).to_ne_bytes());
            blocks += entry.len.div_ceil(CHUNK);
        }
        let [address, partials] = self.scratch([bytes.len(), 4 * blocks])?;
        // SAFETY: there is scratch memory for the bytes.
        unsafe { self.upload(address, &bytes)? };
        Ok(Table { address, entries: entries.len(), blocks, partials })
    }

    /// Starts a kernel on all entries of a table; `args` are those after it.
    fn launch_on(
        &mut self,
        table: &Table,
        name: &'static str,
        args: impl IntoIterator<Item = Arg>,
    ) -> Result<(), Error> {
        let all = [Arg::Pointer(table.address), Arg::Int(table.entries)];
        let all: Vec<Arg> = all.into_iter().chain(args).collect();
        // SAFETY: `name` takes the table, its length and `args`; a block of threads finds its piece of a
        // parameter in the table.
        unsafe { self.launch(kernel(name), (table.blocks, 1), (256, 1), 0, &all) }
    }

    /// Updates every parameter in place, each with its own rate and decay.
    pub(super) fn adamw(
        &mut self,
        entries: &[Entry],
        clip: Limit,
        step: AdamwStep,
    ) -> Result<(), Error> {
        let constants: AdamwConstants = step.constants();
        let args = [
            constants.gradient_scale,
            constants.beta1,
            constants.beta2,
            constants.rest1,
            constants.rest2,
            constants.correct1,
            constants.correct2,
            constants.epsilon,
        ];
        let table = self.place(entries)?;
        self.launch_on(&table, "adamw", update_args(clip, &args))
    }

    /// As [`Gpu::adamw`], by gradient descent with momentum.
    pub(super) fn sgd(
        &mut self,
        entries: &[Entry],
        clip: Limit,
        step: SgdStep,
    ) -> Result<(), Error> {
        let table = self.place(entries)?;
        self.launch_on(&table, "sgd", update_args(clip, &[step.gradient_scale, step.momentum]))
    }

    /// Moves every average (`value`) towards its parameter (`gradient`), in place.
    pub(super) fn average(&mut self, entries: &[Entry], decay: f64) -> Result<(), Error> {
        let table = self.place(entries)?;
        self.launch_on(&table, "average", [Arg::Float(1.0 - decay)])
    }

    /// `Σ g²` over the gradients of all entries.
    pub(super) fn squared_norm(&mut self, entries: &[Entry], out: Address) -> Result<(), Error> {
        let table = self.place(entries)?;
        self.launch_on(&table, "squares", [Arg::Pointer(table.partials)])?;
        let args = [Arg::Pointer(table.partials), Arg::Pointer(out), Arg::Int(table.blocks)];
        // SAFETY: `total` takes these: every block of `squares` has written its float, and `out` is one.
        unsafe { self.launch(kernel("total"), (1, 1), (1024, 1), 0, &args) }
    }
}

/// Arguments of an update: the squared norm and the limit of clipping, then numbers.
fn update_args(clip: Limit, numbers: &[f64]) -> Vec<Arg> {
    let mut args = vec![Arg::Optional(clip.squared_norm), Arg::Float(clip.limit)];
    args.extend(numbers.iter().map(|&number| Arg::Float(number)));
    args
}
