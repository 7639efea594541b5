//! Random numbers that are drawn on the host: initial weights, and the order of shuffled pictures.

/// Steele, Lea and Flood's SplitMix64: one multiplication chain per draw, stable for ever, so that a
/// seed in a config keeps its meaning.
pub(crate) struct SplitMix(u64);

impl SplitMix {
    /// The generator of one of many independent streams of a seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed);
        let start = mixed.next() ^ Self(stream.wrapping_add(0x6d69_7865_7273_7465)).next();
        Self(start)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1].
    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// A standard normal number, by Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Standard normal, drawn again beyond two deviations.
    pub(crate) fn truncated_normal(&mut self) -> f64 {
        loop {
            let value = self.normal();
            if value.abs() <= 2.0 {
                return value;
            }
        }
    }

    /// A random order of `0..len` (Fisher and Yates, from the last place down; a place is the upper word of
    /// the product of a draw and the number of places).
    pub(crate) fn order(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for last in (1..len).rev() {
            let places = last as u128 + 1;
            order.swap(last, ((u128::from(self.next()) * places) >> 64) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_draws_are_pinned() {
        // Changing this changes what every seed in every config means.
        let mut random = SplitMix::new(0, 0);
        let draws: Vec<f32> = (0..3).map(|_| random.truncated_normal() as f32).collect();
        assert_eq!(draws, PINNED);
    }

    const PINNED: [f32; 3] = [1.184_204, -0.463_704_6, 1.671_714_8];

    #[test]
    fn orders_are_pinned_and_have_every_place_once() {
        let order = |seed, len| SplitMix::new(seed, 1).order(len);
        // Changing this changes what weights for shuffled pictures mean.
        assert_eq!(order(0, 10), [1, 6, 4, 3, 8, 5, 2, 7, 0, 9]);
        assert_eq!((order(5, 0), order(5, 1)), (vec![], vec![0]));
        for len in 2..200 {
            let mut sorted = order(3, len);
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..len));
        }
    }
}
