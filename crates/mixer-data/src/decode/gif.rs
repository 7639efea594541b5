//! The first frame of a GIF, on the canvas that Pillow gives it.

use gif::{ColorOutput, DecodingError};

use crate::decode::error::DecodeError;
use crate::decode::options::{DecodeOptions, check_size};
use crate::decode::rgb_image::RgbImage;

/// The picture of a GIF.
///
/// PARITY: the canvas is the logical screen, grown to hold the frame. What the frame leaves free has
/// the colour of the frame's transparent entry, or else of the palette's first.
pub(crate) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, DecodeError> {
    let mut reader = ::gif::DecodeOptions::new();
    reader.set_color_output(ColorOutput::Indexed);
    let with_palette = with_palette(bytes);
    let bytes = with_palette.as_deref().unwrap_or(bytes);
    let mut decoder = reader.read_info(bytes).map_err(broken)?;
    let screen = (usize::from(decoder.width()), usize::from(decoder.height()));
    let Some(frame) = decoder.next_frame_info().map_err(broken)? else {
        return Err(DecodeError::NoPixels);
    };
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (frame_width, frame_height) = (usize::from(frame.width), usize::from(frame.height));
    let background = usize::from(frame.transparent.unwrap_or(0));

    let width = screen.0.max(left + frame_width);
    let height = screen.1.max(top + frame_height);
    check_size(width as u64, height as u64, options)?;
    if frame_width == 0 || frame_height == 0 {
        return Err(DecodeError::NoPixels);
    }
    let palette = colours(decoder.palette().map_err(broken)?);
    let mut indices = vec![0; frame_width * frame_height];
    decoder.read_into_buffer(&mut indices).map_err(broken)?;

    let mut pixels = palette[background].repeat(width * height);
    let rows = pixels.chunks_exact_mut(width * 3).skip(top).zip(indices.chunks(frame_width));
    for (row, indices) in rows {
        for (pixel, &index) in row[left * 3..].chunks_exact_mut(3).zip(indices) {
            pixel.copy_from_slice(&palette[usize::from(index)]);
        }
    }
    // Both come from 16 bits.
    Ok(RgbImage { width: width as u32, height: height as u32, pixels })
}

/// A file without a palette for all frames, with one of grey levels; a frame may still have its own.
///
/// PARITY: Pillow takes entries for grey levels where there is no palette.
fn with_palette(bytes: &[u8]) -> Option<Vec<u8>> {
    const FLAGS: usize = 10;
    const HEADER: usize = 13;
    /// There is a palette, of 256 colours.
    const PALETTE: u8 = 0x87;
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    if header[FLAGS] & 0x80 != 0 {
        return None;
    }
    let greys = (0..=255u8).flat_map(|level| [level; 3]);
    let mut bytes: Vec<u8> =
        header.iter().copied().chain(greys).chain(rest.iter().copied()).collect();
    bytes[FLAGS] |= PALETTE;
    Some(bytes)
}

/// All entries of a palette.
///
/// PARITY: those that the file does not have are black, or go on as grey levels where the others are.
fn colours(palette: &[u8]) -> [[u8; 3]; 256] {
    let grey: [[u8; 3]; 256] = std::array::from_fn(|level| [level as u8; 3]);
    let entries = palette.as_chunks::<3>().0;
    if grey.starts_with(entries) {
        return grey;
    }
    let mut colours = [[0; 3]; 256];
    for (to, from) in colours.iter_mut().zip(entries) {
        *to = *from;
    }
    colours
}

fn broken(error: DecodingError) -> DecodeError {
    match error {
        DecodingError::UnexpectedEof => DecodeError::Truncated,
        error => DecodeError::Broken { format: "GIF", message: error.to_string() },
    }
}
