//! One scan of possibly several: which coefficients of which components it tells, to which bit.
//!
//! PARITY: damage is passed over as libjpeg passes over it. A code that does not exist is a zero, data
//! that end are zeros, and a restart marker is looked for by its rules.

use super::coefficients::Coefficients;
use crate::bits::BitReader;
use crate::frame::NATURAL_FROM_ZIGZAG;
use crate::huffman::SymbolTable;
use crate::markers::{HuffmanSpec, Tables, next_marker};
use crate::pixels::Kernels;
use crate::refusal::Refusal;
use crate::scan::Block;

/// The most blocks of an MCU.
const MAX_BLOCKS: usize = 10;

/// The finest bit that a scan may begin with.
const MAX_LOW_BIT: u8 = 13;

/// Part of each block that a scan tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// All of it.
    Sequential,
    /// The upper bits of DC.
    DcFirst,
    /// One more bit of DC.
    DcRefined,
    /// The upper bits of a band of AC.
    AcFirst,
    /// One more bit of a band of AC.
    AcRefined,
}

/// A component of a scan, with the codes of its blocks.
struct Member {
    component: usize,
    /// Blocks of it in an MCU of this scan.
    across: usize,
    down: usize,
    dc: Option<SymbolTable>,
    ac: Option<SymbolTable>,
    prediction: i32,
}

/// End of a scan.
pub(crate) struct ScanEnd<'a> {
    /// From the next marker on, or stray data before it.
    pub(crate) rest: &'a [u8],
    /// No bit was asked for that the data do not have.
    pub(crate) is_whole: bool,
}

/// A scan, ready to be decoded.
pub(crate) struct Scan {
    kind: Kind,
    members: Vec<Member>,
    /// The band, in the order of transmission.
    from: usize,
    to: usize,
    /// The last bit that it tells.
    low: u8,
    /// Blocks of the band that are still to come without a coefficient.
    empty_blocks: u32,
    restart_interval: usize,
}

impl Scan {
    /// Reads the header of a scan, and takes its tables over.
    pub(crate) fn new(
        segment: &[u8],
        tables: &Tables<'_>,
        is_progressive: bool,
        components: &mut [Coefficients],
    ) -> Result<Self, Refusal> {
        const MALFORMED: Refusal = Refusal::Header("the header of a scan is malformed");
        let (&count, rest) = segment.split_first().ok_or(MALFORMED)?;
        let (selectors, spectral) =
            rest.split_at_checked(usize::from(count) * 2).ok_or(MALFORMED)?;
        let [from, to, bits] = *spectral else { return Err(MALFORMED) };
        let (high, low) = (bits >> 4, bits & 15);
        let (kind, from, to, low) = match (is_progressive, from, high) {
            // PARITY: libjpeg only warns of other bands in sequential files.
            (false, ..) => (Kind::Sequential, 0, 63, 0),
            (true, 0, 0) => (Kind::DcFirst, 0, to, low),
            (true, 0, _) => (Kind::DcRefined, 0, to, low),
            (true, _, 0) => (Kind::AcFirst, from, to, low),
            (true, ..) => (Kind::AcRefined, from, to, low),
        };
        let is_band = match kind {
            Kind::Sequential => true,
            Kind::DcFirst | Kind::DcRefined => to == 0,
            Kind::AcFirst | Kind::AcRefined => from <= to && to < 64 && count == 1,
        };
        if !is_band || low > MAX_LOW_BIT || (high > 0 && is_progressive && high - 1 != low) {
            return Err(MALFORMED);
        }
        let (from, to) = (usize::from(from), usize::from(to));

        let mut members: Vec<Member> = Vec::new();
        for selector in selectors.chunks_exact(2) {
            let id = selector[0];
            let component = components.iter().position(|part| part.declared.id == id);
            let component = component.ok_or(MALFORMED)?;
            if members.iter().any(|member| member.component == component) {
                return Err(MALFORMED);
            }
            let part = &mut components[component];
            part.latch(&tables.quantisation)?;
            part.tell(from, to, low);
            let table = |tables: &[Option<HuffmanSpec<'_>>; 4], number: u8| {
                let spec = tables.get(usize::from(number)).copied().flatten();
                let spec = spec.ok_or(Refusal::Header("a Huffman table is missing"))?;
                SymbolTable::new(&spec)
                    .map_err(|_| Refusal::Header("a Huffman table is malformed"))
                    .map(Some)
            };
            let is_interleaved = count > 1;
            members.push(Member {
                component,
                across: if is_interleaved { usize::from(part.declared.horizontal) } else { 1 },
                down: if is_interleaved { usize::from(part.declared.vertical) } else { 1 },
                dc: match kind {
                    Kind::Sequential | Kind::DcFirst => table(&tables.dc, selector[1] >> 4)?,
                    _ => None,
                },
                ac: match kind {
                    Kind::DcFirst | Kind::DcRefined => None,
                    _ => table(&tables.ac, selector[1] & 15)?,
                },
                prediction: 0,
            });
        }
        let blocks: usize = members.iter().map(|member| member.across * member.down).sum();
        if members.is_empty() || blocks > MAX_BLOCKS {
            return Err(MALFORMED);
        }
        let restart_interval = tables.restart_interval;
        Ok(Self { kind, members, from, to, low, empty_blocks: 0, restart_interval })
    }

    /// `true` where samples depend on it: those that are the means of blocks do not on AC. Its data may be
    /// passed over like those before any marker.
    pub(crate) fn is_seen(&self, components: &[Coefficients]) -> bool {
        let is_ac = matches!(self.kind, Kind::AcFirst | Kind::AcRefined);
        !is_ac || self.members.iter().any(|member| components[member.component].side > 1)
    }

    /// Decodes the data of the scan into `components`, of a picture of `mcus` across and down.
    pub(crate) fn decode<'a, K: Kernels>(
        &mut self,
        kernels: K,
        data: &'a [u8],
        mcus: (usize, usize),
        components: &mut [Coefficients],
    ) -> Result<ScanEnd<'a>, Refusal> {
        kernels.run(
            #[inline(always)]
            || self.walk(data, mcus, components),
        )
    }

    /// Goes through the MCUs of the scan.
    #[inline(always)]
    fn walk<'a>(
        &mut self,
        data: &'a [u8],
        mcus: (usize, usize),
        components: &mut [Coefficients],
    ) -> Result<ScanEnd<'a>, Refusal> {
        let (across, down) = match &self.members[..] {
            [alone] => components[alone.component].used_blocks(),
            _ => mcus,
        };
        let mut reader = BitReader::new(data);
        let (mut is_whole, mut lost, mut restarts) = (true, 0, 0u8);
        let mut until_restart = self.restart_interval;
        for row in 0..down {
            for column in 0..across {
                if self.restart_interval > 0 {
                    if until_restart == 0 {
                        is_whole &= reader.check().is_ok();
                        reader = BitReader::new(behind_restart(reader.rest(), restarts));
                        restarts = restarts.wrapping_add(1);
                        until_restart = self.restart_interval;
                        self.empty_blocks = 0;
                        self.members.iter_mut().for_each(|member| member.prediction = 0);
                        lost = 0;
                    }
                    until_restart -= 1;
                }
                if reader.check().is_err() {
                    lost += 1;
                    continue;
                }
                for at in 0..self.members.len() {
                    let (blocks_across, blocks_down) =
                        (self.members[at].across, self.members[at].down);
                    let part = &mut components[self.members[at].component];
                    for y in row * blocks_down..(row + 1) * blocks_down {
                        for x in column * blocks_across..(column + 1) * blocks_across {
                            self.block(at, &mut reader, part.block_mut(y, x));
                        }
                    }
                }
            }
        }
        is_whole &= reader.check().is_ok();
        // Some blocks at the end are what a flipped bit before them leaves. More is another picture.
        match (lost > across, next_marker(reader.rest())) {
            (true, None) => Err(Refusal::Truncated),
            (true, Some(_)) => Err(Refusal::Data),
            (false, _) => Ok(ScanEnd { rest: reader.rest(), is_whole }),
        }
    }

    #[inline(always)]
    fn block(&mut self, member: usize, reader: &mut BitReader<'_>, block: &mut Block) {
        let Member { dc, ac, prediction, .. } = &mut self.members[member];
        let low = self.low;
        match (self.kind, dc, ac) {
            (Kind::Sequential, Some(dc), Some(ac)) => {
                *prediction = prediction.wrapping_add(difference(dc, reader));
                block[0] = *prediction as i16;
                band(ac, reader, block, (1, 63, 0), None);
            }
            (Kind::DcFirst, Some(dc), _) => {
                *prediction = prediction.wrapping_add(difference(dc, reader));
                block[0] = (*prediction << low) as i16;
            }
            (Kind::DcRefined, ..) => block[0] |= i16::from(reader.bit()) << low,
            (Kind::AcFirst, _, Some(ac)) => {
                let empty_blocks = Some(&mut self.empty_blocks);
                band(ac, reader, block, (self.from, self.to, low), empty_blocks);
            }
            (Kind::AcRefined, _, Some(ac)) => {
                refine(ac, reader, block, (self.from, self.to, low), &mut self.empty_blocks);
            }
            // Each kind has its tables.
            _ => {}
        }
    }
}

/// The next `count` bits, at most 16: those behind a symbol are there already.
#[inline(always)]
fn take(reader: &mut BitReader<'_>, count: u32) -> i32 {
    let bits = (reader.peek() >> 1) >> (63 - count);
    reader.skip(count);
    bits as i32
}

/// The next symbol; leaves at least 39 bits available.
#[inline(always)]
fn symbol(table: &SymbolTable, reader: &mut BitReader<'_>) -> u8 {
    reader.refill();
    let (length, symbol) = table.find(reader.peek());
    reader.skip(length);
    symbol
}

/// A value of `count` bits: those that begin with a zero are a negative number's, one's complement.
#[inline(always)]
fn value(reader: &mut BitReader<'_>, count: u32) -> i32 {
    let bits = take(reader, count);
    if count > 0 && bits >> (count - 1) == 0 { bits - (1 << count) + 1 } else { bits }
}

/// The difference of a DC coefficient from the one before.
#[inline(always)]
fn difference(table: &SymbolTable, reader: &mut BitReader<'_>) -> i32 {
    let count = symbol(table, reader);
    value(reader, u32::from(count).min(16))
}

/// Place of the coefficient that is transmitted `k`-th. Runs of damaged data lead beyond the last.
#[inline(always)]
fn position(k: usize) -> usize {
    usize::from(NATURAL_FROM_ZIGZAG[k.min(63)])
}

/// Reads the coefficients of a band for the first time.
///
/// `empty_blocks` are those that are still to come without one; in a sequential scan each block has an
/// end of its own.
#[inline(always)]
fn band(
    table: &SymbolTable,
    reader: &mut BitReader<'_>,
    block: &mut Block,
    (from, to, low): (usize, usize, u8),
    mut empty_blocks: Option<&mut u32>,
) {
    if let Some(empty_blocks) = &mut empty_blocks
        && **empty_blocks > 0
    {
        **empty_blocks -= 1;
        return;
    }
    let mut k = from;
    while k <= to {
        let symbol = symbol(table, reader);
        let (zeros, bits) = (symbol >> 4, u32::from(symbol & 15));
        if bits > 0 {
            k += usize::from(zeros);
            block[position(k)] = (value(reader, bits) << low) as i16;
            k += 1;
        } else if zeros == 15 {
            k += 16;
        } else {
            if let Some(empty_blocks) = empty_blocks {
                *empty_blocks = (1 << zeros) - 1 + take(reader, u32::from(zeros)).cast_unsigned();
            }
            return;
        }
    }
}

/// Reads one more bit of the coefficients of a band, and the new ones that it makes.
#[inline(always)]
fn refine(
    table: &SymbolTable,
    reader: &mut BitReader<'_>,
    block: &mut Block,
    (from, to, low): (usize, usize, u8),
    empty_blocks: &mut u32,
) {
    let one = 1i16 << low;
    let correct = |coefficient: &mut i16, reader: &mut BitReader<'_>| {
        if reader.bit() && *coefficient & one == 0 {
            let change = if *coefficient >= 0 { one } else { -one };
            *coefficient = coefficient.wrapping_add(change);
        }
    };
    let mut k = from;
    while *empty_blocks == 0 && k <= to {
        let symbol = symbol(table, reader);
        let (mut zeros, bits) = (symbol >> 4, symbol & 15);
        let new = match (bits, zeros) {
            (0, 15) => 0,
            (0, _) => {
                *empty_blocks = (1 << zeros) + take(reader, u32::from(zeros)).cast_unsigned();
                break;
            }
            _ if reader.bit() => one,
            _ => -one,
        };
        while k <= to {
            let coefficient = &mut block[position(k)];
            if *coefficient != 0 {
                correct(coefficient, reader);
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            k += 1;
        }
        if new != 0 {
            block[position(k)] = new;
        }
        k += 1;
    }
    if *empty_blocks > 0 {
        for k in k..=to {
            let coefficient = &mut block[position(k)];
            if *coefficient != 0 {
                correct(coefficient, reader);
            }
        }
        *empty_blocks -= 1;
    }
}

/// The data behind the restart marker of this number, or those at which to go on without it.
///
/// PARITY: libjpeg's `jpeg_resync_to_restart`: a marker that is one or two too early was lost before, and
/// is passed over; one that is one or two late stays for later; any other is taken for this one.
fn behind_restart(mut data: &[u8], number: u8) -> &[u8] {
    while let Some((code, behind)) = next_marker(data) {
        if code < 0xc0 {
            data = behind;
            continue;
        }
        if !(0xd0..=0xd7).contains(&code) {
            break;
        }
        match code.wrapping_sub(number) & 7 {
            // Nothing but the marker itself is left before it.
            1 | 2 => break,
            6 | 7 => data = behind,
            _ => return behind,
        }
    }
    // Where the next marker is, there are no data.
    next_marker(data).map_or(&[], |(_, behind)| &data[data.len() - behind.len() - 2..])
}
