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
        ([2, 5, 2, 5, 2, 5], 0x1bfd_931b_cb37_1c1b),
        ([4, 3, 4, 3, 4, 3], 0x1e3a_8762_2589_90ca),
        ([6, 1, 6, 1, 6, 1], 0x0099_3aaa_a9d5_837b),
        ([8, 9, 8, 9, 8, 9], 0xcc71_c639_183f_3165),
    ];
    let order = Order::training(SEED, 3, BATCH_SIZE);
    assert_pinned(&builtin(), &transform(32, None), order, &pinned);
}

/// Class folders of committed JPEGs: those that this crate decodes itself, in every sampling, with
/// and without restarts, and those that it leaves to zune-jpeg (progressive, CMYK).
fn jpeg_folder() -> (tempfile::TempDir, Arc<dyn Source>) {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let ours = crates.join("mixer-data/tests/fixtures/decode");
    let baseline = crates.join("mixer-jpeg/tests/fixtures");
    let files: [(&str, PathBuf); 10] = [
        ("a", baseline.join("420-64x48.jpg")),
        ("a", baseline.join("422-83x35.jpg")),
        ("a", baseline.join("444-64x48.jpg")),
        ("a", baseline.join("420-41x22-restarts.jpg")),
        ("b", baseline.join("grey-64x48.jpg")),
        ("b", baseline.join("422-17x33.jpg")),
        ("b", ours.join("baseline.jpg")),
        ("c", ours.join("progressive.jpg")),
        ("c", ours.join("cmyk.jpg")),
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
        ([2, 5, 4, 3, 6, 1], 0xc902_f06c_e83e_e134),
        ([8, 9, 0, 7, 4, 8], 0x3946_23b1_e492_ce7c),
        ([0, 5, 2, 1, 6, 9], 0x1415_a113_1a92_3662),
        ([3, 7, 8, 9, 3, 2], 0x7ce3_0711_de71_9034),
    ];
    let order = Order::Shuffled { seed: SEED };
    assert_pinned(&builtin(), &transform(32, None), order, &pinned);
}

#[test]
fn batches_of_jpeg_files_with_timms_randaugment_are_those_of_every_earlier_version() {
    let pinned = [
        ([2, 5, 4, 3, 6, 1], 0xdd03_557d_b605_5570),
        ([8, 9, 0, 7, 4, 8], 0xb508_a580_d33c_af51),
        ([0, 5, 2, 1, 6, 9], 0x2775_26bd_6042_9c03),
        ([3, 7, 8, 9, 3, 2], 0x3d3b_a4c3_172f_e7c5),
    ];
    let (_folder, source) = jpeg_folder();
    let randaugment = r#"{"flavour": "timm", "layers": 2, "magnitude": 9, "magnitude_std": 0.5}"#;
    let order = Order::Shuffled { seed: SEED };
    assert_pinned(&source, &transform(48, Some(randaugment)), order, &pinned);
}

#[test]
fn batches_of_jpeg_files_with_big_visions_randaugment_are_those_of_every_earlier_version() {
    let pinned = [
        ([2, 5, 4, 3, 6, 1], 0xba96_ec46_c396_6302),
        ([8, 9, 0, 7, 4, 8], 0x19d5_1ae1_a436_71c2),
        ([0, 5, 2, 1, 6, 9], 0x19a3_4cab_f580_32cf),
        ([3, 7, 8, 9, 3, 2], 0x37b4_d899_5765_b97c),
    ];
    let (_folder, source) = jpeg_folder();
    let randaugment = r#"{"flavour": "big_vision", "layers": 2, "magnitude": 3}"#;
    let order = Order::Shuffled { seed: SEED };
    assert_pinned(&source, &transform(64, Some(randaugment)), order, &pinned);
}
