//! What is left to another decoder, and that nothing makes this one panic.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

#[allow(dead_code)]
mod common;

use common::{cut, decode, fixtures, read};
use mixer_jpeg::{Decoder, Region, Scale, Unsupported, read_header};
use proptest::prelude::*;

/// The fixture that the edits below start from.
fn sound() -> Vec<u8> {
    read("444-17x33.jpg")
}

/// Beginning of a marker's segment, length included.
fn segment(jpeg: &[u8], code: u8) -> usize {
    jpeg.windows(2).position(|pair| pair == [0xff, code]).unwrap() + 2
}

fn edited(edit: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, Unsupported> {
    let mut jpeg = sound();
    edit(&mut jpeg);
    decode(&mut Decoder::new(), &jpeg)
}

#[test]
fn the_fixture_that_is_edited_decodes() {
    assert!(edited(|_| {}).is_ok());
}

#[test]
fn other_processes_and_colours_are_left_to_others() {
    let refuse =
        |name: &str| read_header(&read(&format!("whole/pillow_{name}-19x10.jpg"))).unwrap_err();
    assert_eq!(refuse("progressive"), Unsupported::Process);
    assert_eq!(refuse("cmyk"), Unsupported::Colour);
    assert_eq!(refuse("rgb"), Unsupported::Colour);
}

#[test]
fn odd_headers_are_left_to_others() {
    let frame = segment(&sound(), 0xc0);
    let scan = segment(&sound(), 0xda);
    let cases: [(&str, usize, &[u8], Unsupported); 12] = [
        ("start of image", 0, &[0xfe], Unsupported::Header),
        ("arithmetic coding", frame - 1, &[0xc9], Unsupported::Process),
        ("12 bits", frame + 2, &[12], Unsupported::Process),
        ("height told later", frame + 3, &[0, 0], Unsupported::Header),
        ("no width", frame + 5, &[0, 0], Unsupported::Header),
        ("two components", frame + 7, &[2], Unsupported::Header),
        ("4:4:0", frame + 9, &[0x12], Unsupported::Sampling),
        ("chroma finer than luma", frame + 12, &[0x22], Unsupported::Sampling),
        ("a missing quantisation table", frame + 10, &[3], Unsupported::Header),
        ("one component in the scan", scan + 2, &[1], Unsupported::Scans),
        ("another order in the scan", scan + 3, &[2], Unsupported::Scans),
        ("part of the spectrum", scan + 10, &[5], Unsupported::Header),
    ];
    for (what, at, bytes, expected) in cases {
        let outcome = edited(|jpeg| jpeg[at..at + bytes.len()].copy_from_slice(bytes));
        assert_eq!(outcome.unwrap_err(), expected, "{what}");
    }
}

#[test]
fn a_missing_huffman_table_and_a_crowded_one_are_refused() {
    let table = segment(&sound(), 0xc4);
    // The table's number, then the count of codes of one bit.
    assert_eq!(edited(|jpeg| jpeg[table + 2] = 3).unwrap_err(), Unsupported::Header);
    let crowded = edited(|jpeg| {
        let counts = &mut jpeg[table + 3..table + 19];
        let total = counts.iter().sum();
        counts.fill(0);
        counts[0] = total;
    });
    assert_eq!(crowded.unwrap_err(), Unsupported::Header);
}

#[test]
fn sixteen_bit_quantisation_tables_mean_the_same() {
    let expected = edited(|_| {}).unwrap();
    let found = edited(|jpeg| {
        let at = segment(jpeg, 0xdb);
        let steps: Vec<u8> = jpeg[at + 3..at + 67].to_vec();
        let mut table = vec![0x10 | jpeg[at + 2]];
        table.extend(steps.iter().flat_map(|&step| [0, step]));
        jpeg.splice(at + 2..at + 67, table);
        let length = u16::from_be_bytes([jpeg[at], jpeg[at + 1]]) + 64;
        jpeg[at..at + 2].copy_from_slice(&length.to_be_bytes());
    });
    assert_eq!(found.unwrap(), expected);
}

#[test]
fn fill_bytes_before_markers_and_unknown_applications_are_stepped_over() {
    let expected = edited(|_| {}).unwrap();
    let found = edited(|jpeg| {
        let at = segment(jpeg, 0xdb) - 2;
        jpeg.splice(at..at, [0xff, 0xff, 0xff, 0xe7, 0, 4, 0xff, 0xd9]);
    });
    assert_eq!(found.unwrap(), expected);
}

#[test]
fn a_restart_marker_out_of_turn_is_damage() {
    let jpeg = read("420-41x22-restarts.jpg");
    let mut seen = 0;
    for at in 0..jpeg.len() - 1 {
        if jpeg[at] == 0xff && (0xd0..=0xd7).contains(&jpeg[at + 1]) {
            let mut jpeg = jpeg.clone();
            jpeg[at + 1] ^= 1;
            let outcome = decode(&mut Decoder::new(), &jpeg);
            assert_eq!(outcome.unwrap_err(), Unsupported::Data);
            seen += 1;
        }
    }
    assert!(seen > 1);
}

#[test]
fn regions_that_leave_the_picture_are_refused() {
    let (jpeg, mut rgb) = (sound(), Vec::new());
    let mut decode = |left, top, width, height| {
        let region = Region { left, top, width, height };
        Decoder::new().decode_region(&jpeg, Scale::Full, region, &mut rgb)
    };
    assert_eq!(decode(0, 0, 17, 33), Ok(()));
    assert_eq!(decode(16, 32, 1, 1), Ok(()));
    for (left, top, width, height) in [
        (0, 0, 0, 1),
        (0, 0, 1, 0),
        (1, 0, 17, 1),
        (0, 1, 1, 33),
        (u32::MAX, 0, 2, 1),
        (17, 0, 1, 1),
    ] {
        assert_eq!(decode(left, top, width, height), Err(Unsupported::Region));
    }
}

#[test]
fn every_truncation_is_refused_or_harmless() {
    for fixture in fixtures() {
        let mut decoder = Decoder::new();
        for length in 0..fixture.jpeg.len() {
            match decode(&mut decoder, &fixture.jpeg[..length]) {
                // Only what is behind the last block was missing.
                Ok(rgb) => assert!(rgb == fixture.rgb, "{} of {length} bytes", fixture.name),
                Err(_) => assert!(length < fixture.jpeg.len() - 2),
            }
        }
    }
}

#[test]
fn a_huge_size_costs_nothing_before_there_is_data() {
    let jpeg = {
        let mut jpeg = sound();
        let frame = segment(&jpeg, 0xc0);
        jpeg[frame + 3..frame + 7].fill(0xff);
        jpeg
    };
    let header = read_header(&jpeg).unwrap();
    assert_eq!((header.width, header.height), (65535, 65535));
    let region = Region { left: 65000, top: 65000, width: 500, height: 500 };
    let outcome = Decoder::new().decode_region(&jpeg, Scale::Full, region, &mut Vec::new());
    assert_eq!(outcome, Err(Unsupported::Data));
}

/// A fixture with some bytes replaced, behind `start` if that is in it.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let fixtures: Vec<Vec<u8>> = fixtures().into_iter().map(|fixture| fixture.jpeg).collect();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    (prop::sample::select(fixtures), any::<bool>(), edits).prop_map(|(mut jpeg, in_scan, edits)| {
        let start = if in_scan { segment(&jpeg, 0xda) } else { 0 };
        for (at, byte) in edits {
            let at = start + at.index(jpeg.len() - start);
            jpeg[at] = byte;
        }
        jpeg
    })
}

/// Pictures of mutated headers may be large; those are not what is tested.
const MAX_PIXELS: u32 = 1 << 20;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_files_do_not_panic_and_regions_agree(
        jpeg in mutated(), corner in any::<(u32, u32)>(), size in any::<(u32, u32)>(),
    ) {
        let Ok(header) = read_header(&jpeg) else { return Ok(()) };
        let (left, top) = (corner.0 % header.width, corner.1 % header.height);
        let width = 1 + size.0 % (header.width - left).min(1000);
        let height = 1 + size.1 % (header.height - top).min(1000);
        let region = Region { left, top, width, height };

        let (mut ours, mut portable) = (Vec::new(), Vec::new());
        let outcome = Decoder::new().decode_region(&jpeg, Scale::Full, region, &mut ours);
        prop_assert_eq!(Decoder::portable().decode_region(&jpeg, Scale::Full, region, &mut portable), outcome);
        if outcome.is_err() {
            return Ok(());
        }
        prop_assert_eq!(ours.len(), (width * height * 3) as usize);
        prop_assert_eq!(&ours, &portable);
        if header.width * header.height <= MAX_PIXELS
            && let Ok(whole) = decode(&mut Decoder::new(), &jpeg)
        {
            prop_assert_eq!(ours, cut(&whole, header.width, region));
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..300),
        keep in any::<prop::sample::Index>(),
    ) {
        // As a whole file, and as entropy-coded data behind a sound header.
        let sound = sound();
        let header = segment(&sound, 0xda) + 12 + keep.index(40);
        for jpeg in [bytes.clone(), [&sound[..header], &bytes].concat()] {
            if let Ok(rgb) = decode(&mut Decoder::new(), &jpeg) {
                prop_assert_eq!(rgb.len(), 17 * 33 * 3);
            }
        }
    }
}
