//! A rectangle of a baseline JPEG, as libjpeg-turbo decodes it, without decoding the rest.
//!
//! Training crops a random part of every picture, and a full decoder spends most of its time on
//! what is thrown away. [`Decoder::decode_region`] never reads what lies below the rectangle, only
//! counts bits beside and above it (with restart markers, jumps over what it can), and transforms the
//! blocks that its pixels depend on. The pixels
//! are those of libjpeg-turbo 3 (and so of Pillow) to the last bit: accurate integer inverse DCT,
//! triangle-filter ("fancy") upsampling, its rounding of YCbCr to RGB.
//!
//! # What is decoded
//! Sequential Huffman-coded JPEGs of 8 bits (SOF0, SOF1) in one scan: grey, or YCbCr in 4:4:4, 4:2:2
//! or 4:2:0, with or without restart markers. Everything else, and everything that is in any way
//! doubtful, is [`Unsupported`]: the caller then asks a decoder that knows the whole of JPEG. So this
//! one can afford to refuse a file wherever two decoders might read it differently.
//!
//! # What is not checked
//! Whatever lies behind the rectangle or between two restart markers outside of it is not looked at,
//! down to a missing end of the file: a caller
//! that refuses truncated files must look for the end-of-image marker itself. Damage that happens to
//! be a valid code, as a flipped bit of a coefficient, cannot be seen by any decoder. Where it makes
//! values far outside of what a picture has, sums of 16 bits overflow in libjpeg-turbo and saturate
//! here: such blocks can differ from Pillow's.
//!
//! # Example
//! ```
//! # fn decode(bytes: &[u8]) -> Result<(), mixer_jpeg::Unsupported> {
//! use mixer_jpeg::{Decoder, Region, read_header};
//!
//! let header = read_header(bytes)?;
//! let (width, height) = (header.width.div_ceil(2), header.height.div_ceil(2));
//! let mut rgb = Vec::new();
//! Decoder::new().decode_region(bytes, Region { left: 0, top: 0, width, height }, &mut rgb)?;
//! assert_eq!(rgb.len(), (width * height * 3) as usize);
//! # Ok(())
//! # }
//! # let _ = decode(&[]);
//! ```

#![deny(unsafe_code)]

mod bits;
mod decoder;
mod frame;
mod huffman;
mod pixels;
mod plane;
mod portable;
mod region;
mod region_job;
mod scan;
mod unsupported;
#[cfg(target_arch = "x86_64")]
mod vector;

pub use decoder::{Decoder, Header, read_header};
pub use region::Region;
pub use unsupported::Unsupported;
