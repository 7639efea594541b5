//! Facts that a picture must give before its scan, so that a region of it can be decoded.

use crate::markers::{Declared, HuffmanSpec, Start, Tables, next_marker, segment};
use crate::unsupported::Unsupported;

/// Samples on a side of a block.
pub(crate) const BLOCK_SIDE: usize = 8;

/// Place, in a block stored row by row, of the coefficient that is transmitted `k`-th.
pub(crate) const NATURAL_FROM_ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, //
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28, //
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, //
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Number of samples that the chroma planes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sampling {
    /// Luma only.
    Grey,
    /// 4:4:4: as many as luma.
    Full,
    /// 4:2:2: half as many in a row.
    HalfWidth,
    /// 4:2:0: half as many in a row and a column.
    HalfBoth,
}

impl Sampling {
    /// Luma samples to one of chroma, in a row and in a column.
    pub(crate) fn chroma_steps(self) -> (usize, usize) {
        match self {
            Self::Grey | Self::Full => (1, 1),
            Self::HalfWidth => (2, 1),
            Self::HalfBoth => (2, 2),
        }
    }
}

/// A component and the tables its blocks are coded with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Component<'a> {
    /// Quantisation steps in the order of transmission.
    pub(crate) quantisation: [u16; 64],
    pub(crate) dc: HuffmanSpec<'a>,
    pub(crate) ac: HuffmanSpec<'a>,
}

/// Everything the header says that decoding depends on.
#[derive(Clone, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) sampling: Sampling,
    /// One, or three: Y, Cb, Cr.
    pub(crate) components: Vec<Component<'a>>,
    /// MCUs from one restart marker to the next; zero without restart markers.
    pub(crate) restart_interval: usize,
    /// From the first byte of entropy-coded data to the end of the file.
    pub(crate) scan: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the markers from the start of the file to the first scan.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Unsupported> {
        let mut rest = bytes.strip_prefix(&[0xff, 0xd8]).ok_or(Unsupported::Header)?;
        let mut tables = Tables::default();
        let mut start: Option<Start> = None;
        loop {
            let (code, behind) = next_marker(rest).ok_or(Unsupported::Header)?;
            // The markers without a segment (TEM, RSTn, SOI, EOI) have no business here. Their next
            // bytes are taken for a length, but they are refused all the same.
            let (segment, behind) = segment(behind).ok_or(Unsupported::Header)?;
            rest = behind;
            match code {
                // SOF0 and SOF1.
                0xc0 | 0xc1 if start.is_none() => start = Some(Start::read(segment)?),
                0xda => {
                    let start = start.ok_or(Unsupported::Header)?;
                    return Self::from_scan(&start, &tables, segment, rest);
                }
                // The other frame types, DAC among them; a second frame is a hierarchical one.
                0xc0..=0xcf if code != 0xc4 => return Err(Unsupported::Process),
                _ if tables.read(code, segment)? => {}
                _ => return Err(Unsupported::Header),
            }
        }
    }

    fn from_scan(
        start: &Start,
        tables: &Tables<'a>,
        segment: &[u8],
        scan: &'a [u8],
    ) -> Result<Self, Unsupported> {
        let sampling = sampling(&start.components)?;
        check_colour(&start.components, tables)?;

        let (&count, rest) = segment.split_first().ok_or(Unsupported::Header)?;
        if usize::from(count) != start.components.len() {
            return Err(Unsupported::Scans);
        }
        let Some((selectors, spectral)) = rest.split_at_checked(usize::from(count) * 2) else {
            return Err(Unsupported::Header);
        };
        // The whole spectrum at full precision, as sequential scans must say.
        if *spectral != [0, 63, 0] {
            return Err(Unsupported::Header);
        }
        let mut components = Vec::with_capacity(start.components.len());
        for (declared, selector) in start.components.iter().zip(selectors.chunks_exact(2)) {
            if declared.id != selector[0] {
                return Err(Unsupported::Scans);
            }
            let (dc, ac) = (usize::from(selector[1] >> 4), usize::from(selector[1] & 15));
            let found = (
                tables.quantisation.get(usize::from(declared.quantisation)).copied().flatten(),
                tables.dc.get(dc).copied().flatten(),
                tables.ac.get(ac).copied().flatten(),
            );
            let (Some(quantisation), Some(dc), Some(ac)) = found else {
                return Err(Unsupported::Header);
            };
            components.push(Component { quantisation, dc, ac });
        }
        Ok(Self {
            width: start.width,
            height: start.height,
            sampling,
            components,
            restart_interval: tables.restart_interval,
            scan,
        })
    }
}

fn sampling(components: &[Declared]) -> Result<Sampling, Unsupported> {
    match components {
        // Factors of a lone component only say how it would be interleaved.
        [grey] if (1..=4).contains(&grey.horizontal) && (1..=4).contains(&grey.vertical) => {
            Ok(Sampling::Grey)
        }
        [y, cb, cr] => {
            let is_single = |part: &Declared| (part.horizontal, part.vertical) == (1, 1);
            if !is_single(cb) || !is_single(cr) {
                return Err(Unsupported::Sampling);
            }
            match (y.horizontal, y.vertical) {
                (1, 1) => Ok(Sampling::Full),
                (2, 1) => Ok(Sampling::HalfWidth),
                (2, 2) => Ok(Sampling::HalfBoth),
                _ => Err(Unsupported::Sampling),
            }
        }
        [_] => Err(Unsupported::Sampling),
        _ => Err(Unsupported::Colour),
    }
}

/// Refuses three components that might not be YCbCr.
///
/// PARITY: libjpeg takes JFIF as YCbCr, then asks Adobe's marker, then guesses from the identifiers.
/// Here a guess is good only where all of them agree.
fn check_colour(components: &[Declared], tables: &Tables<'_>) -> Result<(), Unsupported> {
    let [first, second, third] = components else {
        return Ok(());
    };
    let ids = [first.id, second.id, third.id];
    if ids[0] == ids[1] || ids[0] == ids[2] || ids[1] == ids[2] {
        return Err(Unsupported::Header);
    }
    let is_ycbcr = match tables.adobe_transform {
        Some(transform) => transform == 1,
        None => tables.is_jfif || ids == [1, 2, 3],
    };
    // Identifiers that spell RGB beside a marker that says YCbCr are a contradiction.
    if !is_ycbcr || ids == *b"RGB" {
        return Err(Unsupported::Colour);
    }
    Ok(())
}
