//! The most that the processor could do: fused multiply-adds on registers alone.

use std::time::{Duration, Instant};

use super::{Kernel, Simd, dispatch};

/// Independent sums, enough to hide the latency of an addition on any processor of today.
const CHAINS: usize = 12;

/// Floating-point operations per second of all threads of the current pool in f32, a multiply-add
/// counting as two: the best of many slices, for a slice can be disturbed and never helped.
#[must_use]
pub fn fma_peak() -> f64 {
    let mut best = 0.0f64;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(300) {
        let per_thread = rayon::broadcast(|_| {
            let (mut operations, mut sum) = (0, 0.0);
            let started = Instant::now();
            dispatch(PeakJob { operations: &mut operations, sum: &mut sum });
            std::hint::black_box(sum);
            operations as f64 / started.elapsed().as_secs_f64()
        });
        best = best.max(per_thread.iter().sum());
    }
    best
}

struct PeakJob<'a> {
    operations: &'a mut u64,
    sum: &'a mut f32,
}

impl Kernel for PeakJob<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const ROUNDS: u64 = 1 << 20;
        let (factor, term) =
            (s.splat(std::hint::black_box(0.999)), s.splat(std::hint::black_box(1e-3)));
        let mut sums = [s.splat(1.0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, factor, term);
            }
        }
        let total = sums.into_iter().fold(s.splat(0.0), |a, b| s.add(a, b));
        *self.sum = s.sum(total);
        *self.operations = 2 * ROUNDS * (CHAINS * S::LANES) as u64;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peak_is_what_a_processor_can_do() {
        let peak = super::fma_peak();
        assert!((1e8..1e15).contains(&peak), "{peak}");
    }
}
