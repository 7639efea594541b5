//! Blocks of entropy-coded data: decoded where their pixels are wanted, else stepped over.

use crate::bits::BitReader;
use crate::frame::{Component, NATURAL_FROM_ZIGZAG};
use crate::huffman::{AcTable, Code, DcTable};
use crate::unsupported::Unsupported;

/// A block of dequantised coefficients, row by row.
pub(crate) type Block = [i16; 64];

/// Dequantised coefficients beyond ±this are taken for damage.
///
/// Eight bits give at most ±1024 and rounding to a multiple of the step little more. With this limit
/// the first pass of the inverse DCT cannot overflow, where implementations differ.
const MAX_COEFFICIENT: i32 = 2047;

#[inline(always)]
fn check_range(coefficient: i32) -> Result<i16, Unsupported> {
    match (-MAX_COEFFICIENT..=MAX_COEFFICIENT).contains(&coefficient) {
        true => Ok(coefficient as i16),
        false => Err(Unsupported::Data),
    }
}

/// Place of a coefficient and its factor: the step above eight bits of position.
///
/// Runs of zeros lead at most 15 places beyond the last coefficient; the loops notice that only
/// afterwards, so that the table is longer.
struct Steps([u32; 128]);

impl Steps {
    #[inline(always)]
    fn get(&self, zigzag: usize) -> (usize, i32) {
        let step = self.0[zigzag & 127];
        ((step & 63) as usize, (step >> 8).cast_signed())
    }
}

/// The tables of one component.
pub(crate) struct BlockCoding {
    dc: DcTable,
    ac: AcTable,
    steps: Steps,
}

impl Default for BlockCoding {
    fn default() -> Self {
        Self { dc: DcTable::default(), ac: AcTable::default(), steps: Steps([0; 128]) }
    }
}

/// Result of [`BlockCoding::decode`].
pub(crate) enum Decoded {
    /// All coefficients but this one are zero; the block is not written.
    Flat(i16),
    /// The coefficients are in the block.
    Detailed,
}

impl BlockCoding {
    /// Makes the tables of a component. The two of chroma mostly share theirs: `other` is that of the
    /// component before.
    pub(crate) fn build(
        &mut self,
        component: &Component<'_>,
        other: Option<&Self>,
    ) -> Result<(), Unsupported> {
        self.dc.build(&component.dc, other.map(|other| &other.dc))?;
        self.ac.build(&component.ac, other.map(|other| &other.ac))?;
        let natural = component.quantisation.iter().zip(NATURAL_FROM_ZIGZAG);
        for (to, (&step, position)) in self.steps.0.iter_mut().zip(natural) {
            *to = u32::from(step) << 8 | u32::from(position);
        }
        Ok(())
    }

    /// Reads the DC coefficient; leaves at least 29 bits available.
    #[inline(always)]
    fn decode_dc(
        &self,
        reader: &mut BitReader<'_>,
        prediction: &mut i32,
    ) -> Result<(), Unsupported> {
        reader.refill();
        let code = self.dc.find(reader.peek());
        if code.is_special() {
            return Err(Unsupported::Data);
        }
        *prediction = prediction.wrapping_add(code.extract(reader.peek()));
        reader.skip(code.step());
        Ok(())
    }

    /// Replaces a code that one look-up does not find by the long code that it is.
    #[inline(always)]
    fn resolve(&self, code: Code, reader: &mut BitReader<'_>) -> Result<Code, Unsupported> {
        if code.total_bits() != 0 {
            return Ok(code);
        }
        // Up to 31 bits.
        reader.refill();
        let code = self.ac.find_long(reader.peek());
        if code.total_bits() == 0 { Err(Unsupported::Data) } else { Ok(code) }
    }

    /// Decodes a block.
    #[inline(always)]
    pub(crate) fn decode(
        &self,
        reader: &mut BitReader<'_>,
        prediction: &mut i32,
        block: &mut Block,
    ) -> Result<Decoded, Unsupported> {
        self.decode_dc(reader, prediction)?;
        let dc = self.dc(*prediction)?;

        let first = self.ac.find(reader.peek());
        if first.is_special() && first.is_end_of_block() {
            reader.skip(first.step());
            return Ok(Decoded::Flat(dc));
        }

        *block = [0; 64];
        block[0] = dc;
        let mut zigzag = 1;
        // At most 25 bits go in one step, or are there after a step that refilled by itself: one
        // refill is enough for two.
        loop {
            zigzag = self.decode_ac(reader, zigzag, block)?;
            if zigzag >= 64 {
                break;
            }
            reader.refill();
            zigzag = self.decode_ac(reader, zigzag, block)?;
            if zigzag >= 64 {
                break;
            }
        }
        if zigzag > 64 { Err(Unsupported::Data) } else { Ok(Decoded::Detailed) }
    }

    /// The DC coefficient of the block that was read or stepped over last.
    #[inline(always)]
    pub(crate) fn dc(&self, prediction: i32) -> Result<i16, Unsupported> {
        let (_, step) = self.steps.get(0);
        check_range(prediction.wrapping_mul(step))
    }

    /// Reads a code, and a coefficient if it has one. Returns the place of the next coefficient: 64
    /// at the end of the block, more if it went beyond.
    #[inline(always)]
    fn decode_ac(
        &self,
        reader: &mut BitReader<'_>,
        zigzag: usize,
        block: &mut Block,
    ) -> Result<usize, Unsupported> {
        let mut code = self.ac.find(reader.peek());
        if code.is_special() {
            code = self.resolve(code, reader)?;
            if code.is_special() {
                reader.skip(code.step());
                if code.is_end_of_block() {
                    return Ok(64);
                }
                reader.refill();
                // A value must follow: zeros cannot end the block.
                return if zigzag + 16 < 64 { Ok(zigzag + 16) } else { Err(Unsupported::Data) };
            }
        }
        let zigzag = zigzag + code.zeros();
        let (position, step) = self.steps.get(zigzag);
        let coefficient = code.extract(reader.peek()) * step;
        reader.skip(code.step());
        block[position] = check_range(coefficient)?;
        Ok(zigzag + 1)
    }

    /// Steps over a block, but for its part in the prediction of the next.
    #[inline(always)]
    pub(crate) fn skip(
        &self,
        reader: &mut BitReader<'_>,
        prediction: &mut i32,
    ) -> Result<(), Unsupported> {
        self.decode_dc(reader, prediction)?;
        let mut zigzag = 1;
        // As in `decode`.
        loop {
            zigzag = self.skip_ac(reader, zigzag)?;
            if zigzag >= 64 {
                break;
            }
            reader.refill();
            zigzag = self.skip_ac(reader, zigzag)?;
            if zigzag >= 64 {
                break;
            }
        }
        if zigzag > 64 { Err(Unsupported::Data) } else { Ok(()) }
    }

    /// Reads several codes at once, or one, and returns what [`BlockCoding::decode_ac`] does.
    #[inline(always)]
    fn skip_ac(&self, reader: &mut BitReader<'_>, zigzag: usize) -> Result<usize, Unsupported> {
        let stride = self.ac.find_stride(reader.peek());
        let reached = zigzag + stride.coefficients();
        // Behind the last coefficient no end is coded: what the table took for AC codes there
        // belongs to the next block.
        if reached + stride.ends_block() <= 64 {
            reader.skip(stride.step());
            return Ok(if stride.ends_block() != 0 { 64 } else { reached });
        }
        let code = self.resolve(self.ac.find(reader.peek()), reader)?;
        reader.skip(code.step());
        if !code.is_special() {
            return Ok(zigzag + code.zeros() + 1);
        }
        if code.is_end_of_block() {
            return Ok(64);
        }
        reader.refill();
        if zigzag + 16 < 64 { Ok(zigzag + 16) } else { Err(Unsupported::Data) }
    }
}
