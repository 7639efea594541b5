//! Pieces of the pool as scratch of a call, and as outputs that are written once.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use burn::backend::flex::{FlexTensor, Layout as TensorLayout};
use burn::tensor::{DType, Shape};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};

use crate::pool::{self, LINE, Lifetime, Line};

/// Floats on cache lines, with any content; they go back to be used again when dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    first: NonNull<Line>,
    lines: usize,
    lifetime: Lifetime,
}

// SAFETY: it is the only one that knows the piece; whoever writes through [`Floats`] promises to be
// alone there.
unsafe impl Send for Scratch {}
// SAFETY: as above.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// At least `len` floats.
    pub(super) fn take(len: usize) -> Self {
        Self::with(Lifetime::Scratch, len)
    }

    fn with(lifetime: Lifetime, len: usize) -> Self {
        // One at least, so that no two pieces begin at the same address.
        let lines = len.div_ceil(LINE).max(1);
        Self { first: pool::take(lines, lifetime), lines, lifetime }
    }

    /// At least `len` floats, all zero.
    pub(super) fn zeroed(len: usize) -> Self {
        let scratch = Self::take(len);
        // SAFETY: the piece is that long, and zeros are floats.
        unsafe { scratch.first.write_bytes(0, scratch.lines) };
        scratch
    }

    pub(super) fn floats(&mut self) -> Floats {
        Floats(self.first.as_ptr().cast())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: it was taken with this length, and nobody else knows it.
        unsafe { pool::put(self.first, self.lines, self.lifetime) };
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
        Ok(unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr().cast(), len) })
    }

    fn memory(&self, _policy: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let len = self.lines * size_of::<Line>();
        // SAFETY: lines are bytes, initialised from the start.
        Ok(unsafe { std::slice::from_raw_parts(self.first.as_ptr().cast(), len) })
    }
}

/// The place of floats that several jobs write to, each its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floats(*mut f32);

// SAFETY: a pointer is a number; whoever writes through it promises to be alone there.
unsafe impl Send for Floats {}
// SAFETY: as above.
unsafe impl Sync for Floats {}

impl Floats {
    pub(super) fn new(first: *mut f32) -> Self {
        Self(first)
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
    pub(super) fn new(len: usize) -> Self {
        Self { values: Scratch::with(Lifetime::Tensor, len), len }
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
