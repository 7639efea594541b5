//! Damage to files, the same every time: what a fuzzer does, without its search for new paths.
//!
//! `mixer-data` includes this file too.

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Says which input it was when a test panics.
struct Name(String);

impl Drop for Name {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input was {}", self.0);
        }
    }
}

/// Calls `check` with each of the named `seeds`, and then with `count` damaged ones. Mutant `n` is a
/// function of the seeds and of `n`.
pub fn feed(seeds: &[(String, Vec<u8>)], count: u64, mut check: impl FnMut(&[u8])) {
    for (name, bytes) in seeds {
        let _name = Name(name.clone());
        check(bytes);
    }
    for number in 0..count {
        let mut random = Random(number.wrapping_mul(0xd134_2543_de82_ef95));
        let (name, seed) = &seeds[random.below(seeds.len())];
        let _name = Name(format!("mutant {number}, of {name}"));
        let mut bytes = seed.clone();
        for _ in 0..=random.below(3) {
            damage(&mut bytes, seeds, &mut random);
        }
        check(&bytes);
    }
}

fn damage(bytes: &mut Vec<u8>, seeds: &[(String, Vec<u8>)], random: &mut Random) {
    let at = random.below(bytes.len());
    let length = (1 + random.below(16)).min(bytes.len() - at);
    match random.below(7) {
        // Flipped bits.
        0 | 1 => {
            for _ in 0..=random.below(8) {
                let at = random.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
        // Lengths and counts at their limits.
        2 => bytes[at..at + length].fill([0, 1, 0x7f, 0x80, 0xff, b'9'][random.below(6)]),
        // A digit or a byte one further.
        3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = byte.wrapping_add(if random.below(2) == 0 { 1 } else { 255 });
            }
        }
        // An end too early.
        4 => bytes.truncate(at),
        // A part twice, or not at all.
        5 => {
            let part = bytes[at..at + length].to_vec();
            match random.below(2) {
                0 => drop(bytes.splice(at..at, part)),
                _ => drop(bytes.drain(at..at + length)),
            }
        }
        // The end of another file.
        _ => {
            let (_, other) = &seeds[random.below(seeds.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len())..]);
        }
    }
}
