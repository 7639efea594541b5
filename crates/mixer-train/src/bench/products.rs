//! The matrix products of a training step, each by itself: how fast Burn's kernels do it here, and on a CUDA
//! device cuBLASLt, which ours go through.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use mixer_data::ExampleRng;
use mixer_model::{MixerConfig, TokenLayer};
use serde::Serialize;

use crate::device::DeviceEntry;
use crate::error::TrainError;
use mixer_model::Precision;

/// `[m, k] · [k, n]`, `count` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Product {
    /// Its name in a block, or `square`.
    pub name: &'static str,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
    /// Number of such products, one for each example.
    pub count: usize,
    /// `true` where the left operand is kept transposed.
    pub left_transposed: bool,
    /// `true` where the right operand is kept transposed.
    pub right_transposed: bool,
    /// `true` where all examples share the left operand, which then is a weight.
    pub left_shared: bool,
    /// `true` where the result is a gradient of a weight, which is f32.
    pub is_weight_gradient: bool,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct ProductMeasurement {
    /// Always `products`.
    pub mode: &'static str,
    /// Name of the variant.
    pub model: String,
    /// Images of the step that the product is of.
    pub batch_size: usize,
    /// Precision of the operands.
    pub precision: Precision,
    /// Name of the device.
    pub device: String,
    /// The product.
    #[serde(flatten)]
    pub product: Product,
    /// Time of Burn's kernel, ms.
    pub burn_ms: f64,
    /// 1e9 floating-point operations per second of Burn's kernel.
    pub burn_gflops: f64,
    /// Time of cuBLASLt, ms; on a CUDA device only.
    pub cublaslt_ms: Option<f64>,
    /// 1e9 floating-point operations per second of cuBLASLt.
    pub cublaslt_gflops: Option<f64>,
}

impl Product {
    fn operations(&self) -> f64 {
        2.0 * (self.m * self.n) as f64 * (self.k * self.count) as f64
    }
}

/// The products of the blocks of a network, forwards and backwards, and after them a square one. The
/// convolutions of a BiT-ResNet are none.
#[must_use]
pub fn products(config: &MixerConfig, batch_size: usize, square: usize) -> Vec<Product> {
    let (s, c) = (config.num_positions(), config.hidden_dim);
    let (d_c, rows) = (config.channels_mlp_dim, batch_size * s);
    let plain = |name, m, n, k| Product {
        name,
        m,
        n,
        k,
        count: 1,
        left_transposed: false,
        right_transposed: false,
        left_shared: false,
        is_weight_gradient: false,
    };
    let channel = |[forward, input, weight]: [&'static str; 3], inputs, outputs| {
        [
            plain(forward, rows, outputs, inputs),
            Product { right_transposed: true, ..plain(input, rows, inputs, outputs) },
            Product {
                left_transposed: true,
                is_weight_gradient: true,
                ..plain(weight, inputs, outputs, rows)
            },
        ]
    };
    // The weight is the left operand: `W [D_S, S] · X [S, C]` for each example.
    let token = |[forward, input, weight]: [&'static str; 3], inputs, outputs| {
        let of_examples = |name, m, n, k| Product { count: batch_size, ..plain(name, m, n, k) };
        [
            Product { left_shared: true, ..of_examples(forward, outputs, c, inputs) },
            Product {
                left_shared: true,
                left_transposed: true,
                ..of_examples(input, inputs, c, outputs)
            },
            Product {
                right_transposed: true,
                is_weight_gradient: true,
                ..of_examples(weight, outputs, inputs, c)
            },
        ]
    };
    let mut all = Vec::new();
    if config.has_tokens() {
        all.extend(channel(["channel 1", "channel 1 dX", "channel 1 dW"], c, d_c));
        all.extend(channel(["channel 2", "channel 2 dX", "channel 2 dW"], d_c, c));
    }
    match config.tokens {
        TokenLayer::Mlp { tokens_mlp_dim: d_s } => {
            all.extend(token(["token 1", "token 1 dX", "token 1 dW"], s, d_s));
            all.extend(token(["token 2", "token 2 dX", "token 2 dW"], d_s, s));
        }
        TokenLayer::Convolution { .. } => {}
        TokenLayer::Attention { num_heads, .. } => {
            all.extend(channel(["qkv", "qkv dX", "qkv dW"], c, 3 * c));
            all.extend(channel(["output", "output dX", "output dW"], c, c));
            let (count, size) = (batch_size * num_heads, c / num_heads.max(1));
            let of_heads = |name, m, n, k| Product { count, ..plain(name, m, n, k) };
            let transposed = |product| Product { left_transposed: true, ..product };
            all.extend([
                Product { right_transposed: true, ..of_heads("scores", s, s, size) },
                of_heads("scores dQ", s, size, s),
                transposed(of_heads("scores dK", s, size, s)),
                of_heads("mixture", s, size, s),
                Product { right_transposed: true, ..of_heads("mixture dP", s, s, size) },
                transposed(of_heads("mixture dV", s, size, s)),
            ]);
        }
    }
    all.push(plain("square", square, square, square));
    all
}

/// Measures each product, `steps` times after `warmup` times.
///
/// # Errors
/// [`TrainError::Device`] with what the device could not do.
pub fn measure(
    (model, config): (&str, &MixerConfig),
    batch_size: usize,
    precision: Precision,
    entry: &DeviceEntry,
    (warmup, steps): (usize, usize),
) -> Result<Vec<ProductMeasurement>, TrainError> {
    if !config.has_tokens() {
        return Err(TrainError::usage(format!(
            "{model} has convolutions, expected a network of products: a Mixer or a Vision Transformer"
        )));
    }
    // What a GPU needs to be busy takes a CPU half a minute.
    let square = if entry.is_gpu() && !entry.is_software_gpu { 8192 } else { 1024 };
    let mut measurements = Vec::new();
    for product in products(config, batch_size, square) {
        let seconds = time_burn(&product, precision, &entry.device, (warmup, steps))?;
        let cublaslt = time_cublaslt(&product, precision, entry)?;
        let rate = |seconds: f64| product.operations() / seconds / 1e9;
        measurements.push(ProductMeasurement {
            mode: "products",
            model: model.to_owned(),
            batch_size,
            precision,
            device: entry.name.clone(),
            product,
            burn_ms: 1e3 * seconds,
            burn_gflops: rate(seconds),
            cublaslt_ms: cublaslt.map(|seconds| 1e3 * seconds),
            cublaslt_gflops: cublaslt.map(rate),
        });
    }
    Ok(measurements)
}

/// Seconds of Burn's product, from one end of a row of them to the other.
fn time_burn(
    product: &Product,
    precision: Precision,
    device: &Device,
    (warmup, steps): (usize, usize),
) -> Result<f64, TrainError> {
    let Product { m, n, k, count, left_transposed, right_transposed, left_shared, .. } = *product;
    let dtype = precision.dtype();
    // Noise: on zeros fewer bits flip, and a GPU's clock stays higher than it does in training.
    let operand = |count: usize, rows: usize, columns: usize, transposed: bool, seed| {
        let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
        let mut random = ExampleRng::new(seed, 0, 0, 0);
        let values: Vec<f32> =
            (0..count * rows * columns).map(|_| random.uniform() as f32 - 0.5).collect();
        let data = TensorData::new(values, [count, rows, columns]);
        let tensor = Tensor::<3>::from_data(data, device).cast(dtype);
        if transposed { tensor.swap_dims(1, 2) } else { tensor }
    };
    let left = operand(if left_shared { 1 } else { count }, m, k, left_transposed, 0);
    let right = operand(count, k, n, right_transposed, 1);
    let wait = || device.sync().map_err(|error| TrainError::device(error.to_string()));
    let mut last = None;
    for _ in 0..warmup {
        last = Some(left.clone().matmul(right.clone()));
    }
    wait()?;
    let started = Instant::now();
    for _ in 0..steps {
        last = Some(left.clone().matmul(right.clone()));
    }
    // SYNC: until the last one is done.
    wait()?;
    let seconds = started.elapsed().as_secs_f64() / steps as f64;
    drop(last);
    Ok(seconds)
}

/// Seconds of cuBLASLt's product, without an epilogue; `None` where there is no cuBLASLt.
#[cfg(feature = "cuda")]
fn time_cublaslt(
    product: &Product,
    precision: Precision,
    entry: &DeviceEntry,
) -> Result<Option<f64>, TrainError> {
    let Some(index) = entry.cuda_index() else { return Ok(None) };
    let spec = mixer_kernels::CudaProduct {
        m: product.m,
        n: product.n,
        k: product.k,
        count: product.count,
        left_transposed: product.left_transposed,
        right_transposed: product.right_transposed,
        left_shared: product.left_shared,
        wide_result: product.is_weight_gradient,
    };
    mixer_kernels::cuda_product_seconds(index, precision, &spec).map_err(TrainError::device)
}

#[cfg(not(feature = "cuda"))]
fn time_cublaslt(
    _product: &Product,
    _precision: Precision,
    _entry: &DeviceEntry,
) -> Result<Option<f64>, TrainError> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use mixer_model::{Gelu, Variant, count};

    use super::*;

    #[test]
    fn the_products_of_all_blocks_are_what_the_architecture_needs() {
        for name in ["B/16", "ViT-B/16"] {
            let config = Variant::parse(name).unwrap().config(224, 1000, Gelu::Tanh);
            let all = products(&config, 4, 64);
            let blocks = all.iter().filter(|product| product.name != "square");
            let of_blocks: f64 = blocks.map(Product::operations).sum();
            // A step has each product of the forward pass three times; stem and head are no part of a block.
            let stem_and_head = config.num_tokens() * config.patch_dim() * config.hidden_dim
                + config.hidden_dim * config.num_classes;
            let macs = count::macs(&config) as f64 - stem_and_head as f64;
            assert_eq!(of_blocks * config.num_blocks as f64, 6.0 * 4.0 * macs, "{name}");
        }
    }
}
