//! NumPy's generator, as far as selections need it: `default_rng(seed)` and its `permutation`.

/// `numpy.random.default_rng(seed)`: PCG64 (XSL-RR 128/64, O'Neill 2014), seeded by a `SeedSequence`.
///
/// Bits are those of NumPy 1.17 and later, so that a selection can be made again there.
#[derive(Debug, Clone)]
pub struct NumpyRandom {
    state: u128,
    increment: u128,
    /// The upper half of the last output, where only the lower one was used.
    half: Option<u32>,
}

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

impl NumpyRandom {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let words = seed_sequence(seed);
        let word = |i: usize| u128::from(words[2 * i]) | u128::from(words[2 * i + 1]) << 32;
        let (state, sequence) = (word(0) << 64 | word(1), word(2) << 64 | word(3));
        let mut generator = Self { state: 0, increment: sequence << 1 | 1, half: None };
        generator.advance();
        generator.state = generator.state.wrapping_add(state);
        generator.advance();
        generator
    }

    fn advance(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.advance();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let both = self.next_u64();
        self.half = Some((both >> 32) as u32);
        both as u32
    }

    /// A number from 0 to `largest`, each equally likely.
    fn up_to(&mut self, largest: u64) -> u64 {
        if largest == 0 {
            return 0;
        }
        let mask = u64::MAX >> largest.leading_zeros();
        let is_short = u32::try_from(largest).is_ok();
        loop {
            let drawn = if is_short { u64::from(self.next_u32()) } else { self.next_u64() };
            if drawn & mask <= largest {
                return drawn & mask;
            }
        }
    }

    /// `permutation(values)`.
    #[must_use]
    pub fn permutation(&mut self, mut values: Vec<usize>) -> Vec<usize> {
        for i in (1..values.len()).rev() {
            let j = self.up_to(i as u64) as usize;
            values.swap(i, j);
        }
        values
    }
}

/// The first eight words of `SeedSequence(seed)`.
fn seed_sequence(seed: u64) -> [u32; 8] {
    let mut hash = 0x43b0_d7e5u32;
    let mut hashed = |value: u32| {
        let value = value ^ hash;
        hash = hash.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(hash);
        value ^ value >> 16
    };
    let entropy = [seed as u32, (seed >> 32) as u32, 0, 0];
    let mut pool = entropy.map(&mut hashed);
    for from in 0..4 {
        for to in (0..4).filter(|to| *to != from) {
            let from = hashed(pool[from]);
            let mixed = 0xca01_f9ddu32
                .wrapping_mul(pool[to])
                .wrapping_sub(0x4973_f715u32.wrapping_mul(from));
            pool[to] = mixed ^ mixed >> 16;
        }
    }
    let mut hash = 0x8b51_f9ddu32;
    std::array::from_fn(|i| {
        let value = pool[i % 4] ^ hash;
        hash = hash.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(hash);
        value ^ value >> 16
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of NumPy 2.4.
    #[test]
    fn bits_are_numpys() {
        assert_eq!(NumpyRandom::new(0).next_u64(), 0xa30f_ebcf_d9c2_825f);
        let ten: Vec<usize> = (0..10).collect();
        assert_eq!(NumpyRandom::new(0).permutation(ten), [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]);
    }
}
