//! The ways from a picture file to pixels give the same bytes: `decode` and `read_image`, and the batches
//! of training and evaluation. Prediction reads its files through the loader of evaluation.
//!
//! The pictures are fixtures of `scripts/export_image_golden.py` and `scripts/export_jpeg_golden.py`.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mixer_data::*;

/// Fixtures of every kind, with the pixels that Pillow makes of them.
fn pictures() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [
        here.join("tests/fixtures/decode"),
        here.join("../mixer-jpeg/tests/fixtures"),
        here.join("../mixer-jpeg/tests/fixtures/whole"),
    ];
    let entries = folders.iter().flat_map(|folder| fs_err::read_dir(folder).unwrap());
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let is_picture = |ending: &std::ffi::OsStr| ending != "rgb" && ending != "scaled";
            path.is_file() && path.extension().is_some_and(is_picture)
        })
        .collect();
    paths.sort();
    paths
}

/// Pillow's pixels of a fixture.
fn expected(path: &Path) -> Vec<u8> {
    let beside = PathBuf::from(format!("{}.rgb", path.display()));
    fs_err::read(if beside.is_file() { beside } else { path.with_extension("rgb") }).unwrap()
}

/// The pictures as files, or decoded before.
struct Pictures {
    paths: Vec<PathBuf>,
    are_decoded: bool,
    classes: Vec<String>,
}

impl Source for Pictures {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        index as u32 % 2
    }

    fn read(&self, index: usize) -> Result<Example, DataError> {
        let path = &self.paths[index];
        match self.are_decoded {
            true => read_image(path, &self.decode_options()).map(Example::Pixels),
            false => read_file(path).map(Example::Encoded),
        }
    }

    fn describe(&self, index: usize) -> String {
        self.paths[index].display().to_string()
    }

    fn fingerprint(&self) -> u64 {
        0
    }
}

fn source(are_decoded: bool) -> Arc<dyn Source> {
    let classes = ["a", "b"].map(String::from).to_vec();
    Arc::new(Pictures { paths: pictures(), are_decoded, classes })
}

#[test]
fn decode_and_read_image_give_pillows_pixels() {
    let paths = pictures();
    assert!(paths.len() > 100, "{} fixtures", paths.len());
    for path in paths {
        let image = read_image(&path, &DecodeOptions::default()).unwrap();
        let decoded = decode(&fs_err::read(&path).unwrap(), &DecodeOptions::default()).unwrap();
        assert!(image == decoded, "{}", path.display());
        // Lossy WebP is rounded differently.
        if !path.ends_with("lossy.webp") {
            assert!(image.pixels == expected(&path), "{}", path.display());
        }
    }
}

/// All patches of a loader.
fn patches(mut loader: Loader, count: usize) -> Vec<u8> {
    let mut patches = Vec::new();
    let mut seen = 0;
    while seen < count {
        let batch = loader.next_batch().unwrap().unwrap();
        seen += batch.num_examples;
        patches.extend_from_slice(&batch.patches);
    }
    patches
}

fn config(batch_size: usize) -> LoaderConfig {
    let on_corrupt = OnCorrupt::Stop;
    LoaderConfig { batch_size, patch_size: 8, workers: 2, queue_bytes: 1 << 20, on_corrupt }
}

#[test]
fn training_sees_the_pixels_of_decode() {
    let crops = [
        TrainCrop::Inception { area: (0.1, 1.0), aspect: (0.75, 1.3333) },
        TrainCrop::Pad { pixels: 2 },
    ];
    for crop in crops {
        let transform = TrainTransform {
            image_size: 16,
            crop,
            flip: true,
            interpolation: Interpolation::Bilinear,
            randaugment: None,
            erasing: None,
            jpeg_scaling: false,
        };
        let seen = |are_decoded| {
            let source = source(are_decoded);
            let count = 3 * source.len();
            patches(Loader::train(source, transform.clone(), 5, 0, config(10)).unwrap(), count)
        };
        assert!(seen(false) == seen(true), "{transform:?}");
    }
}

#[test]
fn evaluation_and_prediction_see_the_pixels_of_decode() {
    for resize in [EvalResize::Squash, EvalResize::ResmallCrop { fraction: 0.875 }] {
        let transform = EvalTransform {
            image_size: 16,
            resize,
            interpolation: Interpolation::Bicubic,
            jpeg_scaling: false,
        };
        let seen = |are_decoded| {
            let source = source(are_decoded);
            let count = source.len();
            patches(Loader::eval(source, transform.clone(), config(7)).unwrap(), count)
        };
        assert!(seen(false) == seen(true), "{transform:?}");
    }
}
