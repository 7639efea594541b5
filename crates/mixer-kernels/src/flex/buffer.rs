//! Memory that is used again: scratch that outlives a call, and outputs that are written once.
//!
//! A page that a process has never touched costs ten times what writing to it costs, and a training
//! step would touch some hundred thousand of them.

use std::sync::{Mutex, PoisonError};

use burn::backend::flex::FlexTensor;
use burn::tensor::{Shape, TensorData};

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read through a pointer to its floats")] [f32; 16]);

static FREE: Mutex<Vec<Vec<Line>>> = Mutex::new(Vec::new());

/// Floats on cache lines, with any content; they go back to be used again when dropped.
#[derive(Debug)]
pub(super) struct Scratch(Vec<Line>);

impl Scratch {
    /// At least `len` floats.
    pub(super) fn take(len: usize) -> Scratch {
        let lines = len.div_ceil(16);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = |v: &Vec<Line>| v.len() >= lines && v.len() <= 2 * lines + 64;
        let best = (0..free.len()).filter(|&i| fitting(&free[i])).min_by_key(|&i| free[i].len());
        let found = best.map(|i| free.swap_remove(i));
        drop(free);
        Scratch(found.unwrap_or_else(|| vec![Line([0.0; 16]); lines]))
    }

    /// At least `len` floats, all zero.
    pub(super) fn zeroed(len: usize) -> Scratch {
        let mut scratch = Scratch::take(len);
        scratch.0.fill(Line([0.0; 16]));
        scratch
    }

    pub(super) fn floats(&mut self) -> Floats {
        Floats(self.0.as_mut_ptr().cast())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.0);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded: shapes that are gone make room for those in use.
        if free.len() >= 64 {
            free.remove(0);
        }
        free.push(lines);
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

/// A tensor's floats while they are being written.
#[derive(Debug)]
pub(super) struct Output {
    values: Vec<f32>,
    len: usize,
}

impl Output {
    /// Room for `len` floats.
    pub(super) fn new(len: usize) -> Output {
        Output { values: Vec::with_capacity(len), len }
    }

    pub(super) fn floats(&mut self) -> Floats {
        Floats(self.values.as_mut_ptr())
    }

    /// The tensor.
    ///
    /// # Safety
    /// Every float must have been written.
    pub(super) unsafe fn tensor(mut self, shape: Shape) -> FlexTensor {
        // SAFETY: the caller's promise; the capacity was asked for.
        unsafe { self.values.set_len(self.len) };
        FlexTensor::from_data(TensorData::new(self.values, shape))
    }
}
