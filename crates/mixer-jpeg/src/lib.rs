#![doc = include_str!("../README.md")]
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
