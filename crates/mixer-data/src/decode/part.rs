//! Decoding only the part of a picture file that is looked at.

use mixer_jpeg::Decoder;
pub use mixer_jpeg::Region;

use crate::decode::picture::{
    DecodeError, DecodeOptions, JpegStructure, MAX_FILE_BYTES, check_size, decode,
};
use crate::decode::rgb_image::RgbImage;

/// A region of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its pixels.
    pub image: RgbImage,
    /// Where it lies.
    pub region: Region,
    /// Width of the whole picture, px.
    pub width: u32,
    /// Height of the whole picture, px.
    pub height: u32,
}

/// Decodes regions of picture files; keeps its working memory between calls.
///
/// JPEGs go through mixer-jpeg, which skips the rest of the picture. Those that it refuses, and other
/// formats, are decoded by [`decode`] and then cut.
#[derive(Default)]
pub struct PartDecoder {
    jpeg: Decoder,
    /// Memory for pixels.
    spare: Vec<u8>,
}

impl PartDecoder {
    /// A decoder without working memory yet.
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
    /// As [`decode`], with one difference: damage in a whole JPEG that lies behind the region is
    /// not seen.
    ///
    /// # Panics
    /// When `choose` picks a region that is empty or leaves the picture.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        options: &DecodeOptions,
        choose: impl FnOnce(u32, u32) -> Region,
    ) -> Result<Part, DecodeError> {
        // A turned picture has its region elsewhere. A file without an end may be truncated, and
        // telling takes a decoding of all of it.
        let may_be_jpeg = bytes.starts_with(&[0xff, 0xd8, 0xff])
            && bytes.len() as u64 <= MAX_FILE_BYTES
            && !options.apply_orientation
            && JpegStructure::of(bytes).reaches_end;
        let header = if may_be_jpeg { mixer_jpeg::read_header(bytes).ok() } else { None };
        let Some(header) = header else {
            let whole = decode(bytes, options)?;
            let (width, height) = (whole.width, whole.height);
            let region = choose(width, height);
            return Ok(Part { image: cut(&whole, region), region, width, height });
        };

        let (width, height) = (header.width, header.height);
        check_size(u64::from(width), u64::from(height), options)?;
        let region = choose(width, height);
        let mut pixels = std::mem::take(&mut self.spare);
        let image = match self.jpeg.decode_region(bytes, region, &mut pixels) {
            Ok(()) => RgbImage { width: region.width, height: region.height, pixels },
            Err(_) => {
                let whole = decode(bytes, options)?;
                if (whole.width, whole.height) != (width, height) {
                    let message =
                        format!("it is {}x{} px or {width}x{height} px", whole.width, whole.height);
                    return Err(DecodeError::Broken { format: "JPEG", message });
                }
                cut(&whole, region)
            }
        };
        Ok(Part { image, region, width, height })
    }
}

/// The pixels of a region.
pub(crate) fn cut(image: &RgbImage, region: Region) -> RgbImage {
    let Region { left, top, width, height } = region;
    let fits = |start: u32, length: u32, limit: u32| {
        length > 0 && u64::from(start) + u64::from(length) <= u64::from(limit)
    };
    assert!(
        fits(left, width, image.width) && fits(top, height, image.height),
        "a region lies inside its picture"
    );
    let row = |y: u32| {
        let start = (y as usize * image.width as usize + left as usize) * 3;
        &image.pixels[start..start + width as usize * 3]
    };
    let pixels = (top..top + height).flat_map(row).copied().collect();
    RgbImage { width, height, pixels }
}
