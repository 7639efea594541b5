//! The coefficients of a component, which scans fill in.

use crate::frame::{BLOCK_SIDE, NATURAL_FROM_ZIGZAG};
use crate::markers::Declared;
use crate::refusal::Refusal;
use crate::scale::Scale;
use crate::scan::Block;

/// Bits of a coefficient that are missing where no scan has told it.
const NOT_SENT: u8 = u8::MAX;

/// Coefficients that are smoothed by libjpeg where they are not fully known: DC and the first of AC.
const SMOOTHED: usize = 10;

/// A component and its coefficients, as far as scans have told them.
pub(crate) struct Coefficients {
    pub(crate) declared: Declared,
    /// Samples that are made of a block, on a side.
    pub(crate) side: usize,
    /// Size of the component, samples that are made.
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Pixels that are made to one of the component, in a row and in a column.
    pub(crate) steps: (usize, usize),
    /// The steps of quantisation, in natural order; of the first scan with the component.
    pub(crate) quantisation: Option<[u16; 64]>,
    /// Bits that are missing of each coefficient, in the order of transmission.
    missing_bits: [u8; 64],
    /// Blocks in a row and in a column: whole MCUs.
    across: usize,
    down: usize,
    /// Row by row, each in natural order; empty until there is to be one.
    coefficients: Vec<i16>,
}

impl Coefficients {
    /// Those of a component in a picture of `mcus` across and down, without memory yet.
    ///
    /// `most` are the largest factors of all components.
    pub(crate) fn new(
        declared: Declared,
        (width, height): (usize, usize),
        most: (usize, usize),
        mcus: (usize, usize),
        scale: Scale,
    ) -> Result<Self, Refusal> {
        let (across, down) = (usize::from(declared.horizontal), usize::from(declared.vertical));
        if !most.0.is_multiple_of(across) || !most.1.is_multiple_of(down) {
            return Err(Refusal::Sampling);
        }
        let (side, steps) = scale.component((most.0 / across, most.1 / down));
        Ok(Self {
            declared,
            side,
            width: (width * across * side).div_ceil(most.0 * BLOCK_SIDE),
            height: (height * down * side).div_ceil(most.1 * BLOCK_SIDE),
            steps,
            quantisation: None,
            missing_bits: [NOT_SENT; 64],
            across: mcus.0 * across,
            down: mcus.1 * down,
            coefficients: Vec::new(),
        })
    }

    /// Takes the memory, all zero.
    pub(crate) fn allocate(&mut self) {
        self.coefficients = vec![0; self.across * self.down * BLOCK_SIDE * BLOCK_SIDE];
    }

    /// The block in a row and a column.
    #[inline(always)]
    pub(crate) fn block_mut(&mut self, row: usize, column: usize) -> &mut Block {
        let (blocks, _) = self.coefficients.as_chunks_mut();
        &mut blocks[row * self.across + column]
    }

    /// The rows of blocks.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[Block]> {
        let (blocks, _) = self.coefficients.as_chunks();
        blocks.chunks_exact(self.across)
    }

    /// Blocks that hold samples of the picture, in a row and in a column.
    pub(crate) fn used_blocks(&self) -> (usize, usize) {
        (self.width.div_ceil(self.side), self.height.div_ceil(self.side))
    }

    /// Keeps the steps of quantisation that are in force at the component's first scan.
    pub(crate) fn latch(&mut self, tables: &[Option<[u16; 64]>; 4]) -> Result<(), Refusal> {
        if self.quantisation.is_some() {
            return Ok(());
        }
        let table = tables.get(usize::from(self.declared.quantisation)).copied().flatten();
        let table = table.ok_or(Refusal::Header("a quantisation table is missing"))?;
        let mut natural = [0; 64];
        for (step, position) in table.into_iter().zip(NATURAL_FROM_ZIGZAG) {
            natural[usize::from(position)] = step;
        }
        self.quantisation = Some(natural);
        Ok(())
    }

    /// Notes that a scan tells the coefficients `from` to `to` but for the last `bits`.
    pub(crate) fn tell(&mut self, from: usize, to: usize, bits: u8) {
        self.missing_bits[from..=to].fill(bits);
    }

    /// Refuses what libjpeg would guess: components and coefficients that no scan has told in full.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        match self.missing_bits[..SMOOTHED] {
            [NOT_SENT, ..] => Err(Refusal::Header("a component is in no scan")),
            ref bits if bits.iter().any(|&bits| bits > 0) => Err(Refusal::Unfinished),
            _ => Ok(()),
        }
    }
}
