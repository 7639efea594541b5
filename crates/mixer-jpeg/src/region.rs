//! The part of a picture that is asked for.

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Pixels to the left of it.
    pub left: u32,
    /// Pixels above it.
    pub top: u32,
    /// Its width, px.
    pub width: u32,
    /// Its height, px.
    pub height: u32,
}
