//! The one answer to a region besides pixels: the whole has to be decoded.

use std::error::Error;
use std::fmt;

/// Why no region of a JPEG is decoded by itself, so that it is left to
/// [`Decoder::decode_whole`](crate::Decoder::decode_whole).
///
/// It says nothing of whether the file is sound; most reasons are features of valid files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unsupported {
    /// It does not begin like a JPEG, or a segment of the header is malformed, misplaced or missing.
    Header,
    /// The frame is not sequential Huffman-coded of 8 bits: progressive, arithmetic, lossless, 12 bits.
    Process,
    /// Two or four components, or three that are not certainly YCbCr.
    Colour,
    /// Other sampling factors than those of 4:4:4, 4:2:2 and 4:2:0.
    Sampling,
    /// The first scan does not hold all components.
    Scans,
    /// The rectangle is empty or not inside the picture.
    Region,
    /// The entropy-coded data are damaged, or end before the rectangle does.
    Data,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Header => "the header is not understood",
            Self::Process => "not a sequential Huffman-coded JPEG of 8 bits",
            Self::Colour => "neither grey nor certainly YCbCr",
            Self::Sampling => "sampling is none of 4:4:4, 4:2:2 and 4:2:0",
            Self::Scans => "the components are in several scans",
            Self::Region => "the region is empty or leaves the picture",
            Self::Data => "the entropy-coded data are damaged or incomplete",
        })
    }
}

impl Error for Unsupported {}
