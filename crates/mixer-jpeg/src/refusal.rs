//! Why no decoder here reads a file.

use std::error::Error;
use std::fmt;

/// Why a JPEG is not decoded at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// A process that is not read, by its name: `lossless`, `arithmetic-coded`, `hierarchical`.
    Process(&'static str),
    /// Samples of so many bits, not of 8.
    Bits(u8),
    /// So many components: not 1, 3 or 4.
    Components(usize),
    /// Sampling factors of which one is no multiple of another.
    Sampling,
    /// A segment of the header, or a scan, is malformed, misplaced or missing: the text says which.
    Header(&'static str),
    /// The file ends before the picture does.
    Truncated,
    /// The data of a scan end before the picture does, though the file goes on.
    Data,
    /// Progressive scans that stop before all coefficients have their full precision.
    Unfinished,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(name) => {
                write!(formatter, "{name} JPEG, expected a baseline or progressive one")
            }
            Self::Bits(bits) => write!(formatter, "{bits} bits a sample, expected 8"),
            Self::Components(count) => {
                write!(formatter, "{count} components, expected 1, 3 or 4")
            }
            Self::Sampling => formatter.write_str("sampling factors that do not divide each other"),
            Self::Header(what) => formatter.write_str(what),
            Self::Truncated => formatter.write_str("the file is truncated"),
            Self::Data => formatter.write_str("the data of a scan end before the picture does"),
            Self::Unfinished => {
                formatter.write_str("its progressive scans stop before full precision")
            }
        }
    }
}

impl Error for Refusal {}
