//! Which example stands at which position of a stream.

use crate::permutation::Permutation;

/// The order in which a stream visits the examples.
///
/// A stream numbers its examples with positions 0, 1, 2, …; position `p` lies in epoch `p / n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A new permutation in every epoch; every example is seen exactly once per epoch.
    Shuffled {
        /// The seed of the permutations.
        seed: u64,
    },
    /// `0..n`, epoch after epoch.
    Sequential,
}

impl Order {
    /// The epoch and the example index at `position` of a stream over `len` examples.
    ///
    /// # Panics
    /// When `len` is 0.
    pub fn locate(self, position: u64, len: u64) -> (u64, u64) {
        let (epoch, within) = (position / len, position % len);
        match self {
            Self::Shuffled { seed } => (epoch, Permutation::new(seed, epoch, len).get(within)),
            Self::Sequential => (epoch, within),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequential_order_counts_and_wraps() {
        let found: Vec<_> = (0..5).map(|p| Order::Sequential.locate(p, 3)).collect();
        assert_eq!(found, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
    }

    #[test]
    fn shuffled_order_visits_every_example_once_per_epoch() {
        let order = Order::Shuffled { seed: 9 };
        for epoch in 0..3 {
            let mut seen: Vec<u64> = (epoch * 11..(epoch + 1) * 11)
                .map(|position| {
                    let (found_epoch, index) = order.locate(position, 11);
                    assert_eq!(found_epoch, epoch);
                    index
                })
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..11).collect::<Vec<_>>());
        }
    }
}
