//! Memory that is used again: scratch that outlives a call, and outputs that are written once.
//!
//! A page that a process has never touched costs ten times what writing to it costs, and a training
//! step would touch some hundred thousand of them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::flex::{FlexTensor, Layout as TensorLayout};
use burn::tensor::{DType, Shape};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read through a pointer to its floats")] [f32; LINE]);

/// Floats on a cache line.
const LINE: usize = 16;

/// Least size of a chunk (4 MiB), so that small pieces share one.
const CHUNK_LINES: usize = 4 << 20 >> 6;

/// Memory in chunks, each cut into pieces as they are asked for; neighbours that come back grow
/// together again. An activation's memory so becomes that of several gradients.
struct Pool {
    /// First line and length of every chunk.
    chunks: BTreeMap<Address, usize>,
    /// First line and length of every piece that nobody uses.
    free: BTreeMap<Address, usize>,
    total_lines: usize,
    used_lines: usize,
    most_used_lines: usize,
}

/// Where a piece begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Address(NonNull<Line>);

// SAFETY: an address is a number; whoever reads or writes there promises to be alone.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl Address {
    /// `lines` further.
    ///
    /// # Safety
    /// The piece must be that long.
    unsafe fn add(self, lines: usize) -> Address {
        // SAFETY: the caller's promise.
        Address(unsafe { self.0.add(lines) })
    }
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    chunks: BTreeMap::new(),
    free: BTreeMap::new(),
    total_lines: 0,
    used_lines: 0,
    most_used_lines: 0,
});

fn layout(lines: usize) -> Layout {
    Layout::array::<Line>(lines).unwrap_or_else(|_| unreachable!("no memory is that large"))
}

impl Pool {
    fn take(&mut self, lines: usize) -> Address {
        let fits = self.free.iter().filter(|(_, free)| **free >= lines);
        let best = fits.min_by_key(|(_, free)| **free).map(|(&address, &free)| (address, free));
        let (address, free) = best.unwrap_or_else(|| {
            let chunk = lines.max(CHUNK_LINES);
            // SAFETY: the size is not zero.
            let memory = unsafe { alloc_zeroed(layout(chunk)) };
            let Some(memory) = NonNull::new(memory.cast()) else {
                handle_alloc_error(layout(chunk))
            };
            self.total_lines += chunk;
            self.chunks.insert(Address(memory), chunk);
            (Address(memory), chunk)
        });
        self.free.remove(&address);
        if free > lines {
            // SAFETY: the piece is longer than what is taken.
            self.free.insert(unsafe { address.add(lines) }, free - lines);
        }
        self.used_lines += lines;
        self.most_used_lines = self.most_used_lines.max(self.used_lines);
        address
    }

    fn put(&mut self, mut address: Address, lines: usize) {
        self.used_lines -= lines;
        let mut free = lines;
        // SAFETY: the piece is that long.
        let end = unsafe { address.add(lines) };
        if !self.chunks.contains_key(&end)
            && let Some(next) = self.free.remove(&end)
        {
            free += next;
        }
        if !self.chunks.contains_key(&address)
            && let Some((&before, &length)) = self.free.range(..address).next_back()
            // SAFETY: the piece is that long.
            && unsafe { before.add(length) } == address
        {
            address = before;
            free += length;
        }
        self.free.insert(address, free);
        if self.chunks.get(&address) == Some(&free) {
            self.shrink();
        }
    }

    /// Gives back chunks that nobody uses while there is a quarter more than was ever needed at once:
    /// shapes that are gone make room.
    fn shrink(&mut self) {
        let most = self.most_used_lines + self.most_used_lines / 4 + CHUNK_LINES;
        while self.total_lines > most {
            let unused = |(address, lines): (&Address, &usize)| {
                (self.free.get(address) == Some(lines)).then_some((*address, *lines))
            };
            let Some((address, lines)) = self.chunks.iter().find_map(unused) else { return };
            self.free.remove(&address);
            self.chunks.remove(&address);
            self.total_lines -= lines;
            // SAFETY: it was allocated with this layout, and nobody uses any of it.
            unsafe { dealloc(address.0.as_ptr().cast(), layout(lines)) };
        }
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Floats on cache lines, with any content; they go back to be used again when dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    first: Address,
    lines: usize,
}

impl Scratch {
    /// At least `len` floats.
    pub(super) fn take(len: usize) -> Scratch {
        // One at least, so that no two pieces begin at the same address.
        let lines = len.div_ceil(LINE).max(1);
        Scratch { first: pool().take(lines), lines }
    }

    /// At least `len` floats, all zero.
    pub(super) fn zeroed(len: usize) -> Scratch {
        let scratch = Scratch::take(len);
        // SAFETY: the piece is that long, and zeros are floats.
        unsafe { scratch.first.0.write_bytes(0, scratch.lines) };
        scratch
    }

    pub(super) fn floats(&mut self) -> Floats {
        Floats(self.first.0.as_ptr().cast())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        pool().put(self.first, self.lines);
    }
}

/// A tensor's memory that goes back to the pool when the tensor is dropped.
impl AllocationController for Scratch {
    fn alloc_align(&self) -> usize {
        align_of::<Line>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(
        &mut self,
        _policy: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let len = self.lines * size_of::<Line>();
        // SAFETY: lines are bytes, and initialised; the caller promises to keep them so.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.first.0.as_ptr().cast(), len) })
    }

    fn memory(&self, _policy: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let len = self.lines * size_of::<Line>();
        // SAFETY: lines are bytes, initialised from the start.
        Ok(unsafe { std::slice::from_raw_parts(self.first.0.as_ptr().cast(), len) })
    }
}

/// Where floats lie that several jobs write to, each its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floats(*mut f32);

// SAFETY: a pointer is a number; whoever writes through it promises to be alone there.
unsafe impl Send for Floats {}
// SAFETY: as above.
unsafe impl Sync for Floats {}

impl Floats {
    pub(super) fn new(first: *mut f32) -> Floats {
        Floats(first)
    }

    /// The pointer, `offset` floats further.
    ///
    /// # Safety
    /// That many floats must be there.
    #[inline(always)]
    pub(super) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// A tensor's floats while they are being written; with any content until then.
#[derive(Debug)]
pub(super) struct Output {
    values: Scratch,
    len: usize,
}

impl Output {
    /// Room for `len` floats.
    pub(super) fn new(len: usize) -> Output {
        Output { values: Scratch::take(len), len }
    }

    pub(super) fn floats(&mut self) -> Floats {
        self.values.floats()
    }

    /// The tensor of this shape.
    pub(super) fn tensor(self, shape: Shape) -> FlexTensor {
        let bytes = self.len * size_of::<f32>();
        // SAFETY: the memory is initialised from the start and has room for that many bytes.
        let bytes = unsafe { Bytes::from_controller(Box::new(self.values), bytes) };
        FlexTensor::new(bytes, TensorLayout::contiguous(shape), DType::F32)
    }
}
