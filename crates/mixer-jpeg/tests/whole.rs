//! Whole pictures against Pillow's pixels, and what is refused by name.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

#[allow(dead_code)]
mod common;

use common::{decode_whole, fixtures, read, whole_fixtures};
use mixer_jpeg::{Decoder, Picture, Refusal};

#[test]
fn whole_pictures_are_those_of_libjpeg_turbo_to_the_last_bit() {
    for decoder in [Decoder::new(), Decoder::portable()] {
        for fixture in whole_fixtures().iter().chain(&fixtures()) {
            let header = Picture::read(&fixture.jpeg).unwrap().header();
            assert_eq!((header.width, header.height), (fixture.width, fixture.height));
            for (scale, expected) in fixture.at_scales() {
                let mut rgb = Vec::new();
                let picture = Picture::read(&fixture.jpeg).unwrap();
                decoder.decode_whole(&picture, scale, &mut rgb).unwrap();
                assert_eq!(rgb.len(), expected.len(), "{} {scale:?}", fixture.name);
                let differing = rgb.iter().zip(expected).position(|(ours, theirs)| ours != theirs);
                assert_eq!(differing, None, "{} {scale:?}", fixture.name);
            }
        }
    }
}

#[test]
fn a_cut_file_is_refused_or_lacks_nothing_but_its_end() {
    let decoder = Decoder::new();
    let (mut refused, mut whole) = (0, 0);
    for fixture in whole_fixtures().iter().chain(&fixtures()) {
        let is_progressive = fixture.jpeg.windows(2).any(|pair| pair == [0xff, 0xc2]);
        for length in 0..fixture.jpeg.len() {
            match decode_whole(&decoder, &fixture.jpeg[..length]) {
                Ok(rgb) => {
                    assert!(rgb == fixture.rgb && !is_progressive, "{} to {length}", fixture.name);
                    whole += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    // Each file that is not progressive, without the two bytes of the marker and without one of them.
    assert!(whole >= 2 * 60 && refused > 50 * whole, "{whole}, {refused}");
}

/// Beginning of a marker's segment, length included.
fn segment(jpeg: &[u8], code: u8) -> usize {
    jpeg.windows(2).position(|pair| pair == [0xff, code]).unwrap() + 2
}

/// Refusal of a fixture after an edit.
fn refusal(name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut jpeg = read(name);
    assert!(decode_whole(&Decoder::new(), &jpeg).is_ok(), "{name}");
    edit(&mut jpeg);
    decode_whole(&Decoder::new(), &jpeg).unwrap_err().to_string()
}

#[test]
fn other_processes_are_refused_by_their_names() {
    let frame = |code: u8| {
        refusal("444-17x33.jpg", |jpeg| {
            let at = segment(jpeg, 0xc0);
            jpeg[at - 1] = code;
        })
    };
    let name = |name: &str| format!("{name} JPEG, expected a baseline or progressive one");
    assert_eq!(frame(0xc3), name("a lossless"));
    assert_eq!(frame(0xc5), name("a hierarchical"));
    assert_eq!(frame(0xc9), name("an arithmetic-coded"));
    assert_eq!(frame(0xca), name("an arithmetic-coded"));
    assert_eq!(frame(0xcb), name("an arithmetic-coded"));
    let put = |at: usize, byte: u8| {
        refusal("444-17x33.jpg", |jpeg| {
            let frame = segment(jpeg, 0xc0);
            jpeg[frame + at] = byte;
        })
    };
    assert_eq!(put(2, 12), "12 bits a sample, expected 8");
    assert_eq!(put(9, 0x51), "a sampling factor is not 1 to 4");
    assert_eq!(put(11, 1), "two components have the same identifier");
    // 3 is no multiple of 2.
    let mixed = refusal("444-17x33.jpg", |jpeg| {
        let frame = segment(jpeg, 0xc0);
        (jpeg[frame + 9], jpeg[frame + 12]) = (0x31, 0x21);
    });
    assert_eq!(mixed, "sampling factors that do not divide each other");
    let height = refusal("444-17x33.jpg", |jpeg| {
        let frame = segment(jpeg, 0xc0);
        jpeg[frame + 3..frame + 5].fill(0);
    });
    assert_eq!(height, "its height is not in the frame header");
}

#[test]
fn tables_that_are_left_out_are_those_of_the_standard() {
    // Fixtures that were written without counting symbols have them.
    for name in ["420-7x5", "444-31x2", "422-64x48", "grey-16x16"] {
        let fixture = fixtures().into_iter().find(|fixture| fixture.name == name).unwrap();
        let mut jpeg = fixture.jpeg.clone();
        let mut taken = 0;
        while let Some(at) = jpeg.windows(2).position(|pair| pair == [0xff, 0xc4]) {
            let length = u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]);
            jpeg.drain(at..at + 2 + usize::from(length));
            taken += 1;
        }
        assert!(taken > 0);
        let outcome = decode_whole(&Decoder::new(), &jpeg);
        assert!(outcome == Ok(fixture.rgb), "{name}");
    }
}

#[test]
fn scans_that_are_missing_are_no_picture() {
    let name = "whole/420_luma_first-21x13.jpg";
    let without_second = refusal(name, |jpeg| {
        let second = jpeg.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
        jpeg.truncate(second);
        jpeg.extend([0xff, 0xd9]);
    });
    assert_eq!(without_second, "a component is in no scan");
    let name = "whole/444_progressive-19x9.jpg";
    let unrefined = refusal(name, |jpeg| {
        let last = jpeg.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
        jpeg.truncate(last);
        jpeg.extend([0xff, 0xd9]);
    });
    assert_eq!(unrefined, "its progressive scans stop before full precision");
    let emptied = refusal("444-17x33.jpg", |jpeg| {
        let scan = segment(jpeg, 0xda) + 12;
        let end = jpeg.len() - 2;
        jpeg.drain(scan + 20..end);
    });
    assert_eq!(emptied, "the data of a scan end before the picture does");
}

#[test]
fn scans_without_end_are_refused_soon() {
    let mut jpeg = read("whole/grey_progressive-17x9.jpg");
    let scan = segment(&jpeg, 0xda) - 2;
    let one = jpeg[scan..].to_vec();
    let next = one[2..].windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 2;
    jpeg.truncate(scan);
    for _ in 0..100_000 {
        jpeg.extend(&one[..next]);
    }
    let outcome = decode_whole(&Decoder::new(), &jpeg);
    assert_eq!(outcome, Err(Refusal::Header("it has more than 500 scans")));
}

#[test]
fn a_size_that_the_data_cannot_have_is_refused_at_once() {
    for name in ["whole/444_progressive-19x9.jpg", "whole/ycck-11x7.jpg"] {
        let mut jpeg = read(name);
        let frame = jpeg.windows(2).position(|pair| matches!(pair, [0xff, 0xc1 | 0xc2])).unwrap();
        jpeg[frame + 5..frame + 9].fill(0xff);
        assert_eq!(decode_whole(&Decoder::new(), &jpeg), Err(Refusal::Truncated));
    }
}

#[test]
fn a_damaged_block_costs_no_more_than_what_depends_on_it() {
    // A restart marker that is missing: the interval before it is read on, the next is found again.
    let fixture =
        fixtures().into_iter().find(|fixture| fixture.name == "420-41x22-restarts").unwrap();
    let mut jpeg = fixture.jpeg.clone();
    let at = jpeg.windows(2).position(|pair| pair == [0xff, 0xd1]).unwrap();
    jpeg.drain(at..at + 2);
    let rgb = decode_whole(&Decoder::new(), &jpeg).unwrap();
    let same = rgb.iter().zip(&fixture.rgb).filter(|(ours, theirs)| ours == theirs).count();
    assert!(same * 3 > rgb.len(), "{same} of {}", rgb.len());
}
