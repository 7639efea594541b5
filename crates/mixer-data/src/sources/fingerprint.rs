//! A hash of what a data set consists of.

use crate::order::random::mix;

/// Hashes bytes and numbers in order, the same on every machine.
///
/// FNV-1a over the bytes, finished by a mixer. It tells data sets apart; it does not withstand an
/// attacker.
pub(crate) struct Fingerprint {
    state: u64,
}

impl Fingerprint {
    pub(crate) fn new() -> Self {
        Self { state: 0xcbf2_9ce4_8422_2325 }
    }

    /// Adds a string, with its length so that neighbouring strings cannot trade letters.
    pub(crate) fn string(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes()).number(text.len() as u64)
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    /// The hash of everything added so far.
    pub(crate) fn finish(&self) -> u64 {
        mix(self.state)
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
            self.state = (self.state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }
}
