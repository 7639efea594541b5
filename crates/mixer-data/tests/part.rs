//! Regions of picture files against the whole picture.
//!
//! The fixtures come from `scripts/export_image_golden.py`.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::path::Path;

use mixer_data::{DecodeError, DecodeOptions, PartDecoder, Region, decode};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode")
}

fn fixture(name: &str) -> Vec<u8> {
    fs_err::read(folder().join(name)).unwrap()
}

const REGION: Region = Region { left: 5, top: 3, width: 17, height: 11 };

fn cut(pixels: &[u8], width: u32) -> Vec<u8> {
    let rows = pixels.chunks_exact(width as usize * 3).skip(REGION.top as usize);
    let (left, bytes) = (REGION.left as usize * 3, REGION.width as usize * 3);
    rows.take(REGION.height as usize).flat_map(|row| &row[left..left + bytes]).copied().collect()
}

#[test]
fn a_part_of_any_file_is_the_crop_of_the_whole() {
    // zune-jpeg rounds differently from mixer-jpeg, which is Pillow to the last bit.
    const JPEG_TOLERANCE: u8 = 5;
    let (mut files, mut decoder) = (0, PartDecoder::new());
    for entry in fs_err::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".rgb") {
            continue;
        }
        files += 1;
        let bytes = fixture(&name);
        let options = DecodeOptions::default();
        let whole = decode(&bytes, &options).unwrap();
        let mut asked = Vec::new();
        let part = decoder.decode(&bytes, &options, |width, height| {
            asked.push((width, height));
            REGION
        });
        let part = part.unwrap();
        assert_eq!(asked, [(whole.width, whole.height)], "{name}");
        assert_eq!((part.width, part.height, part.region), (whole.width, whole.height, REGION));
        assert_eq!((part.image.width, part.image.height), (REGION.width, REGION.height));
        let expected = cut(&whole.pixels, whole.width);
        let max = part.image.pixels.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
        let tolerance = if name.ends_with(".jpg") { JPEG_TOLERANCE } else { 0 };
        assert!(max.unwrap() <= tolerance, "{name}: {max:?}");
    }
    assert!(files > 15, "{files} files");
}

#[test]
fn parts_of_baseline_jpegs_are_pillows_to_the_last_bit() {
    for name in ["baseline.jpg", "subsampled.jpg", "grey.jpg", "restarts.jpg", "orientation.jpg"] {
        let options = DecodeOptions::default();
        let part = PartDecoder::new().decode(&fixture(name), &options, |_, _| REGION).unwrap();
        assert_eq!(part.image.pixels, cut(&fixture(&format!("{name}.rgb")), part.width), "{name}");
    }
}

#[test]
fn a_part_above_the_cut_of_a_truncated_jpeg_is_refused() {
    for name in ["baseline.jpg", "subsampled.jpg", "grey.jpg", "progressive.jpg"] {
        let bytes = fixture(name);
        let region = Region { left: 0, top: 0, width: 4, height: 1 };
        let outcome = PartDecoder::new().decode(
            &bytes[..bytes.len() * 9 / 10],
            &DecodeOptions::default(),
            |_, _| region,
        );
        assert_eq!(outcome.unwrap_err(), DecodeError::Truncated, "{name}");
    }
}

#[test]
fn limits_and_orientation_hold_for_parts() {
    let options = DecodeOptions { max_pixels: 29 * 18 - 1, ..DecodeOptions::default() };
    let outcome = PartDecoder::new().decode(&fixture("baseline.jpg"), &options, |_, _| REGION);
    assert!(matches!(outcome, Err(DecodeError::PictureTooLarge { .. })), "{outcome:?}");

    let options = DecodeOptions { apply_orientation: true, ..DecodeOptions::default() };
    let bytes = fixture("orientation.jpg");
    let region = Region { left: 1, top: 1, width: 5, height: 20 };
    let part = PartDecoder::new().decode(&bytes, &options, |_, _| region).unwrap();
    assert_eq!((part.width, part.height), (18, 29));
}
