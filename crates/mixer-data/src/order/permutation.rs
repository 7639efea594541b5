//! Shuffling without a table.

use crate::order::random::{hash_words, mix};

/// Rounds of the Feistel network. Four make a strong pseudo-random permutation (Luby, Rackoff
/// 1988); two more cost nothing and help when the halves have few bits.
const ROUNDS: usize = 6;

/// A pseudo-random permutation of `0..n` that takes O(1) memory and O(1) expected time per index.
///
/// A balanced Feistel network permutes the smallest domain of `2^(2h)` values that holds `n`; values
/// that land outside `0..n` are sent through again until one lands inside (cycle walking), which
/// keeps it a bijection and takes at most four passes on average. The round function is the mixer
/// of SplitMix64 over the half and a round key, and the keys are hashes of (seed, epoch, round).
///
/// # Determinism
/// Integer arithmetic, the same on every machine. Changing it breaks resume of existing runs.
#[derive(Clone, Debug)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..len` for one epoch.
    pub fn new(seed: u64, epoch: u64, len: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self {
            len,
            half_bits: bits.div_ceil(2).max(1),
            keys: std::array::from_fn(|round| hash_words(&[seed, epoch, round as u64])),
        }
    }

    /// The number of indices, `n`.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// `true` where there is nothing to permute.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The index at `position`.
    ///
    /// # Panics
    /// When `position` is not below [`len`](Self::len).
    pub fn get(&self, position: u64) -> u64 {
        assert!(position < self.len, "position {position} of a permutation of {}", self.len);
        let mut value = self.pass(position);
        while value >= self.len {
            value = self.pass(value);
        }
        value
    }

    /// One trip through the network, a bijection of `0..2^(2·half_bits)`.
    fn pass(&self, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right.wrapping_add(key)) & mask));
        }
        (left << self.half_bits) | right
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_index_appears_exactly_once(seed: u64, epoch in 0u64..1000, len in 1u64..3000) {
            let permutation = Permutation::new(seed, epoch, len);
            let mut seen = vec![false; len as usize];
            for position in 0..len {
                let index = permutation.get(position) as usize;
                prop_assert!(!seen[index]);
                seen[index] = true;
            }
        }

        #[test]
        fn epochs_differ(seed: u64, epoch in 0u64..1000, len in 20u64..3000) {
            let this = Permutation::new(seed, epoch, len);
            let next = Permutation::new(seed, epoch + 1, len);
            prop_assert!((0..len).any(|position| this.get(position) != next.get(position)));
        }

        #[test]
        fn large_domains_stay_in_range(seed: u64, position in 0u64..(1 << 40)) {
            let permutation = Permutation::new(seed, 0, (1 << 40) + 1);
            prop_assert!(permutation.get(position) <= 1 << 40);
        }
    }

    #[test]
    fn ten_indices_are_pinned() {
        // Changing this breaks resume of existing runs.
        let permutation = Permutation::new(42, 3, 50_000);
        let found: Vec<u64> = (0..10).map(|position| permutation.get(position)).collect();
        let expected = [48_328, 911, 33_131, 5_597, 30_692, 8_387, 25_464, 16_366, 15_237, 35_147];
        assert_eq!(found, expected);
    }

    #[test]
    fn positions_do_not_correlate_with_indices() {
        let len = 10_000u64;
        let permutation = Permutation::new(0, 0, len);
        let mean = (len - 1) as f64 / 2.0;
        let (mut covariance, mut variance) = (0.0, 0.0);
        for position in 0..len {
            let offset = position as f64 - mean;
            covariance += offset * (permutation.get(position) as f64 - mean);
            variance += offset * offset;
        }
        let correlation: f64 = covariance / variance;
        assert!(correlation.abs() < 0.05, "{correlation}");
    }

    #[test]
    fn three_examples_meet_all_six_orders() {
        let orders: std::collections::HashSet<Vec<u64>> = (0..200)
            .map(|epoch| {
                let permutation = Permutation::new(5, epoch, 3);
                (0..3).map(|position| permutation.get(position)).collect()
            })
            .collect();
        assert_eq!(orders.len(), 6);
    }
}
