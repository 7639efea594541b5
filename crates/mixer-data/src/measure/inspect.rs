//! A look at a data set: what is in it, what is broken, and what training sees of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::augment::transform::TrainTransform;
use crate::decode::format::PictureFormat;
use crate::decode::orientation::Turn;
use crate::decode::picture::decode;
use crate::decode::rgb_image::RgbImage;
use crate::error::DataError;
use crate::order::example_order::Order;
use crate::sources::passed_over::PassedOver;
use crate::sources::source::{Example, Source};
use crate::stream::batch::Batch;
use crate::stream::batch_mix::{BatchMix, MixKind, MixPartners};
use crate::stream::in_order::map_in_order;
use crate::stream::loader::{Loader, LoaderConfig, OnCorrupt};
use crate::stream::mix::MixSpec;

/// Examples between two calls of `progress`.
const STRIDE: usize = 256;

/// Broken examples that are listed; all are counted.
const MAX_LISTED: usize = 1000;

/// The quantiles that are given: the smallest, 5 %, the median, 95 %, the largest.
const QUANTILES: [f64; 5] = [0.0, 0.05, 0.5, 0.95, 1.0];

/// Pixels between the pictures of a contact sheet, and their value.
const GAP: usize = 2;
const GAP_VALUE: u8 = 255;

/// Contents of a source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Examples in the source.
    pub num_examples: usize,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// Examples of each class, by label; unreadable ones count too.
    pub class_counts: Vec<u64>,
    /// Examples of each format: `JPEG`, or `pixels` where the source has no files.
    pub formats: BTreeMap<&'static str, u64>,
    /// Bytes of all files, or of all pixels where there are none.
    pub total_bytes: u64,
    /// Widths, px; all zero where nothing could be decoded, like the two that follow.
    pub width: Quantiles,
    /// Heights, px.
    pub height: Quantiles,
    /// Shorter sides, px.
    pub short_side: Quantiles,
    /// Examples whose EXIF metadata asks for a turn, whether pictures are turned or not.
    pub num_turned: u64,
    /// Examples that cannot be read or decoded.
    pub num_broken: u64,
    /// The first of them.
    pub broken: Vec<BrokenExample>,
    /// Files or members that lie where the examples do and are none, by their kind.
    pub passed_over: PassedOver,
}

/// Distribution of a length: of values below each other, those at these places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// The smallest.
    pub min: u32,
    /// 5 % are not above.
    pub p5: u32,
    /// The median.
    pub median: u32,
    /// 95 % are not above.
    pub p95: u32,
    /// The largest.
    pub max: u32,
}

/// An example that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BrokenExample {
    /// Its index in the source.
    pub index: usize,
    /// Name that the source gives it.
    pub description: String,
    /// One line that says why.
    pub reason: String,
}

/// Facts about one example.
struct Finding {
    format: &'static str,
    bytes: u64,
    is_turned: bool,
    size: Result<(u32, u32), DataError>,
}

impl Quantiles {
    fn of(values: &mut [u32]) -> Self {
        values.sort_unstable();
        let [min, p5, median, p95, max] = QUANTILES.map(|part| {
            let last = values.len().saturating_sub(1) as f64;
            values.get((part * last).round() as usize).copied().unwrap_or_default()
        });
        Self { min, p5, median, p95, max }
    }
}

/// Reads and decodes every example of a source on `workers` threads.
///
/// `progress` is told how many examples are done. To look at a part, pass a
/// [`Subset`](crate::Subset).
pub fn inspect(source: &dyn Source, workers: usize, mut progress: impl FnMut(usize)) -> Inspection {
    let len = source.len();
    let mut class_counts = vec![0; source.class_names().len()];
    let (mut widths, mut heights, mut shorts) = (Vec::new(), Vec::new(), Vec::new());
    let mut formats = BTreeMap::new();
    let (mut total_bytes, mut num_turned) = (0, 0);
    let (mut num_broken, mut broken) = (0, Vec::new());
    for start in (0..len).step_by(STRIDE) {
        let range = start..len.min(start + STRIDE);
        let end = range.end;
        let findings = map_in_order(range, workers, || (), |(), index| look_at(source, index));
        for (finding, index) in findings.into_iter().zip(start..) {
            if let Some(count) = class_counts.get_mut(source.label(index) as usize) {
                *count += 1;
            }
            total_bytes += finding.bytes;
            num_turned += u64::from(finding.is_turned);
            *formats.entry(finding.format).or_default() += 1;
            match finding.size {
                Ok((width, height)) => {
                    widths.push(width);
                    heights.push(height);
                    shorts.push(width.min(height));
                }
                Err(error) => {
                    num_broken += 1;
                    if broken.len() < MAX_LISTED {
                        let description = source.describe(index);
                        let reason = error.to_string();
                        broken.push(BrokenExample { index, description, reason });
                    }
                }
            }
        }
        progress(end);
    }
    Inspection {
        num_examples: len,
        class_names: source.class_names().to_vec(),
        class_counts,
        formats,
        total_bytes,
        width: Quantiles::of(&mut widths),
        height: Quantiles::of(&mut heights),
        short_side: Quantiles::of(&mut shorts),
        num_turned,
        num_broken,
        broken,
        passed_over: source.passed_over(),
    }
}

fn look_at(source: &dyn Source, index: usize) -> Finding {
    match source.read(index) {
        Ok(Example::Pixels(image)) => Finding {
            format: "pixels",
            bytes: image.pixels.len() as u64,
            is_turned: false,
            size: Ok((image.width, image.height)),
        },
        Ok(Example::Encoded(bytes)) => Finding {
            format: PictureFormat::of(&bytes).map_or("unknown", PictureFormat::name),
            bytes: bytes.len() as u64,
            is_turned: !Turn::of(&bytes).is_none(),
            size: decode(&bytes, &source.decode_options())
                .map(|image| (image.width, image.height))
                .map_err(|reason| DataError::BadExample {
                    example: source.describe(index),
                    reason,
                }),
        },
        Err(error) => {
            Finding { format: "unreadable", bytes: 0, is_turned: false, size: Err(error) }
        }
    }
}

/// Pictures that training with this transform and seed sees: a row for each of its first `pictures`, with
/// `draws` of the augmentation beside one another.
///
/// They come out of the loader that training uses, in the order of [`Order::Repeated`], so that it
/// shows what happens and not what should: the first column is the beginning of training. Where
/// examples cannot be read, `on_corrupt` decides.
///
/// With `mix`, the pictures of a column are mixed with each other by the draws of the first updates, one
/// for each column. In training a picture's partner is one of its batch. `last` is the last step of their
/// preparation, and is given each as `[image_size, image_size, 3]`.
///
/// # Errors
/// As [`Loader::train`], [`Loader::next_batch`] and [`MixSpec::apply`].
pub fn contact_sheet(
    source: Arc<dyn Source>,
    transform: TrainTransform,
    mix: Option<&MixSpec>,
    seed: u64,
    (pictures, draws): (usize, usize),
    on_corrupt: OnCorrupt,
    last: impl Fn(&mut [u8]),
) -> Result<RgbImage, DataError> {
    if !(1..=64).contains(&pictures) || !(1..=64).contains(&draws) {
        return Err(DataError::BadSetting {
            setting: "contact sheet",
            found: format!("{pictures} x {draws}"),
            expected: "1 to 64 pictures and draws".to_owned(),
        });
    }
    let side = transform.image_size as usize;
    // A picture that is a single patch is cut into nothing.
    let config = LoaderConfig {
        batch_size: pictures * draws,
        patch_size: side,
        workers: 0,
        queue_bytes: 0,
        on_corrupt,
    };
    let order = Order::Repeated { seed, repeats: draws as u32, spacing: 1 };
    let mut loader = Loader::train_in_order(source, transform, seed, order, 0, config)?;
    let mut batch = loader.next_batch()?.unwrap_or_default();
    if let Some(mix) = mix {
        mix_columns(&mut batch, mix, seed, draws, side)?;
    }
    batch.patches.chunks_exact_mut((side * side * 3).max(1)).for_each(last);
    let pitch = side + GAP;
    let (width, height) = (draws * pitch + GAP, pictures * pitch + GAP);
    let mut pixels = vec![GAP_VALUE; width * height * 3];
    let drawn = batch.patches.chunks_exact((side * side * 3).max(1)).take(batch.num_examples);
    for (number, picture) in drawn.enumerate() {
        let (top, left) = (number / draws * pitch + GAP, number % draws * pitch + GAP);
        for (row, line) in picture.chunks_exact(side * 3).enumerate() {
            let start = ((top + row) * width + left) * 3;
            pixels[start..start + line.len()].copy_from_slice(line);
        }
    }
    Ok(RgbImage { width: width as u32, height: height as u32, pixels })
}

/// Mixes every `draws`-th picture with each other, each column by a draw of its own.
fn mix_columns(
    batch: &mut Batch,
    mix: &MixSpec,
    seed: u64,
    draws: usize,
    side: usize,
) -> Result<(), DataError> {
    let len = side * side * 3;
    // What is shown is a batch by itself.
    let mix = MixSpec { partners: MixPartners::Microbatch, ..mix.clone() };
    for draw in 0..draws {
        let places: Vec<usize> = (draw..batch.num_examples).step_by(draws).collect();
        let mut column = Batch {
            patches: places
                .iter()
                .flat_map(|at| &batch.patches[at * len..][..len])
                .copied()
                .collect(),
            num_examples: places.len(),
            num_tokens: 1,
            patch_dim: len,
            ..Batch::default()
        };
        mix.apply(&mut column, seed, draw as u64, side as u32)?;
        let own = column.patches.clone();
        if let Some(drawn @ BatchMix { kind: MixKind::Mixup, lambda, .. }) = &column.mix {
            let partners = drawn.partners(places.len());
            for (mixed, partner) in column.patches.chunks_exact_mut(len).zip(partners) {
                for (value, other) in mixed.iter_mut().zip(&own[partner * len..]) {
                    let average = lambda * f32::from(*value) + (1.0 - lambda) * f32::from(*other);
                    *value = average.round() as u8;
                }
            }
        }
        for (picture, at) in column.patches.chunks_exact(len).zip(places) {
            batch.patches[at * len..][..len].copy_from_slice(picture);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;
    use crate::augment::transform::TrainCrop;
    use crate::decode::options::DecodeOptions;
    use crate::resample::interpolation::Interpolation;
    use crate::shards::shard_writer::png_bytes;
    use crate::sources::builtin::{BuiltinKind, BuiltinSource, BuiltinSplit};
    use crate::sources::folder::FolderSource;

    fn builtin(len: usize) -> BuiltinSource {
        BuiltinSource::new(BuiltinKind::Shapes, BuiltinSplit::Train, len, 16, 0).unwrap()
    }

    #[test]
    fn a_folder_is_counted_measured_and_its_broken_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: &[u8]| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        for (number, width) in (1..=5).zip([10, 20, 30, 40, 50]) {
            let image = RgbImage { width, height: 25, pixels: vec![0; width as usize * 75] };
            write(&format!("a/{number}.png"), &png_bytes(&image).unwrap());
        }
        // Orientation 6, in a chunk behind the header.
        let mut turned = fs::read(folder.path().join("a/2.png")).unwrap();
        let chunk =
            b"\0\0\0\x1aeXIfMM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let checksum = crc32fast::hash(&chunk[4..]).to_be_bytes();
        turned.splice(33..33, [&chunk[..], &checksum].concat());
        write("a/2.png", &turned);
        write("b/1.jpg", b"no picture");
        write("b/2.jpg", b"\xff\xd8\xff");
        let source = FolderSource::open(&folder, DecodeOptions::default()).unwrap();
        let mut done = Vec::new();
        let found = inspect(&source, 2, |count| done.push(count));
        assert_eq!(done, [7]);
        assert_eq!(found.class_counts, [5, 2]);
        assert_eq!(found.formats, BTreeMap::from([("JPEG", 1), ("PNG", 5), ("unknown", 1)]));
        assert_eq!(found.width, Quantiles { min: 10, p5: 10, median: 30, p95: 50, max: 50 });
        assert_eq!(found.short_side, Quantiles { min: 10, p5: 10, median: 25, p95: 25, max: 25 });
        assert_eq!((found.num_turned, found.num_broken, found.broken[0].index), (1, 2, 5));
        assert!(found.broken[0].description.ends_with("b/1.jpg"));
        assert!(found.broken[0].reason.contains("not an image"), "{}", found.broken[0].reason);
    }

    #[test]
    fn threads_change_nothing() {
        let source = builtin(700);
        assert_eq!(inspect(&source, 1, |_| {}), inspect(&source, 4, |_| {}));
        assert_eq!(inspect(&source, 0, |_| {}).formats, BTreeMap::from([("pixels", 700)]));
    }

    #[test]
    fn the_contact_sheet_begins_its_rows_with_the_first_pictures_of_training() {
        let source: Arc<dyn Source> = Arc::new(builtin(40));
        let transform = TrainTransform {
            image_size: 8,
            crop: TrainCrop::Pad { pixels: 2 },
            flip: true,
            interpolation: Interpolation::Bilinear,
            randaugment: None,
            erasing: None,
            jpeg_scaling: false,
        };
        let sheet = |source, on_corrupt| {
            contact_sheet(source, transform.clone(), None, 7, (2, 3), on_corrupt, |_| {}).unwrap()
        };
        let image = sheet(Arc::clone(&source), OnCorrupt::Stop);
        assert_eq!((image.width, image.height), (32, 22));
        assert_eq!(image.pixels[..3], [GAP_VALUE; 3]);
        let config = LoaderConfig {
            batch_size: 2,
            patch_size: 8,
            workers: 1,
            queue_bytes: 0,
            on_corrupt: OnCorrupt::Stop,
        };
        let mut loader = Loader::train(source, transform.clone(), 7, 0, config).unwrap();
        let batch = loader.next_batch().unwrap().unwrap();
        let drawn = |row: usize, column: usize| -> Vec<u8> {
            let at = |line: usize| ((2 + row * 10 + line) * 32 + 2 + column * 10) * 3;
            (0..8).flat_map(|line| &image.pixels[at(line)..at(line) + 24]).copied().collect()
        };
        for row in 0..2 {
            assert_eq!(drawn(row, 0), batch.patches[row * 192..(row + 1) * 192]);
            // The other draws are other windows of the same picture.
            assert!(drawn(row, 1) != drawn(row, 0) || drawn(row, 2) != drawn(row, 0));
        }
        let bytes = png_bytes(&image).unwrap();
        assert_eq!(decode(&bytes, &DecodeOptions::default()).unwrap(), image);
    }

    #[test]
    fn a_mixed_contact_sheet_shows_what_mixing_makes_of_each_column() {
        let source: Arc<dyn Source> = Arc::new(builtin(40));
        let transform = TrainTransform {
            image_size: 8,
            crop: TrainCrop::None,
            flip: false,
            interpolation: Interpolation::Bilinear,
            randaugment: None,
            erasing: None,
            jpeg_scaling: false,
        };
        let sheet = |mix: Option<&str>| {
            let mix = mix.map(|mix| serde_json::from_str::<MixSpec>(mix).unwrap());
            let source = Arc::clone(&source);
            let last = |_: &mut [u8]| {};
            contact_sheet(source, transform.clone(), mix.as_ref(), 7, (2, 2), OnCorrupt::Stop, last)
                .unwrap()
        };
        let values = |image: &RgbImage, row: usize, column: usize| -> Vec<u8> {
            let at = |line: usize| ((2 + row * 10 + line) * 22 + 2 + column * 10) * 3;
            (0..8).flat_map(|line| image.pixels[at(line)..][..24].to_vec()).collect()
        };
        let (plain, mixup) = (sheet(None), sheet(Some(r#"{"mixup_alpha": 1.0}"#)));
        let cutmix = sheet(Some(r#"{"cutmix_alpha": 1.0}"#));
        let spec: MixSpec = serde_json::from_str(r#"{"mixup_alpha": 1.0}"#).unwrap();
        for (row, column) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let lambda = spec.draw(7, column as u64, 8).lambda;
            let (own, other) = (values(&plain, row, column), values(&plain, 1 - row, column));
            let average = |(own, other): (&u8, &u8)| {
                (lambda * f32::from(*own) + (1.0 - lambda) * f32::from(*other)).round() as u8
            };
            let expected: Vec<u8> = own.iter().zip(&other).map(average).collect();
            assert_eq!(values(&mixup, row, column), expected);
            // Each value is one of the two pictures'.
            let pasted = values(&cutmix, row, column);
            let mut of_both = pasted.iter().zip(own.iter().zip(&other));
            assert!(of_both.all(|(found, (own, other))| found == own || found == other));
        }
        assert_ne!(cutmix, plain);
    }
}
