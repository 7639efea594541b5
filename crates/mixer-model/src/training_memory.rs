//! The memory that training takes in one process, by part: what the kernels here keep, not what
//! plain differentiation would.
//!
//! Separate from `count.rs`, which is exact: working memory and holes between tensors are an estimate.

use mixer_kernels::Precision;
use serde::Serialize;

use crate::count::{num_params, product, sum};
use crate::mixer::config::{MixerConfig, TokenLayer};

/// The kernels that compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// `flex`, on a CPU.
    Cpu,
    /// `cuda`, on an NVIDIA GPU.
    Cuda,
}

/// One process that trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingSetup {
    /// Whose kernels it trains with.
    pub kernels: Kernels,
    /// Examples per forward and backward pass.
    pub microbatch_size: u64,
    /// `true` where an update takes more than one such pass: then their sum is held besides.
    pub accumulates: bool,
    /// Precision of the blocks' products.
    pub precision: Precision,
    /// Blocks whose hidden units of channel mixing are computed again.
    pub recompute_blocks: usize,
    /// Bytes of each parameter's moments: 8 for AdamW, 4 for SGD, 2 less where the first one is bf16.
    pub moment_bytes: u64,
    /// `true` where a moving average of the weights is kept.
    pub has_average: bool,
    /// Second pass of an update; absent where there is none.
    pub second_pass: Option<SecondPass>,
}

/// The second pass of a sharpness-aware update: it computes with other weights, and with the batch that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecondPass {
    /// Examples of an update in this process, whose pixels are kept as bytes.
    pub examples: u64,
    /// `true` where the first gradient is needed after it (GSAM).
    pub keeps_gradient: bool,
}

/// Bytes by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TrainingMemory {
    /// Weights, f32.
    pub weights: u64,
    /// Gradients, f32; twice where several passes are summed.
    pub gradients: u64,
    /// Moments of the optimizer.
    pub moments: u64,
    /// Moving average of the weights, f32.
    pub average: u64,
    /// Weights of a second pass, f32, the pixels that are kept for it, and the first gradient where it is needed
    /// after it.
    pub second_pass: u64,
    /// Activations that the forward pass keeps for the backward pass.
    pub activations: u64,
    /// Working memory of the largest operation, the residual stream and its gradient in flight, and on a GPU
    /// a tenth of the activations for holes between tensors. Estimated.
    pub scratch: u64,
    /// Pictures: bytes of this batch and of the next, and the normalised patches.
    pub input: u64,
}

/// The channel-mixing weights that a block's kernels on a CPU hold in other layouts, and partial sums of their
/// gradients, as multiples of these weights: by measurement.
const CPU_COPIES: u64 = 5;

/// The standardised weights of a BiT-ResNet, and their gradients on the way to those of the weights, in quarters
/// of the weights: by measurement.
const STANDARDISED_QUARTERS: u64 = 7;

impl TrainingMemory {
    /// That of a network that trains.
    ///
    /// An example keeps, in every block, the input of both halves (`2 S C`) and the hidden units of channel
    /// mixing before GELU (`S D_C`; on a GPU also after it), and once the input of the last normalisation.
    /// Attention keeps what was normalised, queries, keys and values, their mixture and the branch
    /// (`6 T C`), and for every head the weights between tokens twice (`2 T²`), all of it f32: an estimate
    /// of Burn's operations. A BiT-ResNet keeps each input of a normalisation as it is, normalised, and
    /// after ReLU, and what the stem pools: an estimate too.
    #[must_use]
    pub fn new(config: &MixerConfig, setup: &TrainingSetup) -> Self {
        let (c, s) = (config.hidden_dim, config.num_positions());
        let d_c = config.channels_mlp_dim;
        // Hidden units of token mixing, and what attention keeps.
        let (d_s, attention) = match config.tokens {
            TokenLayer::Mlp { tokens_mlp_dim } => (tokens_mlp_dim, 0),
            TokenLayer::Convolution { .. } => return Self::of_resnet(config, setup),
            TokenLayer::Attention { num_heads, .. } => {
                let values = sum(&[product(&[6, s, c]), product(&[2, num_heads, s, s])]);
                (0, values.saturating_mul(4).saturating_mul(config.num_blocks as u64))
            }
        };
        let (blocks, batch) = (config.num_blocks, setup.microbatch_size);
        let bytes = match setup.precision {
            Precision::F32 => 4,
            _ => 2,
        };
        let kept_blocks = blocks.saturating_sub(setup.recompute_blocks);
        let residual = product(&[s, c]);
        // The residual stream is f32 on a CPU, and in the precision on a GPU.
        let (stream, hidden) = match setup.kernels {
            Kernels::Cpu => (4, bytes),
            Kernels::Cuda => (bytes, 2 * bytes),
        };
        let inputs =
            product(&[blocks.saturating_mul(2).saturating_add(1), s, c]).saturating_mul(stream);
        let units = product(&[kept_blocks, s, d_c]).saturating_mul(hidden);
        let activations = sum(&[inputs, units, attention]).saturating_mul(batch);
        let in_flight = residual.saturating_mul(stream);
        let scratch = match setup.kernels {
            Kernels::Cpu => sum(&[
                product(&[2, c, d_c]).saturating_mul(4 * CPU_COPIES),
                in_flight.saturating_mul(3).saturating_mul(batch),
            ]),
            Kernels::Cuda => {
                let tokens = sum(&[residual, product(&[3, d_s, c])]);
                let again = if kept_blocks < blocks { 2 } else { 0 };
                let channels = sum(&[residual, product(&[1 + again, s, d_c])]);
                let halves = tokens.max(channels).saturating_mul(bytes);
                let operation = sum(&[halves, in_flight.saturating_mul(2)]).saturating_mul(batch);
                sum(&[operation, activations / 10])
            }
        };
        Self::with(config, setup, activations, scratch)
    }

    /// That of a BiT-ResNet: f32 on every device, and beside it what its convolutions round.
    fn of_resnet(config: &MixerConfig, setup: &TrainingSetup) -> Self {
        let area = |side: usize| side.saturating_mul(side);
        let stem = product(&[area(config.stem_side()), config.stem_width()]);
        let stages = config.stages();
        let normalised = stages.iter().map(|stage| {
            let (before, after) = (area(stage.side_before), area(stage.side));
            let depth = stage.depth;
            sum(&[
                product(&[before, stage.inputs]),
                product(&[before, stage.bottleneck]),
                product(&[depth - 1, after, stage.width]),
                product(&[depth.saturating_mul(2) - 1, after, stage.bottleneck]),
            ])
        });
        let last = stages.last().map_or(0, |stage| product(&[area(stage.side), stage.width]));
        let normalised = sum(&[sum(&normalised.collect::<Vec<_>>()), last]);
        let pixels = product(&[area(config.image_size), 3]);
        // What the stem pools is kept, padded, and where in it the largest values are.
        let kept = sum(&[normalised.saturating_mul(3), stem.saturating_mul(2), pixels]);
        let rounded = match setup.precision {
            Precision::F32 => 0,
            _ => sum(&[normalised, pixels]).saturating_mul(2),
        };
        let batch = setup.microbatch_size;
        let activations = sum(&[kept.saturating_mul(4), rounded]).saturating_mul(batch);
        // The largest grid, its gradient, and as much between the operations of a normalisation.
        let widest = stages.iter().map(|stage| product(&[area(stage.side_before), stage.width]));
        let scratch = widest.max().unwrap_or(0).max(stem).saturating_mul(4 * 4);
        let standardised = num_params(config).saturating_mul(STANDARDISED_QUARTERS);
        let scratch = sum(&[scratch.saturating_mul(batch), standardised]);
        Self::with(config, setup, activations, scratch)
    }

    /// That of these activations, with what every network has.
    fn with(config: &MixerConfig, setup: &TrainingSetup, activations: u64, scratch: u64) -> Self {
        let weights = num_params(config).saturating_mul(4);
        let patches = product(&[config.num_tokens(), config.patch_dim()]);
        let batch = setup.microbatch_size;
        let second_pass = setup.second_pass.map_or(0, |pass| {
            let gradient = if pass.keeps_gradient { weights } else { 0 };
            sum(&[weights, gradient, patches.saturating_mul(pass.examples)])
        });
        let sums = if setup.accumulates { 2 } else { 1 };
        Self {
            weights,
            gradients: weights.saturating_mul(sums),
            moments: num_params(config).saturating_mul(setup.moment_bytes),
            average: if setup.has_average { weights } else { 0 },
            second_pass,
            activations,
            scratch,
            input: patches.saturating_mul(2 + 4).saturating_mul(batch),
        }
    }

    /// The most that is held at a time. Gradients of a block take the place of its activations, so that it is
    /// less than the sum.
    #[must_use]
    pub fn peak(&self) -> u64 {
        // The sum over several passes is there from the first pass on.
        let sum_so_far = self.gradients - self.gradients.min(self.weights);
        let pass = self.activations.max(self.gradients - sum_so_far);
        let kept =
            [self.weights, self.moments, self.average, self.second_pass, self.scratch, self.input];
        sum(&[sum(&kept), sum_so_far, pass])
    }

    /// The most examples in one pass that fit into `bytes`; 0 where the weights do not.
    #[must_use]
    pub fn largest_microbatch(config: &MixerConfig, setup: &TrainingSetup, bytes: u64) -> u64 {
        let fits = |microbatch_size| {
            Self::new(config, &TrainingSetup { microbatch_size, ..*setup }).peak() <= bytes
        };
        // An example takes more than a byte, so the bytes are more than fit.
        let (mut fitting, mut too_many) = (0, bytes.saturating_add(1));
        while too_many - fitting > 1 {
            let middle = fitting + (too_many - fitting) / 2;
            if fits(middle) { fitting = middle } else { too_many = middle }
        }
        fitting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixer::config::Gelu;
    use crate::mixer::variants::Variant;

    fn setup(kernels: Kernels, microbatch_size: u64, precision: Precision) -> TrainingSetup {
        TrainingSetup {
            kernels,
            microbatch_size,
            accumulates: false,
            precision,
            recompute_blocks: 0,
            moment_bytes: 8,
            has_average: false,
            second_pass: None,
        }
    }

    fn network(name: &str) -> MixerConfig {
        Variant::parse(name).unwrap().config(224, 1000, Gelu::Tanh)
    }

    #[test]
    fn parts_of_a_small_net_are_counted_term_by_term() {
        let config = MixerConfig {
            image_size: 24,
            patch_size: 4,
            hidden_dim: 10,
            tokens: crate::mixer::TokenLayer::Mlp { tokens_mlp_dim: 14 },
            channels_mlp_dim: 22,
            num_blocks: 2,
            num_classes: 7,
            gelu: Gelu::Tanh,
        };
        let weights = 4 * num_params(&config);
        let of = |setup: TrainingSetup| TrainingMemory::new(&config, &setup);
        let cpu = of(setup(Kernels::Cpu, 3, Precision::F32));
        assert_eq!((cpu.weights, cpu.gradients), (weights, weights));
        assert_eq!((cpu.moments, cpu.average), (2 * weights, 0));
        assert_eq!(cpu.activations, 3 * 4 * (5 * 36 * 10 + 2 * 36 * 22));
        assert_eq!(cpu.input, 3 * 6 * 36 * 48);
        let bf16 = of(setup(Kernels::Cpu, 3, Precision::Bf16));
        assert_eq!(bf16.activations, 3 * (4 * 5 * 36 * 10 + 2 * 2 * 36 * 22));
        let gpu = of(setup(Kernels::Cuda, 3, Precision::Bf16));
        assert_eq!(gpu.activations, 3 * 2 * (5 * 36 * 10 + 2 * 2 * 36 * 22));
        let again =
            of(TrainingSetup { recompute_blocks: 2, ..setup(Kernels::Cpu, 3, Precision::F32) });
        assert_eq!(again.activations, 3 * 4 * 5 * 36 * 10);
        let setup = TrainingSetup {
            accumulates: true,
            has_average: true,
            moment_bytes: 2,
            ..setup(Kernels::Cpu, 3, Precision::F32)
        };
        let summed = of(setup);
        assert_eq!((summed.gradients, summed.moments), (2 * weights, weights / 2));
        assert_eq!(summed.average, weights);
        let rest = 3 * weights + weights / 2 + summed.scratch + summed.input;
        assert_eq!(summed.peak(), rest + weights.max(summed.activations));
        for (keeps_gradient, copies) in [(false, 1), (true, 2)] {
            let second_pass = Some(SecondPass { examples: 12, keeps_gradient });
            let twice = of(TrainingSetup { second_pass, ..setup });
            assert_eq!(twice.second_pass, copies * weights + 12 * 36 * 48);
            assert_eq!(twice.peak(), summed.peak() + twice.second_pass);
        }
    }

    /// `mixer bench train`, MB over the start of the process; of the H100, memory taken beyond the context
    /// (docs/benchmarks.md).
    #[test]
    fn estimates_are_near_what_was_measured() {
        const TOLERANCE: f64 = 0.06;
        let (cpu, gpu) = (Kernels::Cpu, Kernels::Cuda);
        for (name, kernels, precision, batch, megabytes) in [
            ("S/32", cpu, Precision::F32, 32, 468.0),
            ("S/16", cpu, Precision::F32, 32, 963.0),
            ("B/16", cpu, Precision::F32, 8, 1176.0),
            ("S/16", gpu, Precision::Bf16, 1024, 20493.0),
            ("B/16", gpu, Precision::Bf16, 512, 23283.0),
            ("L/16", gpu, Precision::Bf16, 256, 29614.0),
        ] {
            let memory = TrainingMemory::new(&network(name), &setup(kernels, batch, precision));
            let estimate = memory.peak() as f64 / 1e6;
            let off = estimate / megabytes - 1.0;
            assert!(off.abs() < TOLERANCE, "{name}: {estimate} MB, measured {megabytes}, {off:+}");
        }
    }

    /// `mixer bench train` on a CPU, MB over the start of the process.
    #[test]
    fn estimates_of_a_bit_resnet_are_near_what_was_measured() {
        const TOLERANCE: f64 = 0.06;
        for (image_size, megabytes) in [(64, 605.0), (128, 901.0)] {
            let config = Variant::parse("BiT-R50x1").unwrap().config(image_size, 1000, Gelu::Tanh);
            let memory = TrainingMemory::new(&config, &setup(Kernels::Cpu, 8, Precision::F32));
            let off = memory.peak() as f64 / 1e6 / megabytes - 1.0;
            assert!(off.abs() < TOLERANCE, "{image_size} px: {off:+}");
        }
    }

    #[test]
    fn the_largest_batch_is_the_last_that_fits() {
        let config = network("B/16");
        let setup = setup(Kernels::Cuda, 1, Precision::Bf16);
        let peak = |microbatch_size| {
            TrainingMemory::new(&config, &TrainingSetup { microbatch_size, ..setup }).peak()
        };
        let memory = 80 << 30;
        let largest = TrainingMemory::largest_microbatch(&config, &setup, memory);
        assert!(peak(largest) <= memory && peak(largest + 1) > memory, "{largest}");
        assert_eq!(TrainingMemory::largest_microbatch(&config, &setup, peak(0) - 1), 0);
        assert_eq!(TrainingMemory::largest_microbatch(&config, &setup, 0), 0);
        let absurd = TrainingMemory::largest_microbatch(&config, &setup, u64::MAX);
        assert!(absurd > 1 << 32, "{absurd}");
    }

    #[test]
    fn absurd_dimensions_saturate() {
        let config = MixerConfig {
            image_size: 1 << 30,
            patch_size: 1,
            hidden_dim: 1 << 40,
            tokens: crate::mixer::TokenLayer::Mlp { tokens_mlp_dim: 1 << 40 },
            channels_mlp_dim: 1 << 40,
            num_blocks: 1 << 40,
            num_classes: 1 << 40,
            gelu: Gelu::Tanh,
        };
        let setup = setup(Kernels::Cuda, u64::MAX, Precision::F32);
        assert_eq!(TrainingMemory::new(&config, &setup).peak(), u64::MAX);
    }
}
