//! The chunks of a PNG file, walked over without decoding: the size and the EXIF metadata in them.

use crate::decode::error::DecodeError;
use crate::decode::options::{DecodeOptions, check_size};

/// Bytes of the signature, before the first chunk.
const SIGNATURE: usize = 8;

/// Refuses a file whose header claims too much: the decoder takes memory for a row of it.
pub(crate) fn check_size_of(bytes: &[u8], options: &DecodeOptions) -> Result<(), DecodeError> {
    let Some((b"IHDR", [w3, w2, w1, w0, h3, h2, h1, h0, ..])) = Chunks::of_file(bytes).next()
    else {
        // The decoder says what is wrong.
        return Ok(());
    };
    let [width, height] = [[*w3, *w2, *w1, *w0], [*h3, *h2, *h1, *h0]].map(u32::from_be_bytes);
    check_size(u64::from(width), u64::from(height), options)
}

/// The EXIF metadata.
pub(crate) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    Chunks::of_file(bytes).find(|(name, _)| *name == b"eXIf").map(|(_, payload)| payload)
}

/// Names and contents of the chunks, as far as they are in the file.
struct Chunks<'a>(&'a [u8]);

impl<'a> Chunks<'a> {
    fn of_file(bytes: &'a [u8]) -> Self {
        Self(bytes.get(SIGNATURE..).unwrap_or_default())
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        /// Bytes of the checksum behind each chunk.
        const CHECKSUM: usize = 4;
        let (length, rest) = self.0.split_first_chunk()?;
        let (name, rest) = rest.split_first_chunk()?;
        let length = (u32::from_be_bytes(*length) as usize).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        self.0 = rest.get(CHECKSUM..).unwrap_or_default();
        Some((name, payload))
    }
}
