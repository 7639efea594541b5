#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod bits;
mod decoder;
mod frame;
mod header;
mod huffman;
mod markers;
mod pixels;
mod plane;
mod portable;
mod refusal;
mod region;
mod region_job;
mod scale;
mod scan;
mod standard_tables;
mod unsupported;
#[cfg(target_arch = "x86_64")]
mod vector;
mod whole;

pub use decoder::Decoder;
pub use header::{Header, read_header};
pub use refusal::Refusal;
pub use region::Region;
pub use scale::Scale;
pub use unsupported::Unsupported;
pub use whole::Picture;
