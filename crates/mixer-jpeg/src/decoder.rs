//! The interface: a decoder that keeps its working memory.

use crate::frame::Frame;
use crate::pixels::{CodesOnly, Portable};
use crate::refusal::Refusal;
use crate::region::Region;
use crate::region_job::{Job, Window};
use crate::scale::Scale;
use crate::scan::BlockCoding;
use crate::unsupported::Unsupported;
#[cfg(target_arch = "x86_64")]
use crate::vector::Avx2;
use crate::whole::Picture;

/// An implementation of the arithmetic. The pixels are the same.
#[derive(Clone, Copy)]
enum Processor {
    Any,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
}

/// Decodes regions; keeps its working memory from one to the next.
///
/// That is about 35 kB of tables, and samples of one row of MCUs of the widest region so far.
pub struct Decoder {
    processor: Processor,
    codings: Box<[BlockCoding; 3]>,
    samples: Vec<u8>,
    chroma_rows: [Vec<u8>; 2],
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder for this processor.
    pub fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = Avx2::detect() {
            return Self { processor: Processor::Avx2(avx2), ..Self::portable() };
        }
        Self::portable()
    }

    /// A decoder without vector instructions, many times slower, for tests to compare with.
    #[doc(hidden)]
    pub fn portable() -> Self {
        Self {
            processor: Processor::Any,
            codings: Box::default(),
            samples: Vec::new(),
            chroma_rows: [Vec::new(), Vec::new()],
        }
    }

    /// Does of [`Decoder::decode_region`] what no decoder can do without: the tables, and the codes as
    /// far as the region needs them. For measurements of what the rest costs.
    #[doc(hidden)]
    pub fn read_codes(
        &mut self,
        bytes: &[u8],
        region: Region,
        out: &mut Vec<u8>,
    ) -> Result<(), Unsupported> {
        let processor = self.processor;
        let frame = Frame::read(bytes)?;
        let job = self.job(&frame, Scale::Full, region)?;
        match processor {
            Processor::Any => job.run(CodesOnly(Portable), out),
            #[cfg(target_arch = "x86_64")]
            Processor::Avx2(avx2) => job.run(CodesOnly(avx2), out),
        }
    }

    /// Decodes a rectangle of a JPEG to RGB: the same pixels as those of the whole picture there.
    ///
    /// `region` is a part of the picture at `scale`: that of [`Scale::Half`] is half as wide and as high,
    /// rounded up.
    ///
    /// A grey picture has three equal channels. `out` is resized to fit; what it holds after an
    /// error means nothing.
    ///
    /// # Shapes
    /// - `out`: `[region.height, region.width, 3]`
    ///
    /// # Errors
    /// When the file or the region is not for this decoder. What lies behind the region is not
    /// looked at and so cannot be an error.
    pub fn decode_region(
        &mut self,
        bytes: &[u8],
        scale: Scale,
        region: Region,
        out: &mut Vec<u8>,
    ) -> Result<(), Unsupported> {
        let processor = self.processor;
        let frame = Frame::read(bytes)?;
        let job = self.job(&frame, scale, region)?;
        match processor {
            Processor::Any => job.run(Portable, out),
            #[cfg(target_arch = "x86_64")]
            Processor::Avx2(avx2) => job.run(avx2, out),
        }
    }

    /// Decodes a whole JPEG to RGB, whatever its scans, its sampling and its colours are.
    ///
    /// Grey and inks become RGB. `out` is resized to fit; what it holds after an error means nothing.
    /// `scale` makes the picture smaller on the way.
    /// Damage that leaves most of the picture is passed over as libjpeg does, and a missing end marker
    /// where nothing else is missing.
    ///
    /// # Shapes
    /// - `out`: `[scale.of(height), scale.of(width), 3]`
    ///
    /// # Errors
    /// When scans are missing, malformed or end too early.
    pub fn decode_whole(
        &self,
        picture: &Picture<'_>,
        scale: Scale,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        match self.processor {
            Processor::Any => picture.decode(Portable, scale, out),
            #[cfg(target_arch = "x86_64")]
            Processor::Avx2(avx2) => picture.decode(avx2, scale, out),
        }
    }

    /// Makes the tables, and room for the samples.
    fn job<'a>(
        &'a mut self,
        frame: &'a Frame<'a>,
        scale: Scale,
        region: Region,
    ) -> Result<Job<'a>, Unsupported> {
        let window = Window::new(frame, scale, region)?;
        for (at, component) in frame.components.iter().enumerate() {
            let (before, here) = self.codings.split_at_mut(at);
            here.first_mut().ok_or(Unsupported::Header)?.build(component, before.last())?;
        }
        Ok(Job::new(frame, scale, window, &self.codings, &mut self.samples, &mut self.chroma_rows))
    }
}
