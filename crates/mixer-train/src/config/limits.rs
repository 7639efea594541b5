//! The largest sizes that a run may ask for, refused before a product of them overflows or takes memory.

use crate::error::TrainError;

/// The largest side of a network's input, px; that of `mixer-data`.
pub const MAX_IMAGE_SIZE: usize = 4096;

/// The largest number of examples per update.
pub const MAX_BATCH_SIZE: usize = 1 << 20;

/// The largest batch in one piece, as bytes of its pixels.
const MAX_BATCH_BYTES: u128 = 16 << 30;

/// Decoding threads; as many as the loader accepts.
pub const MAX_WORKERS: usize = 1024;

/// The longest run, updates.
pub const MAX_STEPS: u64 = 1_000_000_000_000;

/// Refuses images that nothing decodes to, before a product of their sides overflows.
///
/// # Errors
/// [`TrainError::Config`] with the name that the size has for the user.
pub fn check_image_size(name: &str, image_size: usize) -> Result<(), TrainError> {
    if image_size > MAX_IMAGE_SIZE {
        return Err(TrainError::config(format!(
            "`{name}` is {image_size}, expected at most {MAX_IMAGE_SIZE} px"
        )));
    }
    Ok(())
}

/// Refuses batches that no machine holds.
pub(crate) fn check_batch(key: &str, examples: usize, image_size: usize) -> Result<(), TrainError> {
    let bytes = examples as u128 * 3 * (image_size as u128).pow(2);
    if bytes > MAX_BATCH_BYTES {
        return Err(TrainError::config(format!(
            "`{key}` is {examples}, expected at most {}: that many pictures of {image_size} px have {} GiB",
            MAX_BATCH_BYTES / (3 * (image_size as u128).pow(2)),
            MAX_BATCH_BYTES >> 30
        )));
    }
    Ok(())
}
