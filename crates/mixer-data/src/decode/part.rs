//! Decoding only the part of a picture file that is looked at.

use mixer_jpeg::Decoder;
pub use mixer_jpeg::Region;

use crate::decode::error::DecodeError;
use crate::decode::jpeg_structure::reaches_end;
use crate::decode::options::{DecodeOptions, MAX_FILE_BYTES, check_size};
use crate::decode::orientation::Turn;
use crate::decode::rgb_image::RgbImage;
use crate::decode::whole;

/// A region of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its pixels.
    pub image: RgbImage,
    /// Its place.
    pub region: Region,
    /// Width of the whole picture, px.
    pub width: u32,
    /// Height of the whole picture, px.
    pub height: u32,
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
    /// `choose` is asked once, however the file is then decoded.
    ///
    /// # Errors
    /// As [`decode`](crate::decode()), with one difference: damage in a whole JPEG that lies behind the
    /// region is not seen.
    ///
    /// # Panics
    /// When `choose` picks a region that is empty or leaves the picture.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        options: &DecodeOptions,
        choose: impl FnOnce(u32, u32) -> Region,
    ) -> Result<Part, DecodeError> {
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(DecodeError::FileTooLarge {
                found: bytes.len() as u64,
                expected: MAX_FILE_BYTES,
            });
        }
        let turn = Turn::asked_for(bytes, options);
        let Some((width, height)) = quick_size(bytes) else {
            return Ok(part_of(&turn.turn(whole::decode(bytes, options)?), choose));
        };
        check_size(u64::from(width), u64::from(height), options)?;
        if !turn.is_none() {
            // A turned picture has its region elsewhere.
            let all = Region { left: 0, top: 0, width, height };
            let image = self.jpeg_region(bytes, all, (width, height), options)?;
            return Ok(part_of(&turn.turn(image), choose));
        }
        let region = choose(width, height);
        let image = self.jpeg_region(bytes, region, (width, height), options)?;
        Ok(Part { image, region, width, height })
    }

    /// A region of a JPEG that is not turned, whose header mixer-jpeg has read.
    fn jpeg_region(
        &mut self,
        bytes: &[u8],
        region: Region,
        (width, height): (u32, u32),
        options: &DecodeOptions,
    ) -> Result<RgbImage, DecodeError> {
        let mut pixels = std::mem::take(&mut self.spare);
        if self.jpeg.decode_region(bytes, region, &mut pixels).is_ok() {
            return Ok(RgbImage { width: region.width, height: region.height, pixels });
        }
        let whole = whole::decode(bytes, options)?;
        if (whole.width, whole.height) != (width, height) {
            let message =
                format!("it is {}x{} px or {width}x{height} px", whole.width, whole.height);
            return Err(DecodeError::Broken { format: "JPEG", message });
        }
        Ok(whole.cut(region))
    }
}

/// Width and height of a JPEG that mixer-jpeg may decode. A file without an end may be truncated, and
/// telling takes a decoding of all of it by somebody else.
fn quick_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let is_whole_jpeg = bytes.starts_with(&[0xff, 0xd8, 0xff]) && reaches_end(bytes);
    let header = if is_whole_jpeg { mixer_jpeg::read_header(bytes).ok() } else { None }?;
    Some((header.width, header.height))
}

fn part_of(whole: &RgbImage, choose: impl FnOnce(u32, u32) -> Region) -> Part {
    let (width, height) = (whole.width, whole.height);
    let region = choose(width, height);
    Part { image: whole.cut(region), region, width, height }
}
