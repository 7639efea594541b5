//! The distortions of RandAugment and AutoAugment against TensorFlow's, timm's and torchvision's, pixel by
//! pixel.
//!
//! The fixtures come from `scripts/export_augment_golden.py` and `scripts/export_autoaugment_golden.py`.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::collections::BTreeMap;
use std::path::Path;

use mixer_data::{
    AutoAugmentOp, AutoAugmentPolicy, BigVisionOp, DecodeOptions, PixelOp, RgbImage, Sampling,
    TimmOp, decode,
};

/// Grey levels by which an interpolated value may differ: Pillow computes in float64 and we in
/// float32, and both cut off what is behind the point.
const MAX_LIMIT_INTERPOLATED: u8 = 1;
const MEAN_LIMIT_INTERPOLATED: f64 = 0.01;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/augment");
    fs_err::read(folder.join(name)).unwrap()
}

fn picture(name: &str) -> RgbImage {
    decode(&fixture(name), &DecodeOptions::default()).unwrap()
}

fn sign(text: &str) -> bool {
    match text {
        "1" => false,
        "-1" => true,
        _ => panic!("sign {text}"),
    }
}

/// Largest and mean difference of each distortion, over all cases and pictures.
fn differences(
    flavour: &str,
    parse: impl Fn(&[&str], usize) -> PixelOp,
) -> BTreeMap<String, (u8, f64)> {
    let cases = String::from_utf8(fixture(&format!("{flavour}.txt"))).unwrap();
    let mut found: BTreeMap<String, (u8, u64, usize)> = BTreeMap::new();
    for name in ["scene", "flat"] {
        let image = picture(&format!("{name}.png"));
        let side = image.width as usize;
        let expected = picture(&format!("{flavour}-{name}.png")).pixels;
        let expected = expected.chunks_exact(side * side * 3);
        assert_eq!(expected.len(), cases.lines().count());
        for (case, expected) in cases.lines().zip(expected) {
            let words: Vec<&str> = case.split(' ').collect();
            let mut pixels = image.pixels.clone();
            parse(&words, side).apply(&mut pixels, side, &mut Vec::new());
            let entry = found.entry(words[0].to_owned()).or_default();
            for (found, expected) in pixels.iter().zip(expected) {
                let difference = found.abs_diff(*expected);
                entry.0 = entry.0.max(difference);
                entry.1 += u64::from(difference);
                entry.2 += 1;
            }
        }
    }
    let means = found.into_iter().map(|(op, (max, sum, count))| {
        println!("{flavour} {op}: max {max}, mean {:.5}", sum as f64 / count as f64);
        (op, (max, sum as f64 / count as f64))
    });
    means.collect()
}

#[test]
fn distortions_of_big_vision_equal_tensorflow_in_every_pixel() {
    let differences = differences("big_vision", |words, side| {
        let op = BigVisionOp::ALL.into_iter().find(|op| format!("{op:?}") == words[0]).unwrap();
        let centre = (words[3].parse().unwrap(), words[4].parse().unwrap());
        op.at(words[1].parse().unwrap(), sign(words[2]), side, centre)
    });
    assert_eq!(differences.len(), BigVisionOp::ALL.len());
    let different: Vec<_> = differences.iter().filter(|(_, (max, _))| *max > 0).collect();
    assert!(different.is_empty(), "{different:?}");
}

#[test]
fn distortions_of_timm_equal_pillow_up_to_interpolation() {
    let differences = differences("timm", |words, side| {
        let op = TimmOp::ALL.into_iter().find(|op| format!("{op:?}") == words[0]).unwrap();
        let sampling = match words[4] {
            "bilinear" => Sampling::Bilinear,
            _ => Sampling::Bicubic,
        };
        let increasing = words[3] == "inc";
        op.at(words[1].parse().unwrap(), sign(words[2]), increasing, side, sampling, [128; 3])
    });
    assert_eq!(differences.len(), TimmOp::ALL.len());
    for op in TimmOp::ALL {
        let (max, mean) = differences[&format!("{op:?}")];
        let (max_limit, mean_limit) = match op.is_affine() {
            true => (MAX_LIMIT_INTERPOLATED, MEAN_LIMIT_INTERPOLATED),
            false => (0, 0.0),
        };
        assert!(max <= max_limit && mean <= mean_limit, "{op:?}: max {max}, mean {mean}");
    }
}

#[test]
fn distortions_of_autoaugment_equal_torchvision_in_every_pixel() {
    let differences = differences("autoaugment", |words, side| {
        let op = AutoAugmentOp::ALL.into_iter().find(|op| format!("{op:?}") == words[0]).unwrap();
        let fill = if words[3] == "black" { [0; 3] } else { [10, 128, 250] };
        op.at(words[1].parse().unwrap(), sign(words[2]), side, fill)
    });
    assert_eq!(differences.len(), AutoAugmentOp::ALL.len());
    let different: Vec<_> = differences.iter().filter(|(_, (max, _))| *max > 0).collect();
    assert!(different.is_empty(), "{different:?}");
}

#[test]
fn sub_policies_of_autoaugment_are_torchvisions() {
    let expected = String::from_utf8(fixture("autoaugment_policies.txt")).unwrap();
    let mut found = String::new();
    for policy in [AutoAugmentPolicy::Cifar10, AutoAugmentPolicy::Imagenet, AutoAugmentPolicy::Svhn]
    {
        for [(first, p, m), (second, q, n)] in policy.sub_policies() {
            let policy = format!("{policy:?}").to_lowercase();
            found += &format!("{policy} {first:?} {p:?} {m} {second:?} {q:?} {n}\n");
        }
    }
    assert_eq!(found, expected);
}
