//! The chunks of a WebP file, walked over without decoding: the sizes and the EXIF metadata in them.

use crate::decode::error::DecodeError;
use crate::decode::options::{DecodeOptions, check_size};

/// Bytes of the file header, before the first chunk.
const FILE_HEADER: usize = 12;

/// Bytes of an animation frame before the chunks in it.
const FRAME_HEADER: usize = 16;

/// Refuses a file that claims a canvas, a frame or a picture in one that is too large: the decoder
/// takes memory for each of them before it compares them.
pub(crate) fn check_sizes(bytes: &[u8], options: &DecodeOptions) -> Result<(), DecodeError> {
    for chunk in Chunks::of_file(bytes) {
        chunk.check_size(options)?;
        if chunk.name == *b"ANMF" {
            let inside = chunk.payload.get(FRAME_HEADER..).unwrap_or_default();
            for chunk in Chunks(inside) {
                chunk.check_size(options)?;
            }
        }
    }
    Ok(())
}

/// The EXIF metadata.
pub(crate) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    let chunk = Chunks::of_file(bytes).find(|chunk| chunk.name == *b"EXIF")?;
    Some(chunk.payload)
}

/// A chunk, as far as it is in the file.
struct Chunk<'a> {
    name: [u8; 4],
    payload: &'a [u8],
}

impl Chunk<'_> {
    fn check_size(&self, options: &DecodeOptions) -> Result<(), DecodeError> {
        match self.claimed_size() {
            Some((width, height)) => check_size(width, height, options),
            None => Ok(()),
        }
    }

    /// Width and height of the picture, where the chunk is of one.
    fn claimed_size(&self) -> Option<(u64, u64)> {
        let number = |at: usize, bytes: usize| {
            let bytes = self.payload.get(at..at + bytes)?;
            Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
        };
        match &self.name {
            b"VP8X" => Some((number(4, 3)? + 1, number(7, 3)? + 1)),
            b"ANMF" => Some((number(6, 3)? + 1, number(9, 3)? + 1)),
            b"VP8 " => Some((number(6, 2)? & 0x3fff, number(8, 2)? & 0x3fff)),
            b"VP8L" => {
                let bits = number(1, 4)?;
                Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
            }
            _ => None,
        }
    }
}

/// The chunks of a file or of a frame.
struct Chunks<'a>(&'a [u8]);

impl<'a> Chunks<'a> {
    fn of_file(bytes: &'a [u8]) -> Self {
        Self(bytes.get(FILE_HEADER..).unwrap_or_default())
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let (name, rest) = self.0.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let payload = &rest[..length.min(rest.len())];
        // Chunks are padded to an even length.
        self.0 = rest.get(length.saturating_add(length % 2)..).unwrap_or_default();
        Some(Chunk { name: *name, payload })
    }
}
