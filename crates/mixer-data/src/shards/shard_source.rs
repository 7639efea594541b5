//! Pictures in tar shards, in any order.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fs_err as fs;

use crate::decode::error::DecodeError;
use crate::decode::options::{DecodeOptions, MAX_FILE_BYTES};
use crate::error::{DataError, Place};
use crate::shards::shard_index::ShardIndex;
use crate::shards::tar::{BLOCK, name_in_header};
use crate::sources::fingerprint::Fingerprint;
use crate::sources::labels::{ClassList, Meaning};
use crate::sources::letters::check_letters;
use crate::sources::passed_over::PassedOver;
use crate::sources::pattern::expand_pattern;
use crate::sources::read_at::ReadAt;
use crate::sources::source::{Example, Source};

/// Number of shards that stay open. Further ones are opened for each example, so that no limit of the
/// system is met.
const MAX_OPEN: usize = 512;

/// Examples in tar archives, named as those of WebDataset.
///
/// Members whose names are equal up to the first dot are one example: a picture, `key.jpg`, and its
/// label, the text of `key.cls`, or `label` in `key.json`, or else the folder that the picture lies
/// in. A number is the position of a class in the file `classes.txt` beside the shards, whose lines
/// name the classes; without that file it is the name of a class. Any other labels are names.
///
/// Nothing is extracted, so that names with `..` or a leading `/` do no harm. Which bytes of which
/// shard an example is, is kept in an index beside the shards. It is made when they are first
/// opened, and again when a shard has another size or time of modification than the index says. It
/// takes twelve bytes per example, and no memory: it is looked into where it is.
///
/// Examples are in the order of the shards and of the members. Any of them is one read, so that
/// shuffling needs no buffer.
pub struct ShardSource {
    shards: Vec<(PathBuf, OnceLock<fs::File>)>,
    index: ShardIndex,
    index_state: IndexState,
    options: DecodeOptions,
    class_names: Vec<String>,
    /// Label of each text of the index.
    labels: Vec<u32>,
    fingerprint: u64,
}

/// Origin of the index of a [`ShardSource`].
#[derive(Clone, Debug)]
pub enum IndexState {
    /// It was read from this file.
    Read(PathBuf),
    /// It was made, and written to this file.
    Made {
        /// The file.
        path: PathBuf,
        /// Why the file that was there was not used; `None` where there was none.
        reason: Option<DataError>,
    },
    /// It was made, and could not be written: it will be made again the next time.
    Unwritten {
        /// The fault.
        error: DataError,
    },
}

impl ShardSource {
    /// Opens the shards that a pattern names, `imagenet/train-{000..127}.tar` or
    /// `imagenet/train-*.tar`. `classes` are those of training, where there are some.
    ///
    /// # Errors
    /// When a shard is missing or damaged, when there is no example, or a label is not among the
    /// classes.
    pub fn open(
        pattern: impl AsRef<Path>,
        classes: Option<&[String]>,
        options: DecodeOptions,
    ) -> Result<Self, DataError> {
        let pattern = pattern.as_ref();
        let paths = expand_pattern(pattern)?;
        let folder = pattern.parent().unwrap_or(Path::new(""));
        let index_path = folder.join(index_name(pattern, &paths));
        let (index, index_state) = open_index(&paths, index_path)?;
        if index.entries.len() == 0 {
            return Err(DataError::no_examples(pattern, &index.passed_over));
        }
        let list = ClassList::beside(pattern)?;
        let Meaning { class_names, by_id } = Meaning::of(&index.labels, list.as_ref(), classes)
            .map_err(|unknown| unknown.at(pattern, Place::File))?;
        check_letters(&class_names, pattern)?;
        let mut fingerprint = Fingerprint::new();
        fingerprint.number(index.fingerprint);
        by_id.iter().for_each(|&label| {
            fingerprint.number(u64::from(label));
        });
        Ok(Self {
            shards: paths.into_iter().map(|path| (path, OnceLock::new())).collect(),
            index,
            index_state,
            options,
            class_names,
            labels: by_id,
            fingerprint: fingerprint.finish(),
        })
    }

    /// Origin of the index.
    pub fn index_state(&self) -> &IndexState {
        &self.index_state
    }

    /// Calls `read` with the open shard of an example.
    fn with_shard<T>(
        &self,
        number: usize,
        read: impl FnOnce(&fs::File, &Path) -> Result<T, DataError>,
    ) -> Result<T, DataError> {
        let (path, file) = &self.shards[number];
        if let Some(file) = file.get() {
            return read(file, path);
        }
        let opened = fs::File::open(path).map_err(DataError::io)?;
        match number < MAX_OPEN {
            true => read(file.get_or_init(|| opened), path),
            false => read(&opened, path),
        }
    }

    /// Name of the member that an example is.
    fn member_name(&self, index: usize) -> Result<String, DataError> {
        let offset = u64::from(self.index.entry(index)?.block) * BLOCK;
        self.with_shard(self.index.shard_of(index), |file, _| {
            let mut header = [0; BLOCK as usize];
            let header_offset = offset.saturating_sub(BLOCK);
            file.read_exact_at(&mut header, header_offset).map_err(DataError::io)?;
            Ok(name_in_header(&header))
        })
    }
}

impl Source for ShardSource {
    fn len(&self) -> usize {
        self.index.entries.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> u32 {
        // Of an example whose entry is damaged, `read` says so.
        self.index.entry(index).map_or(0, |entry| self.labels[entry.label as usize])
    }

    fn read(&self, index: usize) -> Result<Example, DataError> {
        let entry = self.index.entry(index)?;
        let found = u64::from(entry.size);
        if found > MAX_FILE_BYTES {
            let reason = DecodeError::FileTooLarge { found, expected: MAX_FILE_BYTES };
            return Err(DataError::BadExample { example: self.describe(index), reason });
        }
        self.with_shard(self.index.shard_of(index), |file, path| {
            let offset = u64::from(entry.block) * BLOCK;
            let mut bytes = vec![0; entry.size as usize];
            file.read_exact_at(&mut bytes, offset).map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    let expected = format!("{found} bytes of a picture");
                    let place = Place::Byte(offset);
                    DataError::malformed(path, place, "the end of the file", expected)
                }
                _ => DataError::io(error),
            })?;
            Ok(Example::Encoded(bytes))
        })
    }

    fn decode_options(&self) -> DecodeOptions {
        self.options.clone()
    }

    fn describe(&self, index: usize) -> String {
        let (path, _) = &self.shards[self.index.shard_of(index)];
        let member = self.member_name(index).unwrap_or_else(|_| match self.index.entry(index) {
            Ok(entry) => format!("byte {}", u64::from(entry.block) * BLOCK),
            Err(_) => format!("example {index}"),
        });
        format!("{}: {member}", path.display())
    }

    fn passed_over(&self) -> PassedOver {
        self.index.passed_over.clone()
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// Reads the index, or makes it where there is none that fits.
fn open_index(
    paths: &[PathBuf],
    index_path: PathBuf,
) -> Result<(ShardIndex, IndexState), DataError> {
    let mut reason = None;
    if index_path.is_file() {
        let read = ShardIndex::read(&index_path)
            .and_then(|index| index.check(paths, &index_path).map(|()| index));
        match read {
            Ok(index) => return Ok((index, IndexState::Read(index_path))),
            Err(error) => reason = Some(error),
        }
    }
    let index = ShardIndex::build(paths)?;
    Ok(match index.write(&index_path) {
        Ok(()) => {
            // From here on as any other process has it.
            let index = ShardIndex::read(&index_path).unwrap_or(index);
            (index, IndexState::Made { path: index_path, reason })
        }
        Err(error) => (index, IndexState::Unwritten { error }),
    })
}

/// Name of the index file: the constant start of the pattern, and a hash of which shards it means,
/// so that training and validation shards of one folder have an index each.
fn index_name(pattern: &Path, paths: &[PathBuf]) -> String {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let start = name.split(['{', '*', '.']).next().unwrap_or_default();
    let start = start.trim_end_matches(['-', '_']);
    let start = if start.is_empty() { "shards" } else { start };
    let mut fingerprint = Fingerprint::new();
    for path in paths {
        fingerprint.string(path.file_name().and_then(|name| name.to_str()).unwrap_or_default());
    }
    format!("{start}.{:08x}.index", fingerprint.finish() >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shards::tar::tests::{archive, member};
    use crate::sources::labels::CLASSES_FILE;

    fn write_shards(folder: &Path) {
        let shard = |from: usize| {
            let members = (from..from + 3).flat_map(|number| {
                let picture =
                    member(&format!("{number:04}.jpg"), b'0', &vec![number as u8; number]);
                let label =
                    member(&format!("{number:04}.cls"), b'0', (number % 2).to_string().as_bytes());
                [picture, label]
            });
            archive(&members.collect::<Vec<_>>())
        };
        fs::write(folder.join("t-00.tar"), shard(1)).unwrap();
        fs::write(folder.join("t-01.tar"), shard(4)).unwrap();
    }

    fn open(folder: &Path) -> ShardSource {
        ShardSource::open(folder.join("t-{00..01}.tar"), None, DecodeOptions::default()).unwrap()
    }

    #[test]
    fn examples_are_read_by_index_from_any_shard() {
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path());
        let source = open(folder.path());
        assert_eq!(source.len(), 6);
        assert_eq!(source.class_names(), ["0", "1"]);
        for index in (0..6).rev() {
            let number = index + 1;
            assert_eq!(source.read(index).unwrap(), Example::Encoded(vec![number as u8; number]));
            assert_eq!(source.label(index), number as u32 % 2);
            assert!(source.describe(index).ends_with(&format!(".tar: {number:04}.jpg")));
        }
    }

    /// All files below a folder, sorted.
    fn files_below(folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }

    #[test]
    fn names_in_an_archive_are_never_paths_to_write_to() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        fs::create_dir_all(&folder).unwrap();
        let absolute = root.path().join("absolute").display().to_string();
        let picture = [&b"BM"[..], &[0; 60]].concat();
        let names = ["../../up", "a/../../../up2", absolute.as_str(), "./x/../../up3", "up4\\w"];
        let members = names.iter().flat_map(|name| {
            [
                member(&format!("{name}.bmp"), b'0', &picture),
                member(&format!("{name}.cls"), b'0', b"0"),
            ]
        });
        // Links lead nowhere, and a class is a number or a name of the list beside the shards.
        let links = [member("link.bmp", b'2', b""), member("../../link.cls", b'1', b"")];
        let last = [member("z.bmp", b'0', &picture), member("z.cls", b'0', b"1")];
        let members: Vec<Vec<u8>> = members.chain(links).chain(last).collect();
        let shard = folder.join("t.tar");
        fs::write(&shard, archive(&members)).unwrap();

        let source = ShardSource::open(&shard, None, DecodeOptions::default()).unwrap();
        assert_eq!(source.len(), names.len() + 1);
        for index in 0..source.len() {
            assert_eq!(source.read(index).unwrap(), Example::Encoded(picture.clone()));
            assert_eq!(source.label(index), u32::from(index == names.len()));
        }
        let IndexState::Made { path: index, .. } = source.index_state() else {
            panic!("{:?}", source.index_state());
        };
        let mut expected = vec![shard.clone(), index.clone()];
        expected.sort();
        assert_eq!(files_below(root.path()), expected);

        // Written again they have names of our own.
        let out = root.path().join("out");
        let config = crate::ShardWriterConfig::new("t");
        crate::write_shards(&source, &out, &config, crate::OnCorrupt::Stop, 1, |_| {}).unwrap();
        for path in files_below(root.path()) {
            assert!(path.starts_with(&out) || expected.contains(&path), "{}", path.display());
        }
    }

    #[test]
    fn an_index_is_made_once_and_again_when_a_shard_changes() {
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path());
        let first = open(folder.path());
        let IndexState::Made { path, reason: None } = first.index_state() else {
            panic!("{:?}", first.index_state());
        };
        assert!(matches!(open(folder.path()).index_state(), IndexState::Read(_)));
        let bytes = archive(&[member("9.jpg", b'0', b"new"), member("9.cls", b'0', b"1")]);
        fs::write(folder.path().join("t-01.tar"), bytes).unwrap();
        let changed = open(folder.path());
        let IndexState::Made { reason: Some(DataError::StaleIndex { shard, .. }), .. } =
            changed.index_state()
        else {
            panic!("{:?}", changed.index_state());
        };
        assert!(shard.ends_with("t-01.tar"));
        assert_eq!(changed.len(), 4);
        assert_ne!(changed.fingerprint(), first.fingerprint());

        fs::write(path, "rubbish").unwrap();
        let repaired = open(folder.path());
        assert!(matches!(repaired.index_state(), IndexState::Made { reason: Some(_), .. }));
        assert_eq!(repaired.fingerprint(), changed.fingerprint());
    }

    #[test]
    fn a_shard_that_shrinks_while_it_is_open_is_an_error_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path());
        let source = open(folder.path());
        let path = folder.path().join("t-01.tar");
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(514).unwrap();
        assert_eq!(
            source.read(3).unwrap_err().to_string(),
            format!(
                "found the end of the file at byte 512, expected 4 bytes of a picture: {}",
                path.display()
            )
        );
    }

    #[test]
    fn classes_come_from_training_or_from_the_file_beside_the_shards() {
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path());
        fs::write(folder.path().join(CLASSES_FILE), "ant\nbee\n").unwrap();
        let own = open(folder.path());
        assert_eq!(own.class_names(), ["ant", "bee"]);
        let pattern = folder.path().join("t-*.tar");
        let known = |classes: &[&str]| {
            let classes: Vec<String> = classes.iter().map(|name| (*name).to_owned()).collect();
            ShardSource::open(&pattern, Some(&classes), DecodeOptions::default())
        };
        // Number 1 is `bee`, wherever others have it.
        let other = known(&["cow", "bee", "dog", "ant"]).unwrap();
        assert_eq!((own.label(0), other.label(0), other.label(1)), (1, 1, 3));
        let message = |classes| {
            let error = known(classes).err().unwrap().to_string();
            error.replace(&folder.path().display().to_string(), "D")
        };
        assert_eq!(
            message(&["ant", "x"]),
            "found label `1`, expected one of the 2 known classes, and not `bee` of D/classes.txt: D/t-*.tar"
        );
        fs::remove_file(folder.path().join(CLASSES_FILE)).unwrap();
        assert_eq!(known(&["x", "0", "1"]).unwrap().label(0), 2);
        assert_eq!(
            message(&["ant", "bee"]),
            "found label `1` and nothing that says which class it means, expected one of the 2 known classes: D/t-*.tar"
        );
    }

    #[test]
    fn fingerprint_survives_a_move() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [first, second] = folders.each_ref().map(|folder| {
            write_shards(folder.path());
            open(folder.path()).fingerprint()
        });
        assert_eq!(first, second);
    }
}
