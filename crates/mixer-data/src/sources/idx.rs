//! MNIST and its relatives in the IDX format of Yann LeCun.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use fs_err as fs;

use crate::decode::options::MAX_SIDE;
use crate::decode::rgb_image::RgbImage;
use crate::error::{DataError, Place};
use crate::sources::fingerprint::Fingerprint;
use crate::sources::labels::{ClassList, Numbered};
use crate::sources::source::{Example, Source};

/// First four bytes of a file of bytes in three dimensions, and in one.
const PICTURES: u32 = 0x0803;
const LABELS: u32 = 0x0801;

/// The largest content of a file, bytes.
const MAX_BYTES: u64 = 2 << 30;

/// Bytes that deflate can pack into one at most.
const MAX_RATIO: u64 = 1032;

/// Grey pictures and labels of two files, held in memory.
///
/// Grey becomes RGB with three equal colours. Classes are named by the lines of `classes.txt`
/// beside the files where there is one, and by their numbers otherwise.
pub struct IdxSource {
    path: PathBuf,
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    labels: Vec<u32>,
    class_names: Vec<String>,
    fingerprint: u64,
}

/// The content of a file.
pub(crate) struct Idx {
    dimensions: Vec<u32>,
    content: Vec<u8>,
}

impl IdxSource {
    /// Opens a part of the data set in `folder`: `train` or `test`.
    ///
    /// The files are named as their authors name them, `train-images-idx3-ubyte` and
    /// `train-labels-idx1-ubyte`, and `t10k-…` or `test-…` for `test`; each may also end in `.gz`,
    /// and may have a dot before `idx`.
    ///
    /// # Errors
    /// When a file is missing or is not what it should be, when there are not as many labels as
    /// pictures, when `split` is another word, or when the name of a label is not among `classes`, those
    /// of training, which may have another order.
    pub fn open(
        folder: impl AsRef<Path>,
        split: &str,
        classes: Option<&[String]>,
    ) -> Result<Self, DataError> {
        let folder = folder.as_ref();
        let stems: &[&str] = match split {
            "train" => &["train"],
            "test" => &["t10k", "test"],
            _ => {
                return Err(DataError::BadSplit {
                    found: split.to_owned(),
                    expected: "`train` or `test`, the parts of MNIST",
                });
            }
        };
        let find = |kind: &str| {
            let mut names = stems.iter().flat_map(|stem| {
                ["-", "."].into_iter().flat_map(move |dash| {
                    ["", ".gz"].map(|end| {
                        format!(
                            "{stem}-{kind}{dash}idx{}-ubyte{end}",
                            if kind == "images" { 3 } else { 1 }
                        )
                    })
                })
            });
            let first = names.clone().next().unwrap_or_default();
            let found = names.find(|name| folder.join(name).is_file());
            folder.join(found.unwrap_or(first))
        };
        Self::open_files(find("images"), find("labels"), classes)
    }

    /// Opens a file of pictures and one of labels, whatever their names.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_files(
        images: impl AsRef<Path>,
        labels: impl AsRef<Path>,
        classes: Option<&[String]>,
    ) -> Result<Self, DataError> {
        let (path, labels_path) = (images.as_ref(), labels.as_ref());
        let Idx { dimensions, content: pixels } = read_idx(path, PICTURES)?;
        let labels = read_idx(labels_path, LABELS)?.content;
        let [count, height, width] = dimensions[..] else {
            return Err(DataError::malformed(path, Place::File, "no pictures", "three dimensions"));
        };
        if labels.len() != count as usize {
            let found = format!("{} labels", labels.len());
            let expected = format!("{count}, one for each picture");
            return Err(DataError::malformed(labels_path, Place::File, found, expected));
        }
        let list = ClassList::beside(labels_path)?;
        let Numbered { class_names, labels } =
            Numbered::of(&labels, list.as_ref(), classes, labels_path)?;
        let mut fingerprint = Fingerprint::new();
        fingerprint.string("idx").number(u64::from(width)).number(u64::from(height));
        labels.iter().for_each(|&label| {
            fingerprint.number(u64::from(label));
        });
        Ok(Self {
            path: path.to_path_buf(),
            width,
            height,
            pixels,
            labels,
            class_names,
            fingerprint: fingerprint.finish(),
        })
    }
}

impl Source for IdxSource {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    fn read(&self, index: usize) -> Result<Example, DataError> {
        let (width, height) = (self.width, self.height);
        let size = width as usize * height as usize;
        let grey = &self.pixels[index * size..][..size];
        let pixels = grey.iter().flat_map(|&value| [value; 3]).collect();
        Ok(Example::Pixels(RgbImage { width, height, pixels }))
    }

    fn describe(&self, index: usize) -> String {
        format!("{}: row {index}", self.path.display())
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// Reads a file, packed or not.
fn read_idx(path: &Path, magic: u32) -> Result<Idx, DataError> {
    let mut file = fs::File::open(path).map_err(DataError::io)?;
    let size = file.metadata().map_err(DataError::io)?.len();
    let mut start = [0; 2];
    let is_gzip = size >= 2 && {
        file.read_exact(&mut start).map_err(DataError::io)?;
        start == [0x1f, 0x8b]
    };
    let file = fs::File::open(path).map_err(DataError::io)?;
    match is_gzip {
        true => parse_idx(MultiGzDecoder::new(file), size.saturating_mul(MAX_RATIO), magic, path),
        false => parse_idx(file, size, magic, path),
    }
}

/// Reads dimensions and content from at most `most` bytes.
pub(crate) fn parse_idx(
    reader: impl Read,
    most: u64,
    magic: u32,
    path: &Path,
) -> Result<Idx, DataError> {
    let most = most.min(MAX_BYTES);
    let refuse = |at: u64, found: String, expected: String| {
        Err(DataError::malformed(path, Place::Byte(at), found, expected))
    };
    let mut reader = reader;
    let mut read = 0;
    let mut word = || -> Result<u32, DataError> {
        let mut bytes = [0; 4];
        read_exact(&mut reader, &mut bytes, read, path)?;
        read += 4;
        Ok(u32::from_be_bytes(bytes))
    };
    let found = word()?;
    if found != magic {
        let what = if magic == PICTURES { "pictures" } else { "labels" };
        return refuse(0, format!("{found:#010x}"), format!("{magic:#010x}, the mark of {what}"));
    }
    let dimensions = (0..magic & 0xff).map(|_| word()).collect::<Result<Vec<u32>, DataError>>()?;
    if dimensions.contains(&0) || dimensions[1..].iter().any(|&side| side > MAX_SIDE) {
        let expected = format!("at least one example of 1 to {MAX_SIDE} px a side");
        return refuse(4, format!("dimensions {dimensions:?}"), expected);
    }
    let size = dimensions.iter().try_fold(1u64, |size, &by| size.checked_mul(u64::from(by)));
    let Some(size) = size.filter(|&size| size <= most) else {
        let expected = format!("at most {most} bytes, which is what the file can hold");
        return refuse(4, format!("dimensions {dimensions:?}"), expected);
    };
    let mut content = Vec::new();
    // One more, to notice what is too long.
    reader.take(size + 1).read_to_end(&mut content).map_err(|error| broken(error, path))?;
    if content.len() as u64 != size {
        let found = match content.len() as u64 > size {
            true => "more".to_owned(),
            false => format!("{} bytes", content.len()),
        };
        return refuse(read, found, format!("{size} bytes of dimensions {dimensions:?}"));
    }
    Ok(Idx { dimensions, content })
}

/// Tries every way to read a file, for tests.
pub(crate) fn parse_any(bytes: &[u8], path: &Path) -> bool {
    [PICTURES, LABELS].into_iter().any(|magic| {
        let most = (bytes.len() as u64).saturating_mul(MAX_RATIO);
        parse_idx(bytes, bytes.len() as u64, magic, path).is_ok()
            | parse_idx(MultiGzDecoder::new(bytes), most, magic, path).is_ok()
    })
}

fn read_exact(
    reader: &mut impl Read,
    bytes: &mut [u8],
    at: u64,
    path: &Path,
) -> Result<(), DataError> {
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            DataError::malformed(path, Place::Byte(at), "the end of the file", "an IDX header")
        }
        _ => broken(error, path),
    })
}

/// An error of the file, or of what is packed in it.
fn broken(error: std::io::Error, path: &Path) -> DataError {
    match error.kind() {
        std::io::ErrorKind::InvalidInput
        | std::io::ErrorKind::InvalidData
        | std::io::ErrorKind::UnexpectedEof => DataError::malformed(
            path,
            Place::File,
            format!("broken gzip ({error})"),
            "a whole file",
        ),
        _ => DataError::io(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::sources::labels::CLASSES_FILE;

    fn idx(magic: u32, dimensions: &[u32], content: &[u8]) -> Vec<u8> {
        let words = [magic].into_iter().chain(dimensions.iter().copied());
        let mut bytes: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
        bytes.extend_from_slice(content);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn folder_with(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    #[test]
    fn packed_and_plain_files_hold_the_same_pictures() {
        let images = idx(PICTURES, &[2, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let labels = idx(LABELS, &[2], &[3, 0]);
        let folder = folder_with(&[
            ("train-images-idx3-ubyte", images.clone()),
            ("train-labels.idx1-ubyte", labels.clone()),
            ("t10k-images-idx3-ubyte.gz", gzip(&images)),
            ("t10k-labels-idx1-ubyte.gz", gzip(&labels)),
        ]);
        let train = IdxSource::open(folder.path(), "train", None).unwrap();
        let test = IdxSource::open(folder.path(), "test", Some(train.class_names())).unwrap();
        assert_eq!(train.class_names(), ["0", "1", "2", "3"]);
        assert_eq!(train.fingerprint(), test.fingerprint());
        for source in [&train, &test] {
            let image = source.image(1).unwrap();
            assert_eq!((image.width, image.height), (3, 2));
            assert_eq!(image.pixels[..6], [7, 7, 7, 8, 8, 8]);
            assert_eq!((source.label(0), source.label(1)), (3, 0));
        }
        fs::write(folder.path().join(CLASSES_FILE), "a\nb\nc\nd\n").unwrap();
        let named = IdxSource::open(folder.path(), "train", None).unwrap();
        assert_eq!(named.class_names(), ["a", "b", "c", "d"]);
        // By their names where another order is known.
        let known = ["d", "c", "a"].map(String::from);
        let known = IdxSource::open(folder.path(), "train", Some(&known)).unwrap();
        assert_eq!((known.label(0), known.label(1)), (0, 2));
    }

    #[test]
    fn files_that_do_not_hold_what_they_promise_are_refused() {
        let labels = idx(LABELS, &[1], &[0]);
        let good = idx(PICTURES, &[1, 1, 2], &[1, 2]);
        for (images, labels, message) in [
            (
                labels.clone(),
                labels.clone(),
                "found 0x00000801 at byte 0, expected 0x00000803, the mark of pictures: D/i",
            ),
            (
                vec![],
                labels.clone(),
                "found the end of the file at byte 0, expected an IDX header: D/i",
            ),
            (
                good[..10].to_vec(),
                labels.clone(),
                "found the end of the file at byte 8, expected an IDX header: D/i",
            ),
            (
                good[..17].to_vec(),
                labels.clone(),
                "found 1 bytes at byte 16, expected 2 bytes of dimensions [1, 1, 2]: D/i",
            ),
            (
                idx(PICTURES, &[9, 9, 9], &[]),
                labels.clone(),
                "found dimensions [9, 9, 9] at byte 4, expected at most 16 bytes, which is what the file can hold: D/i",
            ),
            (
                idx(PICTURES, &[u32::MAX, 9999, 9999], &[]),
                labels.clone(),
                "found dimensions [4294967295, 9999, 9999] at byte 4, expected at most 16 bytes, which is what the file can hold: D/i",
            ),
            (
                idx(PICTURES, &[1, 0, 2], &[]),
                labels.clone(),
                "found dimensions [1, 0, 2] at byte 4, expected at least one example of 1 to 16384 px a side: D/i",
            ),
            (
                idx(PICTURES, &[1, 2, 4], &[0; 7]),
                labels.clone(),
                "found 7 bytes at byte 16, expected 8 bytes of dimensions [1, 2, 4]: D/i",
            ),
            (
                idx(PICTURES, &[1, 1, 2], &[0; 5]),
                labels.clone(),
                "found more at byte 16, expected 2 bytes of dimensions [1, 1, 2]: D/i",
            ),
            (
                good.clone(),
                idx(LABELS, &[2], &[0, 0]),
                "found 2 labels, expected 1, one for each picture: D/l",
            ),
            (
                good.clone(),
                idx(LABELS, &[1], &[7]),
                "found label `7` in row 0 and nothing that says which class it means, expected one of the 2 known classes: D/l",
            ),
        ] {
            let folder = folder_with(&[("i", images), ("l", labels)]);
            let (images, labels) = (folder.path().join("i"), folder.path().join("l"));
            let classes = ["a", "b"].map(String::from);
            let error = IdxSource::open_files(images, labels, Some(&classes)).err().unwrap();
            let error = error.to_string().replace(&folder.path().display().to_string(), "D");
            assert_eq!(error, message);
        }
    }

    #[test]
    fn broken_gzip_is_refused() {
        let content: Vec<u8> = (0..300u32).map(|at| ((at * at * 7919) >> 5) as u8).collect();
        let packed = gzip(&idx(LABELS, &[300], &content));
        let folder = folder_with(&[("l", packed[..packed.len() - 12].to_vec())]);
        let error = read_idx(&folder.path().join("l"), LABELS).err().unwrap().to_string();
        assert!(error.starts_with("found broken gzip ("), "{error}");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60), sides in prop::array::uniform3(0u32..5)) {
            let _outcome = parse_idx(bytes.as_slice(), bytes.len() as u64, PICTURES, Path::new("i"));
            let bytes = idx(PICTURES, &sides, &bytes);
            let _outcome = parse_idx(bytes.as_slice(), bytes.len() as u64, PICTURES, Path::new("i"));
        }
    }
}
