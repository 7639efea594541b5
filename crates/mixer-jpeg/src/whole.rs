//! Whole JPEGs of every Huffman-coded process: any number of scans, any sampling, any colours.

mod assembly;
mod coefficients;
mod progression;

use assembly::{Colours, assemble};
use coefficients::Coefficients;
use progression::Scan;

use crate::frame::BLOCK_SIDE;
use crate::header::Header;
use crate::markers::{Declared, Start, Tables, next_marker, segment};
use crate::pixels::Kernels;
use crate::refusal::Refusal;
use crate::scale::Scale;
use crate::standard_tables;
use crate::unsupported::Unsupported;

/// The most scans that are read: usual are up to some tens, and each is a walk over all blocks.
const MAX_SCANS: usize = 500;

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// A JPEG that is decoded whole, read up to its frame header.
pub struct Picture<'a> {
    start: Start,
    is_progressive: bool,
    tables: Tables<'a>,
    /// Behind the frame header.
    rest: &'a [u8],
}

/// A marker, its segment, and what is behind.
type Found<'a> = (u8, &'a [u8], &'a [u8]);

/// The next marker, with a segment if it has one.
fn find(bytes: &[u8]) -> Result<Found<'_>, Refusal> {
    let (code, behind) = next_marker(bytes).ok_or(Refusal::Truncated)?;
    match code {
        // TEM, restart markers, starts and ends.
        0x01 | 0xd0..=0xd9 => Ok((code, &[], behind)),
        _ => {
            let (segment, behind) = segment(behind).ok_or(Refusal::Truncated)?;
            Ok((code, segment, behind))
        }
    }
}

impl<'a> Picture<'a> {
    /// Reads the markers up to the frame header.
    ///
    /// The size is what the file claims: see [`read_header`](crate::read_header).
    ///
    /// # Errors
    /// When the header is malformed, or of a kind that is not decoded.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let not_a_jpeg = Refusal::Header("it does not begin like a JPEG");
        let mut rest = bytes.strip_prefix(&[0xff, 0xd8]).ok_or(not_a_jpeg)?;
        let mut tables = Tables::default();
        loop {
            let (code, segment, behind) = find(rest)?;
            rest = behind;
            match code {
                0xc0..=0xc2 => {
                    let (start, is_progressive) = (read_start(segment)?, code == 0xc2);
                    // PARITY: libjpeg knows those that the standard has, for sequential frames.
                    if !is_progressive {
                        let known = standard_tables::DC.into_iter().zip(standard_tables::AC);
                        let slots = tables.dc.iter_mut().zip(&mut tables.ac);
                        for ((dc, ac), (known_dc, known_ac)) in slots.zip(known) {
                            dc.get_or_insert(known_dc);
                            ac.get_or_insert(known_ac);
                        }
                    }
                    return Ok(Self { start, is_progressive, tables, rest });
                }
                0xc3 => return Err(Refusal::Process("a lossless")),
                0xc5..=0xc7 | 0xde => return Err(Refusal::Process("a hierarchical")),
                0xc9..=0xcb | 0xcd..=0xcf => return Err(Refusal::Process("an arithmetic-coded")),
                START_OF_SCAN => {
                    return Err(Refusal::Header("a scan comes before the frame header"));
                }
                END_OF_IMAGE => return Err(Refusal::Header("it has no picture")),
                _ => take_over(&mut tables, code, segment)?,
            }
        }
    }

    /// The size that the header has.
    pub fn header(&self) -> Header {
        // Both come from 16 bits.
        Header { width: self.start.width as u32, height: self.start.height as u32 }
    }

    /// Decodes into `out`, which is resized to fit.
    pub(crate) fn decode<K: Kernels>(
        &self,
        kernels: K,
        scale: Scale,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let (width, height) = (self.start.width, self.start.height);
        let declared = &self.start.components;
        let most =
            |factor: fn(&Declared) -> u8| declared.iter().map(factor).max().map_or(1, usize::from);
        let most = (most(|part| part.horizontal), most(|part| part.vertical));
        let mcus = (width.div_ceil(most.0 * BLOCK_SIDE), height.div_ceil(most.1 * BLOCK_SIDE));
        let components: Result<Vec<_>, _> = declared
            .iter()
            .map(|&part| Coefficients::new(part, (width, height), most, mcus, scale))
            .collect();
        let mut components = components?;
        // A block has at least a bit: memory is taken for no more than the file can hold.
        let blocks = components.iter().map(|part| part.used_blocks()).map(|(x, y)| x * y);
        if blocks.sum::<usize>().div_ceil(8) > self.rest.len() {
            return Err(Refusal::Truncated);
        }
        components.iter_mut().for_each(Coefficients::allocate);

        let mut tables = self.tables.clone();
        let (mut rest, mut scans, mut is_whole) = (self.rest, 0, true);
        let mut colours = Colours::Grey;
        loop {
            let (code, segment, behind) = match find(rest) {
                Ok(found) => found,
                // Nothing but the end marker may be missing, where no scan could go on.
                Err(_) if is_whole && scans > 0 && !self.is_progressive => break,
                Err(error) => return Err(error),
            };
            rest = behind;
            match code {
                START_OF_SCAN if scans == MAX_SCANS => {
                    return Err(Refusal::Header("it has more than 500 scans"));
                }
                START_OF_SCAN => {
                    if scans == 0 {
                        colours = colours_of(declared, &tables)?;
                    }
                    scans += 1;
                    let mut scan =
                        Scan::new(segment, &tables, self.is_progressive, &mut components)?;
                    if scan.is_seen(&components) {
                        let end = scan.decode(kernels, rest, mcus, &mut components)?;
                        (rest, is_whole) = (end.rest, is_whole && end.is_whole);
                    }
                }
                END_OF_IMAGE => break,
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf | 0xde => {
                    return Err(Refusal::Process("a hierarchical"));
                }
                _ => take_over(&mut tables, code, segment)?,
            }
        }
        for component in &components {
            component.check()?;
        }
        let [width, height] =
            [width, height].map(|length| length.div_ceil(scale.denominator() as usize));
        out.clear();
        out.resize(width * height * 3, 0);
        kernels.run(
            #[inline(always)]
            || assemble(kernels, components, colours, scale, width, out),
        );
        Ok(())
    }
}

/// Takes over what a segment says of tables and colours; all others are passed over, as in libjpeg.
fn take_over<'a>(tables: &mut Tables<'a>, code: u8, segment: &'a [u8]) -> Result<(), Refusal> {
    match tables.read(code, segment) {
        Ok(_) => Ok(()),
        Err(_) => Err(Refusal::Header(match code {
            0xc4 => "a Huffman table is malformed",
            0xdb => "a quantisation table is malformed",
            _ => "a restart interval is malformed",
        })),
    }
}

fn read_start(segment: &[u8]) -> Result<Start, Refusal> {
    let start = Start::read(segment).map_err(|error| match (error, segment) {
        (Unsupported::Process, [bits, ..]) => Refusal::Bits(*bits),
        (_, [_, 0, 0, _, _, ..]) => Refusal::Header("its height is not in the frame header"),
        _ => Refusal::Header("the frame header is malformed"),
    })?;
    let parts = &start.components;
    if !matches!(parts.len(), 1 | 3 | 4) {
        return Err(Refusal::Components(parts.len()));
    }
    let is_factor = |factor: u8| (1..=4).contains(&factor);
    if !parts.iter().all(|part| is_factor(part.horizontal) && is_factor(part.vertical)) {
        return Err(Refusal::Header("a sampling factor is not 1 to 4"));
    }
    let has_twin = |at: usize| parts[at + 1..].iter().any(|part| part.id == parts[at].id);
    if (0..parts.len()).any(has_twin) {
        return Err(Refusal::Header("two components have the same identifier"));
    }
    Ok(start)
}

/// Colour space of the components, by all that stands before the first scan.
///
/// PARITY: libjpeg's guesses, in its order.
fn colours_of(components: &[Declared], tables: &Tables<'_>) -> Result<Colours, Refusal> {
    let ids: Vec<u8> = components.iter().map(|part| part.id).collect();
    Ok(match (&ids[..], tables.adobe_transform) {
        ([_], _) => Colours::Grey,
        ([_, _, _], _) if tables.is_jfif => Colours::YCbCr,
        ([_, _, _], Some(0)) | (b"RGB", None) => Colours::Rgb,
        ([_, _, _], _) => Colours::YCbCr,
        ([_, _, _, _], Some(0) | None) => Colours::Cmyk,
        ([_, _, _, _], Some(_)) => Colours::Ycck,
        (ids, _) => return Err(Refusal::Components(ids.len())),
    })
}
