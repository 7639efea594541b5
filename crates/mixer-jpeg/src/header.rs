//! The size of a picture.

use crate::frame::Frame;
use crate::unsupported::Unsupported;

/// The size of a picture, as its header has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Width, px; not zero.
    pub width: u32,
    /// Height, px; not zero.
    pub height: u32,
}

/// Reads the markers up to the first scan.
///
/// The size is what the file claims: a few bytes may claim 65535 × 65535. A caller checks it before
/// it asks for a region.
///
/// # Errors
/// When [`Decoder::decode_region`](crate::Decoder::decode_region) would refuse the file for its header.
pub fn read_header(bytes: &[u8]) -> Result<Header, Unsupported> {
    let frame = Frame::read(bytes)?;
    // Both come from 16 bits.
    Ok(Header { width: frame.width as u32, height: frame.height as u32 })
}
