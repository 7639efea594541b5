//! Places of all examples of a set of tar shards.
//!
//! Shards are streams; training wants any example at any time. So the headers of all shards are
//! walked once, and what was found is kept in a file beside them, twelve bytes per example. When the shards are
//! opened again, only what is before the examples is read; they are looked up where they are.
//!
//! # File format
//! Little-endian, version 3:
//!
//! | what | type |
//! |---|---|
//! | `mixeridx`, version | 8 bytes, u32 |
//! | examples, shards, labels, kinds of passed-over members, hash of keys and labels | u64, u32, u32, u64, u64 |
//! | per shard: name, size, modification time, first example | text, u64, i64 s + u32 ns, u64 |
//! | per label: 0 for a name, 1 for a position in decimal digits | u8, text |
//! | per kind of passed-over members: its name, their number, the first of them | text, u64, text |
//! | per 16,384 examples: CRC-32 of what is below about them | u32 |
//! | CRC-32 of everything before | u32 |
//! | per example: offset of the picture ÷ 512, its size, label number | u32, u32, u32 |
//!
//! A text is a u16 length and its bytes.

use std::collections::HashSet;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use fs_err as fs;

use crate::error::{DataError, Place};
use crate::shards::entries::{ENTRY_BYTES, Entries, Entry, FiledEntries, PIECE};
use crate::shards::packing::Packing;
use crate::shards::tar::{BLOCK, Member, Members};
use crate::shards::whole_file::write_whole;
use crate::sources::fingerprint::Fingerprint;
use crate::sources::labels::{BYTE_ORDER_MARK, DistinctLabels, Label, number_in};
use crate::sources::passed_over::PassedOver;
use crate::sources::picture_files::has_image_extension;
use crate::sources::read_at::ReadAt;

const MAGIC: &[u8; 8] = b"mixeridx";
const VERSION: u32 = 3;

/// The largest `.cls` and `.json` member, bytes.
const MAX_LABEL_BYTES: u64 = 1 << 20;

/// The longest text of a label, bytes.
const MAX_LABEL_TEXT: usize = 1024;

/// Contents of a set of shards.
#[derive(Debug)]
pub(crate) struct ShardIndex {
    pub(crate) shards: Vec<Shard>,
    /// The different labels, as they are written in the shards.
    pub(crate) labels: Vec<Label>,
    pub(crate) entries: Entries,
    /// Members that belong to no example.
    pub(crate) passed_over: PassedOver,
    /// A hash of all keys and labels in order.
    pub(crate) fingerprint: u64,
}

/// A tar file, as it was when it was indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Its file name, without a folder.
    pub(crate) name: String,
    stamp: Stamp,
    /// Index of its first example.
    pub(crate) first: u64,
}

/// Size and time that tell a file from a changed one without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    size: u64,
    modified_secs: i64,
    modified_nanos: u32,
}

/// Contents that were found in one shard.
#[derive(Default)]
pub(crate) struct ShardContent {
    entries: Vec<Entry>,
    labels: Vec<Label>,
    passed_over: PassedOver,
    fingerprint: u64,
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, DataError> {
        let metadata = fs::metadata(path).map_err(DataError::io)?;
        let modified = metadata.modified().map_err(DataError::io)?;
        // Times before 1970 are as good as any, and only compared.
        let (sign, since) = match modified.duration_since(UNIX_EPOCH) {
            Ok(since) => (1, since),
            Err(error) => (-1, error.duration()),
        };
        Ok(Self {
            size: metadata.len(),
            modified_secs: sign * i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            modified_nanos: since.subsec_nanos(),
        })
    }
}

impl ShardIndex {
    /// Walks over shards, several at a time.
    pub(crate) fn build(paths: &[PathBuf]) -> Result<Self, DataError> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(16);
        let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(path) = paths.get(number) else { break };
                let result = read_shard(path);
                let failed = result.is_err();
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.push((number, result));
                if failed {
                    // Those that were begun are finished, so that the first error is found.
                    next.store(paths.len(), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..workers.min(paths.len()) {
                // Where no further thread may be started, those that there are do the work.
                drop(std::thread::Builder::new().spawn_scoped(scope, work));
            }
            work();
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_unstable_by_key(|(number, _)| *number);

        let mut labels = DistinctLabels::default();
        let mut fingerprint = Fingerprint::new();
        let mut shards = Vec::with_capacity(paths.len());
        let mut entries: Vec<Entry> = Vec::new();
        let mut passed_over = PassedOver::default();
        for ((_, result), path) in results.into_iter().zip(paths) {
            let (stamp, content) = result?;
            let first = entries.len() as u64;
            shards.push(Shard { name: file_name(path)?, stamp, first });
            let ids: Vec<u32> = content.labels.into_iter().map(|label| labels.id(label)).collect();
            entries.extend(
                content.entries.iter().map(|e| Entry { label: ids[e.label as usize], ..*e }),
            );
            passed_over.merge(&content.passed_over);
            fingerprint.number(content.fingerprint);
        }
        entries.shrink_to_fit();
        Ok(Self {
            shards,
            labels: labels.into_labels(),
            entries: Entries::Listed(entries),
            passed_over,
            fingerprint: fingerprint.finish(),
        })
    }

    /// Opens an index file; what it says of examples is looked at when they are asked for.
    ///
    /// # Errors
    /// When it cannot be read, or is no whole index of this version.
    pub(crate) fn read(path: &Path) -> Result<Self, DataError> {
        Self::open(Box::new(fs::File::open(path).map_err(DataError::io)?), path)
    }

    /// Opens an index.
    pub(crate) fn open(file: Box<dyn ReadAt>, path: &Path) -> Result<Self, DataError> {
        let size = file.size().map_err(DataError::io)?;
        let front = BufReader::with_capacity(1 << 20, Sequential { file: &*file, at: 0, size });
        let mut reader = Checked { reader: front, crc: crc32fast::Hasher::new(), read: 0 };
        let front = reader.front(size).map_err(|error| match error {
            Broken::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                DataError::malformed(
                    path,
                    Place::Byte(size),
                    "the end of the file",
                    "more of an index",
                )
            }
            Broken::Io(error) => DataError::io(error),
            Broken::Content(found, expected) => {
                DataError::malformed(path, Place::Byte(reader.read), found, expected)
            }
        });
        let (front, start) = (front?, reader.read);
        drop(reader);
        let Front { shards, labels, num_entries, checksums, passed_over, fingerprint } = front;
        let entries = FiledEntries::new(file, path, start, num_entries, checksums);
        let entries = Entries::Filed(entries);
        Ok(Self { shards, labels, entries, passed_over, fingerprint })
    }

    /// The place of an example, which is in its shard and has a label that exists.
    ///
    /// # Errors
    /// When the index cannot be read or is damaged there.
    pub(crate) fn entry(&self, index: usize) -> Result<Entry, DataError> {
        let entry = self.entries.get(index)?;
        let shard = &self.shards[self.shard_of(index)];
        let end = u64::from(entry.block) * BLOCK + u64::from(entry.size);
        if entry.label as usize >= self.labels.len() || end > shard.stamp.size {
            let found = format!("{entry:?} for example {index}");
            let expected = "a place and a label that exist";
            return Err(DataError::malformed(Path::new(&shard.name), Place::File, found, expected));
        }
        Ok(entry)
    }

    /// Makes sure that the index is that of `paths` as they are now.
    pub(crate) fn check(&self, paths: &[PathBuf], index: &Path) -> Result<(), DataError> {
        let stale = |shard: &Path| DataError::StaleIndex {
            shard: shard.display().to_string(),
            path: index.to_path_buf(),
        };
        for (path, shard) in paths.iter().zip(&self.shards) {
            if file_name(path)? != shard.name || Stamp::of(path)? != shard.stamp {
                return Err(stale(path));
            }
        }
        match paths.len() == self.shards.len() {
            true => Ok(()),
            false => Err(stale(paths.last().map_or(index, PathBuf::as_path))),
        }
    }

    /// Writes the index file, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<(), DataError> {
        let checksums = self.entries.checksums()?;
        write_whole(path, |writer| self.write_to(writer, &checksums)).map_err(DataError::io)
    }

    fn write_to(&self, writer: &mut impl Write, checksums: &[u32]) -> io::Result<()> {
        let mut crc = crc32fast::Hasher::new();
        let mut put = |bytes: &[u8]| {
            crc.update(bytes);
            writer.write_all(bytes)
        };
        put(MAGIC)?;
        put(&VERSION.to_le_bytes())?;
        put(&(self.entries.len() as u64).to_le_bytes())?;
        put(&(self.shards.len() as u32).to_le_bytes())?;
        put(&(self.labels.len() as u32).to_le_bytes())?;
        put(&(self.passed_over.kinds().len() as u64).to_le_bytes())?;
        put(&self.fingerprint.to_le_bytes())?;
        let text = |text: &str| {
            // All texts are checked to be short.
            let length = text.len().min(usize::from(u16::MAX)) as u16;
            [&length.to_le_bytes()[..], &text.as_bytes()[..usize::from(length)]].concat()
        };
        for shard in &self.shards {
            put(&text(&shard.name))?;
            put(&shard.stamp.size.to_le_bytes())?;
            put(&shard.stamp.modified_secs.to_le_bytes())?;
            put(&shard.stamp.modified_nanos.to_le_bytes())?;
            put(&shard.first.to_le_bytes())?;
        }
        for label in &self.labels {
            put(&[u8::from(matches!(label, Label::Position(_)))])?;
            match label {
                Label::Name(name) | Label::Either(name) => put(&text(name))?,
                Label::Position(number) => put(&text(&number.to_string()))?,
            }
        }
        for (kind, found) in self.passed_over.kinds() {
            put(&text(kind))?;
            put(&found.count.to_le_bytes())?;
            put(&text(&found.first))?;
        }
        for checksum in checksums {
            put(&checksum.to_le_bytes())?;
        }
        let crc = crc.finalize();
        writer.write_all(&crc.to_le_bytes())?;
        for index in 0..self.entries.len() {
            let entry = self.entries.get(index).map_err(io::Error::other)?;
            writer.write_all(&entry.to_bytes())?;
        }
        Ok(())
    }

    /// The shard that holds an example.
    pub(crate) fn shard_of(&self, index: usize) -> usize {
        // Shards without examples share their first example with the next.
        self.shards.partition_point(|shard| shard.first <= index as u64) - 1
    }

    /// An index of shards that do not exist, to measure with.
    pub(crate) fn synthetic(num_entries: u32, num_shards: u32, num_labels: u32) -> Self {
        let per_shard = num_entries.div_ceil(num_shards.max(1)).max(1);
        let stamp = Stamp {
            size: (u64::from(per_shard) * 216 + 2) * BLOCK,
            modified_secs: 0,
            modified_nanos: 0,
        };
        let entry = |number: u32| Entry {
            block: number % per_shard * 216 + 1,
            size: 109_600,
            label: number.wrapping_mul(2_654_435_761) % num_labels.max(1),
        };
        Self {
            shards: (0..num_shards)
                .map(|shard| Shard {
                    name: format!("synthetic-{shard:06}.tar"),
                    stamp,
                    first: u64::from(shard * per_shard).min(u64::from(num_entries)),
                })
                .collect(),
            labels: (0..num_labels).map(Label::Position).collect(),
            entries: Entries::Listed((0..num_entries).map(entry).collect()),
            passed_over: PassedOver::default(),
            fingerprint: 0,
        }
    }
}

/// Why an index was not understood.
enum Broken {
    Io(io::Error),
    Content(String, String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The part of an index that is about all examples together.
struct Front {
    shards: Vec<Shard>,
    labels: Vec<Label>,
    num_entries: usize,
    checksums: Vec<u32>,
    passed_over: PassedOver,
    fingerprint: u64,
}

/// A file from its start on.
struct Sequential<'a> {
    file: &'a dyn ReadAt,
    at: u64,
    size: u64,
}

impl Read for Sequential<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        self.file.read_exact_at(&mut buffer[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Reads fields, and keeps the checksum of everything read.
struct Checked<R> {
    reader: R,
    crc: crc32fast::Hasher,
    read: u64,
}

impl<R: Read> Checked<R> {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(buffer)?;
        self.crc.update(buffer);
        self.read += buffer.len() as u64;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes).map(|()| bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, Broken> {
        let mut bytes = vec![0; usize::from(u16::from_le_bytes(self.bytes()?))];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes)
            .map_err(|_| Broken::Content("what is no text".to_owned(), "a name".to_owned()))
    }

    fn label(&mut self) -> Result<Label, Broken> {
        let [kind] = self.bytes()?;
        let text = self.text()?;
        let label = match kind {
            0 => Some(Label::Name(text)),
            1 => text.parse().ok().and_then(Label::position),
            _ => None,
        };
        label.ok_or_else(|| Broken::Content("a broken label".to_owned(), "a whole one".to_owned()))
    }

    /// Refuses counts that a file of `size` bytes has no room for, before they are allocated.
    fn check_room(&self, count: u64, each: u64, size: u64) -> Result<usize, Broken> {
        let needed = count.checked_mul(each).and_then(|needed| needed.checked_add(self.read));
        match needed.is_some_and(|needed| needed <= size) {
            true => Ok(count as usize),
            false => Err(Broken::Content(
                format!("a count of {count}"),
                format!("no more than a file of {size} bytes can hold"),
            )),
        }
    }

    fn front(&mut self, size: u64) -> Result<Front, Broken> {
        let refuse =
            |found: String, expected: &str| Err(Broken::Content(found, expected.to_owned()));
        let magic: [u8; 8] = self.bytes()?;
        if magic != *MAGIC {
            return refuse(format!("`{}`", magic.escape_ascii()), "an index of shards");
        }
        let version = self.u32()?;
        if version != VERSION {
            return refuse(format!("an index of version {version}"), &format!("version {VERSION}"));
        }
        let num_entries = self.u64()?;
        let (num_shards, num_labels) = (u64::from(self.u32()?), u64::from(self.u32()?));
        let (num_kinds, fingerprint) = (self.u64()?, self.u64()?);
        let num_entries = self.check_room(num_entries, ENTRY_BYTES as u64, size)?;
        let num_shards = self.check_room(num_shards, 30, size)?;
        let num_labels = self.check_room(num_labels, 3, size)?;
        let num_kinds = self.check_room(num_kinds, 12, size)?;

        let mut shards: Vec<Shard> = Vec::with_capacity(num_shards);
        for _ in 0..num_shards {
            let name = self.text()?;
            let stamp = Stamp {
                size: self.u64()?,
                modified_secs: self.bytes().map(i64::from_le_bytes)?,
                modified_nanos: self.u32()?,
            };
            let first = self.u64()?;
            let least = shards.last().map_or(0, |shard| shard.first);
            if first < least || first > num_entries as u64 || (shards.is_empty() && first != 0) {
                return refuse(
                    format!("example {first} as the first of a shard"),
                    "ascending ones",
                );
            }
            shards.push(Shard { name, stamp, first });
        }
        let labels =
            (0..num_labels).map(|_| self.label()).collect::<Result<Vec<Label>, Broken>>()?;
        let mut passed_over = PassedOver::default();
        for _ in 0..num_kinds {
            let (kind, count, first) = (self.text()?, self.u64()?, self.text()?);
            passed_over.add_all(&kind, count, &first);
        }

        if shards.is_empty() && num_entries > 0 {
            return refuse("examples and no shard".to_owned(), "shards that hold them");
        }
        let num_pieces = self.check_room(num_entries.div_ceil(PIECE) as u64, 4, size)?;
        let checksums = (0..num_pieces).map(|_| self.u32()).collect::<io::Result<Vec<u32>>>()?;
        let expected = self.crc.clone().finalize();
        let found = self.u32()?;
        if found != expected {
            return refuse("a wrong checksum".to_owned(), "that of the content");
        }
        let end = self.read + (num_entries * ENTRY_BYTES) as u64;
        if end > size {
            return Err(Broken::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        if end < size {
            return refuse(format!("{} more bytes", size - end), "the end of the file");
        }
        Ok(Front { shards, labels, num_entries, checksums, passed_over, fingerprint })
    }
}

fn file_name(path: &Path) -> Result<String, DataError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.filter(|name| name.len() <= usize::from(u16::MAX))
        .map(str::to_owned)
        .ok_or_else(|| DataError::NonUnicodeName { path: path.to_path_buf() })
}

fn read_shard(path: &Path) -> Result<(Stamp, ShardContent), DataError> {
    let file = fs::File::open(path).map_err(DataError::io)?;
    // Before it is read: if it changes meanwhile, the index is stale at once.
    let stamp = Stamp::of(path)?;
    Ok((stamp, scan_shard(&file, path)?))
}

/// The members that share a key and follow one another.
#[derive(Default)]
struct Group {
    key: String,
    picture: Option<Member>,
    cls: Option<Member>,
    json: Option<Member>,
}

/// Finds the examples of one shard.
///
/// Members form an example when their names are equal up to the first dot behind the last slash (the
/// key) and they follow one another, as in WebDataset. It has one picture (`jpg`, or another ending of
/// [`EXTENSIONS`](crate::sources::picture_files::EXTENSIONS)) and a label: the text of `cls`, or else the
/// entry `label` of `json`, or else the name of the folder that the picture lies in. Endings count in any
/// case.
pub(crate) fn scan_shard<R: ReadAt + ?Sized>(
    archive: &R,
    path: &Path,
) -> Result<ShardContent, DataError> {
    let mut members = Members::of(archive, path)?;
    let mut scan = Scan {
        content: ShardContent::default(),
        keys: HashSet::new(),
        labels: DistinctLabels::default(),
        fingerprint: Fingerprint::new(),
    };
    let mut group = Group::default();
    while let Some(member) = members.next()? {
        let passed_over = &mut scan.content.passed_over;
        let Some((key, extension)) = split_name(&member.name) else {
            match member.name.rsplit('/').next().is_some_and(|name| name.starts_with('.')) {
                true => passed_over.add("that are hidden", &member.name),
                false => passed_over.add_name(&member.name),
            }
            continue;
        };
        if key != group.key {
            let key = key.to_owned();
            scan.finish(
                std::mem::replace(&mut group, Group { key, ..Group::default() }),
                &members,
            )?;
        }
        let slot = match extension.to_ascii_lowercase().as_str() {
            "cls" => &mut group.cls,
            "json" => &mut group.json,
            _ if is_picture(extension) => &mut group.picture,
            _ => {
                scan.content.passed_over.add_ending(extension, &member.name);
                continue;
            }
        };
        if slot.is_some() {
            let found = format!("a second `.{extension}` of `{}`", group.key);
            return Err(members.malformed(member.offset, &found, "one of a kind for each key"));
        }
        *slot = Some(member);
    }
    scan.finish(group, &members)?;
    scan.content.fingerprint = scan.fingerprint.finish();
    scan.content.labels = scan.labels.into_labels();
    Ok(scan.content)
}

/// The state of a walk.
struct Scan {
    content: ShardContent,
    keys: HashSet<String>,
    labels: DistinctLabels,
    fingerprint: Fingerprint,
}

impl Scan {
    fn finish<R: ReadAt + ?Sized>(
        &mut self,
        group: Group,
        members: &Members<'_, R>,
    ) -> Result<(), DataError> {
        let Some(picture) = &group.picture else {
            for (ending, member) in [("cls", &group.cls), ("json", &group.json)] {
                if let Some(member) = member {
                    let kind = format!("`.{ending}` without a picture");
                    self.content.passed_over.add(&kind, &member.name);
                }
            }
            return Ok(());
        };
        let label = label_of(&group, picture, members)?;
        if let Label::Name(name) = &label
            && !(1..=MAX_LABEL_TEXT).contains(&name.len())
        {
            let found = format!("a label of {} bytes", name.len());
            let expected = format!("1 to {MAX_LABEL_TEXT}");
            return Err(members.malformed(picture.offset, &found, &expected));
        }
        self.fingerprint.string(&group.key).string(&label.to_string());
        let block = u32::try_from(picture.offset / BLOCK).map_err(|_| {
            members.malformed(picture.offset, "a picture", "none behind the first 2 TiB")
        })?;
        self.content.entries.push(Entry {
            block,
            // Larger ones are refused when they are read, and 4 GiB is large enough for that.
            size: u32::try_from(picture.size).unwrap_or(u32::MAX),
            label: self.labels.id(label),
        });
        let offset = picture.offset;
        let key = group.key;
        if let Some(key) = self.keys.replace(key) {
            let found = format!("key `{key}` again");
            return Err(members.malformed(offset, &found, "different keys"));
        }
        Ok(())
    }
}

/// The key and the extension of a name: `a/b.seg.png` has key `a/b` and extension `seg.png`.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    // Names that start with a dot are hidden.
    (dot > base).then(|| (&name[..dot], &name[dot + 1..]))
}

fn is_picture(extension: &str) -> bool {
    !extension.contains('.') && has_image_extension(&format!(".{extension}"))
}

/// Label that a group gives to its picture.
fn label_of<R: ReadAt + ?Sized>(
    group: &Group,
    picture: &Member,
    members: &Members<'_, R>,
) -> Result<Label, DataError> {
    let position = |number: i64, member: &Member| {
        Label::position(number).ok_or_else(|| {
            let found = format!("label {number} in `{}`", member.name);
            members.malformed(member.offset, &found, "a position, counted from 0, or a name")
        })
    };
    if let Some(cls) = &group.cls {
        let text = text_of(cls, members)?;
        return match number_in(text.trim()) {
            Some(number) => position(number, cls),
            None => Ok(Label::Name(text.trim().to_owned())),
        };
    }
    if let Some(json) = &group.json {
        let text = text_of(json, members)?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
            let found = format!("broken JSON in `{}` ({error})", json.name);
            members.malformed(json.offset, &found, "an object with `label`")
        })?;
        match &value["label"] {
            serde_json::Value::String(text) => return Ok(Label::Name(text.trim().to_owned())),
            serde_json::Value::Null => {}
            // Whole numbers that a program keeps as floating-point ones end in `.0`.
            value => match number_in(&value.to_string()) {
                Some(number) => return position(number, json),
                None => {
                    let found =
                        format!("label {} in `{}`", start_of(&value.to_string()), json.name);
                    let expected = "a whole number or a name";
                    return Err(members.malformed(json.offset, &found, expected));
                }
            },
        }
    }
    let folder = group.key.rsplit_once('/').map(|(folders, _)| folders);
    let folder = folder.and_then(|folders| folders.rsplit('/').next());
    let name = folder.filter(|name| !matches!(*name, "" | "." | ".."));
    name.map(|name| Label::Name(name.to_owned())).ok_or_else(|| {
        let found = format!("no label for `{}`", picture.name);
        let expected = "a `.cls`, a `.json` with `label`, or a class folder";
        members.malformed(picture.offset, &found, expected)
    })
}

/// The text of a member, without the mark that some programs put in front of one.
fn text_of<R: ReadAt + ?Sized>(
    member: &Member,
    members: &Members<'_, R>,
) -> Result<String, DataError> {
    let content = members.content(member, MAX_LABEL_BYTES)?;
    let what = Packing::of(&content).map_or("what is no text", Packing::name);
    match String::from_utf8(content) {
        Ok(text) => Ok(text.strip_prefix(BYTE_ORDER_MARK).map(str::to_owned).unwrap_or(text)),
        Err(_) => {
            let found = format!("{what} in `{}`", member.name);
            Err(members.malformed(member.offset, &found, "a label"))
        }
    }
}

fn start_of(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shards::tar::tests::{archive, member};

    fn file(name: &str, content: &str) -> Vec<u8> {
        member(name, b'0', content.as_bytes())
    }

    fn scan(members: &[Vec<u8>]) -> Result<(Vec<(u32, String)>, String), String> {
        let content = scan_shard(archive(members).as_slice(), Path::new("a.tar"))
            .map_err(|error| error.to_string())?;
        let example =
            |entry: &Entry| (entry.size, content.labels[entry.label as usize].to_string());
        Ok((content.entries.iter().map(example).collect(), content.passed_over.to_string()))
    }

    #[test]
    fn members_with_one_key_are_one_example() {
        let (found, passed_over) = scan(&[
            file("1.jpg", "a"),
            file("1.cls", "7\n"),
            file("2.json", "{\"label\": 3, \"x\": [1]}"),
            file("2.JPEG", "bb"),
            file("n01/3.png", "ccc"),
            file("n01/4.json", "{\"caption\": \"no label\"}"),
            file("n01/4.webp", "dddd"),
            file("n01/4.txt", "ignored"),
            file("5.jpg", "eeeee"),
            file("5.seg.png", "ignored"),
            file("5.cls", "cat"),
            file("6.cls", "without a picture"),
            file("n01/.hidden.jpg", "ignored"),
            file("readme", "ignored"),
            file("deep/n02/7.jpg", "ffffff"),
            file("8.json", "{\"label\": \"dog\"}"),
            file("8.bmp", "ggggggg"),
        ])
        .unwrap();
        let expected =
            [(1, "7"), (2, "3"), (3, "n01"), (4, "n01"), (5, "cat"), (6, "n02"), (7, "dog")];
        assert_eq!(found, expected.map(|(size, label)| (size, label.to_owned())));
        assert_eq!(
            passed_over,
            "5 files: 1 `.cls` without a picture (6.cls), 1 `.seg.png` (5.seg.png), \
             1 `.txt` (n01/4.txt), 1 that are hidden (n01/.hidden.jpg), 1 more of 1 other kinds"
        );
    }

    #[test]
    fn labels_are_read_as_other_programs_write_them() {
        let (found, passed_over) = scan(&[
            file("1.JFIF", "a"),
            file("1.CLS", "\u{feff}7\r\n"),
            file("2.jpe", "bb"),
            file("2.cls", "3.0"),
            file("3.json", "\u{feff}{\"label\": 1.0}"),
            file("3.png", "ccc"),
            file("n02/4.JSON", "{\"label\": null}"),
            file("n02/4.png", "dddd"),
            file("5.png", "eeeee"),
            file("5.cls", "1.5"),
        ])
        .unwrap();
        let expected = [(1, "7"), (2, "3"), (3, "1"), (4, "n02"), (5, "1.5")];
        assert_eq!(found, expected.map(|(size, label)| (size, label.to_owned())));
        assert_eq!(passed_over, "0 files: ");
    }

    #[test]
    fn keys_end_at_the_first_dot_and_what_that_leaves_over_is_named() {
        let (found, passed_over) = scan(&[
            file("a.png", "a"),
            file("a.cls", "0"),
            file("c v2.0.png", ""),
            file("c v2.0.cls", "1"),
            file("d.png.gz", ""),
            file("d.cls", "1"),
            file("e.tiff", ""),
        ])
        .unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            passed_over,
            "5 files: 1 `.0.cls` (c v2.0.cls), 1 `.0.png` (c v2.0.png), \
             1 `.cls` without a picture (d.cls), 1 `.png.gz` (d.png.gz), 1 more of 1 other kinds"
        );
    }

    #[test]
    fn shards_that_contradict_themselves_are_refused() {
        for (members, message) in [
            (
                vec![file("1.jpg", ""), file("1.png", "")],
                "found a second `.png` of `1` at byte 1024, expected one of a kind for each key",
            ),
            (
                vec![file("a/1.jpg", ""), file("a/2.jpg", ""), file("a/1.jpg", "")],
                "found key `a/1` again at byte 1536, expected different keys",
            ),
            (
                vec![file("1.jpg", "")],
                "found no label for `1.jpg` at byte 512, expected a `.cls`, a `.json` with `label`, or a class folder",
            ),
            (
                vec![file("../1.jpg", "")],
                "found no label for `../1.jpg` at byte 512, expected a `.cls`, a `.json` with `label`, or a class folder",
            ),
            (
                vec![file("1.jpg", ""), file("1.cls", "")],
                "found a label of 0 bytes at byte 512, expected 1 to 1024",
            ),
            (
                vec![file("1.jpg", ""), member("1.cls", b'0', b"\xff")],
                "found what is no text in `1.cls` at byte 1024, expected a label",
            ),
            (
                vec![file("1.jpg", ""), member("1.cls", b'0', b"\x1f\x8b\x08\0\0")],
                "found gzip in `1.cls` at byte 1024, expected a label",
            ),
            (
                vec![file("1.jpg", ""), file("1.json", "{\"label\": 0.5}")],
                "found label 0.5 in `1.json` at byte 1024, expected a whole number or a name",
            ),
            (
                vec![file("1.jpg", ""), file("1.json", "{\"label\": [1]}")],
                "found label [1] in `1.json` at byte 1024, expected a whole number or a name",
            ),
            (
                vec![file("1.jpg", ""), file("1.json", "{")],
                "found broken JSON in `1.json` (EOF while parsing an object at line 1 column 1) at byte 1024, expected an object with `label`",
            ),
        ] {
            assert_eq!(scan(&members).unwrap_err(), format!("{message}: a.tar"));
        }
    }

    fn shards_in(folder: &Path) -> Vec<PathBuf> {
        let content = [
            archive(&[file("b/1.jpg", "one"), file("a/2.jpg", "three"), file("x.tif", "")]),
            archive(&[]),
            archive(&[file("c/3.jpg", "xx"), file("a/4.jpg", "y")]),
        ];
        let write = |(number, bytes): (usize, &Vec<u8>)| {
            let path = folder.join(format!("{number}.tar"));
            fs::write(&path, bytes).unwrap();
            path
        };
        content.iter().enumerate().map(write).collect()
    }

    /// The whole index, every example looked at.
    fn parse(bytes: &[u8]) -> Result<ShardIndex, DataError> {
        let index = ShardIndex::open(Box::new(bytes.to_vec()), Path::new("i"))?;
        entries(&index)?;
        Ok(index)
    }

    fn entries(index: &ShardIndex) -> Result<Vec<Entry>, DataError> {
        (0..index.entries.len()).map(|at| index.entry(at)).collect()
    }

    #[test]
    fn an_index_is_read_as_it_was_written_and_notices_changes() {
        let folder = tempfile::tempdir().unwrap();
        let paths = shards_in(folder.path());
        let index = ShardIndex::build(&paths).unwrap();
        assert_eq!(index.labels, ["b", "a", "c"].map(|name| Label::Name(name.to_owned())));
        let shards: Vec<usize> = (0..4).map(|at| index.shard_of(at)).collect();
        assert_eq!(shards, [0, 0, 2, 2]);
        let path = folder.path().join("index");
        assert_eq!(index.passed_over.count(), 1);
        index.write(&path).unwrap();
        let read = ShardIndex::read(&path).unwrap();
        assert_eq!(entries(&read).unwrap(), entries(&index).unwrap());
        assert_eq!((&read.shards, &read.labels), (&index.shards, &index.labels));
        assert_eq!((&read.passed_over, read.fingerprint), (&index.passed_over, index.fingerprint));
        read.check(&paths, &path).unwrap();

        let stale = |paths: &[PathBuf]| read.check(paths, &path).unwrap_err().to_string();
        assert!(stale(&paths[..2]).contains("1.tar"));
        assert!(stale(&[paths[1].clone()]).contains("1.tar"));
        let mut longer = fs::read(&paths[2]).unwrap();
        longer.resize(longer.len() + 512, 0);
        fs::write(&paths[2], longer).unwrap();
        assert_eq!(
            stale(&paths).replace(&folder.path().display().to_string(), "D"),
            "found an index that is older than `D/2.tar`, expected one that was made after it: D/index"
        );
    }

    #[test]
    fn a_damaged_index_is_refused_and_allocates_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        ShardIndex::build(&shards_in(folder.path())).unwrap().write(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let patched = |at: usize, with: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + with.len()].copy_from_slice(with);
            bytes
        };
        for (bytes, message) in [
            (Vec::new(), "found the end of the file at byte 0, expected more of an index"),
            (patched(0, b"M"), "found `Mixeridx` at byte 8, expected an index of shards"),
            (patched(8, &[1]), "found an index of version 1 at byte 12, expected version 3"),
            (
                patched(12, &[255; 8]),
                "found a count of 18446744073709551615 at byte 44, expected no more than a file of 240 bytes can hold",
            ),
            (
                patched(20, &[255; 4]),
                "found a count of 4294967295 at byte 44, expected no more than a file of 240 bytes can hold",
            ),
            (
                patched(24, &[255; 4]),
                "found a count of 4294967295 at byte 44, expected no more than a file of 240 bytes can hold",
            ),
            (
                bytes[..bytes.len() - 1].to_vec(),
                "found the end of the file at byte 239, expected more of an index",
            ),
            (
                [&bytes[..], b"x"].concat(),
                "found 1 more bytes at byte 192, expected the end of the file",
            ),
            (patched(36, b"!"), "found a wrong checksum at byte 192, expected that of the content"),
        ] {
            assert_eq!(parse(&bytes).unwrap_err().to_string(), format!("{message}: i"));
        }
        for (at, byte) in bytes.iter().enumerate() {
            assert!(parse(&patched(at, &[!byte])).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = parse(&tail);
            let _outcome = parse(&[&MAGIC[..], &VERSION.to_le_bytes(), &tail].concat());
        }
    }
}
