//! Properties that the network has whatever its weights are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use common::{Difference, devices, fixture, gradients, to_device};
use mixer_model::weights::{Preprocessing, Shuffle};
use mixer_model::{Gelu, HostTensor, Mixer, MixerConfig, Variant, Weights, count, parameters};

/// Between two orders of the same sums.
const ROUNDING: f64 = 2e-6;

/// SplitMix64, so that the tests need no random-number crate.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    fn value(&mut self) -> f32 {
        ((self.bits() >> 40) as f64 / (1_u64 << 23) as f64 - 1.0) as f32
    }

    fn tensor(&mut self, shape: &[usize]) -> HostTensor {
        let mut tensor = HostTensor::filled(shape, 0.0);
        tensor.data.fill_with(|| self.value());
        tensor
    }

    /// An order of `0..n` that leaves nothing in place.
    fn derangement(&mut self, n: usize) -> Vec<usize> {
        loop {
            let mut order: Vec<usize> = (0..n).collect();
            for i in (1..n).rev() {
                order.swap(i, (self.bits() % (i as u64 + 1)) as usize);
            }
            if order.iter().enumerate().all(|(i, &o)| i != o) {
                return order;
            }
        }
    }
}

/// The parameters of the fixtures: all dimensions different, no parameter zero.
fn tiny(gelu: Gelu) -> Weights {
    Weights::read(&fixture("flax_tiny.npz"), Some(gelu)).unwrap()
}

fn random_patches(config: &MixerConfig, batch: usize, seed: u64) -> HostTensor {
    Random(seed).tensor(&[batch, config.num_tokens(), config.patch_dim()])
}

fn logits(weights: &Weights, patches: &HostTensor, device: &Device) -> HostTensor {
    let mixer = Mixer::from_weights(weights.clone(), device).unwrap();
    HostTensor::from_device(mixer.forward(to_device(patches, device)))
}

/// Row `i` of the result is row `order[i]`.
fn rows(tensor: &HostTensor, order: &[usize]) -> HostTensor {
    let row = tensor.data.len() / tensor.shape[0];
    let data = order.iter().flat_map(|&i| &tensor.data[i * row..(i + 1) * row]).copied().collect();
    HostTensor { shape: [&[order.len()], &tensor.shape[1..]].concat(), data }
}

#[track_caller]
fn assert_close(name: &str, found: &HostTensor, expected: &HostTensor, tolerance: f64) {
    let difference = Difference::between(name, found, expected);
    assert!(difference.relative <= tolerance, "{difference}");
}

#[track_caller]
fn assert_far(name: &str, found: &HostTensor, expected: &HostTensor) {
    let difference = Difference::between(name, found, expected);
    assert!(difference.relative > 1e-3, "{difference}");
}

#[test]
fn permuting_the_batch_permutes_the_logits() {
    for (name, device) in devices() {
        for gelu in [Gelu::Tanh, Gelu::Erf] {
            let weights = tiny(gelu);
            let patches = random_patches(&weights.config, 9, 1);
            let straight = logits(&weights, &patches, &device);
            let order = Random(2).derangement(9);
            let permuted = logits(&weights, &rows(&patches, &order), &device);
            assert_close(name, &permuted, &rows(&straight, &order), ROUNDING);
            // And examples do not see one another.
            let alone = logits(&weights, &rows(&patches, &[3]), &device);
            assert_close(name, &alone, &rows(&straight, &[3]), ROUNDING);
        }
    }
}

/// Token mixing has a weight for each place, so the order of the patches counts.
#[test]
fn permuting_the_patches_changes_the_logits() {
    let weights = tiny(Gelu::Tanh);
    let patches = random_patches(&weights.config, 1, 3);
    let order = Random(4).derangement(weights.config.num_tokens());
    let tokens = HostTensor { shape: patches.shape[1..].to_vec(), ..patches.clone() };
    let permuted = HostTensor { data: rows(&tokens, &order).data, ..patches.clone() };
    // Without token mixing it does not.
    let mut pointwise = weights.clone();
    for (name, tensor) in &mut pointwise.tensors {
        if name.contains("mlp_tokens.fc2") {
            tensor.data.fill(0.0);
        }
    }
    for (name, device) in devices() {
        let straight = logits(&weights, &patches, &device);
        assert_far(name, &logits(&weights, &permuted, &device), &straight);
        let straight = logits(&pointwise, &patches, &device);
        assert_close(name, &logits(&pointwise, &permuted, &device), &straight, ROUNDING);
    }
}

/// Logits under stochastic depth, on a device that differentiates, as in training.
fn training_logits(
    mixer: &Mixer,
    patches: &HostTensor,
    scales: &HostTensor,
    device: &Device,
) -> HostTensor {
    let scales = to_device(scales, device);
    HostTensor::from_device(mixer.forward_training(to_device(patches, device), Some(scales)))
}

#[test]
fn branch_scales_of_one_change_nothing() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let weights = tiny(Gelu::Tanh);
        let patches = random_patches(&weights.config, 5, 5);
        let ones = HostTensor::filled(&[2 * weights.config.num_blocks, 5], 1.0);
        let mixer = Mixer::from_weights(weights.clone(), &device).unwrap();
        let scaled = training_logits(&mixer, &patches, &ones, &device);
        assert_eq!(scaled.data, logits(&weights, &patches, &device).data, "{name}");
    }
}

#[test]
fn branch_scales_of_zero_remove_a_block_for_one_example() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let weights = tiny(Gelu::Erf);
        let patches = random_patches(&weights.config, 5, 6);
        let whole = logits(&weights, &patches, &device);
        for block in 0..weights.config.num_blocks {
            let mut mixer = Mixer::from_weights(weights.clone(), &device).unwrap();
            let mut scales = HostTensor::filled(&[2 * weights.config.num_blocks, 5], 1.0);
            for example in [1, 4] {
                scales.data[2 * block * 5 + example] = 0.0;
                scales.data[(2 * block + 1) * 5 + example] = 0.0;
            }
            let found = training_logits(&mixer, &patches, &scales, &device);
            mixer.blocks.remove(block);
            let without = HostTensor::from_device(mixer.forward(to_device(&patches, &device)));
            let (kept, dropped) = ([0, 2, 3], [1, 4]);
            assert_close(name, &rows(&found, &kept), &rows(&whole, &kept), ROUNDING);
            assert_close(name, &rows(&found, &dropped), &rows(&without, &dropped), ROUNDING);
            assert_far(name, &rows(&without, &dropped), &rows(&whole, &dropped));
        }
    }
}

/// A branch ends in a linear layer, so scaling the branch is scaling that layer. Shows which row
/// belongs to which branch.
#[test]
fn each_branch_scale_belongs_to_one_branch() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let weights = tiny(Gelu::Tanh);
        let patches = random_patches(&weights.config, 3, 7);
        let mixer = Mixer::from_weights(weights.clone(), &device).unwrap();
        for row in 0..2 * weights.config.num_blocks {
            let mut scales = HostTensor::filled(&[2 * weights.config.num_blocks, 3], 1.0);
            scales.data[row * 3..(row + 1) * 3].fill(2.5);
            let mlp = ["mlp_tokens", "mlp_channels"][row % 2];
            let prefix = format!("blocks.{}.{mlp}.fc2.", row / 2);
            let mut scaled = weights.clone();
            for (name, tensor) in &mut scaled.tensors {
                if name.starts_with(&prefix) {
                    tensor.data.iter_mut().for_each(|value| *value *= 2.5);
                }
            }
            let found = training_logits(&mixer, &patches, &scales, &device);
            assert_close(name, &found, &logits(&scaled, &patches, &device), ROUNDING);
        }
    }
}

#[test]
fn a_fresh_network_has_the_counted_parameters_and_knows_nothing() {
    let s32 = Variant::parse("S/32").unwrap().config(224, 10, Gelu::Tanh);
    let mut other_dims = tiny(Gelu::Erf).config;
    other_dims.num_blocks = 3;
    for (name, device) in devices() {
        for config in [&s32, &other_dims] {
            let mixer = Mixer::init(config, 1, -2.5, &device).unwrap();
            assert_eq!(mixer.num_params() as u64, count::num_params(config), "{name} {config}");
            // A zero head: every logit is the bias.
            let patches = to_device(&random_patches(config, 2, 8), &device);
            let logits = HostTensor::from_device(mixer.forward(patches));
            assert_eq!(logits.data, vec![-2.5; 2 * config.num_classes], "{name} {config}");
        }
    }
}

/// Path and number of values of every parameter.
#[derive(Default)]
struct Paths {
    path: Vec<String>,
    found: Vec<(String, usize)>,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push((self.path.join("."), param.val().shape().num_elements()));
    }
}

#[test]
fn every_parameter_has_its_name_in_weights_files() {
    let weights = tiny(Gelu::Tanh);
    let mixer = Mixer::from_weights(weights.clone(), &devices()[0].1).unwrap();
    let mut paths = Paths::default();
    mixer.visit(&mut paths);
    let mut found: Vec<(String, usize)> = paths
        .found
        .into_iter()
        .map(|(path, len)| (weights.config.weights_name(&path).expect(&path), len))
        .collect();
    // All dimensions of the fixture are different, so that sizes tell a wrong name.
    let mut expected: Vec<(String, usize)> = parameters(&weights.config)
        .into_iter()
        .map(|spec| (spec.name, spec.shape.iter().product()))
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    for path in ["", "stem", "blocks.0", "blocks.0.token_mixing", "norm.weight", "head.gamma"] {
        assert_eq!(weights.config.weights_name(path), None, "{path}");
    }
}

/// Patches `[grid², P·P·3]` of the square window of an image `[side, side, 3]` at `(top, left)`.
fn window_patches(
    image: &HostTensor,
    (top, left): (usize, usize),
    config: &MixerConfig,
) -> Vec<f32> {
    let (side, patch, grid) = (image.shape[1], config.patch_size, config.grid_size());
    let mut patches = Vec::with_capacity(config.num_tokens() * config.patch_dim());
    for token in 0..config.num_tokens() {
        for py in 0..patch {
            let y = top + token / grid * patch + py;
            let start = (y * side + left + token % grid * patch) * 3;
            patches.extend_from_slice(&image.data[start..start + patch * 3]);
        }
    }
    patches
}

/// The paper's expansion for fine-tuning at K times the resolution keeps the function: an image's
/// logits are the mean over its K² tiles.
#[test]
fn an_expanded_network_gives_the_mean_logits_of_the_tiles() {
    for (name, device) in devices() {
        for gelu in [Gelu::Tanh, Gelu::Erf] {
            for factor in [2, 3] {
                let small = tiny(gelu);
                let side = small.config.image_size;
                let image = Random(factor as u64).tensor(&[side * factor, side * factor, 3]);
                let tiles: Vec<f32> = (0..factor * factor)
                    .flat_map(|t| {
                        let corner = (t / factor * side, t % factor * side);
                        window_patches(&image, corner, &small.config)
                    })
                    .collect();
                let shape = [factor * factor, small.config.num_tokens(), small.config.patch_dim()];
                let mixer = Mixer::from_weights(small.clone(), &device).unwrap();
                let tiles = Tensor::from_data(TensorData::new(tiles, shape), &device);
                let mean = HostTensor::from_device(mixer.forward(tiles).mean_dim(0));

                let large = small.resized(side * factor).unwrap();
                let patches = HostTensor {
                    shape: vec![1, large.config.num_tokens(), large.config.patch_dim()],
                    data: window_patches(&image, (0, 0), &large.config),
                };
                let found = logits(&large, &patches, &device);
                assert_close(&format!("{name} {gelu} ×{factor}"), &found, &mean, 1e-5);
            }
        }
    }
}

/// `docs/parity.md` promises the same bits for any number of threads. The network is wide enough for
/// its matrix products to be spread over threads.
#[cfg(feature = "flex")]
#[test]
fn any_number_of_threads_gives_the_same_bits() {
    use mixer_model::Metadata;

    let config = MixerConfig {
        image_size: 32,
        patch_size: 2,
        hidden_dim: 96,
        tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 48 },
        channels_mlp_dim: 384,
        num_blocks: 1,
        num_classes: 10,
        gelu: Gelu::Tanh,
    };
    let mut weights = mixer_model::init::weights(&config, 3, 0.0).unwrap();
    // The head of a fresh network is zero, and no gradient gets past it.
    let head = Random(9).tensor(&[10, 96]);
    weights.tensors.insert("head.weight".to_owned(), head);
    let weights = Weights::new(config.clone(), weights.tensors, Metadata::default()).unwrap();
    let patches = random_patches(&config, 8, 10);
    let upstream = Random(11).tensor(&[8, 10]);

    let run = || {
        let device = Device::flex().autodiff();
        let mixer = Mixer::from_weights(weights.clone(), &device).unwrap();
        let logits = mixer.forward_training(to_device(&patches, &device), None);
        let loss = (logits.clone() * to_device(&upstream, &device)).sum();
        let gradients = loss.backward();
        let block = &mixer.blocks[0];
        let tokens = block.token_mixing.as_ref().unwrap();
        [
            HostTensor::from_device(logits),
            HostTensor::from_device(
                mixer.stem.as_ref().unwrap().weight.val().grad(&gradients).unwrap(),
            ),
            HostTensor::from_device(block.norm_tokens.gamma.val().grad(&gradients).unwrap()),
            HostTensor::from_device(tokens.weight1.val().grad(&gradients).unwrap()),
            HostTensor::from_device(tokens.bias1.val().grad(&gradients).unwrap()),
            HostTensor::from_device(tokens.weight2.val().grad(&gradients).unwrap()),
            HostTensor::from_device(block.channel_mixing.weight1.val().grad(&gradients).unwrap()),
            HostTensor::from_device(block.channel_mixing.weight2.val().grad(&gradients).unwrap()),
            HostTensor::from_device(mixer.head.weight.val().grad(&gradients).unwrap()),
        ]
    };
    let in_pool = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
    };
    let alone = in_pool(1);
    for threads in [2, 3, 4] {
        for (i, (found, expected)) in in_pool(threads).iter().zip(&alone).enumerate() {
            let difference = Difference::between(&format!("value {i}"), found, expected);
            assert_eq!(difference.absolute, 0.0, "{threads} threads: {difference}");
        }
    }
}

/// Figure 4 of the paper: a network does not notice that all pictures have their patches, and the pixels of
/// every patch, in another order, where its embedding and its token mixing have it too. Logits and gradients
/// are those of the pictures as they are.
#[test]
fn shuffled_patches_are_a_network_with_its_weights_in_that_order() {
    let shuffle = Shuffle::Patches { seed: 3 };
    let plain = tiny(Gelu::Tanh);
    let config = plain.config.clone();
    let (tokens, pixels) = (config.num_tokens(), config.patch_size * config.patch_size);
    let order = shuffle.patchwise(config.image_size, config.patch_size).unwrap();
    let of_patches: Vec<usize> = order.iter().step_by(pixels).map(|from| from / pixels).collect();
    let of_pixels: Vec<usize> = order[..pixels].iter().map(|from| from % pixels).collect();
    assert!(of_patches.iter().enumerate().any(|(at, from)| at != *from));
    assert!(of_pixels.iter().enumerate().any(|(at, from)| at != *from));

    // stem[:, ρ], W1[:, π], W2[π, :], b2[π].
    let in_that_order = |name: &str, tensor: &HostTensor| -> HostTensor {
        let columns = |order: &[usize]| {
            let rows = tensor.data.chunks_exact(order.len());
            let data = rows.flat_map(|row| order.iter().map(|&at| row[at])).collect();
            HostTensor { shape: tensor.shape.clone(), data }
        };
        match name {
            "stem.proj.weight" => columns(&of_pixels),
            name if name.ends_with("mlp_tokens.fc1.weight") => columns(&of_patches),
            name if name.contains("mlp_tokens.fc2") => rows(tensor, &of_patches),
            _ => tensor.clone(),
        }
    };
    let mut shuffled = plain.clone();
    for (name, tensor) in &mut shuffled.tensors {
        *tensor = in_that_order(name, tensor);
    }
    shuffled.metadata.preprocessing = Some(Preprocessing { shuffle, ..Preprocessing::default() });

    let patches = random_patches(&config, 4, 8);
    let pictures = patches.data.chunks_exact(tokens * pixels * 3);
    let moved = |picture: &[f32]| -> Vec<f32> {
        order.iter().flat_map(|&from| picture[3 * from..3 * from + 3].to_vec()).collect()
    };
    let seen = HostTensor { data: pictures.flat_map(moved).collect(), ..patches.clone() };
    for (name, device) in devices() {
        let device = device.autodiff();
        let straight = logits(&plain, &patches, &device);
        assert_close(name, &logits(&shuffled, &seen, &device), &straight, ROUNDING);
        assert_far(name, &logits(&plain, &seen, &device), &straight);

        let upstream = Random(9).tensor(&[4, config.num_classes]);
        let gradients = |weights: &Weights, patches| {
            let mixer = Mixer::from_weights(weights.clone(), &device).unwrap();
            let logits = mixer.forward_training(to_device(patches, &device), None);
            let loss = (logits * to_device(&upstream, &device)).sum();
            gradients(mixer, &loss)
        };
        let straight = gradients(&plain, &patches);
        for (name, found) in gradients(&shuffled, &seen) {
            // The next normalisation undoes what this one does: its gradient is rounding.
            if !name.ends_with("mlp_tokens.fc2.bias") {
                let expected = in_that_order(&name, &straight[&name]);
                assert_close(&name, &found, &expected, 5.0 * ROUNDING);
            }
        }
    }

    // And back: the weights for pictures as they are, bit for bit.
    let in_order = shuffled.in_order("-").unwrap();
    assert_eq!(in_order.tensors, plain.tensors);
    assert_eq!(in_order.shuffle(), Shuffle::None);
    assert!(shuffled.resized(config.image_size).is_ok());
    let error = shuffled.resized(2 * config.image_size).unwrap_err().to_string();
    let size = config.image_size;
    let expected = format!(
        "these weights are for pictures of {size} px that are shuffled (patches of seed 3): they have no order \
         for {} px",
        2 * size
    );
    assert_eq!(error, expected);
}
