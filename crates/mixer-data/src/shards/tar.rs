//! The members of a tar archive, found without reading their content.
//!
//! Tar is simple enough to walk by hand, and walking by hand gives what a reader of streams does
//! not: the offset of every member, to read it by later. Nothing is ever extracted, so that names
//! with `..` or a leading `/` are only names.

use std::path::Path;

use crate::error::{DataError, Place};
use crate::shards::packing::Packing;
use crate::sources::read_at::ReadAt;

/// Headers and content are padded to multiples of this, bytes.
pub(crate) const BLOCK: u64 = 512;

/// The longest name and the largest extended header, bytes.
const MAX_EXTENDED_BYTES: u64 = 1 << 20;

/// The longest padding behind the end of an archive, bytes: GNU tar writes twenty blocks at a time.
const MAX_PADDING: u64 = 20 * BLOCK;

/// A file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// As it stands in the archive.
    pub(crate) name: String,
    /// Start of the content; a multiple of [`BLOCK`].
    pub(crate) offset: u64,
    /// Length of the content, bytes.
    pub(crate) size: u64,
}

/// Walks over the files of an archive in their order.
///
/// It understands ustar with its name prefixes, the long names of GNU and PAX, and sizes in base
/// 256, and archives without an end marker. Folders, links and devices are passed over; sparse files are refused.
pub(crate) struct Members<'a, R: ?Sized> {
    archive: &'a R,
    path: &'a Path,
    size: u64,
    at: u64,
}

/// Name and size that headers give to the member that follows them.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    size: Option<u64>,
}

impl<'a, R: ReadAt + ?Sized> Members<'a, R> {
    /// Starts at the beginning of `archive`, which messages call `path`.
    ///
    /// # Errors
    /// When it cannot be read, or is packed.
    pub(crate) fn of(archive: &'a R, path: &'a Path) -> Result<Self, DataError> {
        let size = archive.size().map_err(DataError::io)?;
        let mut start = [0; Packing::MARK_BYTES];
        if size >= start.len() as u64 {
            archive.read_exact_at(&mut start, 0).map_err(DataError::io)?;
        }
        match Packing::of(&start) {
            Some(packing) => Err(DataError::Packed { packing, path: path.to_path_buf() }),
            None => Ok(Self { archive, path, size, at: 0 }),
        }
    }

    /// The next file, or `None` behind the last.
    ///
    /// # Errors
    /// When the archive is damaged, ends early, or goes on behind its end.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, DataError> {
        let mut extended = Extended::default();
        loop {
            let at = self.at;
            if self.size - at < BLOCK {
                // Some writers leave the end marker out, but none cuts a block.
                let is_whole = at > 0 && self.size.is_multiple_of(BLOCK);
                if is_whole && extended.name.is_none() && extended.size.is_none() {
                    return Ok(None);
                }
                let expected = "a member or the end marker";
                return Err(self.malformed(at, "the end of the file", expected));
            }
            let mut header = [0; BLOCK as usize];
            self.archive.read_exact_at(&mut header, at).map_err(DataError::io)?;
            if header == [0; BLOCK as usize] {
                return self.check_rest().map(|()| None);
            }
            if !has_right_checksum(&header) {
                return Err(self.malformed(at, "no tar header", "one with the right checksum"));
            }
            let size = parse_number(&header[124..136])
                .ok_or_else(|| self.malformed(at, "a tar header without a size", "a number"))?;
            let kind = header[156];
            let is_file = matches!(kind, b'0' | b'7' | 0);
            let size = if is_file { extended.size.unwrap_or(size) } else { size };
            let offset = at + BLOCK;
            let left = self.size - offset;
            if size > left {
                let found = format!("{left} bytes of a member");
                return Err(self.malformed(offset, &found, &format!("{size} (is it truncated?)")));
            }
            self.at = (offset + size.next_multiple_of(BLOCK)).min(self.size);
            match kind {
                b'L' => {
                    let mut name = self.extended(offset, size)?;
                    name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
                    extended.name = Some(self.unicode(at, name)?);
                }
                b'x' => self.parse_pax(offset, size, &mut extended)?,
                // Global headers and long link targets say nothing that matters here.
                b'g' | b'K' => {}
                b'S' => return Err(self.malformed(at, "a sparse member", "a plain one")),
                _ => {
                    let Extended { name, .. } = std::mem::take(&mut extended);
                    let name = match name {
                        Some(name) => name,
                        None => self.unicode(at, ustar_name(&header))?,
                    };
                    // Before there were types, a slash made a folder.
                    if is_file && !name.ends_with('/') {
                        return Ok(Some(Member { name, offset, size }));
                    }
                }
            }
        }
    }

    /// The content of a member that should not exceed `limit`.
    pub(crate) fn content(&self, member: &Member, limit: u64) -> Result<Vec<u8>, DataError> {
        if member.size > limit {
            let found = format!("{} bytes in `{}`", member.size, member.name);
            return Err(self.malformed(member.offset, &found, &format!("at most {limit}")));
        }
        self.read(member.offset, member.size)
    }

    /// An error at an offset of this archive.
    pub(crate) fn malformed(&self, at: u64, found: &str, expected: &str) -> DataError {
        DataError::malformed(self.path, Place::Byte(at), found, expected)
    }

    fn read(&self, offset: u64, size: u64) -> Result<Vec<u8>, DataError> {
        let mut bytes = vec![0; size as usize];
        self.archive.read_exact_at(&mut bytes, offset).map_err(DataError::io)?;
        Ok(bytes)
    }

    fn extended(&self, offset: u64, size: u64) -> Result<Vec<u8>, DataError> {
        if size > MAX_EXTENDED_BYTES {
            let found = format!("an extended header of {size} bytes");
            return Err(self.malformed(offset, &found, &format!("at most {MAX_EXTENDED_BYTES}")));
        }
        self.read(offset, size)
    }

    fn unicode(&self, at: u64, name: Vec<u8>) -> Result<String, DataError> {
        String::from_utf8(name).map_err(|error| {
            let found = format!("the name `{}`", error.as_bytes().escape_ascii());
            self.malformed(at, &found, "valid Unicode")
        })
    }

    /// Reads records of the form `length key=value\n`.
    fn parse_pax(&self, offset: u64, size: u64, extended: &mut Extended) -> Result<(), DataError> {
        let content = self.extended(offset, size)?;
        let broken = || self.malformed(offset, "a broken PAX header", "`length key=value` records");
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let space = rest.iter().position(|&byte| byte == b' ').ok_or_else(broken)?;
            let length =
                std::str::from_utf8(&rest[..space]).ok().and_then(|text| text.parse().ok());
            let length: usize = length.ok_or_else(broken)?;
            let record = rest.get(space + 1..length).ok_or_else(broken)?;
            rest = &rest[length..];
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(broken)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => extended.name = Some(self.unicode(offset, value.to_vec())?),
                b"size" => {
                    let text = std::str::from_utf8(value).ok();
                    let size = text.and_then(|text| text.parse().ok()).ok_or_else(broken)?;
                    extended.size = Some(size);
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(self.malformed(offset, "a sparse member", "a plain one"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes sure that nothing follows the end marker: readers stop there, so that archives that
    /// were joined with `cat` would lose all but the first without a word.
    fn check_rest(&self) -> Result<(), DataError> {
        let size = (self.size - self.at).min(MAX_PADDING);
        let rest = self.read(self.at, size)?;
        match rest.iter().position(|&byte| byte != 0) {
            None => Ok(()),
            Some(position) => {
                let at = self.at + position as u64;
                Err(self.malformed(
                    at,
                    "data behind the end marker",
                    "nothing (are these two archives?)",
                ))
            }
        }
    }
}

fn has_right_checksum(header: &[u8; BLOCK as usize]) -> bool {
    let stored = parse_number(&header[148..156]);
    let bytes = || {
        // The checksum counts as if it were spaces.
        header.iter().enumerate().map(|(at, &byte)| match at {
            148..156 => b' ',
            _ => byte,
        })
    };
    let unsigned: u64 = bytes().map(u64::from).sum();
    // Some old writers summed signed bytes.
    let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
    stored.is_some_and(|stored| stored == unsigned || i64::try_from(stored) == Ok(signed))
}

/// A number in octal digits, or in base 256 when its first bit is set.
fn parse_number(field: &[u8]) -> Option<u64> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        let first = u64::from(first & 0x7f);
        // What does not fit is either negative or larger than any file.
        return rest
            .iter()
            .try_fold(first, |number, &byte| Some(number.checked_mul(256)? | u64::from(byte)));
    }
    let is_padding = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_padding(byte)).unwrap_or(field.len());
    let digits = field[start..].split(|byte| is_padding(byte)).next().unwrap_or_default();
    digits.iter().try_fold(0u64, |number, &digit| match digit {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// The name in a header: behind a prefix where the header is that of POSIX.
fn ustar_name(header: &[u8; BLOCK as usize]) -> Vec<u8> {
    fn text(field: &[u8]) -> &[u8] {
        field.split(|&byte| byte == 0).next().unwrap_or_default()
    }
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    match &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        true => [prefix, b"/", name].concat(),
        false => name.to_vec(),
    }
}

/// The name in a header block, for messages.
pub(crate) fn name_in_header(header: &[u8; BLOCK as usize]) -> String {
    String::from_utf8_lossy(&ustar_name(header)).into_owned()
}

/// Writes the header of a file whose name and size fit into ustar fields, the same on every machine
/// and at any time.
pub(crate) fn header(name: &str, size: u64) -> Option<[u8; BLOCK as usize]> {
    let mut header = [0; BLOCK as usize];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    if name.len() > 100 || size >= 1 << 33 {
        return None;
    }
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    let text = format!("{sum:06o}\0 ");
    header[148..156].copy_from_slice(text.as_bytes());
    Some(header)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A member with any type and content.
    pub(crate) fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut header = header(name, content.len() as u64).unwrap();
        header[156] = kind;
        sign(&mut header);
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    pub(crate) fn archive(members: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = members.concat();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn sign(header: &mut [u8]) {
        header[148..156].fill(b' ');
        let sum: u32 = header[..512].iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    fn walk(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut members = Members::of(bytes, Path::new("a.tar")).map_err(|e| e.to_string())?;
        let mut found = Vec::new();
        while let Some(member) = members.next().map_err(|error| error.to_string())? {
            let content = members.content(&member, 1 << 20).map_err(|error| error.to_string())?;
            found.push((member.name, content));
        }
        Ok(found)
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        walk(bytes).unwrap().into_iter().map(|(name, _)| name).collect()
    }

    fn pax(key: &str, value: &str) -> Vec<u8> {
        let body = format!(" {key}={value}\n");
        let mut length = body.len() + 1;
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        member("pax", b'x', format!("{length}{body}").as_bytes())
    }

    #[test]
    fn files_are_found_and_everything_else_is_passed_over() {
        let bytes = archive(&[
            member("folder/", b'5', b""),
            member("a.jpg", b'0', b"picture"),
            member("link", b'2', b""),
            member("old/", 0, b""),
            member("../../etc/passwd", 0, b"only a name"),
            member("empty", b'0', b""),
            member("comment", b'g', b"11 comment="),
            member("contiguous", b'7', &[1; 512]),
        ]);
        assert_eq!(names(&bytes), ["a.jpg", "../../etc/passwd", "empty", "contiguous"]);
        assert_eq!(walk(&bytes).unwrap()[0].1, b"picture");
    }

    #[test]
    fn long_names_of_three_kinds_are_understood() {
        let long = "deep/".repeat(60) + "name.jpg";
        let mut prefixed = member("name.jpg", b'0', b"3");
        prefixed[345..351].copy_from_slice(b"prefix");
        sign(&mut prefixed);
        let gnu = member("././@LongLink", b'L', format!("{long}\0").as_bytes());
        let bytes = archive(&[
            gnu.clone(),
            member("cut", b'0', b"1"),
            pax("path", &long),
            member("cut", b'0', b"2"),
            prefixed,
            // The long name of a folder is not that of the file behind it.
            gnu,
            member("folder", b'5', b""),
            member("short", b'0', b"4"),
        ]);
        assert_eq!(names(&bytes), [&long, &long, "prefix/name.jpg", "short"]);
    }

    #[test]
    fn sizes_may_be_written_in_base_256_or_in_an_extended_header() {
        let mut base_256 = member("a", b'0', b"abc");
        base_256[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        sign(&mut base_256);
        let mut sized = member("b", b'0', b"abcd");
        sized[124..136].copy_from_slice(b"00000000000\0");
        sign(&mut sized);
        let found = walk(&archive(&[base_256, pax("size", "4"), sized])).unwrap();
        assert_eq!(found[0].1, b"abc");
        assert_eq!(found[1].1, b"abcd");
    }

    #[test]
    fn what_python_and_gnu_tar_write_is_padded() {
        let mut bytes = archive(&[member("a", b'0', b"1")]);
        bytes.resize(10_240, 0);
        assert_eq!(names(&bytes), ["a"]);
        assert_eq!(names(&archive(&[])), [""; 0]);
        // As some writers leave it, without an end marker.
        assert_eq!(names(&member("a.jpg", b'0', b"picture")), ["a.jpg"]);
    }

    #[test]
    fn damaged_archives_are_refused_with_the_offset() {
        let good = member("a.jpg", b'0', &[7; 700]);
        let cut = |bytes: &[u8], len: usize| bytes[..len].to_vec();
        let patched = |at: usize, with: &[u8], resign: bool| {
            let mut bytes = archive(std::slice::from_ref(&good));
            bytes[at..at + with.len()].copy_from_slice(with);
            if resign {
                sign(&mut bytes[..512]);
            }
            bytes
        };
        let huge = [0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255];
        let whole = archive(std::slice::from_ref(&good));
        for (bytes, message) in [
            (
                Vec::new(),
                "found the end of the file at byte 0, expected a member or the end marker",
            ),
            (
                cut(&whole, 100),
                "found the end of the file at byte 0, expected a member or the end marker",
            ),
            (
                cut(&whole, 512),
                "found 0 bytes of a member at byte 512, expected 700 (is it truncated?)",
            ),
            (
                cut(&whole, 1000),
                "found 488 bytes of a member at byte 512, expected 700 (is it truncated?)",
            ),
            (
                cut(&whole, 1300),
                "found the end of the file at byte 1300, expected a member or the end marker",
            ),
            (
                [good.clone(), pax("path", "b.jpg")].concat(),
                "found the end of the file at byte 2560, expected a member or the end marker",
            ),
            (
                [whole.clone(), whole.clone()].concat(),
                "found data behind the end marker at byte 2560, expected nothing (are these two archives?)",
            ),
            (
                vec![b'x'; 2048],
                "found no tar header at byte 0, expected one with the right checksum",
            ),
            (
                patched(3, b"b", false),
                "found no tar header at byte 0, expected one with the right checksum",
            ),
            (
                patched(124, b"00000x00000", true),
                "found a tar header without a size at byte 0, expected a number",
            ),
            (
                patched(124, &[0xff; 12], true),
                "found a tar header without a size at byte 0, expected a number",
            ),
            (
                patched(124, &huge, true),
                "found 2048 bytes of a member at byte 512, expected 9223372036854775807 (is it truncated?)",
            ),
            (patched(156, b"S", true), "found a sparse member at byte 0, expected a plain one"),
            (
                patched(0, b"\xff\xfe", true),
                "found the name `\\xff\\xfejpg` at byte 0, expected valid Unicode",
            ),
            (
                archive(&[pax("GNU.sparse.major", "1")]),
                "found a sparse member at byte 512, expected a plain one",
            ),
            (
                archive(&[member("p", b'x', b"99 path=a\n")]),
                "found a broken PAX header at byte 512, expected `length key=value` records",
            ),
            (
                archive(&[member("p", b'x', b"1 path=a\n")]),
                "found a broken PAX header at byte 512, expected `length key=value` records",
            ),
            (
                archive(&[member("p", b'x', b"7 path\n")]),
                "found a broken PAX header at byte 512, expected `length key=value` records",
            ),
            (
                archive(&[member("p", b'x', b"nothing")]),
                "found a broken PAX header at byte 512, expected `length key=value` records",
            ),
        ] {
            let found = walk(&bytes).unwrap_err();
            assert_eq!(found, format!("{message}: a.tar"));
        }
    }

    proptest! {
        #[test]
        fn walking_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), kind in prop::sample::select(&b"0Lxg5S"[..])) {
            let _outcome = walk(&bytes);
            if bytes.len() >= 512 {
                bytes[156] = kind;
                bytes[124..136].copy_from_slice(b"00000000777\0");
                sign(&mut bytes);
                let _outcome = walk(&bytes);
            }
        }
    }
}
