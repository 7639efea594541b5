//! Partial sums in slots, one behind the other.

use rayon::prelude::*;

use super::buffer::Floats;

/// The sum of the slots, added in their order.
///
/// # Safety
/// `slots` times `len` floats must be there.
pub(super) unsafe fn sum_slots(from: Floats, slots: usize, len: usize) -> Vec<f32> {
    let mut total = vec![0.0f32; len];
    total.par_chunks_mut(4096).enumerate().for_each(|(piece, total)| {
        for slot in 0..slots {
            // SAFETY: the caller's promise.
            let from = unsafe {
                std::slice::from_raw_parts(from.at(slot * len + piece * 4096), total.len())
            };
            for (total, value) in total.iter_mut().zip(from) {
                *total += value;
            }
        }
    });
    total
}
