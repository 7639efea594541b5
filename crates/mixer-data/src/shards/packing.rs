//! Programs that pack files, told by the first bytes of what they make.

use std::fmt;

/// The program that a file was packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packing {
    /// gzip, `.gz` and `.tgz`.
    Gzip,
    /// Zstandard, `.zst`.
    Zstd,
    /// bzip2, `.bz2`.
    Bzip2,
    /// xz, `.xz`.
    Xz,
    /// A ZIP archive.
    Zip,
}

impl Packing {
    /// Bytes that tell.
    pub(crate) const MARK_BYTES: usize = 6;

    /// The packing of a file that starts with `start`, if it is one of these.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [b'P', b'K', 3, 4, ..] => Some(Self::Zip),
            _ => None,
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zip => "zip",
        }
    }

    /// The command that unpacks a file which is named behind it.
    pub fn command(self) -> &'static str {
        match self {
            Self::Gzip => "gzip -d",
            Self::Zstd => "zstd -d",
            Self::Bzip2 => "bzip2 -d",
            Self::Xz => "xz -d",
            Self::Zip => "unzip",
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
