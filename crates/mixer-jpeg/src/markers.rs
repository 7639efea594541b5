//! Markers and their segments: tables, the frame header, what applications say of colours.

use crate::unsupported::Unsupported;

/// A Huffman table as the file defines it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HuffmanSpec<'a> {
    /// Number of codes of 1, 2, … 16 bits.
    pub(crate) counts: [u8; 16],
    /// Their symbols, shortest code first.
    pub(crate) symbols: &'a [u8],
}

/// A component in a frame header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declared {
    pub(crate) id: u8,
    pub(crate) horizontal: u8,
    pub(crate) vertical: u8,
    pub(crate) quantisation: u8,
}

/// A frame header.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) components: Vec<Declared>,
}

impl Start {
    /// Reads a segment SOFn.
    pub(crate) fn read(segment: &[u8]) -> Result<Self, Unsupported> {
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
        Ok(Self { width, height, components })
    }
}

/// The code of the next marker in `bytes`, and the bytes behind it.
///
/// PARITY: bytes before the marker are stepped over, as libjpeg does.
pub(crate) fn next_marker(mut bytes: &[u8]) -> Option<(u8, &[u8])> {
    loop {
        let at = bytes.iter().position(|&byte| byte == 0xff)?;
        let mut rest = &bytes[at + 1..];
        // Any number of fill bytes may stand before a code.
        while let [0xff, behind @ ..] = rest {
            rest = behind;
        }
        match rest {
            [0, behind @ ..] => bytes = behind,
            [code, behind @ ..] => return Some((*code, behind)),
            [] => return None,
        }
    }
}

/// The segment of a marker, without its length, and the bytes behind it.
pub(crate) fn segment(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)).checked_sub(2)?)
}

/// Tables and settings that are collected on the way to a scan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables<'a> {
    /// Quantisation steps in the order of transmission.
    pub(crate) quantisation: [Option<[u16; 64]>; 4],
    pub(crate) dc: [Option<HuffmanSpec<'a>>; 4],
    pub(crate) ac: [Option<HuffmanSpec<'a>>; 4],
    /// MCUs from one restart marker to the next; zero without restart markers.
    pub(crate) restart_interval: usize,
    pub(crate) is_jfif: bool,
    pub(crate) adobe_transform: Option<u8>,
}

impl<'a> Tables<'a> {
    /// Takes over what a segment says; `false` where it is of another kind.
    pub(crate) fn read(&mut self, code: u8, segment: &'a [u8]) -> Result<bool, Unsupported> {
        match code {
            0xc4 => self.read_huffman(segment)?,
            0xdb => self.read_quantisation(segment)?,
            0xdd => match segment {
                [high, low] => {
                    self.restart_interval = usize::from(u16::from_be_bytes([*high, *low]));
                }
                _ => return Err(Unsupported::Header),
            },
            0xe0 => self.is_jfif |= segment.len() >= 14 && segment.starts_with(b"JFIF\0"),
            0xee if segment.len() >= 12 && segment.starts_with(b"Adobe") => {
                self.adobe_transform = Some(segment[11]);
            }
            // Other applications, and comments.
            0xe0..=0xef | 0xfe => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

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
