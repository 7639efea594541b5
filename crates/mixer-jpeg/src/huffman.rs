//! Huffman codes as look-up tables.

use crate::markers::HuffmanSpec;
use crate::unsupported::Unsupported;

/// Codes of up to this many bits are found in one look-up.
///
/// The tables are built anew for every file. Ten bits leave few codes to the slow way, cost little
/// to fill and stay in the first-level cache.
pub(crate) const LOOKUP_BITS: u32 = 10;

const LOOKUP_LEN: usize = 1 << LOOKUP_BITS;

/// A code and the value bits behind it, as found under the next bits of the data.
///
/// | bits | |
/// |---|---|
/// | 0–7 | length of code and value together |
/// | 8–15 | length of the code |
/// | 16–23 | 63 less the length of the value |
/// | 24–30 | zeros before the coefficient |
/// | 31 | set if it is no value: end of block, 16 zeros, not in the table, or no code at all |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Code(u32);

impl Code {
    const SPECIAL: u32 = 1 << 31;
    /// Not in the table: a longer code, or none.
    const MISSING: Self = Self(Self::SPECIAL);

    fn value(code_bits: u32, zeros: u32, value_bits: u32) -> Self {
        Self(zeros << 24 | (63 - value_bits) << 16 | code_bits << 8 | (code_bits + value_bits))
    }

    /// Bits of code and value together.
    #[inline(always)]
    pub(crate) fn total_bits(self) -> u32 {
        self.0 & 0xff
    }

    /// A count of bits to step over for [`BitReader::skip`](crate::bits::BitReader::skip), which
    /// ignores what else is in the word.
    #[inline(always)]
    pub(crate) fn step(self) -> u32 {
        self.0
    }

    fn code_bits(self) -> u32 {
        self.0 >> 8 & 0xff
    }

    /// Zeros before the coefficient.
    #[inline(always)]
    pub(crate) fn zeros(self) -> usize {
        (self.0 >> 24 & 0x7f) as usize
    }

    #[inline(always)]
    pub(crate) fn is_special(self) -> bool {
        self.0 & Self::SPECIAL != 0
    }

    /// `true` where a special code is the end of a block.
    #[inline(always)]
    pub(crate) fn is_end_of_block(self) -> bool {
        self.zeros() == 0 && self.total_bits() != 0
    }

    /// The value, given the next bits of the data from the top: its own bits stand behind the code,
    /// and those that begin with a zero are a negative number's, one's complement.
    #[inline(always)]
    pub(crate) fn extract(self, next_bits: u64) -> i32 {
        let bits = next_bits.wrapping_shl(self.0 >> 8);
        let negative = !(bits.cast_signed() >> 63);
        let magnitude = ((bits ^ negative.cast_unsigned()) >> 1).wrapping_shr(self.0 >> 16);
        // At most 15 bits.
        (magnitude as i32 ^ negative as i32) - negative as i32
    }
}

/// No code consists of ones alone, as the standard says: there is room for one more.
const NO_ONES: u32 = 1;

/// Codes of all lengths; which symbols mean what is decided when they become a [`Code`].
#[derive(Clone)]
struct Canonical {
    /// Counts of the codes that were built, if they were built to the end.
    counts: Option<[u8; 16]>,
    /// For each length, the first 16 bits that are no code of it or a shorter one.
    limits: [u32; 17],
    /// For each length, what to add to a code to find its symbol.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Default for Canonical {
    fn default() -> Self {
        Self { counts: None, limits: [0; 17], offsets: [0; 17], symbols: [0; 256] }
    }
}

impl Canonical {
    /// `true` where these are the codes that are there.
    ///
    /// Encoders that do not count symbols all use the tables of the standard's annex K.
    fn is_of(&self, spec: &HuffmanSpec<'_>) -> bool {
        self.counts == Some(spec.counts) && self.symbols.starts_with(spec.symbols)
    }

    /// Assigns codes that leave room for `spare` more of each length, and calls `each` with every one of at most [`LOOKUP_BITS`] bits: its length,
    /// itself, and its symbol.
    fn build(
        &mut self,
        spec: &HuffmanSpec<'_>,
        spare: u32,
        mut each: impl FnMut(u32, usize, u8),
    ) -> Result<(), Unsupported> {
        self.counts = None;
        let (mut code, mut position) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(&spec.counts) {
            let count = u32::from(count);
            if count > 0 && code + count + spare > 1 << length {
                return Err(Unsupported::Header);
            }
            self.offsets[length as usize] = position as i32 - code as i32;
            if length <= LOOKUP_BITS {
                let symbols = spec.symbols.iter().skip(position).take(count as usize);
                for (code, &symbol) in (code as usize..).zip(symbols) {
                    each(length, code, symbol);
                }
            }
            code += count;
            position += count as usize;
            self.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        for (to, &from) in self.symbols.iter_mut().zip(spec.symbols) {
            *to = from;
        }
        self.counts = Some(spec.counts);
        Ok(())
    }

    /// The length and symbol of a code of more than [`LOOKUP_BITS`] bits.
    fn find_long(&self, next_bits: u64) -> Option<(u32, u8)> {
        let next = (next_bits >> 48) as u32;
        if next < self.limits[LOOKUP_BITS as usize] {
            return None;
        }
        let length = (LOOKUP_BITS + 1..=16).find(|&length| next < self.limits[length as usize])?;
        let code = (next >> (16 - length)) as i32;
        let position = usize::try_from(code + self.offsets[length as usize]).ok()?;
        Some((length, *self.symbols.get(position)?))
    }
}

fn fill(lookup: &mut [Code; LOOKUP_LEN], length: u32, code: usize, entry: Code) {
    let spread = LOOKUP_BITS - length;
    let first = code << spread;
    if let Some(entries) = lookup.get_mut(first..first + (1 << spread)) {
        entries.fill(entry);
    }
}

/// The codes of differences between DC coefficients.
#[derive(Clone)]
pub(crate) struct DcTable {
    lookup: [Code; LOOKUP_LEN],
    canonical: Canonical,
}

impl Default for DcTable {
    fn default() -> Self {
        Self { lookup: [Code::MISSING; LOOKUP_LEN], canonical: Canonical::default() }
    }
}

impl DcTable {
    /// 8-bit pictures have differences of at most 11 bits; longer ones stay missing.
    fn code(length: u32, symbol: u8) -> Code {
        match symbol {
            0..=11 => Code::value(length, 0, u32::from(symbol)),
            _ => Code::MISSING,
        }
    }

    /// Makes the table, unless it or the one of another component is the same.
    pub(crate) fn build(
        &mut self,
        spec: &HuffmanSpec<'_>,
        other: Option<&Self>,
    ) -> Result<(), Unsupported> {
        if self.canonical.is_of(spec) {
            return Ok(());
        }
        if let Some(other) = other.filter(|other| other.canonical.is_of(spec)) {
            self.clone_from(other);
            return Ok(());
        }
        let Self { lookup, canonical } = self;
        lookup.fill(Code::MISSING);
        canonical.build(spec, NO_ONES, |length, code, symbol| {
            fill(lookup, length, code, Self::code(length, symbol));
        })
    }

    /// The code that the next bits begin with; special if it is none.
    #[inline(always)]
    pub(crate) fn find(&self, next_bits: u64) -> Code {
        let code = self.lookup[(next_bits >> (64 - LOOKUP_BITS)) as usize];
        if code.is_special() { self.find_long(next_bits) } else { code }
    }

    #[cold]
    #[inline(never)]
    fn find_long(&self, next_bits: u64) -> Code {
        let found = self.canonical.find_long(next_bits);
        found.map_or(Code::MISSING, |(length, symbol)| Self::code(length, symbol))
    }
}

/// As many AC symbols as fit into [`LOOKUP_BITS`] bits of code, for stepping over them.
///
/// | bits | |
/// |---|---|
/// | 0–7 | length of all codes and values |
/// | 8–14 | how many coefficients they tell |
/// | 15 | set if they end the block |
///
/// If there is not even one, more coefficients than a block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stride(u16);

impl Stride {
    const ENDS_BLOCK: u16 = 1 << 15;
    const NONE: Self = Self(127 << 8);

    #[inline(always)]
    pub(crate) fn step(self) -> u32 {
        u32::from(self.0)
    }

    /// One if it ends the block, else zero.
    #[inline(always)]
    pub(crate) fn ends_block(self) -> usize {
        usize::from(self.0 >> 15)
    }

    #[inline(always)]
    pub(crate) fn coefficients(self) -> usize {
        usize::from(self.0 >> 8 & 0x7f)
    }
}

/// The codes of AC coefficients.
#[derive(Clone)]
pub(crate) struct AcTable {
    lookup: [Code; LOOKUP_LEN],
    strides: [Stride; LOOKUP_LEN],
    canonical: Canonical,
}

impl Default for AcTable {
    fn default() -> Self {
        Self {
            lookup: [Code::MISSING; LOOKUP_LEN],
            strides: [Stride::NONE; LOOKUP_LEN],
            canonical: Canonical::default(),
        }
    }
}

impl AcTable {
    fn code(length: u32, symbol: u8) -> Code {
        let (zeros, value_bits) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        match (zeros, value_bits) {
            (0 | 15, 0) => Code(Code::SPECIAL | zeros << 24 | length << 8 | length),
            // Only progressive scans have other codes without a value.
            (_, 0) => Code::MISSING,
            _ => Code::value(length, zeros, value_bits),
        }
    }

    /// Makes the table, unless it or the one of another component is the same.
    pub(crate) fn build(
        &mut self,
        spec: &HuffmanSpec<'_>,
        other: Option<&Self>,
    ) -> Result<(), Unsupported> {
        if self.canonical.is_of(spec) {
            return Ok(());
        }
        if let Some(other) = other.filter(|other| other.canonical.is_of(spec)) {
            self.clone_from(other);
            return Ok(());
        }
        let Self { lookup, canonical, .. } = self;
        lookup.fill(Code::MISSING);
        canonical.build(spec, NO_ONES, |length, code, symbol| {
            fill(lookup, length, code, Self::code(length, symbol));
        })?;
        self.build_strides();
        Ok(())
    }

    fn build_strides(&mut self) {
        for (bits, stride) in self.strides.iter_mut().enumerate() {
            let (mut length, mut coefficients, mut end) = (0, 0, 0);
            while length < LOOKUP_BITS {
                let code = self.lookup[bits << length & (LOOKUP_LEN - 1)];
                let is_known = length + code.code_bits() <= LOOKUP_BITS;
                if code.is_special() {
                    if code.is_end_of_block() && is_known {
                        length += code.total_bits();
                        end = Stride::ENDS_BLOCK;
                    }
                    break;
                }
                if !is_known {
                    break;
                }
                length += code.total_bits();
                coefficients += code.zeros() as u16 + 1;
            }
            // A code has at least one bit and so has its value: at most five values, 80 coefficients
            // and 9 + 1 + 15 bits.
            *stride = match length {
                0 => Stride::NONE,
                _ => Stride(end | coefficients << 8 | length as u16),
            };
        }
    }

    /// The code that the next bits begin with, as far as one look-up tells.
    #[inline(always)]
    pub(crate) fn find(&self, next_bits: u64) -> Code {
        self.lookup[(next_bits >> (64 - LOOKUP_BITS)) as usize]
    }

    /// The symbols that the next bits begin with.
    #[inline(always)]
    pub(crate) fn find_stride(&self, next_bits: u64) -> Stride {
        self.strides[(next_bits >> (64 - LOOKUP_BITS)) as usize]
    }

    /// The code that [`AcTable::find`] does not have; [`Code::total_bits`] is zero if there is none.
    #[cold]
    #[inline(never)]
    pub(crate) fn find_long(&self, next_bits: u64) -> Code {
        let found = self.canonical.find_long(next_bits);
        found.map_or(Code::MISSING, |(length, symbol)| Self::code(length, symbol))
    }
}

/// Codes of whatever symbols a scan has.
pub(crate) struct SymbolTable {
    /// Length and symbol; the length is zero where no code is so short.
    lookup: [(u8, u8); LOOKUP_LEN],
    canonical: Canonical,
}

impl SymbolTable {
    /// PARITY: libjpeg takes a code of ones alone too.
    pub(crate) fn new(spec: &HuffmanSpec<'_>) -> Result<Self, Unsupported> {
        let mut lookup = [(0, 0); LOOKUP_LEN];
        let mut canonical = Canonical::default();
        canonical.build(spec, 0, |length, code, symbol| {
            let spread = LOOKUP_BITS - length;
            let first = code << spread;
            if let Some(entries) = lookup.get_mut(first..first + (1 << spread)) {
                entries.fill((length as u8, symbol));
            }
        })?;
        Ok(Self { lookup, canonical })
    }

    /// The length and the symbol of the code that the next bits begin with.
    ///
    /// PARITY: where there is none, libjpeg has looked at 17 bits, and goes on with a zero.
    #[inline(always)]
    pub(crate) fn find(&self, next_bits: u64) -> (u32, u8) {
        match self.lookup[(next_bits >> (64 - LOOKUP_BITS)) as usize] {
            (0, _) => self.find_long(next_bits),
            (length, symbol) => (u32::from(length), symbol),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_long(&self, next_bits: u64) -> (u32, u8) {
        self.canonical.find_long(next_bits).unwrap_or((17, 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts of codes that leave room for one of ones alone, and their symbols.
    fn table() -> impl Strategy<Value = ([u8; 16], Vec<u8>)> {
        let wanted = prop::array::uniform16(0u8..12);
        (wanted, prop::collection::vec(any::<u8>(), 256)).prop_map(|(wanted, symbols)| {
            let (mut code, mut total) = (0u32, 0u32);
            let mut counts = [0; 16];
            for (length, (count, wanted)) in (1u32..).zip(counts.iter_mut().zip(wanted)) {
                let room = ((1 << length) - 1u32).saturating_sub(code).min(256 - total);
                // Half of the room at most, so that longer codes occur.
                *count = u32::from(wanted).min(room / 2) as u8;
                total += u32::from(*count);
                code = (code + u32::from(*count)) << 1;
            }
            (counts, symbols[..total as usize].to_vec())
        })
    }

    /// The length and symbol of the first code in `bits`, found bit by bit.
    fn find_slowly(counts: [u8; 16], symbols: &[u8], bits: u64) -> Option<(u32, u8)> {
        let (mut first, mut position) = (0, 0);
        for (length, &count) in (1u32..).zip(&counts) {
            let code = (bits >> (64 - length)) as usize;
            if code < first + usize::from(count) {
                return Some((length, symbols[position + code - first]));
            }
            position += usize::from(count);
            first = (first + usize::from(count)) << 1;
        }
        None
    }

    proptest! {
        #[test]
        fn look_ups_find_what_a_walk_bit_by_bit_finds(
            (counts, symbols) in table(), bits in prop::collection::vec(any::<u64>(), 50),
        ) {
            let mut table = AcTable::default();
            table.build(&HuffmanSpec { counts, symbols: &symbols }, None).unwrap();
            for bits in bits {
                let code = table.find(bits);
                let code = if code.total_bits() == 0 { table.find_long(bits) } else { code };
                let expected = find_slowly(counts, &symbols, bits)
                    .map_or(Code::MISSING, |(length, symbol)| AcTable::code(length, symbol));
                prop_assert_eq!(code, expected);
            }
        }

        #[test]
        fn a_stride_is_several_codes_at_once(
            (counts, symbols) in table(), bits in prop::collection::vec(any::<u64>(), 50),
        ) {
            let mut table = AcTable::default();
            table.build(&HuffmanSpec { counts, symbols: &symbols }, None).unwrap();
            for bits in bits {
                let stride = table.find_stride(bits);
                if stride == Stride::NONE {
                    let code = table.find(bits);
                    prop_assert!(code.is_special() && !code.is_end_of_block());
                    continue;
                }
                let total = stride.step() & 0xff;
                let (mut at, mut coefficients, mut ended) = (0, 0, 0);
                while at < total {
                    let code = table.find(bits << at);
                    at += code.total_bits();
                    prop_assert!(code.total_bits() > 0);
                    if code.is_special() {
                        prop_assert!(code.is_end_of_block());
                        ended = 1;
                        break;
                    }
                    coefficients += code.zeros() + 1;
                }
                prop_assert_eq!((at, coefficients, ended),
                    (total, stride.coefficients(), stride.ends_block()));
                prop_assert!(at < 64);
            }
        }
    }

    #[test]
    fn values_are_ones_complement() {
        let three_bits = Code::value(2, 0, 3);
        let extract = |value: u64| three_bits.extract(0b10 << 62 | value << 59 | 1 << 58);
        let values: Vec<i32> = (0..8).map(extract).collect();
        assert_eq!(values, [-7, -6, -5, -4, 4, 5, 6, 7]);
        assert_eq!(Code::value(2, 0, 0).extract(u64::MAX), 0);
        assert_eq!(Code::value(2, 0, 0).extract(0), 0);
    }

    #[test]
    fn tables_are_kept_and_shared_only_where_they_are_the_same() {
        let spec = |symbols: &'static [u8]| {
            let mut counts = [0; 16];
            counts[3] = symbols.len() as u8;
            HuffmanSpec { counts, symbols }
        };
        let found = |table: &AcTable| (table.find(0), table.find(1 << 60), table.find_stride(0));
        let fresh = |symbols| {
            let mut table = AcTable::default();
            table.build(&spec(symbols), None).unwrap();
            found(&table)
        };
        let (mut kept, mut other) = (AcTable::default(), AcTable::default());
        for symbols in [&[1, 2][..], &[1, 2], &[2, 1], &[2, 1, 3], &[2, 1]] {
            kept.build(&spec(symbols), None).unwrap();
            other.build(&spec(symbols), Some(&kept)).unwrap();
            assert_eq!((found(&kept), found(&other)), (fresh(symbols), fresh(symbols)));
        }
        let mut too_many = spec(&[1, 2]);
        too_many.counts[0] = 2;
        assert!(kept.build(&too_many, None).is_err());
        kept.build(&spec(&[2, 1]), None).unwrap();
        assert_eq!(found(&kept), fresh(&[2, 1]));
    }

    #[test]
    fn more_codes_than_there_is_room_for_are_refused() {
        let build = |first: u8, second: u8| {
            let mut counts = [0; 16];
            counts[..2].copy_from_slice(&[first, second]);
            let symbols = vec![1; usize::from(first + second)];
            AcTable::default().build(&HuffmanSpec { counts, symbols: &symbols }, None)
        };
        assert_eq!(build(1, 1), Ok(()));
        assert_eq!(build(0, 3), Ok(()));
        assert_eq!(build(1, 2), Err(Unsupported::Header), "the last would be ones alone");
        assert_eq!(build(2, 0), Err(Unsupported::Header));
        assert_eq!(build(0, 200), Err(Unsupported::Header));
    }
}
