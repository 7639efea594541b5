//! Reader and writer of zip archives, as far as weights files need them: the container of `.npz` and of
//! `.pth`.
//!
//! The reader is our own because these archives come from anywhere, and what a general reader tolerates is what
//! an attack is made of. Here the archive ends with its directory; every member is listed once, lies
//! where no other one does, and is described in the same way in both places; and what it may unpack to
//! is bounded by what is stored of it.
//!
//! # Source
//! PKWARE, APPNOTE.TXT 6.3.10: 4.3.7 (local header), 4.3.12 (directory), 4.3.14 to 4.3.16 (its end),
//! 4.5.3 (ZIP64).

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom, Take, Write};

use crc32fast::Hasher;
use flate2::read::DeflateDecoder;

/// Largest directory that is read. That of a Mixer of 32 blocks has 40 kB.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;

/// Most members. They are weights and what belongs to them: some thousand.
const MAX_MEMBERS: u64 = 1 << 16;

/// Deflate cannot shrink data by more than this, so a larger claim is a lie.
const MAX_DEFLATE_RATIO: u64 = 1032;

const LOCAL_HEADER: u32 = 0x0403_4b50;
const DIRECTORY_ENTRY: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const ZIP64_END: u32 = 0x0606_4b50;
const ZIP64_LOCATOR: u32 = 0x0706_4b50;

const LOCAL_HEADER_BYTES: u64 = 30;
const END_BYTES: usize = 22;
const ZIP64_LOCATOR_BYTES: usize = 20;

/// Flag: the content is encrypted.
const ENCRYPTED: u16 = 1;
/// Flag: sizes and checksum follow the content, and are 0 before it.
const SIZES_FOLLOW: u16 = 8;

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Bytes that the archive stores.
    pub(crate) stored_bytes: u64,
    /// Bytes that they unpack to.
    pub(crate) bytes: u64,
    pub(crate) is_deflated: bool,
    /// Beginning of the content in the file.
    pub(crate) start: u64,
    checksum: u32,
}

/// An open archive, with its directory read and checked.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    reader: R,
    members: Vec<Member>,
    by_name: HashMap<String, usize>,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the directory and the header of every member.
    pub(crate) fn open(mut reader: R, file_bytes: u64) -> Result<Self, String> {
        let bad = |reason: String| format!("damaged or truncated archive ({reason})");
        let directory = Directory::find(&mut reader, file_bytes).map_err(bad)?;
        let members = directory.read(&mut reader).map_err(bad)?;
        let mut by_name = HashMap::with_capacity(members.len());
        for (index, member) in members.iter().enumerate() {
            if by_name.insert(member.name.clone(), index).is_some() {
                return Err(format!("archive with two members `{}`", member.name));
            }
        }
        Ok(Self { reader, members, by_name })
    }

    /// The members in the order of the directory.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member of a name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Starts to read a member.
    pub(crate) fn read(&mut self, index: usize) -> Result<MemberReader<'_, R>, String> {
        let member = &self.members[index];
        self.reader.seek(SeekFrom::Start(member.start)).map_err(|error| error.to_string())?;
        let stored = self.reader.by_ref().take(member.stored_bytes);
        let content = if member.is_deflated {
            Content::Deflated(Box::new(DeflateDecoder::new(stored)))
        } else {
            Content::Stored(stored)
        };
        let (left, checksum) = (member.bytes, member.checksum);
        Ok(MemberReader { content, hasher: Hasher::new(), left, checksum })
    }

    /// Reads a whole member, of at most `max_bytes`.
    pub(crate) fn read_all(&mut self, index: usize, max_bytes: u64) -> Result<Vec<u8>, String> {
        let Member { bytes, stored_bytes, ref name, .. } = self.members[index];
        if bytes > max_bytes {
            return Err(format!("`{name}` has {bytes} bytes, expected at most {max_bytes}"));
        }
        let name = name.clone();
        let mut content = Vec::with_capacity(bytes.min(stored_bytes) as usize);
        let mut member = self.read(index)?;
        let read = member.read_to_end(&mut content).map_err(|error| error.to_string());
        read.and_then(|_| member.finish()).map_err(|error| format!("`{name}`: {error}"))?;
        Ok(content)
    }

    /// The file below, for reading what a stored member holds at an offset.
    pub(crate) fn into_file(self) -> R {
        self.reader
    }
}

/// The place of an archive's directory.
struct Directory {
    start: u64,
    bytes: u64,
    members: u64,
}

impl Directory {
    /// Looks for the end of the archive, which says where the directory is.
    fn find<R: Read + Seek>(reader: &mut R, file_bytes: u64) -> Result<Self, String> {
        let say = |error: std::io::Error| error.to_string();
        // A comment of up to 65535 bytes may follow the end record.
        let tail_bytes = file_bytes.min((END_BYTES + ZIP64_LOCATOR_BYTES) as u64 + 0xffff);
        let tail_start = file_bytes - tail_bytes;
        reader.seek(SeekFrom::Start(tail_start)).map_err(say)?;
        let mut tail = Vec::with_capacity(tail_bytes as usize);
        reader.by_ref().take(tail_bytes).read_to_end(&mut tail).map_err(say)?;
        let at = (0..(tail.len() + 1).saturating_sub(END_BYTES))
            .rev()
            .find(|&at| {
                let mut fields = Fields(&tail[at..]);
                let is_end = fields.u32() == Some(END);
                // The comment must end where the file does.
                is_end && Fields(&tail[at + 20..]).u16() == u16::try_from(tail.len() - at - 22).ok()
            })
            .ok_or("no end record")?;
        let record = &tail[at..];
        let (mut members, mut bytes, mut start) = (|| {
            let mut fields = Fields(record.get(4..)?);
            let (disk, directory_disk) = (fields.u16()?, fields.u16()?);
            let (here, members) = (fields.u16()?, fields.u16()?);
            let is_one_disk = disk == directory_disk && here == members;
            is_one_disk.then_some((u64::from(members), fields.u32()?.into(), fields.u32()?.into()))
        })()
        .ok_or("more than one volume")?;
        let mut end = tail_start + at as u64;
        let locator = at.checked_sub(ZIP64_LOCATOR_BYTES).and_then(|at| tail.get(at..));
        if let Some(mut fields) = locator.map(Fields)
            && fields.u32() == Some(ZIP64_LOCATOR)
        {
            let record_start =
                fields.u32().and_then(|_| fields.u64()).ok_or("bad ZIP64 locator")?;
            end -= ZIP64_LOCATOR_BYTES as u64;
            if record_start.checked_add(56).is_none_or(|record_end| record_end > end) {
                return Err("ZIP64 end record beyond the file".to_owned());
            }
            reader.seek(SeekFrom::Start(record_start)).map_err(say)?;
            let mut record = [0; 56];
            reader.read_exact(&mut record).map_err(say)?;
            let mut fields = Fields(&record);
            if fields.u32() != Some(ZIP64_END) {
                return Err("no ZIP64 end record".to_owned());
            }
            let mut fields = Fields(&record[32..]);
            let values = (fields.u64(), fields.u64(), fields.u64());
            let (Some(m), Some(b), Some(s)) = values else {
                return Err("bad ZIP64 end record".to_owned());
            };
            (members, bytes, start) = (m, b, s);
            end = record_start;
        }
        if start.checked_add(bytes) != Some(end) {
            return Err(format!("directory of {bytes} bytes at {start}, expected to end at {end}"));
        }
        if bytes > MAX_DIRECTORY_BYTES {
            return Err(format!(
                "directory of {bytes} bytes, expected at most {MAX_DIRECTORY_BYTES}"
            ));
        }
        if members > MAX_MEMBERS || members.saturating_mul(46) > bytes {
            return Err(format!("{members} members in a directory of {bytes} bytes"));
        }
        Ok(Self { start, bytes, members })
    }

    fn read<R: Read + Seek>(&self, reader: &mut R) -> Result<Vec<Member>, String> {
        let say = |error: std::io::Error| error.to_string();
        reader.seek(SeekFrom::Start(self.start)).map_err(say)?;
        let mut directory = Vec::with_capacity(self.bytes as usize);
        reader.by_ref().take(self.bytes).read_to_end(&mut directory).map_err(say)?;
        let mut fields = Fields(&directory);
        let mut listed = Vec::with_capacity(self.members as usize);
        for _ in 0..self.members {
            listed.push(Listed::parse(&mut fields)?);
        }
        if !fields.0.is_empty() {
            return Err("more in the directory than its members".to_owned());
        }
        let mut members = Vec::with_capacity(listed.len());
        // Where each begins and ends, its header included.
        let mut regions = Vec::with_capacity(listed.len());
        for entry in listed {
            let header_start = entry.header_start;
            let member = entry.locate(reader)?;
            regions.push((header_start, member.start.saturating_add(member.stored_bytes)));
            members.push(member);
        }
        regions.sort_unstable();
        let starts = regions.iter().skip(1).map(|region| region.0).chain([self.start]);
        if regions.iter().zip(starts).any(|(region, next)| region.1 > next) {
            return Err("members lie over one another".to_owned());
        }
        Ok(members)
    }
}

/// An entry of the directory.
struct Listed<'a> {
    name: &'a str,
    flags: u16,
    method: u16,
    checksum: u32,
    stored_bytes: u64,
    bytes: u64,
    header_start: u64,
}

impl<'a> Listed<'a> {
    fn parse(fields: &mut Fields<'a>) -> Result<Self, String> {
        let entry = (|| {
            (fields.u32()? == DIRECTORY_ENTRY).then_some(())?;
            fields.take(4)?;
            let (flags, method) = (fields.u16()?, fields.u16()?);
            fields.take(4)?;
            let checksum = fields.u32()?;
            let (stored, bytes) = (fields.u32()?, fields.u32()?);
            let (name, extra, comment) = (fields.u16()?, fields.u16()?, fields.u16()?);
            fields.take(8)?;
            let header_start = fields.u32()?;
            let name = std::str::from_utf8(fields.take(name.into())?).ok()?;
            let extra = fields.take(extra.into())?;
            fields.take(comment.into())?;
            // In this order; each is there only if its short form is full.
            let [bytes, stored_bytes, header_start] = wide(extra, [bytes, stored, header_start])?;
            Some(Listed { name, flags, method, checksum, stored_bytes, bytes, header_start })
        })();
        entry.ok_or_else(|| "bad directory".to_owned())
    }

    /// Reads the header before the content, which must say the same.
    fn locate<R: Read + Seek>(self, reader: &mut R) -> Result<Member, String> {
        let Listed { name, flags, method, checksum, stored_bytes, bytes, header_start } = self;
        let bad = |what: &str| format!("`{name}` {what}");
        if flags & ENCRYPTED != 0 {
            return Err(bad("is encrypted"));
        }
        let is_deflated = match method {
            0 => false,
            8 => true,
            _ => return Err(bad(&format!("is packed by method {method}, expected 0 or 8"))),
        };
        let is_possible = if is_deflated {
            bytes <= stored_bytes.saturating_mul(MAX_DEFLATE_RATIO)
        } else {
            bytes == stored_bytes
        };
        if !is_possible {
            return Err(bad(&format!("claims {bytes} bytes of {stored_bytes} stored ones")));
        }
        let mut header = [0; LOCAL_HEADER_BYTES as usize];
        let unreadable = |_| bad("has no header where the directory says");
        reader.seek(SeekFrom::Start(header_start)).map_err(unreadable)?;
        reader.read_exact(&mut header).map_err(unreadable)?;
        let mut fields = Fields(&header);
        let differs = || bad("has another header than the directory says");
        let read = (|| {
            (fields.u32()? == LOCAL_HEADER).then_some(())?;
            fields.take(2)?;
            let (local_flags, local_method) = (fields.u16()?, fields.u16()?);
            fields.take(4)?;
            let sizes = [fields.u32()?, fields.u32()?, fields.u32()?];
            let lengths = (fields.u16()?, fields.u16()?);
            let is_same = (local_flags & (ENCRYPTED | SIZES_FOLLOW), local_method)
                == (flags & (ENCRYPTED | SIZES_FOLLOW), method);
            is_same.then_some((sizes, lengths))
        })();
        let ([local_checksum, stored, size], (name_bytes, extra_bytes)) =
            read.ok_or_else(differs)?;
        let mut rest = vec![0; usize::from(name_bytes) + usize::from(extra_bytes)];
        reader.read_exact(&mut rest).map_err(unreadable)?;
        let (local_name, extra) = rest.split_at(name_bytes.into());
        let [local_bytes, local_stored, _] = wide(extra, [size, stored, 0]).ok_or_else(differs)?;
        let sizes_follow = flags & SIZES_FOLLOW != 0;
        let is_same = (local_bytes, local_stored, local_checksum)
            == (bytes, stored_bytes, checksum)
            || sizes_follow && (local_bytes, local_stored, local_checksum) == (0, 0, 0);
        if local_name != name.as_bytes() || !is_same {
            return Err(differs());
        }
        let start = header_start + LOCAL_HEADER_BYTES + rest.len() as u64;
        Ok(Member { name: name.to_owned(), stored_bytes, bytes, is_deflated, start, checksum })
    }
}

/// Writer of archives whose members are stored as they are.
pub(crate) struct Writer<W> {
    out: W,
    at: u64,
    directory: Vec<u8>,
    members: u16,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, at: 0, directory: Vec::new(), members: 0 }
    }

    /// Appends a member, given in pieces; twice, since its checksum comes before it.
    pub(crate) fn add<'a, P: Iterator<Item = Cow<'a, [u8]>>>(
        &mut self,
        name: &str,
        pieces: impl Fn() -> P,
    ) -> std::io::Result<()> {
        let (mut hasher, mut bytes) = (Hasher::new(), 0);
        for piece in pieces() {
            hasher.update(&piece);
            bytes += piece.len() as u64;
        }
        let too_large =
            |_| std::io::Error::other("more than 4 GiB, which the format does not hold");
        let size = u32::try_from(bytes).map_err(too_large)?;
        let start = u32::try_from(self.at).map_err(too_large)?;
        let name_bytes = u16::try_from(name.len()).map_err(std::io::Error::other)?;
        self.members = self.members.checked_add(1).ok_or_else(|| {
            std::io::Error::other("more than 65535 members, which the format does not hold")
        })?;

        // Version 2.0, no flags, stored; 1980-01-01 00:00; checksum and sizes; the name, nothing more.
        let mut common = Vec::new();
        for field in [20, 0, 0, 0, 0x21_u16] {
            common.extend(field.to_le_bytes());
        }
        for field in [hasher.finalize(), size, size] {
            common.extend(field.to_le_bytes());
        }
        common.extend([name_bytes, 0].map(u16::to_le_bytes).concat());
        self.out.write_all(&LOCAL_HEADER.to_le_bytes())?;
        self.out.write_all(&common)?;
        self.out.write_all(name.as_bytes())?;
        for piece in pieces() {
            self.out.write_all(&piece)?;
        }
        self.at += LOCAL_HEADER_BYTES + u64::from(name_bytes) + bytes;

        self.directory.extend(DIRECTORY_ENTRY.to_le_bytes());
        self.directory.extend(20_u16.to_le_bytes());
        self.directory.extend(common);
        // No comment, first volume, no attributes.
        self.directory.extend([0; 10]);
        self.directory.extend(start.to_le_bytes());
        self.directory.extend(name.as_bytes());
        Ok(())
    }

    /// Writes the directory.
    pub(crate) fn finish(mut self) -> std::io::Result<()> {
        let start = u32::try_from(self.at).map_err(|_| {
            std::io::Error::other("more than 4 GiB, which the format does not hold")
        })?;
        self.out.write_all(&self.directory)?;
        self.out.write_all(&END.to_le_bytes())?;
        self.out.write_all(&[0, 0, self.members, self.members].map(u16::to_le_bytes).concat())?;
        self.out.write_all(&(self.directory.len() as u32).to_le_bytes())?;
        self.out.write_all(&start.to_le_bytes())?;
        self.out.write_all(&[0, 0])
    }
}

/// Sizes and offsets of 32 bits, or those of 64 bits in the extra fields where the short one is full.
fn wide(extra: &[u8], short: [u32; 3]) -> Option<[u64; 3]> {
    let mut values = short.map(u64::from);
    let mut fields = Fields(extra);
    // Padding of less than a header may follow the last field.
    while let (Some(id), Some(length)) = (fields.u16(), fields.u16()) {
        let Some(content) = fields.take(length.into()) else { break };
        if id == 1 {
            let mut content = Fields(content);
            for (value, short) in values.iter_mut().zip(short) {
                if short == u32::MAX {
                    *value = content.u64()?;
                }
            }
            return Some(values);
        }
    }
    Some(values)
}

/// Little-endian numbers, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

/// The unpacked content of a member.
pub(crate) struct MemberReader<'a, R> {
    content: Content<'a, R>,
    hasher: Hasher,
    left: u64,
    checksum: u32,
}

enum Content<'a, R> {
    Stored(Take<&'a mut R>),
    Deflated(Box<DeflateDecoder<Take<&'a mut R>>>),
}

impl<R: Read> Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Content::Stored(reader) => reader.read(buffer),
            Content::Deflated(reader) => reader.read(buffer),
        }
    }
}

impl<R: Read> Read for MemberReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.content.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.hasher.update(&buffer[..count]);
        self.left -= count as u64;
        Ok(count)
    }
}

impl<R: Read> MemberReader<'_, R> {
    /// Reads what is left, and checks that nothing follows and that the checksum is that of the archive.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        std::io::copy(&mut self, &mut std::io::sink()).map_err(|error| error.to_string())?;
        if self.content.read(&mut [0]).map_err(|error| error.to_string())? != 0 {
            return Err("is longer than the archive says".to_owned());
        }
        // PyTorch writes 0 where it was told to save the time.
        if self.checksum != 0 && self.hasher.finalize() != self.checksum {
            return Err("does not have its checksum".to_owned());
        }
        Ok(())
    }
}
