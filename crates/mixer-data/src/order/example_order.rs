//! Example at each position of a stream.

use crate::order::permutation::Permutation;

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
    /// Repeated augmentation (Hoffer et al. 2019; timm's `RepeatAugSampler` in spirit): as
    /// [`Shuffled`](Self::Shuffled), but every example is seen several times per epoch, each time
    /// with augmentation of its own. An epoch has `n · repeats` positions.
    Repeated {
        /// The seed of the permutations.
        seed: u64,
        /// Times that an example is seen per epoch; 0 counts as 1.
        repeats: u32,
        /// Distance between the repeats of an example, in positions; 0 counts as 1. The permutation
        /// is cut into runs of this length, and each run is gone through `repeats` times. With
        /// `batch size / repeats`, a batch holds all repeats of its examples and none next to
        /// another, which matters for mixup, that mixes neighbours.
        spacing: u64,
    },
}

/// The content of a position of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The epoch.
    pub epoch: u64,
    /// The index of the example.
    pub index: u64,
    /// Number of the repeat in this epoch, from 0.
    pub repeat: u64,
}

impl Order {
    /// The order of training: shuffled, and every example seen `repeats` times per epoch.
    ///
    /// The repeats of an example are `batch_size / repeats` positions apart, so that they meet in one
    /// batch, as far as the ends of batches and of epochs allow. One repeat is
    /// [`Shuffled`](Self::Shuffled); 0 counts as 1.
    pub fn training(seed: u64, repeats: u32, batch_size: usize) -> Self {
        match repeats {
            0 | 1 => Self::Shuffled { seed },
            _ => Self::Repeated { seed, repeats, spacing: batch_size as u64 / u64::from(repeats) },
        }
    }

    /// The epoch and the example index at `position` of a stream over `len` examples.
    ///
    /// # Panics
    /// When `len` is 0.
    pub fn locate(self, position: u64, len: u64) -> (u64, u64) {
        let Location { epoch, index, .. } = self.location(position, len);
        (epoch, index)
    }

    /// The content of `position` of a stream over `len` examples.
    ///
    /// # Panics
    /// When `len` is 0.
    pub fn location(self, position: u64, len: u64) -> Location {
        let epoch_len = self.epoch_len(len);
        let (epoch, within) = (position / epoch_len, position % epoch_len);
        match self {
            Self::Shuffled { seed } => {
                let index = Permutation::new(seed, epoch, len).get(within);
                Location { epoch, index, repeat: 0 }
            }
            Self::Sequential => Location { epoch, index: within, repeat: 0 },
            Self::Repeated { seed, repeats, spacing } => {
                let (repeats, spacing) = (u64::from(repeats.max(1)), spacing.clamp(1, len));
                let (run, within) = (within / (spacing * repeats), within % (spacing * repeats));
                // The last run may be shorter, and then its repeats are nearer.
                let run_len = spacing.min(len - run * spacing);
                let rank = run * spacing + within % run_len;
                let index = Permutation::new(seed, epoch, len).get(rank);
                Location { epoch, index, repeat: within / run_len }
            }
        }
    }

    /// Positions per epoch of a stream over `len` examples.
    pub fn epoch_len(self, len: u64) -> u64 {
        match self {
            Self::Shuffled { .. } | Self::Sequential => len,
            Self::Repeated { repeats, .. } => len * u64::from(repeats.max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_repeat_of_every_example_appears_once_per_epoch(
            seed: u64, len in 1u64..80, repeats in 1u32..5, spacing in 0u64..100, epoch in 0u64..3,
        ) {
            let order = Order::Repeated { seed, repeats, spacing };
            let epoch_len = order.epoch_len(len);
            prop_assert_eq!(epoch_len, len * u64::from(repeats));
            let found: HashSet<(u64, u64)> = (epoch * epoch_len..(epoch + 1) * epoch_len)
                .map(|position| {
                    let location = order.location(position, len);
                    assert_eq!(location.epoch, epoch);
                    assert!(location.index < len && location.repeat < u64::from(repeats));
                    (location.index, location.repeat)
                })
                .collect();
            prop_assert_eq!(found.len() as u64, epoch_len);
        }

        #[test]
        fn one_repeat_is_the_shuffled_order(seed: u64, len in 1u64..80, position in 0u64..400, spacing: u64) {
            let repeated = Order::Repeated { seed, repeats: 1, spacing };
            prop_assert_eq!(repeated.locate(position, len), Order::Shuffled { seed }.locate(position, len));
        }
    }

    #[test]
    fn repeats_stand_apart_by_the_spacing_and_share_a_batch() {
        let order = Order::Repeated { seed: 4, repeats: 3, spacing: 2 };
        let found: Vec<_> = (0..15).map(|position| order.location(position, 5)).collect();
        for run in [&found[..6], &found[6..12]] {
            for (at, location) in run.iter().enumerate() {
                assert_eq!(location.index, run[at % 2].index);
                assert_eq!(location.repeat, at as u64 / 2);
            }
        }
        assert!(found[12..].iter().all(|location| location.index == found[12].index));
        assert_eq!(
            found[12..].iter().map(|location| location.repeat).collect::<Vec<_>>(),
            [0, 1, 2]
        );
    }

    #[test]
    fn in_training_the_repeats_of_an_example_meet_in_one_batch() {
        // 12 examples in batches of 6: two different ones, three times each.
        let order = Order::training(4, 3, 6);
        for batch in 0..6u64 {
            let locations =
                (batch * 6..(batch + 1) * 6).map(|position| order.location(position, 12));
            let indices: Vec<u64> = locations.map(|location| location.index).collect();
            let [a, b, rest @ ..] = indices.as_slice() else { panic!("{indices:?}") };
            assert_ne!(a, b);
            assert_eq!(rest, [*a, *b, *a, *b]);
        }
        assert_eq!(Order::training(4, 1, 6), Order::Shuffled { seed: 4 });
        assert_eq!(Order::training(4, 0, 6), Order::Shuffled { seed: 4 });
    }

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
