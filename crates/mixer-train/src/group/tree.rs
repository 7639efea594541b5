//! The order of sums: a binary counter over numbered items. Each joins the sum of the same number of items
//! on its left; what is left at the end is joined from the right. Six items make `((0+1)+(2+3))+(4+5)`.
//!
//! The sum of a power of two of neighbouring items, beginning at a multiple of their number, is a node of
//! that tree. So ranks that compute so many each, and join their sums in the same way, have the bits of one
//! process, for any number of ranks.

use crate::group::Group;

/// Values of a rank that are exchanged at a time: 512 KiB for each other rank.
const PIECE: usize = 1 << 17;

/// Sums that wait for their neighbours.
#[derive(Debug)]
pub(crate) struct Counter<T> {
    /// Every item joins the one sum, whatever its size.
    is_fold: bool,
    /// Sums from the left, with the number of joins that made them; it falls.
    nodes: Vec<(u32, T)>,
}

impl<T> Counter<T> {
    /// Sums in the order of the tree.
    pub(crate) fn tree() -> Self {
        Self { is_fold: false, nodes: Vec::new() }
    }

    /// Sums from the left: one sum is kept, and not one for each level.
    pub(crate) fn fold() -> Self {
        Self { is_fold: true, nodes: Vec::new() }
    }

    /// Adds the next item.
    pub(crate) fn add(&mut self, item: T, mut join: impl FnMut(T, T) -> T) {
        let (mut level, mut sum) = (0, item);
        while let Some((_, left)) =
            self.nodes.pop_if(|(of_left, _)| self.is_fold || *of_left == level)
        {
            sum = join(left, sum);
            level += 1;
        }
        self.nodes.push((level, sum));
    }

    /// The sum of all items; none of none.
    pub(crate) fn finish(self, mut join: impl FnMut(T, T) -> T) -> Option<T> {
        let mut nodes = self.nodes.into_iter().rev().map(|(_, sum)| sum);
        let last = nodes.next()?;
        Some(nodes.fold(last, |right, left| join(left, right)))
    }
}

/// Sums values over the ranks, in the order of the tree; every rank has the sums.
///
/// In pieces: each rank gets its part of all ranks, joins them, and gives the sums to all. A rank sends
/// `2 (N - 1) / N` times the values, as in a ring.
pub(crate) fn sum_over(group: &dyn Group, values: &mut [f32]) {
    let ranks = group.size();
    if ranks == 1 || values.is_empty() {
        return;
    }
    let part = PIECE.min(values.len().div_ceil(ranks));
    let (mut piece, mut parts) = (vec![0.0; part * ranks], vec![0.0; part * ranks]);
    for values in values.chunks_mut(part * ranks) {
        piece[..values.len()].copy_from_slice(values);
        piece[values.len()..].fill(0.0);
        group.all_to_all(&piece, &mut parts);
        let mut sums = Counter::tree();
        for of_rank in parts.chunks_exact_mut(part) {
            sums.add(of_rank, join);
        }
        if let Some(sum) = sums.finish(join) {
            group.all_gather(sum, &mut piece);
        }
        values.copy_from_slice(&piece[..values.len()]);
    }
}

/// Adds the right values to the left ones.
fn join<'a>(left: &'a mut [f32], right: &'a mut [f32]) -> &'a mut [f32] {
    for (left, right) in left.iter_mut().zip(right) {
        // NUMERICS: the order in which microbatches are summed, whoever computed them.
        *left += *right;
    }
    left
}

/// The numbers of ranks that can share the microbatches of an update: one computes all of them, of more each
/// a power of two.
pub(crate) fn possible_ranks(microbatches: usize) -> Vec<usize> {
    let shares = (0..usize::BITS).map(|power| 1_usize << power);
    let shares = shares.take_while(|share| microbatches.is_multiple_of(*share));
    let mut ranks: Vec<usize> = shares.map(|share| microbatches / share).chain([1]).collect();
    ranks.sort_unstable();
    ranks.dedup();
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::threads::together;

    fn text(counter: Counter<String>) -> String {
        counter.finish(|left, right| format!("({left}+{right})")).unwrap_or_default()
    }

    fn of(mut counter: Counter<String>, items: usize) -> String {
        for item in 0..items {
            counter.add(item.to_string(), |left, right| format!("({left}+{right})"));
        }
        text(counter)
    }

    #[test]
    fn the_tree_is_a_binary_counter() {
        assert_eq!(of(Counter::tree(), 0), "");
        assert_eq!(of(Counter::tree(), 1), "0");
        assert_eq!(of(Counter::tree(), 3), "((0+1)+2)");
        assert_eq!(of(Counter::tree(), 6), "(((0+1)+(2+3))+(4+5))");
        assert_eq!(of(Counter::tree(), 7), "(((0+1)+(2+3))+((4+5)+6))");
        assert_eq!(of(Counter::fold(), 4), "(((0+1)+2)+3)");
    }

    #[test]
    fn as_many_sums_are_kept_as_levels() {
        let mut counter = Counter::tree();
        let mut most = 0;
        for item in 0..64_u64 {
            counter.add(item, |left, right| left + right);
            most = most.max(counter.nodes.len());
        }
        assert_eq!((most, counter.finish(|a, b| a + b)), (6, Some(2016)));
    }

    #[test]
    fn microbatches_are_shared_in_powers_of_two() {
        assert_eq!(possible_ranks(12), [1, 3, 6, 12]);
        assert_eq!(possible_ranks(8), [1, 2, 4, 8]);
        assert_eq!(possible_ranks(1), [1]);
        assert_eq!(possible_ranks(7), [1, 7]);
    }

    /// Values of a microbatch, of widely differing sizes.
    fn values(microbatch: usize, len: usize) -> Vec<f32> {
        let mut state = 0x9e37_79b9_u32.wrapping_mul(microbatch as u32 + 1);
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let size = ((state >> 4) % 40) as f32 - 20.0;
            ((state >> 8) as f32 / 16_777_216.0 - 0.5) * size.exp2()
        };
        (0..len).map(next).collect()
    }

    fn sum_of(range: std::ops::Range<usize>, len: usize) -> Vec<f32> {
        let mut counter = Counter::tree();
        for microbatch in range {
            counter.add(values(microbatch, len), |mut left, right| {
                left.iter_mut().zip(right).for_each(|(left, right)| *left += right);
                left
            });
        }
        counter
            .finish(|mut left, right| {
                left.iter_mut().zip(right).for_each(|(left, right)| *left += right);
                left
            })
            .unwrap_or_default()
    }

    #[test]
    fn any_number_of_ranks_has_the_bits_of_one() {
        // Less than a value for each rank, and more than a piece.
        for len in [1, 5, 1000, 2 * PIECE + 3] {
            for microbatches in [8, 12, 24] {
                let expected = sum_of(0..microbatches, len);
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                for ranks in possible_ranks(microbatches) {
                    let share = microbatches / ranks;
                    let sums = together(ranks, |group| {
                        let first = group.rank() * share;
                        let mut own = sum_of(first..first + share, len);
                        sum_over(group, &mut own);
                        own
                    });
                    for sum in sums {
                        assert_eq!(bits(&sum), bits(&expected), "{len} values, {ranks} ranks");
                    }
                }
            }
        }
    }
}
