//! The built-in pictures as files: something to try a trainer on, and to measure its input with.

use std::path::Path;

use fs_err as fs;

use crate::decode::error::DecodeError;
use crate::decode::format::PictureFormat;
use crate::error::DataError;
use crate::shards::shard_writer::{encode_jpeg, png_bytes};
use crate::sources::builtin::{BuiltinKind, BuiltinSource, BuiltinSplit, NUM_FIGURES};
use crate::sources::source::Source;
use crate::stream::in_order::map_in_order;

/// Pictures between two calls of `progress`.
const STRIDE: usize = 64;

/// The most pictures of a split; what needs more needs other files.
const MAX_EXAMPLES: usize = 10_000_000;

/// Quality of the JPEGs, with chroma at half the resolution: what a camera writes.
const JPEG_QUALITY: u8 = 90;

/// Number and form of the pictures that [`write_builtin`] writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synthesis {
    /// The first so many of the ten classes, 2 to 10.
    pub num_classes: usize,
    /// Pictures in `train/`, at least one of each class.
    pub num_train: usize,
    /// Pictures in `val/`, at least one of each class.
    pub num_val: usize,
    /// Side of the square pictures, px, 1 to 4096.
    pub image_size: u32,
    /// JPEG or PNG.
    pub format: PictureFormat,
}

/// Writes the built-in pictures as the class folders `train/` and `val/` below `out`.
///
/// Picture `i` of a split belongs to class `i % num_classes`. With all ten classes and PNG they are the
/// pictures of [`BuiltinSource`] with seed 0, but the classes of folders are ordered by name. Existing
/// files of the same names are overwritten. `progress` is told how many pictures are done, of both
/// splits together. The threads change nothing.
///
/// # Errors
/// [`DataError::BadSetting`] for a setting without a meaning, and when a file cannot be written.
pub fn write_builtin(
    out: &Path,
    synthesis: &Synthesis,
    workers: usize,
    mut progress: impl FnMut(u64),
) -> Result<(), DataError> {
    let Synthesis { num_classes, num_train, num_val, image_size, format } = *synthesis;
    let refuse = |setting, found: String, expected: String| {
        Err(DataError::BadSetting { setting, found, expected })
    };
    if !(2..=NUM_FIGURES).contains(&num_classes) {
        return refuse("classes", num_classes.to_string(), format!("2 to {NUM_FIGURES}"));
    }
    for (setting, len) in [("examples", num_train), ("val_examples", num_val)] {
        if !(num_classes..=MAX_EXAMPLES).contains(&len) {
            let expected = format!(
                "at least one of each of the {num_classes} classes, at most {MAX_EXAMPLES}"
            );
            return refuse(setting, len.to_string(), expected);
        }
    }
    if !matches!(format, PictureFormat::Jpeg | PictureFormat::Png) {
        return refuse("format", format.name().to_owned(), "JPEG or PNG".to_owned());
    }

    let mut done = 0;
    for (folder, split, len) in
        [("train", BuiltinSplit::Train, num_train), ("val", BuiltinSplit::Val, num_val)]
    {
        // The index of a picture in the source of all ten classes.
        let drawn = |number: usize| number / num_classes * NUM_FIGURES + number % num_classes;
        let source =
            BuiltinSource::new(BuiltinKind::Shapes, split, drawn(len - 1) + 1, image_size, 0)?;
        let folders: Vec<_> = source.class_names()[..num_classes]
            .iter()
            .map(|class| out.join(folder).join(class))
            .collect();
        for folder in &folders {
            fs::create_dir_all(folder).map_err(DataError::io)?;
        }
        let write = |number: usize| -> Result<(), DataError> {
            let image = source.image(drawn(number))?;
            let bytes = match format {
                PictureFormat::Jpeg => {
                    encode_jpeg(&image, JPEG_QUALITY, true).map_err(|message| {
                        DataError::BadExample {
                            example: source.describe(drawn(number)),
                            reason: DecodeError::Broken { format: "JPEG", message },
                        }
                    })?
                }
                _ => png_bytes(&image)?,
            };
            let name = format!("{number:06}.{}", format.extension());
            fs::write(folders[number % num_classes].join(name), bytes).map_err(DataError::io)
        };
        for start in (0..len).step_by(STRIDE) {
            let range = start..len.min(start + STRIDE);
            done += range.len() as u64;
            map_in_order(range, workers, || (), |(), number| write(number))
                .into_iter()
                .collect::<Result<(), _>>()?;
            progress(done);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::options::DecodeOptions;
    use crate::sources::folder::FolderSource;

    fn synthesis(format: PictureFormat) -> Synthesis {
        Synthesis { num_classes: 3, num_train: 70, num_val: 4, image_size: 20, format }
    }

    #[test]
    fn folders_hold_the_built_in_pictures_of_their_classes() {
        for format in [PictureFormat::Png, PictureFormat::Jpeg] {
            let folder = tempfile::tempdir().unwrap();
            let mut done = Vec::new();
            write_builtin(folder.path(), &synthesis(format), 2, |count| done.push(count)).unwrap();
            assert_eq!(done, [64, 70, 74]);
            let options = DecodeOptions::default();
            let train = FolderSource::open(folder.path().join("train"), options.clone()).unwrap();
            let val = FolderSource::open(folder.path().join("val"), options).unwrap();
            assert_eq!((train.len(), val.len()), (70, 4));
            assert_eq!(train.class_names(), ["circle", "ring", "square"]);
            let builtin =
                BuiltinSource::new(BuiltinKind::Shapes, BuiltinSplit::Train, 240, 20, 0).unwrap();
            // Picture 5 of the split is the second square, and the third in the folder's order.
            let at = (0..70).find(|at| train.describe(*at).contains("000005")).unwrap();
            assert_eq!(train.label(at), 2);
            let (found, expected) = (train.image(at).unwrap(), builtin.image(12).unwrap());
            let differences =
                found.pixels.iter().zip(&expected.pixels).map(|(a, b)| f64::from(a.abs_diff(*b)));
            let mean = differences.sum::<f64>() / expected.pixels.len() as f64;
            let limit = if format == PictureFormat::Png { 0.0 } else { 12.0 };
            assert!(mean <= limit, "{format:?}: {mean}");
        }
    }

    #[test]
    fn settings_without_a_meaning_are_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let good = synthesis(PictureFormat::Png);
        for (bad, words) in [
            (Synthesis { num_classes: 1, ..good.clone() }, "`classes = 1`, expected 2 to 10"),
            (Synthesis { num_classes: 11, ..good.clone() }, "`classes = 11`, expected 2 to 10"),
            (Synthesis { num_val: 2, ..good.clone() }, "`val_examples = 2`, expected at least one"),
            (Synthesis { num_train: usize::MAX, ..good.clone() }, "at most 10000000"),
            (Synthesis { image_size: 0, ..good.clone() }, "`image_size = 0`"),
            (synthesis(PictureFormat::Gif), "`format = GIF`, expected JPEG or PNG"),
        ] {
            let error = write_builtin(folder.path(), &bad, 1, |_| {}).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
