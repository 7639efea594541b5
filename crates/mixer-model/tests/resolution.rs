//! The effect of a change of resolution on the function that a network computes, against a forward pass in
//! plain loops and `f64` that shares no code with the model.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::f64::consts::PI;

use mixer_model::weights::ResizeMethod;
use mixer_model::{Gelu, HostTensor, Metadata, MixerConfig, Weights, parameters};

/// SplitMix64, so that the tests need no seed file and no random-number crate.
struct Random(u64);

impl Random {
    /// Uniform in [-1, 1).
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

fn random_weights(config: &MixerConfig, seed: u64) -> Weights {
    let mut random = Random(seed);
    let tensors: BTreeMap<String, HostTensor> = parameters(config)
        .into_iter()
        .map(|spec| {
            let len = spec.shape.iter().product();
            let data = (0..len).map(|_| (0.7 * random.next()) as f32).collect();
            (spec.name, HostTensor { shape: spec.shape, data })
        })
        .collect();
    Weights::new(config.clone(), tensors, Metadata::default()).unwrap()
}

/// Pixels `[side, side, 3]`.
fn random_image(side: usize, random: &mut Random) -> Vec<f64> {
    (0..side * side * 3).map(|_| random.next()).collect()
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}

struct Parameters<'a>(&'a Weights);

impl Parameters<'_> {
    fn value(&self, name: &str, index: &[usize]) -> f64 {
        let tensor = &self.0.tensors[name];
        assert_eq!(index.len(), tensor.shape.len(), "{name}");
        let offset = index.iter().zip(&tensor.shape).fold(0, |offset, (i, size)| {
            assert!(i < size, "{name}");
            offset * size + i
        });
        f64::from(tensor.data[offset])
    }
}

/// Rows of `x` normalised over their elements, scaled and shifted.
fn layer_norm(x: &[Vec<f64>], name: &str, p: &Parameters<'_>) -> Vec<Vec<f64>> {
    x.iter()
        .map(|row| {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            row.iter()
                .enumerate()
                .map(|(c, v)| {
                    (v - mean) / (variance + 1e-6).sqrt() * p.value(&format!("{name}.weight"), &[c])
                        + p.value(&format!("{name}.bias"), &[c])
                })
                .collect()
        })
        .collect()
}

/// `W₂ · gelu(W₁ · x + b₁) + b₂`.
fn mlp(x: &[f64], name: &str, hidden: usize, p: &Parameters<'_>) -> Vec<f64> {
    let dense = |x: &[f64], layer: &str, outputs: usize| -> Vec<f64> {
        (0..outputs)
            .map(|o| {
                let weight = format!("{name}.{layer}.weight");
                let products = x.iter().enumerate().map(|(i, v)| p.value(&weight, &[o, i]) * v);
                products.sum::<f64>() + p.value(&format!("{name}.{layer}.bias"), &[o])
            })
            .collect()
    };
    let h: Vec<f64> = dense(x, "fc1", hidden).into_iter().map(gelu).collect();
    dense(&h, "fc2", x.len())
}

fn transposed(x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..x[0].len()).map(|j| x.iter().map(|row| row[j]).collect()).collect()
}

fn add(x: &mut [Vec<f64>], y: &[Vec<f64>]) {
    for (x, y) in x.iter_mut().flatten().zip(y.iter().flatten()) {
        *x += y;
    }
}

/// Logits of an image `[side, side, 3]`.
fn logits(weights: &Weights, image: &[f64]) -> Vec<f64> {
    let config = &weights.config;
    let p = Parameters(weights);
    let (side, patch, grid) = (config.image_size, config.patch_size, config.grid_size());
    assert_eq!(image.len(), side * side * 3);
    let mut x_sc: Vec<Vec<f64>> = Vec::new();
    for gy in 0..grid {
        for gx in 0..grid {
            let token = (0..config.hidden_dim).map(|c| {
                let mut sum = p.value("stem.proj.bias", &[c]);
                for colour in 0..3 {
                    for py in 0..patch {
                        for px in 0..patch {
                            let pixel = (gy * patch + py) * side + gx * patch + px;
                            sum += p.value("stem.proj.weight", &[c, colour, py, px])
                                * image[pixel * 3 + colour];
                        }
                    }
                }
                sum
            });
            x_sc.push(token.collect());
        }
    }
    for i in 0..config.num_blocks {
        let y_cs = transposed(&layer_norm(&x_sc, &format!("blocks.{i}.norm1"), &p));
        let name = format!("blocks.{i}.mlp_tokens");
        let y_cs: Vec<Vec<f64>> =
            y_cs.iter().map(|row| mlp(row, &name, config.tokens.mlp_dim().unwrap(), &p)).collect();
        add(&mut x_sc, &transposed(&y_cs));
        let y_sc = layer_norm(&x_sc, &format!("blocks.{i}.norm2"), &p);
        let name = format!("blocks.{i}.mlp_channels");
        let y_sc: Vec<Vec<f64>> =
            y_sc.iter().map(|row| mlp(row, &name, config.channels_mlp_dim, &p)).collect();
        add(&mut x_sc, &y_sc);
    }
    let x_sc = layer_norm(&x_sc, "norm", &p);
    let features: Vec<f64> = transposed(&x_sc)
        .iter()
        .map(|channel| channel.iter().sum::<f64>() / channel.len() as f64)
        .collect();
    (0..config.num_classes)
        .map(|k| {
            let products =
                features.iter().enumerate().map(|(c, v)| p.value("head.weight", &[k, c]) * v);
            products.sum::<f64>() + p.value("head.bias", &[k])
        })
        .collect()
}

/// The mean over all tiles of the logits of the small network.
fn mean_logits_over_tiles(weights: &Weights, image: &[f64], factor: usize) -> Vec<f64> {
    let side = weights.config.image_size;
    let mut mean = vec![0.0; weights.config.num_classes];
    for ty in 0..factor {
        for tx in 0..factor {
            let mut tile = Vec::with_capacity(side * side * 3);
            for y in 0..side {
                let start = ((ty * side + y) * side * factor + tx * side) * 3;
                tile.extend_from_slice(&image[start..start + side * 3]);
            }
            for (mean, logit) in mean.iter_mut().zip(logits(weights, &tile)) {
                *mean += logit / (factor * factor) as f64;
            }
        }
    }
    mean
}

fn largest_relative_difference(found: &[f64], expected: &[f64]) -> f64 {
    let scale = expected.iter().fold(0.0_f64, |scale, v| scale.max(v.abs()));
    found.iter().zip(expected).fold(0.0_f64, |worst, (f, e)| worst.max((f - e).abs() / scale))
}

fn config(grid: usize) -> MixerConfig {
    MixerConfig {
        image_size: grid * 2,
        patch_size: 2,
        hidden_dim: 5,
        tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 7 },
        channels_mlp_dim: 6,
        num_blocks: 2,
        num_classes: 4,
        gelu: Gelu::Tanh,
    }
}

#[test]
fn logits_of_an_expanded_network_are_the_mean_over_the_tiles() {
    for factor in [2, 3] {
        let weights = random_weights(&config(3), 11 + factor as u64);
        let image = random_image(6 * factor, &mut Random(5));
        let expanded = weights.resized(6 * factor).unwrap();
        assert_eq!(expanded.config.tokens.mlp_dim().unwrap(), 7 * factor * factor);
        let expected = mean_logits_over_tiles(&weights, &image, factor);
        let found = logits(&expanded, &image);
        let difference = largest_relative_difference(&found, &expected);
        assert!(difference < 1e-9, "factor {factor}: {difference:e}");
    }
}

#[test]
fn exact_expansion_holds_for_any_grid_and_weights() {
    for seed in 0..2 {
        for grid in 1..4 {
            for factor in 2..4 {
                let weights = random_weights(&config(grid), seed);
                let image = random_image(grid * 2 * factor, &mut Random(!seed));
                let expanded = weights.resized(grid * 2 * factor).unwrap();
                let expected = mean_logits_over_tiles(&weights, &image, factor);
                let difference = largest_relative_difference(&logits(&expanded, &image), &expected);
                assert!(difference < 1e-9, "{seed} {grid} {factor}: {difference:e}");
            }
        }
    }
}

/// The mistake to avoid: the paper's tile-by-tile token order applied to a raster-order model. Shows
/// that the test above can fail.
#[test]
fn blocks_in_tile_order_are_another_function() {
    let factor = 2;
    let weights = random_weights(&config(3), 21);
    let (s, d_s) = (9, 7);
    let mut naive = weights.resized(12).unwrap();
    for i in 0..2 {
        for (layer, rows, columns) in [("fc1", d_s, s), ("fc2", s, d_s)] {
            let name = format!("blocks.{i}.mlp_tokens.{layer}.weight");
            let small = &weights.tensors[&name].data;
            let wide = naive.tensors.get_mut(&name).unwrap();
            wide.data.fill(0.0);
            for t in 0..factor * factor {
                for r in 0..rows {
                    for c in 0..columns {
                        wide.data[(t * rows + r) * columns * 4 + t * columns + c] =
                            small[r * columns + c];
                    }
                }
            }
            let bias = format!("blocks.{i}.mlp_tokens.{layer}.bias");
            naive.tensors.get_mut(&bias).unwrap().data = weights.tensors[&bias].data.repeat(4);
        }
    }
    let image = random_image(12, &mut Random(6));
    let expected = mean_logits_over_tiles(&weights, &image, factor);
    let difference = largest_relative_difference(&logits(&naive, &image), &expected);
    assert!(difference > 1e-2, "{difference:e}");
}

#[test]
fn what_was_done_is_recorded_and_everything_else_stays() {
    let mut weights = random_weights(&config(3), 3);
    weights.metadata.classes = Some(["a", "b", "c", "d"].map(str::to_owned).to_vec());
    let doubled = weights.resized(12).unwrap();
    assert_eq!(doubled.metadata.provenance["resolution"], "exact ×2 from 6 px");
    assert_eq!(doubled.metadata.classes, weights.metadata.classes);
    assert_eq!(doubled.config, ResizeMethod::config(&weights.config, 12).unwrap());
    for (name, tensor) in &weights.tensors {
        if !name.contains("mlp_tokens") {
            assert_eq!(&doubled.tensors[name], tensor, "{name}");
        }
    }
    // Biases of the second layer reach no logit (every reader normalises over the channels they
    // shift alike), so their place is checked here: the small grid, tiled.
    let bias = "blocks.1.mlp_tokens.fc2.bias";
    for (position, value) in doubled.tensors[bias].data.iter().enumerate() {
        let (y, x) = (position / 6 % 3, position % 6 % 3);
        assert_eq!(*value, weights.tensors[bias].data[y * 3 + x], "{position}");
    }
    let back = doubled.resized(6).unwrap();
    assert_eq!(
        back.metadata.provenance["resolution"],
        "exact ×2 from 6 px, then interpolated from 12 px"
    );
    assert_eq!(weights.resized(6).unwrap(), weights);
}

#[test]
fn interpolation_keeps_the_hidden_width_and_the_response_to_a_constant() {
    let mut weights = random_weights(&config(4), 9);
    // Every hidden unit weighs all positions alike, and writes alike to all.
    for i in 0..2 {
        for name in ["fc1.weight", "fc2.weight", "fc2.bias"] {
            let tensor = weights.tensors.get_mut(&format!("blocks.{i}.mlp_tokens.{name}")).unwrap();
            match name {
                "fc1.weight" => {
                    for row in tensor.data.chunks_exact_mut(16) {
                        row.fill(row[0]);
                    }
                }
                "fc2.weight" => {
                    let first = tensor.data[..7].to_vec();
                    tensor.data.chunks_exact_mut(7).for_each(|row| row.copy_from_slice(&first));
                }
                _ => tensor.data.fill(0.25),
            }
        }
    }
    let grey = |side: usize| vec![0.3; side * side * 3];
    let expected = logits(&weights, &grey(8));
    for image_size in [12, 6, 4, 10] {
        let resized = weights.resized(image_size).unwrap();
        assert_eq!(resized.config.tokens.mlp_dim().unwrap(), 7);
        let found = logits(&resized, &grey(image_size));
        let difference = largest_relative_difference(&found, &expected);
        assert!(difference < 1e-5, "{image_size} px: {difference:e}");
    }
}
