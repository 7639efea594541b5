//! Decoding only the part of a picture file that is looked at.

use mixer_jpeg::Decoder;
pub use mixer_jpeg::{Region, Scale};

use crate::decode::error::DecodeError;
use crate::decode::jpeg_structure::reaches_end;
use crate::decode::options::{DecodeOptions, MAX_FILE_BYTES, check_size};
use crate::decode::orientation::Turn;
use crate::decode::rgb_image::RgbImage;
use crate::decode::{whole, whole_jpeg};
use crate::resample::resampler::{Crop, FractionalBox};

/// A part of a picture to be decoded, and its scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The part of it.
    pub region: Region,
    /// The largest factor by which a JPEG may be made smaller while it is decoded; 1 keeps every pixel.
    pub times: u32,
}

impl From<Region> for View {
    fn from(region: Region) -> Self {
        Self { region, times: 1 }
    }
}

/// A region of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its pixels, at `scale`: those that the region touches.
    pub image: RgbImage,
    /// Its place, in pixels of the picture.
    pub region: Region,
    /// The scale at which it was decoded.
    pub scale: Scale,
    /// Width of the whole picture, px.
    pub width: u32,
    /// Height of the whole picture, px.
    pub height: u32,
}

impl Part {
    /// Cuts a region out of a picture that was decoded at a scale.
    fn cut(whole: &RgbImage, region: Region, scale: Scale, (width, height): (u32, u32)) -> Self {
        Self { image: whole.cut(at_scale(region, scale)), region, scale, width, height }
    }

    /// The region in its image.
    pub(crate) fn crop(&self) -> Crop {
        let Region { left, top, width, height } = self.region;
        let [left, top, width, height] = [left, top, width, height].map(f64::from);
        let seen = self.locate(FractionalBox { left, top, width, height });
        Crop { pixels: self.image.whole(), seen }
    }

    /// A box of the picture in its image.
    pub(crate) fn locate(&self, seen: FractionalBox) -> FractionalBox {
        let by = f64::from(self.scale.denominator());
        let Region { left, top, .. } = at_scale(self.region, self.scale);
        FractionalBox {
            left: seen.left / by - f64::from(left),
            top: seen.top / by - f64::from(top),
            width: seen.width / by,
            height: seen.height / by,
        }
    }
}

/// The pixels at a scale that a region touches.
fn at_scale(region: Region, scale: Scale) -> Region {
    let range = |start: u32, length: u32| {
        let first = start / scale.denominator();
        (first, scale.of(start + length) - first)
    };
    let (left, width) = range(region.left, region.width);
    let (top, height) = range(region.top, region.height);
    Region { left, top, width, height }
}

/// Decodes regions of picture files; keeps its working memory between calls.
///
/// JPEGs go through mixer-jpeg, which skips the rest of the picture where it can. Others, and other
/// formats, are decoded whole and then cut. Every way of this crate from a file to pixels is this one.
#[derive(Default)]
pub struct PartDecoder {
    jpeg: Decoder,
    /// Memory for pixels.
    spare: Vec<u8>,
}

impl PartDecoder {
    /// A decoder without working memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands a part back, so that its memory is used again.
    pub fn recycle(&mut self, part: Part) {
        self.spare = part.image.pixels;
    }

    /// Decodes the region that `choose` picks, given width and height of the whole picture.
    ///
    /// `choose` is asked once, however the file is then decoded. A [`View`] may allow for a smaller
    /// picture, which JPEGs make use of that are not turned.
    ///
    /// # Errors
    /// As [`decode`](crate::decode()), with one difference: damage in a whole JPEG that lies behind the
    /// region is not seen.
    ///
    /// # Panics
    /// When `choose` picks a region that is empty or leaves the picture.
    pub fn decode<V: Into<View>>(
        &mut self,
        bytes: &[u8],
        options: &DecodeOptions,
        choose: impl FnOnce(u32, u32) -> V,
    ) -> Result<Part, DecodeError> {
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(DecodeError::FileTooLarge {
                found: bytes.len() as u64,
                expected: MAX_FILE_BYTES,
            });
        }
        let turn = Turn::asked_for(bytes, options);
        let quick_size = quick_size(bytes);
        if let Some((width, height)) = quick_size {
            check_size(u64::from(width), u64::from(height), options)?;
        }
        if turn.is_none()
            && let Some(size) = quick_size.or_else(|| whole_jpeg::size(bytes))
        {
            let View { region, times } = choose(size.0, size.1).into();
            let scale = Scale::within(times);
            let is_quick = quick_size.is_some();
            return self.jpeg_region(bytes, region, scale, size, is_quick, options);
        }
        let whole = match quick_size {
            // A turned picture has its region elsewhere.
            Some((width, height)) => {
                let all = Region { left: 0, top: 0, width, height };
                let size = (width, height);
                self.jpeg_region(bytes, all, Scale::Full, size, true, options)?.image
            }
            None => whole::decode(bytes, Scale::Full, options)?,
        };
        let whole = turn.turn(whole);
        let size = (whole.width, whole.height);
        Ok(Part::cut(&whole, choose(size.0, size.1).into().region, Scale::Full, size))
    }

    /// A region of a JPEG of `size` that is not turned. It is `quick` where mixer-jpeg may decode regions.
    fn jpeg_region(
        &mut self,
        bytes: &[u8],
        region: Region,
        scale: Scale,
        size: (u32, u32),
        is_quick: bool,
        options: &DecodeOptions,
    ) -> Result<Part, DecodeError> {
        let (width, height) = size;
        if is_quick {
            let mut pixels = std::mem::take(&mut self.spare);
            let part = at_scale(region, scale);
            if self.jpeg.decode_region(bytes, scale, part, &mut pixels).is_ok() {
                let image = RgbImage { width: part.width, height: part.height, pixels };
                return Ok(Part { image, region, scale, width, height });
            }
        }
        let whole = whole::decode(bytes, scale, options)?;
        if (whole.width, whole.height) != (scale.of(width), scale.of(height)) {
            let found = whole_jpeg::size(bytes).unwrap_or_default();
            let message = format!("it is {}x{} px or {width}x{height} px", found.0, found.1);
            return Err(DecodeError::Broken { format: "JPEG", message });
        }
        Ok(Part::cut(&whole, region, scale, size))
    }
}

/// Width and height of a JPEG that mixer-jpeg may decode. A file without an end may be truncated, and
/// telling takes a decoding of all of it by somebody else.
fn quick_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let is_whole_jpeg = bytes.starts_with(&[0xff, 0xd8, 0xff]) && reaches_end(bytes);
    let header = if is_whole_jpeg { mixer_jpeg::read_header(bytes).ok() } else { None }?;
    Some((header.width, header.height))
}
