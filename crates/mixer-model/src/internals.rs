//! The inside, as far as fuzz targets reach. Not part of the interface.
//!
//! Each function takes bytes that may be anything, and must neither panic nor allocate more than
//! they justify.

use std::path::Path;

use crate::weights::weights::Weights;

/// Most bytes that reading a file may hold at once beyond the file itself, by its size: some copies of
/// its tensors as f32, and what its lists of names and shapes take. The constant is what a pickle of the
/// largest number of objects takes, and what unpacked arrays may take beyond their multiple.
#[must_use]
pub fn justified_bytes(file_bytes: usize) -> usize {
    24 * file_bytes + (32 << 20)
}

/// Reads weights of any format, and lists what is in the file; true for a Mixer.
pub fn weights(bytes: &[u8]) -> bool {
    let path = Path::new("fuzz");
    // One may fail where the other does not: a tensor beside the weights may be broken.
    drop(Weights::bytes_info(bytes, path));
    match Weights::from_bytes(bytes, path, None) {
        Ok(weights) => {
            // Whatever is read is whole, and can be written.
            assert!(weights.to_safetensors_bytes().is_ok());
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}
