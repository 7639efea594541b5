//! CIFAR-10 and CIFAR-100 as their authors ship them ("binary version").

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::decode::rgb_image::RgbImage;
use crate::error::{DataError, Place};
use crate::sources::fingerprint::Fingerprint;
use crate::sources::labels::{ClassList, Numbered};
use crate::sources::pattern::expand_pattern;
use crate::sources::read_at::ReadAt;
use crate::sources::source::{Example, Source};

/// Side of a picture, px.
const SIDE: usize = 32;

/// Bytes of one colour of a picture.
const PLANE: usize = SIDE * SIDE;

/// The largest file, bytes: a hundred times that of the authors.
const MAX_BYTES: u64 = 1 << 34;

/// The records of the binary version, read in place.
///
/// A record is a label byte (in CIFAR-100 two, of which the second is the fine one), and then 1,024
/// bytes each of red, green and blue.
pub struct CifarSource {
    files: Vec<(PathBuf, fs::File)>,
    /// Index of the first example of each file.
    starts: Vec<usize>,
    labels: Vec<u32>,
    label_bytes: usize,
    class_names: Vec<String>,
    fingerprint: u64,
}

impl CifarSource {
    /// Opens a part of the data set in `folder`: `train` or `test`.
    ///
    /// The folder of CIFAR-10 has `batches.meta.txt`, `data_batch_*.bin` and `test_batch.bin`, that
    /// of CIFAR-100 `fine_label_names.txt`, `train.bin` and `test.bin`.
    ///
    /// # Errors
    /// When a file is missing, has a size that is not that of whole records, or a label without a
    /// name; when `split` is another word; when the name of a label is not among `classes`, those of
    /// training, which may have another order.
    pub fn open(
        folder: impl AsRef<Path>,
        split: &str,
        classes: Option<&[String]>,
    ) -> Result<Self, DataError> {
        let folder = folder.as_ref();
        let fine = folder.join("fine_label_names.txt");
        let is_cifar_100 = fine.is_file();
        let (names, label_bytes) = match is_cifar_100 {
            true => (fine, 2),
            false => (folder.join("batches.meta.txt"), 1),
        };
        let pattern = match (split, is_cifar_100) {
            ("train", false) => "data_batch_*.bin",
            ("test", false) => "test_batch.bin",
            ("train", true) => "train.bin",
            ("test", true) => "test.bin",
            _ => {
                return Err(DataError::BadSplit {
                    found: split.to_owned(),
                    expected: "`train` or `test`, the parts of CIFAR",
                });
            }
        };
        let list = ClassList::read(names)?;

        let (mut files, mut starts, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for path in expand_pattern(&folder.join(pattern))? {
            let file = fs::File::open(&path).map_err(DataError::io)?;
            starts.push(numbers.len());
            numbers.extend(read_labels(&file, &path, label_bytes, list.names.len())?);
            files.push((path, file));
        }
        let Numbered { class_names, labels } =
            Numbered::of(&numbers, Some(&list), classes, &folder.join(pattern))?;
        let mut fingerprint = Fingerprint::new();
        fingerprint.string("cifar").number(label_bytes as u64);
        labels.iter().for_each(|&label| {
            fingerprint.number(u64::from(label));
        });
        let fingerprint = fingerprint.finish();
        Ok(Self { files, starts, labels, label_bytes, class_names, fingerprint })
    }

    fn locate(&self, index: usize) -> (usize, usize) {
        assert!(index < self.labels.len(), "example {index} of {}", self.labels.len());
        let file = self.starts.partition_point(|&start| start <= index) - 1;
        (file, index - self.starts[file])
    }
}

/// The labels of a file of records.
pub(crate) fn read_labels<R: ReadAt + ?Sized>(
    file: &R,
    path: &Path,
    label_bytes: usize,
    num_classes: usize,
) -> Result<Vec<u8>, DataError> {
    let record = label_bytes + 3 * PLANE;
    let size = file.size().map_err(DataError::io)?;
    if size == 0 || size > MAX_BYTES || !size.is_multiple_of(record as u64) {
        let expected = format!("whole records of {record} bytes, and at least one");
        return Err(DataError::malformed(path, Place::File, format!("{size} bytes"), expected));
    }
    let num_records = (size / record as u64) as usize;
    let mut labels = Vec::with_capacity(num_records);
    // Hundreds of records at a time, because one at a time would be as many calls.
    let mut buffer = vec![0; record * num_records.min(256)];
    while labels.len() < num_records {
        let first = labels.len();
        let count = (num_records - first).min(256);
        let bytes = &mut buffer[..record * count];
        file.read_exact_at(bytes, (first * record) as u64).map_err(DataError::io)?;
        for (record, number) in bytes.chunks_exact(record).zip(first..) {
            let label = record[label_bytes - 1];
            if usize::from(label) >= num_classes {
                let found = format!("label {label}");
                let expected = format!("one below {num_classes}, the number of class names");
                return Err(DataError::malformed(path, Place::Row(number as u64), found, expected));
            }
            labels.push(label);
        }
    }
    Ok(labels)
}

/// Planes of colours to pixels.
fn interleave(planes: &[u8]) -> Vec<u8> {
    let (red, rest) = planes.split_at(PLANE);
    let (green, blue) = rest.split_at(PLANE);
    let colours = red.iter().zip(green).zip(blue);
    colours.flat_map(|((&red, &green), &blue)| [red, green, blue]).collect()
}

impl Source for CifarSource {
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
        let (file, row) = self.locate(index);
        let offset = row * (self.label_bytes + 3 * PLANE) + self.label_bytes;
        let mut planes = [0; 3 * PLANE];
        let (_, file) = &self.files[file];
        file.read_exact_at(&mut planes, offset as u64).map_err(DataError::io)?;
        let (width, height) = (SIDE as u32, SIDE as u32);
        Ok(Example::Pixels(RgbImage { width, height, pixels: interleave(&planes) }))
    }

    fn describe(&self, index: usize) -> String {
        let (file, row) = self.locate(index);
        format!("{}: row {row}", self.files[file].0.display())
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(labels: &[u8], number: u8) -> Vec<u8> {
        let mut bytes = labels.to_vec();
        for colour in 0..3 {
            bytes.extend((0..PLANE).map(|at| (at as u8) ^ number ^ (colour << 6)));
        }
        bytes
    }

    fn folder_with(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    #[test]
    fn records_of_both_sets_are_read_with_their_labels() {
        let cifar_10 = folder_with(&[
            ("batches.meta.txt", b"ant\nbee\n\n".to_vec()),
            ("data_batch_2.bin", record(&[0], 9)),
            ("data_batch_1.bin", [record(&[1], 7), record(&[0], 8)].concat()),
            ("test_batch.bin", record(&[1], 1)),
        ]);
        let cifar_100 = folder_with(&[
            ("fine_label_names.txt", b"apple\nbear\ncup\n".to_vec()),
            ("coarse_label_names.txt", b"fruit\nrest\n".to_vec()),
            ("train.bin", [record(&[1, 2], 7), record(&[0, 0], 8), record(&[1, 1], 9)].concat()),
        ]);
        for (folder, labels) in [(cifar_10, [1, 0, 0]), (cifar_100, [2, 0, 1])] {
            let source = CifarSource::open(folder.path(), "train", None).unwrap();
            assert_eq!(source.len(), 3);
            for (index, number) in [(2, 9u8), (0, 7), (1, 8)] {
                let image = source.image(index).unwrap();
                assert_eq!((image.width, image.height), (32, 32));
                assert_eq!(image.pixels[..3], [number, number ^ 64, number ^ 128]);
                assert_eq!(image.pixels[3 * 33], 33 ^ number);
                assert_eq!(source.label(index), labels[index]);
            }
            assert!(source.describe(0).ends_with(": row 0"));
        }
    }

    #[test]
    fn what_is_no_cifar_is_refused() {
        let names = ("batches.meta.txt", b"ant\nbee\n".to_vec());
        let open = |files: &[(&str, Vec<u8>)], split| {
            let folder = folder_with(files);
            let error = CifarSource::open(folder.path(), split, None).err().unwrap().to_string();
            error.replace(&folder.path().display().to_string(), "D")
        };
        let cut = record(&[0], 0)[..3000].to_vec();
        for (batch, message) in [
            (
                cut,
                "found 3000 bytes, expected whole records of 3073 bytes, and at least one: D/test_batch.bin",
            ),
            (
                vec![],
                "found 0 bytes, expected whole records of 3073 bytes, and at least one: D/test_batch.bin",
            ),
            (
                [record(&[1], 0), record(&[2], 0)].concat(),
                "found label 2 in row 1, expected one below 2, the number of class names: D/test_batch.bin",
            ),
        ] {
            assert_eq!(open(&[names.clone(), ("test_batch.bin", batch)], "test"), message);
        }
        assert!(open(std::slice::from_ref(&names), "test").contains("D/test_batch.bin"));
        assert!(open(&[], "test").contains("D/batches.meta.txt"));
        assert_eq!(
            open(&[names], "val"),
            "found split `val`, expected `train` or `test`, the parts of CIFAR"
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100), whole: bool) {
            let mut bytes = bytes;
            if whole {
                bytes.resize(3073, 0);
            }
            let _outcome = read_labels(bytes.as_slice(), Path::new("c"), 1, 10);
            let _outcome = read_labels(bytes.as_slice(), Path::new("c"), 2, 100);
        }
    }
}
