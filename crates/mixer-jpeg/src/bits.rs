//! Bits of entropy-coded data, with the stuffing taken out.

use crate::unsupported::Unsupported;

/// Reads bits up to the next marker; from there on they are zero, and counted.
///
/// A plain value without heap: loops keep a copy of their own in registers.
#[derive(Clone, Copy)]
pub(crate) struct BitReader<'a> {
    /// Bytes that [`BitReader::refill`] has not taken yet.
    rest: &'a [u8],
    /// The next bits, from the top. Below the first `held` there may already be bits of the bytes
    /// that follow, never others.
    buffer: u64,
    /// Bits of `buffer` that count, below 64.
    held: u32,
    /// Bits, of all handed out or held, that are not the file's.
    invented: u32,
}

impl<'a> BitReader<'a> {
    /// Least number of bits that are there after [`BitReader::refill`].
    pub(crate) const REFILLED: u32 = 56;

    /// A reader of the data behind a scan header.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, buffer: 0, held: 0, invented: 0 }
    }

    /// Makes [`BitReader::REFILLED`] bits available.
    #[inline(always)]
    pub(crate) fn refill(&mut self) {
        if let Some(next) = self.rest.first_chunk::<8>() {
            let word = u64::from_be_bytes(*next);
            if !has_byte_of_ones(word) {
                self.buffer |= word >> self.held;
                // The mask changes nothing, but shows that there are so many.
                self.rest = &self.rest[(63 - self.held as usize) >> 3 & 7..];
                self.held |= 56;
                return;
            }
        }
        *self = self.refilled_bytewise();
    }

    /// [`BitReader::refill`] where a byte `ff` or the end of the data is near.
    ///
    /// Takes and returns a copy: a reader whose address is known elsewhere could not stay in
    /// registers.
    #[cold]
    #[inline(never)]
    fn refilled_bytewise(mut self) -> Self {
        while self.held < Self::REFILLED {
            let byte = match self.rest {
                // A zero is stuffed in behind a data byte `ff`.
                [0xff, 0x00, behind @ ..] => {
                    self.rest = behind;
                    0xff
                }
                [0xff, ..] | [] => {
                    self.invented += 8;
                    0
                }
                [byte, behind @ ..] => {
                    self.rest = behind;
                    *byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.held);
            self.held += 8;
        }
        self
    }

    /// The next bits, from the top. Only those that were made available mean anything.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        self.buffer
    }

    /// Steps over `count` available bits. Only the lowest six bits of `count` are looked at.
    #[inline(always)]
    pub(crate) fn skip(&mut self, count: u32) {
        self.buffer = self.buffer.wrapping_shl(count);
        self.held = self.held.wrapping_sub(count & 63);
    }

    /// The next bit, whether made available or not.
    #[inline(always)]
    pub(crate) fn bit(&mut self) -> bool {
        if self.held == 0 {
            self.refill();
        }
        let is_set = self.buffer >> 63 != 0;
        self.skip(1);
        is_set
    }

    /// Bytes behind the bits that were made available: the next marker, or data before it.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Fails when bits were read that the data do not have.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<(), Unsupported> {
        match self.invented <= self.held {
            true => Ok(()),
            false => Err(Unsupported::Data),
        }
    }

    /// The reader behind the restart marker that must come next, after less than a byte of padding.
    #[cold]
    #[inline(never)]
    pub(crate) fn restarted(mut self, number: u8) -> Option<Self> {
        self.refill();
        let left = self.held.checked_sub(self.invented)?;
        let behind = self.rest.strip_prefix(&[0xff, 0xd0 | (number & 7)])?;
        (left < 8).then(|| Self::new(behind))
    }

    /// The reader behind the next restart marker, with all bits before it unread.
    #[inline(always)]
    pub(crate) fn at_next_restart(self, number: u8) -> Option<Self> {
        let mut rest = self.rest;
        loop {
            rest = rest.get(find_byte_of_ones(rest)?..)?;
            match rest {
                [_, 0x00, behind @ ..] => rest = behind,
                [_, code, behind @ ..] => {
                    return (*code == 0xd0 | (number & 7)).then(|| Self::new(behind));
                }
                _ => return None,
            }
        }
    }
}

/// Place of the first byte `ff`.
#[inline(always)]
fn find_byte_of_ones(bytes: &[u8]) -> Option<usize> {
    let (chunks, _) = bytes.as_chunks::<32>();
    // Without an early end within a chunk, so that it is one comparison of vectors.
    let has_ones = |chunk: &[u8; 32]| chunk.iter().fold(false, |any, &byte| any | (byte == 0xff));
    let clean = chunks.iter().take_while(|chunk| !has_ones(chunk)).count() * 32;
    let rest = bytes.get(clean..)?;
    Some(clean + rest.iter().position(|&byte| byte == 0xff)?)
}

/// `true` where one of the eight bytes is `ff`.
#[inline(always)]
fn has_byte_of_ones(word: u64) -> bool {
    const LOW_BITS: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    // The usual search for a byte of zeros, with the word inverted.
    !word.wrapping_add(LOW_BITS) & word & HIGH_BITS != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(reader: &mut BitReader<'_>, count: u32) -> u64 {
        reader.refill();
        let bits = (reader.peek() >> 1) >> (63 - count);
        reader.skip(count);
        bits
    }

    proptest! {
        #[test]
        fn a_byte_of_ones_is_found(word: u64, at in 0u32..8, plant: bool) {
            let word = if plant { word | 0xff << (at * 8) } else { word };
            prop_assert_eq!(has_byte_of_ones(word), word.to_be_bytes().contains(&0xff));
        }

        #[test]
        fn bits_come_in_order_whatever_the_portions(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..60),
            portions in prop::collection::vec(0u32..=31, 1..60),
        ) {
            let mut stuffed = Vec::new();
            for &byte in &bytes {
                stuffed.push(byte);
                if byte == 0xff {
                    stuffed.push(0);
                }
            }
            stuffed.extend([0xff, 0xd9, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
            let mut reader = BitReader::new(&stuffed);
            let mut position = 0;
            for count in portions {
                let expected = (position..position + count as usize).fold(0, |bits, at| {
                    let byte = bytes.get(at / 8).copied().unwrap_or(0);
                    bits << 1 | u64::from(byte >> (7 - at % 8) & 1)
                });
                prop_assert_eq!(take(&mut reader, count), expected);
                position += count as usize;
                prop_assert_eq!(reader.check().is_ok(), position <= bytes.len() * 8);
            }
        }
    }

    #[test]
    fn a_restart_marker_follows_less_than_a_byte_of_padding() {
        let bytes = [0b1010_1111, 0xff, 0xd3, 0b0110_0000];
        let mut reader = BitReader::new(&bytes);
        assert_eq!(take(&mut reader, 4), 0b1010);
        assert!(reader.restarted(2).is_none(), "another number");
        let mut reader = reader.restarted(3).unwrap();
        assert_eq!(take(&mut reader, 3), 0b011);
        assert!(BitReader::new(&bytes).restarted(3).is_none(), "a whole byte is left over");
    }

    #[test]
    fn the_next_restart_marker_is_found_wherever_it_is() {
        for length in 0..100 {
            for stuffed in 0..=length {
                let mut bytes = vec![0x5a; length];
                bytes.splice(stuffed..stuffed, [0xff, 0x00]);
                bytes.extend([0xff, 0xd3, 0b0110_0000]);
                let mut reader = BitReader::new(&bytes);
                reader.refill();
                assert!(reader.at_next_restart(2).is_none(), "another number");
                let mut reader = reader.at_next_restart(3).unwrap();
                assert_eq!(take(&mut reader, 3), 0b011);
                assert!(reader.at_next_restart(4).is_none(), "the end");
            }
        }
        assert!(BitReader::new(&[0xff]).at_next_restart(0).is_none());
        assert!(BitReader::new(&[0x12, 0xff, 0xd9]).at_next_restart(0).is_none());
    }
}
