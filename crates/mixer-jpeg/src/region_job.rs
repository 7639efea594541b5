//! The way through a file for one rectangle: which blocks it needs, and when its rows are complete.

use std::ops::Range;

use crate::bits::BitReader;
use crate::frame::{BLOCK_SIDE, Frame};
use crate::pixels::Kernels;
use crate::plane::{Pending, Plane, fill_flat};
use crate::portable::Rounding;
use crate::region::Region;
use crate::scale::Scale;
use crate::scan::{BlockCoding, Decoded};
use crate::unsupported::Unsupported;

/// Chroma that changes nothing: grey is decoded as YCbCr with this.
const NEUTRAL: u8 = 128;

/// PARITY: libjpeg repeats samples instead of filtering them in components of at most this width.
pub(crate) const MAX_UNFILTERED_WIDTH: usize = 2;

/// A rectangle that lies inside its picture.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    columns: Range<usize>,
    rows: Range<usize>,
}

impl Window {
    pub(crate) fn new(
        frame: &Frame<'_>,
        scale: Scale,
        region: Region,
    ) -> Result<Self, Unsupported> {
        let range = |start: u32, length: u32, limit: usize| {
            let limit = limit.div_ceil(scale.denominator() as usize);
            let end = (start as usize).checked_add(length as usize)?;
            (length > 0 && end <= limit).then_some(start as usize..end)
        };
        let columns = range(region.left, region.width, frame.width);
        let rows = range(region.top, region.height, frame.height);
        match (columns, rows) {
            (Some(columns), Some(rows)) => Ok(Self { columns, rows }),
            _ => Err(Unsupported::Region),
        }
    }
}

/// The samples of a component that is `step` times coarser which pixels depend on, of `length`.
fn coarse(pixels: &Range<usize>, step: usize, is_filtered: bool, length: usize) -> Range<usize> {
    let nearest = pixels.start / step..(pixels.end - 1) / step + 1;
    match is_filtered {
        true => nearest.start.saturating_sub(1)..(nearest.end + 1).min(length),
        false => nearest,
    }
}

/// Decoding one rectangle.
pub(crate) struct Job<'a> {
    frame: &'a Frame<'a>,
    window: Window,
    codings: &'a [BlockCoding; 3],
    planes: Vec<Plane>,
    /// Pixels to one sample of chroma, in a row and in a column.
    chroma_steps: (usize, usize),
    /// Pixels in a column of an MCU.
    mcu_height: usize,
    /// `true` where chroma goes through the triangle filter when it is enlarged.
    is_filtered: bool,
    samples: &'a mut [u8],
    chroma_rows: &'a mut [Vec<u8>; 2],
}

impl<'a> Job<'a> {
    pub(crate) fn new(
        frame: &'a Frame<'a>,
        scale: Scale,
        window: Window,
        codings: &'a [BlockCoding; 3],
        samples: &'a mut Vec<u8>,
        chroma_rows: &'a mut [Vec<u8>; 2],
    ) -> Self {
        let blocks = frame.sampling.chroma_steps();
        let (side, (chroma_side, chroma_steps)) = (scale.side(), scale.component(blocks));
        let (across, down) = chroma_steps;
        // Of samples where a block of the whole picture has `side` of them for `blocks` of luma.
        let size = |blocks: (usize, usize), side: usize| {
            let length =
                |pixels: usize, blocks: usize| (pixels * side).div_ceil(blocks * BLOCK_SIDE);
            (length(frame.width, blocks.0), length(frame.height, blocks.1))
        };
        let (width, height) = size(blocks, chroma_side);
        let is_filtered = scale.is_filtered() && width > MAX_UNFILTERED_WIDTH;
        let (columns, rows) = (window.columns.clone(), window.rows.clone());

        samples.clear();
        let mut planes = vec![Plane::new(blocks, side, size((1, 1), side), columns, rows, samples)];
        for _ in &frame.components[1..] {
            let columns = coarse(&window.columns, across, is_filtered && across > 1, width);
            let rows = coarse(&window.rows, down, is_filtered && down > 1, height);
            planes.push(Plane::new((1, 1), chroma_side, (width, height), columns, rows, samples));
        }
        let enlarged = (window.columns.end - 1) / across + 1 - window.columns.start / across;
        for row in &mut *chroma_rows {
            row.clear();
            row.resize(enlarged * across, NEUTRAL);
        }
        let mcu_height = blocks.1 * side;
        Self {
            frame,
            window,
            codings,
            planes,
            chroma_steps,
            mcu_height,
            is_filtered,
            samples,
            chroma_rows,
        }
    }

    /// Decodes into `out`, which is resized to fit.
    pub(crate) fn run<K: Kernels>(
        mut self,
        kernels: K,
        out: &mut Vec<u8>,
    ) -> Result<(), Unsupported> {
        let bytes = self.window.columns.len() * self.window.rows.len() * 3;
        out.resize(bytes, 0);
        kernels.run(
            #[inline(always)]
            || self.scan(kernels, out),
        )
    }

    /// Goes through the scan, row of MCUs by row of MCUs.
    #[inline(always)]
    fn scan<K: Kernels>(&mut self, kernels: K, out: &mut [u8]) -> Result<(), Unsupported> {
        let (across, _) = self.frame.sampling.chroma_steps();
        let mcus_per_row = self.frame.width.div_ceil(across * BLOCK_SIDE);
        let first_wanted = self.planes.iter().map(|plane| plane.mcu_rows().start).min();
        let end = self.planes.iter().map(|plane| plane.mcu_rows().end).max();
        let (first_wanted, end) = (first_wanted.unwrap_or(0), end.unwrap_or(0));
        let first_column = self.planes.iter().map(|plane| plane.mcu_columns().start).min();
        let end_column = self.planes.iter().map(|plane| plane.mcu_columns().end).max();
        let columns = first_column.unwrap_or(0)..end_column.unwrap_or(0);

        let mut reader = BitReader::new(self.frame.scan);
        let mut predictions = [0; 3];
        let mut pending: [Pending; 3] = std::array::from_fn(|at| {
            Pending::new(self.planes.get(at).map_or(BLOCK_SIDE, |plane| plane.side))
        });
        let mut restarts = 0u8;
        let mut until_restart = self.frame.restart_interval;
        // Whether the reader already is behind the next marker, because nothing before it is wanted.
        let mut jumped = false;
        let mut done = self.window.rows.start;
        for mcu_row in 0..end {
            let is_wanted = mcu_row >= first_wanted;
            if is_wanted {
                self.planes.iter().for_each(|plane| plane.carry(self.samples));
            }
            for mcu in 0..mcus_per_row {
                if self.frame.restart_interval > 0 {
                    if until_restart == 0 {
                        if !jumped {
                            reader = reader.restarted(restarts).ok_or(Unsupported::Data)?;
                            restarts = restarts.wrapping_add(1);
                        }
                        jumped = false;
                        predictions = [0; 3];
                        until_restart = self.frame.restart_interval;
                    }
                    if !jumped {
                        // From here to the next marker.
                        let until_wanted = if is_wanted && mcu < columns.end {
                            columns.start.saturating_sub(mcu)
                        } else {
                            let rows = first_wanted.saturating_sub(mcu_row + 1);
                            mcus_per_row - mcu + rows * mcus_per_row + columns.start
                        };
                        let until_end = (end - mcu_row) * mcus_per_row - mcu;
                        jumped = until_wanted >= until_restart.min(until_end);
                        // Behind what is wanted there may be no marker any more.
                        if jumped && until_restart < until_end {
                            reader = reader.at_next_restart(restarts).ok_or(Unsupported::Data)?;
                            restarts = restarts.wrapping_add(1);
                        }
                    }
                    until_restart -= 1;
                    if jumped {
                        continue;
                    }
                }
                let components = self.planes.iter().zip(self.codings);
                for ((plane, coding), (prediction, pending)) in
                    components.zip(predictions.iter_mut().zip(&mut pending))
                {
                    for down in 0..plane.blocks_down {
                        let row = mcu_row * plane.blocks_down + down;
                        let is_wanted = is_wanted && plane.rows.contains(&row);
                        for across in 0..plane.blocks_across {
                            let column = mcu * plane.blocks_across + across;
                            let is_seen = is_wanted && plane.columns.contains(&column);
                            if !is_seen || plane.side == 1 {
                                coding.skip(&mut reader, prediction)?;
                                if is_seen {
                                    let dc = coding.dc(*prediction)?;
                                    let target = plane.target(down, column);
                                    fill_flat(dc, plane.side, target, self.samples);
                                }
                                continue;
                            }
                            let target = plane.target(down, column);
                            match coding.decode(&mut reader, prediction, pending.next())? {
                                Decoded::Flat(dc) => {
                                    fill_flat(dc, plane.side, target, self.samples);
                                }
                                Decoded::Detailed => pending.push(kernels, target, self.samples),
                            }
                        }
                    }
                }
                reader.check()?;
            }
            if is_wanted {
                pending.iter_mut().for_each(|pending| pending.finish(kernels, self.samples));
                self.planes.iter().for_each(|plane| plane.extend_edges(self.samples));
                let ready = match mcu_row + 1 == end {
                    true => self.window.rows.end,
                    false => self.complete_rows(mcu_row),
                };
                while done < ready {
                    self.emit(kernels, mcu_row, done, out);
                    done += 1;
                }
            }
        }
        Ok(())
    }

    /// End of the rows that nothing below a row of MCUs contributes to.
    fn complete_rows(&self, mcu_row: usize) -> usize {
        let (_, down) = self.chroma_steps;
        let decoded = (mcu_row + 1) * self.mcu_height;
        // The filter mixes the last row with the next one's chroma.
        let complete = if self.is_filtered && down > 1 { decoded - 1 } else { decoded };
        complete.min(self.window.rows.end)
    }

    /// Writes a row of pixels.
    #[inline(always)]
    fn emit<K: Kernels>(&mut self, kernels: K, mcu_row: usize, row: usize, out: &mut [u8]) {
        let columns = self.window.columns.clone();
        let out_row = columns.len() * 3;
        let out = &mut out[(row - self.window.rows.start) * out_row..][..out_row];
        let samples = &*self.samples;
        let luma = self.planes[0].row(samples, mcu_row, row, columns.clone());

        let (across, down) = self.chroma_steps;
        if let ([_, cb, cr], (1, 1)) = (&*self.planes, self.chroma_steps) {
            let cb = cb.row(samples, mcu_row, row, columns.clone());
            let cr = cr.row(samples, mcu_row, row, columns);
            kernels.colour(luma, cb, cr, out);
            return;
        }
        let nearest = coarse(&columns, across, false, usize::MAX);
        for (plane, enlarged) in self.planes[1..].iter().zip(&mut *self.chroma_rows) {
            let near = row / down;
            if !self.is_filtered {
                let few = plane.row(samples, mcu_row, near, nearest.clone());
                for (pair, &sample) in enlarged.chunks_exact_mut(2).zip(few) {
                    pair.fill(sample);
                }
                continue;
            }
            let (far, rounding) = match (down, row % 2) {
                (1, _) => (near, Rounding::WIDTH),
                (_, 0) => (near.saturating_sub(1), Rounding::BOTH),
                (_, _) => (near + 1, Rounding::BOTH),
            };
            let near = plane.row_with_neighbours(samples, mcu_row, near, nearest.clone());
            let far = plane.row_with_neighbours(samples, mcu_row, far, nearest.clone());
            kernels.upsample(near, far, rounding, enlarged);
        }
        // An odd column is the second of a pair.
        let first = columns.start % across;
        let [cb, cr] = &*self.chroma_rows;
        let enlarged = first..first + columns.len();
        kernels.colour(luma, &cb[enlarged.clone()], &cr[enlarged], out);
    }
}
