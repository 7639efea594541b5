//! What a seed means, as literal numbers: which examples a batch holds, and the bytes of its patches.
//!
//! Changing a number here breaks the resume of runs that exist; see "The numerics rule" in
//! CONTRIBUTING.md. Each stream is read with 1, 2 and 16 workers and again from its middle, and every
//! reading is held against the same constants.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mixer_data::*;

const SEED: u64 = 42;
const BATCH_SIZE: usize = 6;

/// What is pinned of a batch: its examples, and [`fnv1a`] of its patches.
type Pinned = ([u64; BATCH_SIZE], u64);

/// The 64-bit FNV-1a hash: a few lines, and defined once and for all.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Training with an inception crop and mirroring.
fn transform(image_size: u32, randaugment: Option<&str>) -> TrainTransform {
    TrainTransform {
        image_size,
        crop: TrainCrop::Inception { area: (0.05, 1.0), aspect: (0.75, 1.3333) },
        flip: true,
        interpolation: Interpolation::Bilinear,
        randaugment: randaugment.map(|text| serde_json::from_str(text).unwrap()),
        erasing: None,
        jpeg_scaling: false,
    }
}

/// `count` batches from batch number `first` on.
fn read(
    source: &Arc<dyn Source>,
    transform: &TrainTransform,
    order: Order,
    (first, count): (usize, usize),
    workers: usize,
) -> Vec<Pinned> {
    let config = LoaderConfig {
        batch_size: BATCH_SIZE,
        patch_size: 8,
        workers,
        queue_bytes: 1 << 20,
        on_corrupt: OnCorrupt::Stop,
    };
    let start = (first * BATCH_SIZE) as u64;
    let mut loader =
        Loader::train_in_order(Arc::clone(source), transform.clone(), SEED, order, start, config)
            .unwrap();
    let batches = (0..count).map(|_| {
        let batch = loader.next_batch().unwrap().unwrap();
        let pinned = (batch.indices.clone().try_into().unwrap(), fnv1a(&batch.patches));
        loader.recycle(batch);
        pinned
    });
    batches.collect()
}

/// Reads a stream in all ways there are and compares each with the constants.
fn assert_pinned(
    source: &Arc<dyn Source>,
    transform: &TrainTransform,
    order: Order,
    pinned: &[Pinned],
) {
    let middle = pinned.len() / 2;
    for workers in [0, 1, 2, 16] {
        for first in [0, middle] {
            let expected = &pinned[first..];
            let found = read(source, transform, order, (first, expected.len()), workers);
            assert_eq!(found, expected, "{workers} workers from batch {first}");
        }
    }
}

fn builtin() -> Arc<dyn Source> {
    let source = BuiltinSource::new(BuiltinKind::Shapes, BuiltinSplit::Train, 10, 32, 0);
    Arc::new(source.unwrap())
}

#[test]
fn batches_with_repeats_are_those_of_every_earlier_version() {
    let pinned = [
        ([2, 5, 2, 5, 2, 5], 0xbe6f_5937_6884_7efa),
        ([4, 3, 4, 3, 4, 3], 0x6011_781a_7c8b_0075),
        ([6, 1, 6, 1, 6, 1], 0x8d44_7b1b_c313_22cc),
        ([8, 9, 8, 9, 8, 9], 0xf54b_3ef7_3c6a_e032),
    ];
    let order = Order::training(SEED, 3, BATCH_SIZE);
    assert_pinned(&builtin(), &transform(32, None), order, &pinned);
}

/// Class folders of committed pictures: JPEGs of which regions are decoded, in every sampling, with and
/// without restarts, and two PNGs.
///
/// The PNGs hold what zune-jpeg made of a progressive and a CMYK file, which is what the hashes were made
/// of. Today's pixels of those two are Pillow's, to the last bit; see `tests/one_way.rs`.
fn jpeg_folder() -> (tempfile::TempDir, Arc<dyn Source>) {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let ours = crates.join("mixer-data/tests/fixtures/decode");
    let kept = crates.join("mixer-data/tests/fixtures/determinism");
    let baseline = crates.join("mixer-jpeg/tests/fixtures");
    let files: [(&str, PathBuf); 10] = [
        ("a", baseline.join("420-64x48.jpg")),
        ("a", baseline.join("422-83x35.jpg")),
        ("a", baseline.join("444-64x48.jpg")),
        ("a", baseline.join("420-41x22-restarts.jpg")),
        ("b", baseline.join("grey-64x48.jpg")),
        ("b", baseline.join("422-17x33.jpg")),
        ("b", ours.join("baseline.jpg")),
        ("c", kept.join("progressive.png")),
        ("c", kept.join("cmyk.png")),
        ("c", ours.join("orientation.jpg")),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (class, file) in files {
        let class = folder.path().join(class);
        fs_err::create_dir_all(&class).unwrap();
        fs_err::copy(&file, class.join(file.file_name().unwrap())).unwrap();
    }
    let source = FolderSource::open(&folder, DecodeOptions::default()).unwrap();
    (folder, Arc::new(source))
}

#[test]
fn batches_of_built_in_pictures_are_those_of_every_earlier_version() {
    let pinned = [
        ([2, 5, 4, 3, 6, 1], 0x7503_c755_1e74_fbc8),
        ([8, 9, 0, 7, 4, 8], 0x3f42_2cd5_6e80_f4a2),
        ([0, 5, 2, 1, 6, 9], 0xbb4b_84eb_22c4_7dd4),
        ([3, 7, 8, 9, 3, 2], 0xcf0f_26fb_f453_f0de),
    ];
    let order = Order::Shuffled { seed: SEED };
    assert_pinned(&builtin(), &transform(32, None), order, &pinned);
}

#[test]
fn batches_of_jpeg_files_with_timms_randaugment_are_those_of_every_earlier_version() {
    let pinned = [
        ([2, 5, 4, 3, 6, 1], 0x3696_b3f2_aa61_a8a6),
        ([8, 9, 0, 7, 4, 8], 0x228b_f715_b728_be9a),
        ([0, 5, 2, 1, 6, 9], 0xb213_be98_3ca6_ea7c),
        ([3, 7, 8, 9, 3, 2], 0xc5be_75f8_67cb_53c7),
    ];
    let (_folder, source) = jpeg_folder();
    let randaugment = r#"{"flavour": "timm", "layers": 2, "magnitude": 9, "magnitude_std": 0.5}"#;
    let order = Order::Shuffled { seed: SEED };
    assert_pinned(&source, &transform(48, Some(randaugment)), order, &pinned);
}

#[test]
fn batches_of_jpeg_files_with_big_visions_randaugment_are_those_of_every_earlier_version() {
    let pinned = [
        ([2, 5, 4, 3, 6, 1], 0x1c33_ddaf_862e_6e7b),
        ([8, 9, 0, 7, 4, 8], 0xc0a1_5edc_8ac5_f440),
        ([0, 5, 2, 1, 6, 9], 0xa25b_356c_40c2_00f0),
        ([3, 7, 8, 9, 3, 2], 0x6d3c_ba1e_df9b_efa0),
    ];
    let (_folder, source) = jpeg_folder();
    let randaugment = r#"{"flavour": "big_vision", "layers": 2, "magnitude": 3}"#;
    let order = Order::Shuffled { seed: SEED };
    assert_pinned(&source, &transform(64, Some(randaugment)), order, &pinned);
}

#[test]
fn batches_of_jpeg_files_with_autoaugment_are_those_of_every_earlier_version() {
    let pinned = [
        ([2, 5, 4, 3, 6, 1], 0x917e_f0a0_5af8_abb2),
        ([8, 9, 0, 7, 4, 8], 0x52d4_a8b0_4f96_8d00),
        ([0, 5, 2, 1, 6, 9], 0xbec8_07fe_5b7d_cece),
        ([3, 7, 8, 9, 3, 2], 0x24bf_c902_2d45_d9e9),
    ];
    let (_folder, source) = jpeg_folder();
    let autoaugment = r#"{"flavour": "autoaugment", "policy": "cifar10"}"#;
    let order = Order::Shuffled { seed: SEED };
    assert_pinned(&source, &transform(64, Some(autoaugment)), order, &pinned);
}
