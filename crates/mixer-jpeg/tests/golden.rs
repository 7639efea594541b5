//! Pixels against Pillow's, and regions against the whole.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

#[allow(dead_code)]
mod common;

use common::{cut, decode, fixtures};
use mixer_jpeg::{Decoder, Region, Scale, read_header};

#[test]
fn pictures_are_those_of_libjpeg_turbo_to_the_last_bit() {
    for mut decoder in [Decoder::new(), Decoder::portable()] {
        for fixture in fixtures() {
            let header = read_header(&fixture.jpeg).unwrap();
            assert_eq!((header.width, header.height), (fixture.width, fixture.height));
            for (scale, expected) in fixture.at_scales() {
                let mut rgb = Vec::new();
                let whole = fixture.whole_at(scale);
                decoder.decode_region(&fixture.jpeg, scale, whole, &mut rgb).unwrap();
                let differing = rgb.iter().zip(expected).position(|(ours, theirs)| ours != theirs);
                assert_eq!(rgb.len(), expected.len());
                assert_eq!(differing, None, "{} {scale:?}", fixture.name);
            }
        }
    }
}

/// Regions of small pictures: all. Of others: each corner, each single row and column, and some.
fn regions(width: u32, height: u32) -> Vec<Region> {
    let ranges = |length: u32| {
        (0..length).flat_map(move |start| (1..=length - start).map(move |size| (start, size)))
    };
    let all = |columns: Vec<(u32, u32)>, rows: Vec<(u32, u32)>| -> Vec<Region> {
        let pairs =
            columns.into_iter().flat_map(|column| rows.iter().map(move |&row| (column, row)));
        pairs.map(|((left, width), (top, height))| Region { left, top, width, height }).collect()
    };
    if width * height <= 81 {
        return all(ranges(width).collect(), ranges(height).collect());
    }
    // Steps that are prime to all sizes of blocks reach every residue.
    let some_columns: Vec<_> = ranges(width).step_by(37).collect();
    let some_rows: Vec<_> = ranges(height).step_by(29).collect();
    let mut regions = all(ranges(width).collect(), vec![(height / 2, 1), (0, height)]);
    regions.extend(all(vec![(width / 3, 2), (0, width)], ranges(height).collect()));
    regions.extend(all(some_columns, some_rows));
    regions
}

#[test]
fn a_region_is_the_crop_of_the_whole() {
    let mut decoder = Decoder::new();
    let mut rgb = Vec::new();
    let mut compared = 0;
    for fixture in fixtures() {
        for (scale, whole) in fixture.at_scales() {
            let (width, height) = (scale.of(fixture.width), scale.of(fixture.height));
            for region in regions(width, height) {
                decoder.decode_region(&fixture.jpeg, scale, region, &mut rgb).unwrap();
                let expected = cut(whole, width, region);
                assert!(rgb == expected, "{} {scale:?} {region:?}", fixture.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 150_000, "{compared} regions");
}

#[test]
fn nothing_below_the_region_is_read() {
    let mut decoder = Decoder::new();
    for fixture in fixtures().iter().filter(|fixture| fixture.height > 32) {
        let region = Region { left: 3, top: 2, width: fixture.width - 3, height: 9 };
        let scan = scan_start(&fixture.jpeg);
        // Not even that it is missing. A third of the data holds the first of three rows of MCUs,
        // with the chroma of the second if the filter needs it.
        let data = fixture.jpeg.len() - scan;
        let shortened = &fixture.jpeg[..scan + data * 9 / 10];
        let mut rgb = Vec::new();
        decoder.decode_region(shortened, Scale::Full, region, &mut rgb).unwrap();
        assert!(rgb == cut(&fixture.rgb, fixture.width, region), "{}", fixture.name);
        assert!(decode(&mut decoder, shortened).is_err(), "{}", fixture.name);
    }
}

/// Where the entropy-coded data begin.
fn scan_start(jpeg: &[u8]) -> usize {
    let marker = jpeg.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    marker + 2 + usize::from(u16::from_be_bytes([jpeg[marker + 2], jpeg[marker + 3]]))
}
