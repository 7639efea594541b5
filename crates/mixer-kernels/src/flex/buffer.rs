//! Memory that is used again: scratch that outlives a call, and outputs that are written once.
//!
//! A page that a process has never touched costs ten times what writing to it costs, and a training
//! step would touch some hundred thousand of them.

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{DType, Shape};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read through a pointer to its floats")] [f32; LINE]);

/// Floats on a cache line.
const LINE: usize = 16;

/// What the pool may hold beyond the most that was ever used at once (48 MiB), so that pieces of
/// different sizes do not push each other out.
const SPARE_LINES: usize = 48 << 20 >> 6;

/// Memory that nobody uses now, and how much was ever in use at once.
struct Pool {
    /// Oldest first.
    free: Vec<Vec<Line>>,
    free_lines: usize,
    used_lines: usize,
    most_used_lines: usize,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { free: Vec::new(), free_lines: 0, used_lines: 0, most_used_lines: 0 });

impl Pool {
    fn take(&mut self, lines: usize) -> Option<Vec<Line>> {
        let fits = |v: &Vec<Line>| v.len() >= lines && v.len() <= lines + lines / 4 + 64;
        // The last to come back is the likeliest to be in a cache still.
        let mut best: Option<usize> = None;
        for (i, free) in self.free.iter().enumerate().rev() {
            if fits(free) && best.is_none_or(|best| free.len() < self.free[best].len()) {
                best = Some(i);
            }
        }
        let found = best.map(|i| self.free.remove(i));
        let taken = found.as_ref().map_or(lines, Vec::len);
        self.free_lines -= found.as_ref().map_or(0, Vec::len);
        self.used_lines += taken;
        self.most_used_lines = self.most_used_lines.max(self.used_lines);
        self.shrink();
        found
    }

    fn put(&mut self, memory: Vec<Line>) {
        self.used_lines -= memory.len();
        self.free_lines += memory.len();
        self.free.push(memory);
        self.shrink();
    }

    /// Keeps little more than was needed at once before: shapes that are gone make room.
    fn shrink(&mut self) {
        let most = self.most_used_lines + SPARE_LINES;
        while self.used_lines + self.free_lines > most && !self.free.is_empty() {
            self.free_lines -= self.free.remove(0).len();
        }
    }
}

/// Floats on cache lines, with any content; they go back to be used again when dropped.
#[derive(Debug)]
pub(super) struct Scratch(Vec<Line>);

impl Scratch {
    /// At least `len` floats.
    pub(super) fn take(len: usize) -> Scratch {
        let lines = len.div_ceil(LINE);
        let found = POOL.lock().unwrap_or_else(PoisonError::into_inner).take(lines);
        Scratch(found.unwrap_or_else(|| vec![Line([0.0; LINE]); lines]))
    }

    /// At least `len` floats, all zero.
    pub(super) fn zeroed(len: usize) -> Scratch {
        let mut scratch = Scratch::take(len);
        scratch.0.fill(Line([0.0; LINE]));
        scratch
    }

    pub(super) fn floats(&mut self) -> Floats {
        Floats(self.0.as_mut_ptr().cast())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.0);
        POOL.lock().unwrap_or_else(PoisonError::into_inner).put(memory);
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
        let len = size_of_val(self.0.as_slice());
        // SAFETY: lines are bytes, and initialised; the caller promises to keep them so.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) })
    }

    fn memory(&self, _policy: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let len = size_of_val(self.0.as_slice());
        // SAFETY: lines are bytes.
        Ok(unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), len) })
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
        FlexTensor::new(bytes, Layout::contiguous(shape), DType::F32)
    }
}
