//! The reasons why a picture file is not decoded.

/// Bytes that could not be decoded, and why. The path is added by [`DataError`](crate::DataError).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There is something in the file system, but no file.
    #[error("found {found}, expected a file")]
    NotAFile {
        /// Its kind: `a named pipe`, `a folder`.
        found: &'static str,
    },

    /// Zero bytes.
    #[error("the file is empty")]
    Empty,

    /// The first bytes belong to no supported format.
    #[error("not an image: starts with `{start}`")]
    NotAnImage {
        /// The first bytes, escaped.
        start: String,
    },

    /// The file is larger than this crate reads.
    #[error("the file has {found} bytes, expected at most {expected}")]
    FileTooLarge {
        /// Its size.
        found: u64,
        /// The limit.
        expected: u64,
    },

    /// The header announces a picture that is larger than this crate decodes.
    #[error(
        "the picture is {width}x{height} px, expected at most {max_pixels} pixels and {max_side} px a side"
    )]
    PictureTooLarge {
        /// Width in the header.
        width: u64,
        /// Height in the header.
        height: u64,
        /// The limit of their product.
        max_pixels: u64,
        /// The limit of each.
        max_side: u32,
    },

    /// A picture without pixels.
    #[error("the picture has no pixels")]
    NoPixels,

    /// The file ends before the picture does.
    #[error("the file is truncated")]
    Truncated,

    /// The format was recognised, and is whole, but of a kind that is not decoded.
    #[error("a {format} file of a kind that is not read: {feature}")]
    NotSupported {
        /// The format.
        format: &'static str,
        /// Feature that it has, and the one that was expected.
        feature: String,
    },

    /// The format was recognised, but its content was not understood.
    #[error("broken {format} file: {message}")]
    Broken {
        /// The format.
        format: &'static str,
        /// The words of its decoder.
        message: String,
    },
}
