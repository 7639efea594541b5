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
const MAX_COEFFICIENT: i32 = 4095;

/// Whether coefficients stayed in range, from a sum of bits: one test for a block.
#[derive(Clone, Copy, Default)]
struct RangeCheck(u32);

impl RangeCheck {
    #[inline(always)]
    fn add(&mut self, coefficient: i32) {
        self.0 |= coefficient.wrapping_add(MAX_COEFFICIENT + 1).cast_unsigned();
    }

    #[inline(always)]
    fn result(self) -> Result<(), Unsupported> {
        const LIMIT: u32 = 2 * (MAX_COEFFICIENT as u32 + 1);
        if self.0 < LIMIT { Ok(()) } else { Err(Unsupported::Data) }
    }
}

/// Where a coefficient goes and what it is multiplied by: the step above eight bits of position.
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

/// What [`BlockCoding::decode`] found.
pub(crate) enum Decoded {
    /// All coefficients but this one are zero; the block is not written.
    Flat(i16),
    /// The coefficients are in the block.
    Detailed,
}

impl BlockCoding {
    pub(crate) fn build(&mut self, component: &Component<'_>) -> Result<(), Unsupported> {
        self.dc.build(&component.dc)?;
        self.ac.build(&component.ac)?;
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
        let mut range = RangeCheck::default();
        self.decode_dc(reader, prediction)?;
        let (_, step) = self.steps.get(0);
        let dc = prediction.wrapping_mul(step);
        range.add(dc);

        let first = self.ac.find(reader.peek());
        if first.is_special() && first.is_end_of_block() {
            reader.skip(first.step());
            range.result()?;
            return Ok(Decoded::Flat(dc as i16));
        }

        *block = [0; 64];
        block[0] = dc as i16;
        let mut zigzag = 1;
        while zigzag < 64 {
            let mut code = self.ac.find(reader.peek());
            if code.is_special() {
                code = self.resolve(code, reader)?;
                if code.is_special() {
                    reader.skip(code.step());
                    if code.is_end_of_block() {
                        zigzag = 64;
                        break;
                    }
                    zigzag += 16;
                    reader.refill();
                    // A value must follow, so that it cannot be the end.
                    if zigzag >= 64 {
                        return Err(Unsupported::Data);
                    }
                    continue;
                }
            }
            zigzag += code.zeros();
            let (position, step) = self.steps.get(zigzag);
            let coefficient = code.extract(reader.peek()) * step;
            reader.skip(code.step());
            reader.refill();
            range.add(coefficient);
            block[position] = coefficient as i16;
            zigzag += 1;
        }
        if zigzag > 64 {
            return Err(Unsupported::Data);
        }
        range.result()?;
        Ok(Decoded::Detailed)
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
        loop {
            let stride = self.ac.find_stride(reader.peek());
            let reached = zigzag + stride.coefficients();
            // Behind the last coefficient no end is coded: what the table took for AC codes there
            // belongs to the next block.
            if !stride.is_none() && reached + stride.ends_block() <= 64 {
                reader.skip(stride.step());
                if stride.ends_block() != 0 || reached == 64 {
                    return Ok(());
                }
                zigzag = reached;
                reader.refill();
                continue;
            }
            let code = self.resolve(self.ac.find(reader.peek()), reader)?;
            reader.skip(code.step());
            reader.refill();
            if code.is_special() {
                if code.is_end_of_block() {
                    return Ok(());
                }
                zigzag += 16;
            } else {
                zigzag += code.zeros() + 1;
                if zigzag == 64 {
                    return Ok(());
                }
            }
            if zigzag >= 64 {
                return Err(Unsupported::Data);
            }
        }
    }
}
