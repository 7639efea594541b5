//! Properties that hold of any bytes: no panic, regions equal to the whole, vectors equal to plain Rust, the
//! decoder of whole pictures equal to that of regions, and where zune-jpeg sees nothing wrong either,
//! pixels close to its own.
//!
//! The fuzz target and the test `fuzz` call it.

use mixer_jpeg::{Decoder, Header, Picture, Region, Scale, read_header};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Larger pictures cost time and find nothing.
const MAX_PIXELS: u32 = 1 << 18;

/// zune-jpeg lets its filter see what encoders put behind the last column and row.
const EDGE: usize = 2;

/// Up to this width libjpeg repeats chroma, and zune-jpeg filters it.
const MAX_UNFILTERED: u32 = 4;

/// How far zune-jpeg's other pixels may be on average: it rounds its inverse DCT and its filter
/// differently. Single pixels of a scan that is damaged but valid can be much further apart, where
/// intermediate values leave the range that a picture has.
const MAX_MEAN_DIFFERENCE: f64 = 3.0;

/// Panics where a promise is broken; says whether the whole picture was decoded.
pub fn check(bytes: &[u8]) -> bool {
    let whole = check_whole(bytes);
    let Ok(header) = read_header(bytes) else { return whole.is_some() };
    if header.width * header.height > MAX_PIXELS {
        return false;
    }
    let all = Region { left: 0, top: 0, width: header.width, height: header.height };
    let mut pixels = Vec::new();
    let outcome = Decoder::new().decode_region(bytes, Scale::Full, all, &mut pixels);

    let region = region_of(bytes, header.width, header.height);
    let (mut part, mut portable) = (Vec::new(), Vec::new());
    let part_outcome = Decoder::new().decode_region(bytes, Scale::Full, region, &mut part);
    let portable_outcome =
        Decoder::portable().decode_region(bytes, Scale::Full, region, &mut portable);
    assert_eq!(part_outcome, portable_outcome);
    if part_outcome.is_ok() {
        assert!(part == portable, "vector instructions and plain Rust differ");
    }
    check_scaled(bytes, header);
    if outcome.is_err() {
        return false;
    }
    assert_eq!(pixels.len(), header.width as usize * header.height as usize * 3);
    // The whole has looked at more, so that it may find more damage, never less.
    assert_eq!(part_outcome, Ok(()), "{region:?} is refused, the whole is not");
    let bytes_per_row = header.width as usize * 3;
    let (left, length) = (region.left as usize * 3, region.width as usize * 3);
    for (y, row) in part.chunks_exact(length).enumerate() {
        let start = (region.top as usize + y) * bytes_per_row + left;
        assert!(row == &pixels[start..start + length], "{region:?} is not the crop");
    }

    // What follows the first scan is not read for regions: another scan of the same components.
    let has_one_scan = bytes.windows(2).filter(|pair| *pair == [0xff, 0xda]).count() == 1;
    if let Some(whole) = whole.filter(|_| has_one_scan) {
        assert!(whole == pixels, "the whole is another picture");
    }

    if header.width <= MAX_UNFILTERED {
        return true;
    }
    let Some(theirs) = decode_zune(bytes) else { return true };
    assert_eq!(theirs.len(), pixels.len());
    let (mut sum, mut count) = (0, 0);
    let rows = pixels.chunks_exact(bytes_per_row).zip(theirs.chunks_exact(bytes_per_row));
    for (ours, theirs) in rows.take(header.height as usize - EDGE.min(header.height as usize)) {
        for (a, b) in ours.iter().zip(theirs).take(bytes_per_row - EDGE * 3) {
            sum += u64::from(a.abs_diff(*b));
            count += 1;
        }
    }
    let mean = sum as f64 / f64::from(count.max(1));
    assert!(mean <= MAX_MEAN_DIFFERENCE, "zune-jpeg differs by {mean} on average");
    true
}

/// Smaller pictures: vectors and plain Rust agree, and a part is the crop.
fn check_scaled(bytes: &[u8], header: Header) {
    for scale in Scale::ALL {
        let (width, height) = (scale.of(header.width), scale.of(header.height));
        let all = Region { left: 0, top: 0, width, height };
        let region = region_of(bytes, width, height);
        let (mut pixels, mut part, mut portable) = (Vec::new(), Vec::new(), Vec::new());
        let outcome = Decoder::new().decode_region(bytes, scale, all, &mut pixels);
        let part_outcome = Decoder::new().decode_region(bytes, scale, region, &mut part);
        let other = Decoder::portable().decode_region(bytes, scale, region, &mut portable);
        assert_eq!(part_outcome, other);
        assert!(part_outcome.is_err() || part == portable, "{scale:?}: vectors differ");
        if outcome.is_ok() {
            assert_eq!(part_outcome, Ok(()), "{scale:?} {region:?} is refused, the whole is not");
            let (left, length) = (region.left as usize * 3, region.width as usize * 3);
            for (y, row) in part.chunks_exact(length).enumerate() {
                let start = (region.top as usize + y) * width as usize * 3 + left;
                assert!(row == &pixels[start..start + length], "{scale:?} {region:?}");
            }
        }
    }
}

/// The picture by the decoder of whole pictures.
fn check_whole(bytes: &[u8]) -> Option<Vec<u8>> {
    let picture = Picture::read(bytes).ok()?;
    let header = picture.header();
    if header.width * header.height > MAX_PIXELS {
        return None;
    }
    let (mut pixels, mut portable) = (Vec::new(), Vec::new());
    for scale in Scale::ALL.into_iter().skip(1) {
        let outcome = Decoder::new().decode_whole(&picture, scale, &mut pixels);
        let other = Decoder::portable().decode_whole(&picture, scale, &mut portable);
        assert_eq!(outcome, other);
        assert!(outcome.is_err() || pixels == portable, "{scale:?}: vectors differ");
    }
    let outcome = Decoder::new().decode_whole(&picture, Scale::Full, &mut pixels);
    assert_eq!(Decoder::portable().decode_whole(&picture, Scale::Full, &mut portable), outcome);
    outcome.ok()?;
    assert!(pixels == portable, "vector instructions and plain Rust differ");
    assert_eq!(pixels.len(), header.width as usize * header.height as usize * 3);
    Some(pixels)
}

/// A region that the bytes decide.
fn region_of(bytes: &[u8], width: u32, height: u32) -> Region {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let [a, b, c, d] = [0, 16, 32, 48].map(|shift| (hash >> shift) as u32 & 0xffff);
    let (left, top) = (a % width, b % height);
    Region { left, top, width: 1 + c % (width - left), height: 1 + d % (height - top) }
}

fn decode_zune(bytes: &[u8]) -> Option<Vec<u8>> {
    let options =
        DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB);
    JpegDecoder::new_with_options(ZCursor::new(bytes), options).decode().ok()
}
