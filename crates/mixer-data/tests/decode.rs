//! Decoding against what Pillow makes of the same files, and refusal of what is no picture.
//!
//! The fixtures come from `scripts/export_image_golden.py`.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat};
use mixer_data::{
    DataError, DecodeError, DecodeOptions, FolderSource, RgbImage, Source, decode, read_image,
};

/// Width and height of every fixture.
const SIZE: (u32, u32) = (29, 18);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode")
}

fn fixture(name: &str) -> Vec<u8> {
    fs_err::read(fixtures().join(name)).unwrap()
}

fn decode_default(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    decode(bytes, &DecodeOptions::default())
}

/// Asserts that a fixture decodes as Pillow decodes it.
fn assert_agrees(name: &str, mean_limit: f64, max_limit: u8) {
    let found = decode_default(&fixture(name)).unwrap();
    let expected = fixture(&format!("{name}.rgb"));
    assert_eq!((found.width, found.height), SIZE, "{name}");
    assert_eq!(found.pixels.len(), expected.len(), "{name}");
    let differences = found.pixels.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
    let max = differences.clone().max().unwrap();
    let mean = differences.map(f64::from).sum::<f64>() / expected.len() as f64;
    assert!(mean <= mean_limit && max <= max_limit, "{name}: mean {mean:.3}, max {max}");
}

#[test]
fn jpegs_of_every_kind_agree_with_pillow() {
    for name in [
        "baseline.jpg",
        "subsampled.jpg",
        "restarts.jpg",
        "progressive.jpg",
        "grey.jpg",
        "cmyk.jpg",
        "orientation.jpg",
    ] {
        assert_agrees(name, 0.0, 0);
    }
}

#[test]
fn lossless_formats_equal_pillow() {
    for name in [
        "rgb.png",
        "rgba.png",
        "grey.png",
        "grey_alpha.png",
        "palette.png",
        "palette_transparent.png",
        "one_bit.png",
        "animated.gif",
        "rgb.bmp",
        "palette.bmp",
        "lossless.webp",
        "alpha.webp",
    ] {
        assert_agrees(name, 0.0, 0);
    }
}

#[test]
fn a_bitmap_whose_pixels_would_begin_in_its_palette_is_read_as_pillow_reads_it() {
    let mut bytes = fixture("palette.bmp");
    let header = u32::from_le_bytes(*bytes[14..].first_chunk().unwrap());
    let whole = decode_default(&bytes).unwrap();
    bytes[10..14].copy_from_slice(&(14 + header).to_le_bytes());
    assert_eq!(decode_default(&bytes).unwrap(), whole);
}

#[test]
fn lossy_webp_agrees_with_pillow() {
    assert_agrees("lossy.webp", 0.5, 5);
}

#[test]
fn sixteen_bit_png_keeps_its_high_bytes() {
    let colour = image::ImageBuffer::from_fn(4, 3, |x, y| {
        image::Rgb([0x1234 + x as u16, 0xfeff, 0x00ff + ((y as u16) << 8)])
    });
    let grey = image::ImageBuffer::from_fn(4, 3, |x, _| image::Luma([0xab80 + x as u16]));
    let alpha =
        image::ImageBuffer::from_fn(4, 3, |_, _| image::Rgba([0x0180, 0x8001, 0xffff, 7u16]));
    let pictures = [
        (DynamicImage::ImageRgb16(colour), [0x12, 0xfe, 0x00]),
        (DynamicImage::ImageLuma16(grey), [0xab; 3]),
        (DynamicImage::ImageRgba16(alpha), [0x01, 0x80, 0xff]),
    ];
    for (picture, expected) in pictures {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        let found = decode_default(&bytes.into_inner()).unwrap();
        assert_eq!(found.pixels[..3], expected);
    }
}

#[test]
fn orientation_is_ignored_unless_asked_for() {
    let bytes = fixture("orientation.jpg");
    let plain = decode_default(&bytes).unwrap();
    let options = DecodeOptions { apply_orientation: true, ..DecodeOptions::default() };
    let turned = decode(&bytes, &options).unwrap();
    assert_eq!((plain.width, plain.height), SIZE);
    assert_eq!((turned.width, turned.height), (SIZE.1, SIZE.0));
    // Orientation 6 is viewed rotated by 90 degrees clockwise: left bottom becomes left top.
    let bottom_left = (plain.height - 1) as usize * plain.width as usize * 3;
    assert_eq!(turned.pixels[..3], plain.pixels[bottom_left..bottom_left + 3]);
    // A picture without the tag stays.
    let bytes = fixture("baseline.jpg");
    assert_eq!(decode(&bytes, &options).unwrap(), decode_default(&bytes).unwrap());
}

/// EXIF metadata with an orientation, in both orders of bytes.
fn exif(orientation: u8, is_big_endian: bool) -> Vec<u8> {
    match is_big_endian {
        true => {
            [b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", &[orientation][..], &[0; 6]]
                .concat()
        }
        false => [b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", &[orientation][..], &[0; 7]]
            .concat(),
    }
}

/// A fixture with EXIF metadata.
fn with_exif(name: &str, exif: &[u8]) -> Vec<u8> {
    let bytes = fixture(name);
    match name.rsplit_once('.').unwrap().1 {
        "jpg" => {
            let length = (exif.len() as u16 + 2).to_be_bytes();
            [&bytes[..2], &[0xff, 0xe1], &length, exif, &bytes[2..]].concat()
        }
        "png" => {
            let body = [b"eXIf", exif].concat();
            let length = (exif.len() as u32).to_be_bytes();
            // Behind the header.
            [&bytes[..33], &length, &body, &crc32(&body).to_be_bytes(), &bytes[33..]].concat()
        }
        _ => {
            let sides = [SIZE.0 - 1, SIZE.1 - 1].map(|side| side.to_le_bytes());
            let canvas = [b"VP8X\x0a\0\0\0\x08\0\0\0", &sides[0][..3], &sides[1][..3]].concat();
            let length = (exif.len() as u32).to_le_bytes();
            let chunks = [&b"WEBP"[..], &canvas[..], &bytes[12..], b"EXIF", &length, exif].concat();
            [b"RIFF", &(chunks.len() as u32).to_le_bytes()[..], &chunks].concat()
        }
    }
}

#[test]
fn exif_with_a_prefix_and_without_turns_every_format_that_carries_it() {
    let options = DecodeOptions { apply_orientation: true, ..DecodeOptions::default() };
    for name in ["baseline.jpg", "progressive.jpg", "rgb.png", "lossless.webp", "lossy.webp"] {
        let stored = decode_default(&fixture(name)).unwrap();
        for (orientation, is_big_endian) in [(1, true), (3, false), (6, true), (8, false)] {
            let exif = exif(orientation, is_big_endian);
            for prefix in [&b"Exif\0\0"[..], b""] {
                if prefix.is_empty() && name.ends_with("jpg") {
                    continue;
                }
                let bytes = with_exif(name, &[prefix, &exif].concat());
                assert_eq!(decode_default(&bytes).unwrap(), stored, "{name}");
                let turned = decode(&bytes, &options).unwrap();
                let (width, height) = (turned.width as usize, turned.height as usize);
                assert_eq!((width * height, turned.pixels.len()), (29 * 18, 29 * 18 * 3));
                // Where the first stored pixel is now, in a row and a column.
                let (x, y) = match orientation {
                    1 => (0, 0),
                    3 => (width - 1, height - 1),
                    6 => (width - 1, 0),
                    _ => (0, height - 1),
                };
                let is_upright = matches!(orientation, 1 | 3);
                assert_eq!(is_upright, (turned.width, turned.height) == SIZE, "{name}");
                let at = (y * width + x) * 3;
                assert_eq!(turned.pixels[at..at + 3], stored.pixels[..3], "{name} {orientation}");
            }
        }
    }
}

#[test]
fn no_cut_of_a_jpeg_passes_as_a_different_picture() {
    for name in [
        "baseline.jpg",
        "subsampled.jpg",
        "restarts.jpg",
        "progressive.jpg",
        "grey.jpg",
        "cmyk.jpg",
    ] {
        let bytes = fixture(name);
        let whole = decode_default(&bytes).unwrap();
        for len in 0..bytes.len() {
            if let Ok(cut) = decode_default(&bytes[..len]) {
                assert!(cut == whole, "{name} cut to {len} of {} bytes", bytes.len());
            }
        }
    }
}

#[test]
fn truncated_jpegs_are_refused() {
    for name in ["baseline.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg"] {
        let bytes = fixture(name);
        for percent in [50, 90, 99] {
            let cut = &bytes[..bytes.len() * percent / 100];
            assert_eq!(decode_default(cut), Err(DecodeError::Truncated), "{name} {percent} %");
        }
    }
}

#[test]
fn a_jpeg_that_only_lacks_its_end_marker_is_accepted() {
    for name in ["baseline.jpg", "subsampled.jpg", "grey.jpg", "cmyk.jpg"] {
        let bytes = fixture(name);
        let whole = decode_default(&bytes).unwrap();
        assert_eq!(decode_default(&bytes[..bytes.len() - 2]).unwrap(), whole, "{name}");
    }
}

#[test]
fn harmless_oddities_of_jpegs_are_accepted() {
    let bytes = fixture("baseline.jpg");
    let whole = decode_default(&bytes).unwrap();
    // Bytes behind the end, as cameras and editors leave them.
    let trailing = [&bytes[..], &[0; 100], b"trailer"].concat();
    assert_eq!(decode_default(&trailing).unwrap(), whole);
    // Stray bytes between headers, which strict decoders refuse.
    let stray = [&bytes[..20], &[0; 9], &bytes[20..]].concat();
    assert_eq!(decode_default(&stray).unwrap(), whole);
    // Fill bytes before a marker.
    let fill = [&bytes[..20], &[0xff; 2], &bytes[20..]].concat();
    assert_eq!(decode_default(&fill).unwrap(), whole);
}

#[test]
fn truncated_files_of_other_formats_are_refused() {
    for name in ["rgb.png", "animated.gif", "rgb.bmp", "lossless.webp", "lossy.webp"] {
        let bytes = fixture(name);
        for percent in [10, 30] {
            let cut = &bytes[..bytes.len() * percent / 100];
            assert!(decode_default(cut).is_err(), "{name} {percent} %");
        }
    }
}

#[test]
fn what_is_no_image_is_named() {
    let reason = |bytes: &[u8]| decode_default(bytes).unwrap_err().to_string();
    assert_eq!(reason(b""), "the file is empty");
    assert_eq!(reason(b"<html><body>404"), "not an image: starts with `<htm`");
    assert_eq!(reason(b"hello"), "not an image: starts with `hell`");
    assert_eq!(reason(b"\x00\x01"), "not an image: starts with `\\x00\\x01`");
    assert_eq!(reason(&[0xff, 0xd8, 0xff]), "the file is truncated");
}

#[test]
fn the_name_of_a_file_does_not_matter_and_errors_end_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for class in ["a", "b"] {
        fs_err::create_dir(root.join(class)).unwrap();
    }
    fs_err::write(root.join("a/0.jpg"), fixture("rgb.png")).unwrap();
    fs_err::write(root.join("a/1.jpg"), "not a picture").unwrap();
    fs_err::write(root.join("b/0.PNG"), fixture("baseline.jpg")).unwrap();
    let source = FolderSource::open(root, DecodeOptions::default()).unwrap();
    assert!(source.image(0).is_ok());
    assert!(source.image(2).is_ok());
    let error = source.image(1).unwrap_err();
    assert!(matches!(error, DataError::BadExample { .. }));
    let path = root.join("a").join("1.jpg");
    assert_eq!(
        error.to_string(),
        format!("cannot decode image: not an image: starts with `not\\x20`: {}", path.display())
            .replace("\\x20", " ")
    );
}

#[test]
fn header_bombs_are_refused_before_anything_is_allocated() {
    // 60000 x 60000 in the frame header of a JPEG.
    let mut jpeg = fixture("baseline.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    // And in the header chunk of a PNG, whose checksum has to match.
    let mut png = fixture("rgb.png");
    png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    for bomb in [jpeg, png] {
        assert_eq!(
            decode_default(&bomb).unwrap_err().to_string(),
            "the picture is 60000x60000 px, expected at most 64000000 pixels and 16384 px a side"
        );
    }
}

#[test]
fn max_pixels_is_respected() {
    let options = DecodeOptions { max_pixels: 29 * 18 - 1, ..DecodeOptions::default() };
    for name in ["baseline.jpg", "rgb.png", "rgb.bmp", "animated.gif", "lossy.webp"] {
        let error = decode(&fixture(name), &options).unwrap_err();
        assert!(matches!(error, DecodeError::PictureTooLarge { .. }), "{name}: {error}");
    }
}

#[test]
fn flipped_bits_never_panic() {
    let options = DecodeOptions { max_pixels: 1 << 20, ..DecodeOptions::default() };
    for name in [
        "baseline.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "palette.png",
        "animated.gif",
        "rgb.bmp",
        "lossy.webp",
    ] {
        let bytes = fixture(name);
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 1 << (at % 8);
            let _outcome = decode(&broken, &options);
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_named_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let options = DecodeOptions::default();
    let reason = |name: &str| read_image(&root.join(name), &options).unwrap_err().to_string();
    let words = |what: &str, name: &str| {
        format!("cannot decode image: found {what}, expected a file: {}", root.join(name).display())
    };
    let made = std::process::Command::new("mkfifo").arg(root.join("pipe.png")).status();
    if made.is_ok_and(|status| status.success()) {
        assert_eq!(reason("pipe.png"), words("a named pipe", "pipe.png"));
    }
    let _listener = std::os::unix::net::UnixListener::bind(root.join("socket.png")).unwrap();
    assert_eq!(reason("socket.png"), words("a socket", "socket.png"));
    std::os::unix::fs::symlink("/dev/zero", root.join("device.png")).unwrap();
    assert_eq!(reason("device.png"), words("a device", "device.png"));
    fs_err::create_dir(root.join("folder.png")).unwrap();
    assert_eq!(reason("folder.png"), words("a folder", "folder.png"));
    // A link to a file is that file.
    fs_err::write(root.join("picture"), fixture("rgb.png")).unwrap();
    std::os::unix::fs::symlink("picture", root.join("link.png")).unwrap();
    let linked = read_image(&root.join("link.png"), &options).unwrap();
    assert_eq!(linked, decode_default(&fixture("rgb.png")).unwrap());
}
