//! Picture files that claim more than they have: refused by the limit, or for what they lack, with
//! little memory.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "../../mixer-jpeg/tests/common/allocation.rs"]
mod allocation;

use std::io::Write;

use mixer_data::{DecodeError, DecodeOptions, decode};

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

/// Pixels that pictures of this test may have.
const MAX_PIXELS: u64 = 1 << 20;

/// Memory that a decoder may take for a picture, beside a small multiple of the file:
/// 16 bits of four channels, their copy as RGB, colour profiles.
const MAX_BYTES: usize = 20 << 20;

/// Decodes, and holds the decoder to its memory.
fn outcome(name: &str, bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    let options = DecodeOptions { apply_orientation: true, max_pixels: MAX_PIXELS };
    let mut outcome = None;
    let peak = allocation::peak_of(|| {
        outcome = Some(decode(bytes, &options).map(|image| (image.width, image.height)));
    });
    let limit = MAX_BYTES + 4 * bytes.len();
    assert!(peak <= limit, "{name}: {peak} bytes for a file of {}", bytes.len());
    outcome.unwrap()
}

fn gif(screen: [u16; 2], frame: [u16; 4]) -> Vec<u8> {
    let mut bytes = b"GIF89a".to_vec();
    bytes.extend(screen.iter().flat_map(|side| side.to_le_bytes()));
    bytes.extend([0x80, 0, 0, 255, 255, 255, 9, 9, 9, b',']);
    bytes.extend(frame.iter().flat_map(|number| number.to_le_bytes()));
    // One pixel of the second colour, and the end.
    bytes.extend([0, 2, 2, 0x4c, 0x01, 0, b';']);
    bytes
}

fn png_chunk(name: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    let body = [name, payload].concat();
    let mut bytes = (payload.len() as u32).to_be_bytes().to_vec();
    bytes.extend(&body);
    bytes.extend(crc32fast::hash(&body).to_be_bytes());
    bytes
}

fn png([width, height]: [u32; 2], kind: [u8; 5], chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend(kind);
    let header = png_chunk(b"IHDR", &header);
    let end = png_chunk(b"IEND", b"");
    [b"\x89PNG\r\n\x1a\n", &header[..], &chunks.concat(), &end].concat()
}

fn packed(bytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 16];
    for _ in 0..bytes >> 16 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

fn bmp(width: i32, height: i32, bits: u16, compression: u32, colours: u32) -> Vec<u8> {
    let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\x04\0\0\x28\0\0\0".to_vec();
    bytes.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
    bytes.extend([1u16.to_le_bytes(), bits.to_le_bytes()].concat());
    bytes.extend(compression.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(colours.to_le_bytes());
    bytes.extend([0; 4 + 1024 + 16]);
    bytes
}

fn webp(chunks: &[(&[u8; 4], u32, &[u8])]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    for (name, length, payload) in chunks {
        body.extend(*name);
        body.extend(length.to_le_bytes());
        body.extend(*payload);
    }
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// A `VP8X` chunk with flags and a canvas.
fn canvas(flags: u8, width: u32, height: u32) -> Vec<u8> {
    let sides = [width - 1, height - 1].map(|side| side.to_le_bytes());
    [&[flags, 0, 0, 0], &sides[0][..3], &sides[1][..3]].concat()
}

#[test]
fn what_any_frame_or_chunk_claims_is_bounded_before_memory_is_taken() {
    let all = |side: u16| gif([1, 1], [0, 0, side, side]);
    let lossless = |width: u32, height: u32| {
        [&[0x2f][..], &((width - 1) | (height - 1) << 14).to_le_bytes(), &[0; 7]].concat()
    };
    let lossy = |width: u16, height: u16| {
        let sides = [width.to_le_bytes(), height.to_le_bytes()].concat();
        [&[0x10, 0, 0, 0x9d, 1, 0x2a][..], &sides, &[0; 20]].concat()
    };
    let frame = |inner: &[u8]| {
        let sides = canvas(0, 16_000, 16_000);
        let header = [&[0; 6], &sides[4..], &[0; 4]].concat();
        [&header[..], b"VP8L", &(inner.len() as u32).to_le_bytes(), inner].concat()
    };
    let small = lossless(4, 4);
    let hidden = frame(&small);
    let cases: [(&str, Vec<u8>, [u64; 2]); 15] = [
        ("frame beyond its screen", all(65_535), [65_535; 2]),
        ("frame of 16000", all(16_000), [16_000; 2]),
        ("frame far to the right", gif([1, 1], [65_535, 0, 1, 1]), [65_536, 1]),
        ("screen alone", gif([60_000, 2], [0, 0, 1, 1]), [60_000, 2]),
        ("rows of gigabytes", png([0x7fff_ffff, 1], [16, 6, 0, 0, 0], &[]), [0x7fff_ffff, 1]),
        ("interlaced", png([9000, 9000], [16, 6, 0, 0, 1], &[]), [9000; 2]),
        ("wide bitmap", bmp(65_535, 1, 8, 0, 0), [65_535, 1]),
        ("upside down", bmp(9000, -9000, 24, 0, 0), [9000; 2]),
        ("run lengths", bmp(9000, 9000, 8, 1, 256), [9000; 2]),
        ("lossless", webp(&[(b"VP8L", 12, &lossless(9000, 9000))]), [9000; 2]),
        ("lossy", webp(&[(b"VP8 ", 30, &lossy(9000, 9000))]), [9000; 2]),
        (
            "canvas",
            webp(&[(b"VP8X", 10, &canvas(0, 1 << 24, 9)), (b"VP8L", 12, &small)]),
            [1 << 24, 9],
        ),
        (
            "picture beyond its canvas",
            webp(&[(b"VP8X", 10, &canvas(0, 4, 4)), (b"VP8 ", 30, &lossy(9000, 9001))]),
            [9000, 9001],
        ),
        (
            "frame beyond its canvas",
            webp(&[
                (b"VP8X", 10, &canvas(2, 4, 4)),
                (b"ANIM", 6, &[0; 6]),
                (b"ANMF", hidden.len() as u32, &hidden),
            ]),
            [16_000; 2],
        ),
        (
            "picture beyond its frame",
            webp(&[(
                b"ANMF",
                16 + 8 + 12,
                &[&[0; 16], &frame(&lossless(9000, 9002))[16..]].concat(),
            )]),
            [9000, 9002],
        ),
    ];
    for (name, bytes, [width, height]) in cases {
        let expected = format!(
            "the picture is {width}x{height} px, expected at most {MAX_PIXELS} pixels and 16384 px a side"
        );
        assert_eq!(outcome(name, &bytes).unwrap_err().to_string(), expected, "{name}");
    }
}

#[test]
fn chunks_that_unpack_to_more_or_claim_more_than_a_file_has_are_bounded() {
    let bomb = packed(300 << 20);
    assert!(bomb.len() < 400 << 10);
    let profile = png_chunk(b"iCCP", &[b"x\0\0", &bomb[..]].concat());
    let text = png_chunk(b"zTXt", &[b"x\0\0", &bomb[..]].concat());
    let pixels = png_chunk(b"IDAT", &bomb);
    let kind = [8, 2, 0, 0, 0];
    let cases = [
        ("colour profile", png([4, 4], kind, &[profile, pixels.clone()])),
        ("packed text", png([4, 4], kind, &[text, pixels.clone()])),
        ("more pixels than the header says", png([4, 4], kind, &[pixels])),
        ("no pixels", png([1000, 1000], [16, 6, 0, 0, 1], &[])),
        (
            "metadata of 4 GB",
            webp(&[
                (b"VP8X", 10, &canvas(0x08, 4, 4)),
                (b"VP8L", 12, &[0x2f, 3, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                (b"EXIF", 0xffff_fffe, b"MM\0\x2a"),
            ]),
        ),
        ("a colour table of 4 G entries", bmp(4, 4, 8, 0, u32::MAX)),
        ("a width that no decoder has", bmp(i32::MAX, 1, 8, 0, 0)),
        ("no rows", bmp(1000, 1000, 24, 0, 0)),
        ("a height that has no positive", bmp(4, i32::MIN, 24, 0, 0)),
    ];
    for (name, bytes) in cases {
        // A picture of the size that it says, or a reason.
        match outcome(name, &bytes) {
            Ok(size) => assert_eq!(size, (4, 4), "{name}"),
            Err(error) => assert!(!error.to_string().contains('\n'), "{name}: {error}"),
        }
    }
}

#[test]
fn the_first_frame_of_a_gif_lies_on_the_canvas_that_pillow_has() {
    let decoded = |bytes: &[u8]| decode(bytes, &DecodeOptions::default()).unwrap();
    // The canvas has the first colour.
    let image = decoded(&gif([3, 2], [1, 1, 1, 1]));
    assert_eq!((image.width, image.height), (3, 2));
    let white = [255; 3];
    assert_eq!(image.pixels, [white, white, white, white, [9; 3], white].concat());
    // A frame that sticks out makes it larger.
    let image = decoded(&gif([1, 1], [2, 0, 1, 1]));
    assert_eq!((image.width, image.height), (3, 1));
    assert_eq!(image.pixels, [white, white, [9; 3]].concat());
    // Without a palette, entries are levels.
    let mut bytes = gif([2, 1], [0, 0, 1, 1]);
    bytes[10] = 0;
    bytes.drain(13..19);
    assert_eq!(decoded(&bytes).pixels, [1, 1, 1, 0, 0, 0]);
    // With a transparent entry, its colour.
    let mut bytes = gif([2, 1], [0, 0, 1, 1]);
    bytes.splice(19..19, [b'!', 0xf9, 4, 1, 0, 0, 1, 0]);
    assert_eq!(decoded(&bytes).pixels, [9; 6]);
}
