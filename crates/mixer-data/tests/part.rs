//! Regions of picture files against the whole picture.
//!
//! The fixtures come from `scripts/export_image_golden.py`.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::path::Path;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use mixer_data::{
    DecodeError, DecodeOptions, EvalResize, EvalTransform, ExampleRng, Interpolation, PartDecoder,
    Region, Resampler, Scale, TrainCrop, TrainTransform, View, decode,
};

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
        assert!(part.image.pixels == expected, "{name}");
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

#[test]
fn parts_of_jpegs_with_restart_markers_anywhere_are_crops_of_the_whole() {
    let (width, height) = (150u32, 90u32);
    let mut state = 1u32;
    let pixels = (0..width * height * 3).map(|at| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (at / 3 % width + at / 3 / width + (state >> 27)) as u8
    });
    let pixels: Vec<u8> = pixels.collect();
    let mut decoder = PartDecoder::new();
    let (options, mut parts) = (DecodeOptions::default(), 0);
    for sampling in [SamplingFactor::R_4_2_0, SamplingFactor::R_4_4_4, SamplingFactor::R_4_2_2] {
        for interval in [1, 2, 3, 7, 10, 19, 23, 60, 1000] {
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&mut bytes, 90);
            encoder.set_sampling_factor(sampling);
            encoder.set_restart_interval(interval);
            encoder.encode(&pixels, width as u16, height as u16, ColorType::Rgb).unwrap();
            let mut decode = |left, top, width, height| {
                let region = Region { left, top, width, height };
                decoder.decode(&bytes, &options, |_, _| region).unwrap().image
            };
            let whole = decode(0, 0, width, height);
            for (left, part_width) in [(0, 150), (0, 9), (33, 40), (64, 16), (141, 9), (149, 1)] {
                for (top, part_height) in [(0, 90), (0, 5), (17, 30), (48, 16), (89, 1)] {
                    let part = decode(left, top, part_width, part_height);
                    let rows = whole.pixels.chunks_exact(width as usize * 3).skip(top as usize);
                    let (from, length) = (left as usize * 3, part_width as usize * 3);
                    let rows = rows.take(part_height as usize);
                    let expected: Vec<u8> =
                        rows.flat_map(|row| &row[from..from + length]).copied().collect();
                    assert!(part.pixels == expected, "{interval}: {left}, {top}");
                    parts += 1;
                }
            }
        }
    }
    assert_eq!(parts, 810);
}

#[test]
fn jpegs_are_made_smaller_only_as_far_as_is_allowed() {
    let options = DecodeOptions::default();
    let names = ["baseline.jpg", "subsampled.jpg", "grey.jpg", "progressive.jpg", "cmyk.jpg"];
    for name in names {
        let full = decode(&fixture(name), &options).unwrap();
        for (times, scale) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (8, 8), (9, 8)] {
            let view = View { region: REGION, times };
            let part = PartDecoder::new().decode(&fixture(name), &options, |_, _| view).unwrap();
            assert_eq!((part.region, part.scale.denominator()), (REGION, scale), "{name}");
            assert_eq!((part.width, part.height), (full.width, full.height));
            // The pixels that the region touches: 5 to 22 and 3 to 14.
            let length = |first: u32, end: u32| end.div_ceil(scale) - first / scale;
            assert_eq!((part.image.width, part.image.height), (length(5, 22), length(3, 14)));
            if scale == 1 {
                assert_eq!(part.image.pixels, cut(&full.pixels, full.width), "{name}");
            }
        }
    }
    let view = View { region: Region { left: 0, top: 0, width: 4, height: 4 }, times: 8 };
    let turned = DecodeOptions { apply_orientation: true, ..options };
    let part = PartDecoder::new().decode(&fixture("orientation.jpg"), &turned, |_, _| view);
    assert_eq!(part.unwrap().scale, Scale::Full);
}

#[test]
fn a_crop_of_a_smaller_picture_is_in_the_same_place() {
    /// One pixel of a decoded picture is 2 to 8 grey levels of the gradient.
    const MAX_MEAN_DIFFERENCE: f64 = 1.0;
    let (width, height, size) = (289u32, 233u32, 24u32);
    let gradient = |at: u32| {
        let (x, y) = (at % width, at / width);
        [
            (x * 255 / width) as u8,
            (y * 255 / height) as u8,
            ((x + y) * 255 / (width + height)) as u8,
        ]
    };
    let pixels: Vec<u8> = (0..width * height).flat_map(gradient).collect();
    let mut seen = [0; 4];
    for sampling in [SamplingFactor::R_4_2_0, SamplingFactor::R_4_4_4, SamplingFactor::R_4_2_2] {
        for is_progressive in [false, true] {
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&mut bytes, 95);
            encoder.set_sampling_factor(sampling);
            encoder.set_progressive(is_progressive);
            encoder.encode(&pixels, width as u16, height as u16, ColorType::Rgb).unwrap();
            let mut differences = |seed: u64| {
                let mut out = [false, true].map(|_| vec![0u8; (size * size * 3) as usize]);
                let mut eval = out.clone();
                for (jpeg_scaling, (out, eval)) in
                    [false, true].into_iter().zip(out.iter_mut().zip(&mut eval))
                {
                    let (mut decoder, mut resampler) = (PartDecoder::new(), Resampler::new());
                    let options = DecodeOptions::default();
                    let train = TrainTransform {
                        image_size: size,
                        crop: TrainCrop::Inception { area: (0.05, 1.0), aspect: (0.75, 1.3333) },
                        flip: true,
                        interpolation: Interpolation::Bilinear,
                        randaugment: None,
                        erasing: None,
                        jpeg_scaling,
                    };
                    let mut rng = ExampleRng::new(seed, 0, 0, 0);
                    let choose = |width, height| train.choose_view(width, height, &mut rng);
                    let part = decoder.decode(&bytes, &options, choose).unwrap();
                    seen[part.scale as usize] += 1;
                    assert!(part.image.width >= size.min(part.region.width));
                    assert!(part.image.height >= size.min(part.region.height));
                    train.apply_to_part(&part, &mut rng, &mut resampler, out).unwrap();
                    let resize = match seed % 2 {
                        0 => EvalResize::ResmallCrop { fraction: 0.8 },
                        _ => EvalResize::Squash,
                    };
                    let interpolation = Interpolation::Bicubic;
                    let transform =
                        EvalTransform { image_size: size, resize, interpolation, jpeg_scaling };
                    let choose = |width, height| transform.choose_view(width, height);
                    let part = decoder.decode(&bytes, &options, choose).unwrap();
                    assert_eq!(part.scale == Scale::Full, !jpeg_scaling);
                    transform.apply_to_part(&part, &mut resampler, eval).unwrap();
                }
                [out, eval].map(|[exact, scaled]| {
                    let sum: u32 =
                        exact.iter().zip(&scaled).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
                    f64::from(sum) / exact.len() as f64
                })
            };
            for seed in 0..60 {
                let found = differences(seed);
                assert!(
                    found.iter().all(|&mean| mean < MAX_MEAN_DIFFERENCE),
                    "{sampling:?} {is_progressive} {seed}: {found:?}"
                );
            }
        }
    }
    assert!(seen.iter().all(|&count| count > 5), "{seen:?}");
}
