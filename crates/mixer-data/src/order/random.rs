//! Random numbers of one example, keyed by what the example is.

/// The odd constant of SplitMix64, 2⁶⁴ divided by the golden ratio.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A random generator that belongs to one example.
///
/// It is SplitMix64 (Steele, Lea, Flood 2014, the constants of `java.util.SplittableRandom`), whose
/// state starts at a hash of (seed, epoch, index, stream). Two examples therefore share no
/// sequence, which `seed + index` would not guarantee.
///
/// # Determinism
/// The sequence is integer arithmetic and the same on every machine. Changing it breaks resume of
/// existing runs.
#[derive(Clone, Debug)]
pub struct ExampleRng {
    state: u64,
}

impl ExampleRng {
    /// The generator of `stream` for the example at `index` in `epoch`.
    ///
    /// Streams are independent sequences for different purposes.
    pub fn new(seed: u64, epoch: u64, index: u64, stream: u64) -> Self {
        Self { state: hash_words(&[seed, epoch, index, stream]) }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A number in `[low, high)`.
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// An integer in `0..n`, by the high word of a product; the bias is below `n / 2⁶⁴`.
    ///
    /// For `n = 0` the answer is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u32
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.next_u64() >> 63 == 1
    }
}

/// The output function of SplitMix64: a bijection of 64-bit words that avalanches.
pub(crate) fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Hashes words in order: each is added to the mixed hash of those before it.
pub(crate) fn hash_words(words: &[u64]) -> u64 {
    words.iter().fold(GOLDEN_GAMMA, |hash, &word| {
        mix(hash.wrapping_mul(GOLDEN_GAMMA).wrapping_add(mix(word.wrapping_add(GOLDEN_GAMMA))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_is_pinned() {
        // Changing this breaks resume of existing runs.
        let mut rng = ExampleRng::new(1, 2, 3, 4);
        let found: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        let expected =
            [1_635_063_327_975_976_934, 10_876_622_890_792_740_036, 252_335_811_672_314_661];
        assert_eq!(found, expected);
    }

    #[test]
    fn every_key_word_changes_the_sequence() {
        let first =
            |seed, epoch, index, stream| ExampleRng::new(seed, epoch, index, stream).next_u64();
        let all = [
            first(0, 0, 0, 0),
            first(1, 0, 0, 0),
            first(0, 1, 0, 0),
            first(0, 0, 1, 0),
            first(0, 0, 0, 1),
        ];
        let distinct: std::collections::HashSet<u64> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn neighbouring_examples_look_independent() {
        // Correlation of first draws of neighbouring indices, and uniformity of the mean.
        let draws: Vec<f64> =
            (0..20_000).map(|index| ExampleRng::new(7, 0, index, 0).uniform()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5).abs() < 0.01, "mean {mean}");
        let covariance =
            draws.windows(2).map(|pair| (pair[0] - 0.5) * (pair[1] - 0.5)).sum::<f64>()
                / draws.len() as f64;
        assert!(covariance.abs() < 0.002, "covariance {covariance}");
    }

    #[test]
    fn integers_below_n_cover_the_range_and_stay_inside() {
        let mut rng = ExampleRng::new(0, 0, 0, 0);
        let mut seen = [0u32; 7];
        for _ in 0..7_000 {
            seen[rng.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}
