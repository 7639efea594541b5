//! The markers before the scan: what the picture is and which tables it uses.

use crate::unsupported::Unsupported;

/// Samples on a side of a block.
pub(crate) const BLOCK_SIDE: usize = 8;

/// Where the coefficient that is transmitted `k`-th lies in a block stored row by row.
pub(crate) const NATURAL_FROM_ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, //
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28, //
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, //
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// How many samples the chroma planes have.
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

/// A Huffman table as the file defines it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HuffmanSpec<'a> {
    /// How many codes there are of 1, 2, … 16 bits.
    pub(crate) counts: [u8; 16],
    /// Their symbols, shortest code first.
    pub(crate) symbols: &'a [u8],
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

/// A component in a frame header.
#[derive(Clone, Copy, Debug)]
struct Declared {
    id: u8,
    horizontal: u8,
    vertical: u8,
    quantisation: u8,
}

/// A frame header.
struct Start {
    width: usize,
    height: usize,
    components: Vec<Declared>,
}

/// What is collected on the way to the scan.
#[derive(Default)]
struct Tables<'a> {
    quantisation: [Option<[u16; 64]>; 4],
    dc: [Option<HuffmanSpec<'a>>; 4],
    ac: [Option<HuffmanSpec<'a>>; 4],
    restart_interval: usize,
    is_jfif: bool,
    adobe_transform: Option<u8>,
}

impl<'a> Frame<'a> {
    /// Reads the markers from the start of the file to the first scan.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Unsupported> {
        let mut rest = bytes.strip_prefix(&[0xff, 0xd8]).ok_or(Unsupported::Header)?;
        let mut tables = Tables::default();
        let mut start: Option<Start> = None;
        loop {
            let (code, segment, behind) = next_segment(rest)?;
            rest = behind;
            match code {
                // SOF0 and SOF1.
                0xc0 | 0xc1 if start.is_none() => start = Some(read_start(segment)?),
                0xc4 => tables.read_huffman(segment)?,
                // The other frame types, DAC among them; a second frame is a hierarchical one.
                0xc0..=0xcf => return Err(Unsupported::Process),
                0xda => {
                    let start = start.ok_or(Unsupported::Header)?;
                    return Self::from_scan(&start, &tables, segment, rest);
                }
                0xdb => tables.read_quantisation(segment)?,
                0xdd => match segment {
                    [high, low] => {
                        tables.restart_interval = usize::from(u16::from_be_bytes([*high, *low]));
                    }
                    _ => return Err(Unsupported::Header),
                },
                0xe0 => tables.is_jfif |= segment.len() >= 14 && segment.starts_with(b"JFIF\0"),
                0xee if segment.len() >= 12 && segment.starts_with(b"Adobe") => {
                    tables.adobe_transform = Some(segment[11]);
                }
                // Other applications, and comments.
                0xe0..=0xef | 0xfe => {}
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

/// The code of the next marker in `bytes`, its segment without the length, and the bytes behind it.
///
/// PARITY: bytes before the marker are stepped over, as libjpeg does.
fn next_segment(mut bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), Unsupported> {
    let rest = loop {
        let at = bytes.iter().position(|&byte| byte == 0xff).ok_or(Unsupported::Header)?;
        let mut rest = &bytes[at + 1..];
        // Any number of fill bytes may stand before a code.
        while let [0xff, behind @ ..] = rest {
            rest = behind;
        }
        match rest {
            [0, behind @ ..] => bytes = behind,
            _ => break rest,
        }
    };
    let [code, high, low, rest @ ..] = rest else {
        return Err(Unsupported::Header);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    // The markers without a segment (TEM, RSTn, SOI, EOI) have no business here. Their next
    // bytes were taken for a length, but the caller refuses them before it goes on.
    let length = length.checked_sub(2).ok_or(Unsupported::Header)?;
    let (segment, behind) = rest.split_at_checked(length).ok_or(Unsupported::Header)?;
    Ok((*code, segment, behind))
}

fn read_start(segment: &[u8]) -> Result<Start, Unsupported> {
    let [precision, height_high, height_low, width_high, width_low, count, rest @ ..] = segment
    else {
        return Err(Unsupported::Header);
    };
    if *precision != 8 {
        return Err(Unsupported::Process);
    }
    let height = usize::from(u16::from_be_bytes([*height_high, *height_low]));
    let width = usize::from(u16::from_be_bytes([*width_high, *width_low]));
    // A height of zero announces that a DNL marker will tell it.
    if width == 0 || height == 0 || rest.len() != usize::from(*count) * 3 {
        return Err(Unsupported::Header);
    }
    let components: Vec<Declared> = rest
        .chunks_exact(3)
        .map(|bytes| Declared {
            id: bytes[0],
            horizontal: bytes[1] >> 4,
            vertical: bytes[1] & 15,
            quantisation: bytes[2],
        })
        .collect();
    Ok(Start { width, height, components })
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

impl<'a> Tables<'a> {
    fn read_quantisation(&mut self, mut segment: &[u8]) -> Result<(), Unsupported> {
        while let Some((&kind, rest)) = segment.split_first() {
            let slot = self.quantisation.get_mut(usize::from(kind & 15));
            let slot = slot.ok_or(Unsupported::Header)?;
            let bytes_per_step = match kind >> 4 {
                0 => 1,
                1 => 2,
                _ => return Err(Unsupported::Header),
            };
            let Some((steps, rest)) = rest.split_at_checked(64 * bytes_per_step) else {
                return Err(Unsupported::Header);
            };
            let mut table = [0; 64];
            for (to, from) in table.iter_mut().zip(steps.chunks_exact(bytes_per_step)) {
                *to = from.iter().fold(0, |sum, &byte| sum << 8 | u16::from(byte));
            }
            if table.contains(&0) {
                return Err(Unsupported::Header);
            }
            *slot = Some(table);
            segment = rest;
        }
        Ok(())
    }

    fn read_huffman(&mut self, mut segment: &'a [u8]) -> Result<(), Unsupported> {
        while let Some((&kind, rest)) = segment.split_first() {
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(Unsupported::Header),
            };
            let slot = tables.get_mut(usize::from(kind & 15)).ok_or(Unsupported::Header)?;
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(Unsupported::Header)?;
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, rest) = rest.split_at_checked(total).ok_or(Unsupported::Header)?;
            if total > 256 {
                return Err(Unsupported::Header);
            }
            *slot = Some(HuffmanSpec { counts: *counts, symbols });
            segment = rest;
        }
        Ok(())
    }
}
