//! The speed of a Mixer that trains or infers here, with data already in memory; in `products`, that of its
//! matrix products by themselves; in `data`, that of reading data.

pub(crate) mod data;
pub(crate) mod products;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fs_err as fs;
use mixer_data::{Batch, ExampleRng};
use mixer_model::{Compute, Mixer, MixerConfig, count};
use serde::Serialize;

use crate::device::DeviceEntry;
use crate::error::TrainError;
use crate::input::normaliser::Normaliser;
use crate::update::loss::{Loss, smoothed_targets};
use crate::update::optimizer::{Clip, FirstMomentDtype, GradientSum, Optimizer, Rule};
use mixer_model::Precision;

/// The kinds of steps that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Whole updates: forward, backward, clipping, AdamW.
    Train,
    /// Logits.
    Infer,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// Name of the variant.
    pub model: String,
    /// The kind of step.
    pub mode: Mode,
    /// Precision of the operands of the blocks' products.
    pub precision: Precision,
    /// Images per step.
    pub batch_size: usize,
    /// Side of the images, px.
    pub image_size: usize,
    /// Name of the device.
    pub device: String,
    /// Threads of a CPU backend.
    pub threads: usize,
    /// Steps that were timed.
    pub steps: usize,
    /// Median time of a step, ms.
    pub step_ms: f64,
    /// Shortest time of a step, ms.
    pub step_ms_min: f64,
    /// Images per second, from the median.
    pub images_per_sec: f64,
    /// 1e9 floating-point operations per second that the architecture needs, from the median.
    pub gflops: f64,
    /// 1e9 operations per second that all threads' registers can do at most; of a CPU only.
    pub fma_peak_gflops: Option<f64>,
    /// `gflops / fma_peak_gflops`.
    pub share_of_peak: Option<f64>,
    /// Peak of the process' resident memory over what it was before the network, MB; on Linux, of
    /// a process' first measurement only.
    pub peak_memory_mb: Option<f64>,
    /// GPU memory that was taken for the measurement and not given back, MB; of a CUDA device.
    pub device_memory_mb: Option<f64>,
}

/// A measurement to make.
#[derive(Debug, Clone)]
pub struct Bench {
    /// Name for the result.
    pub model: String,
    /// The architecture.
    pub config: MixerConfig,
    /// The kind of step.
    pub mode: Mode,
    /// Images per step.
    pub batch_size: usize,
    /// Precision that the network is computed in.
    pub precision: Precision,
    /// In how many blocks the backward pass computes hidden units again.
    pub recompute_blocks: usize,
    /// Type in which AdamW's first moment is kept.
    pub first_moment_dtype: FirstMomentDtype,
    /// Steps to time.
    pub steps: usize,
    /// Steps before that.
    pub warmup: usize,
    /// The CUDA device whose kernels' times are to be accounted for.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "there are no such devices"))]
    pub profile: Option<usize>,
}

/// Measures on a device.
///
/// # Errors
/// [`TrainError::Model`] when the architecture is none.
pub fn measure(bench: &Bench, entry: &DeviceEntry) -> Result<Measurement, TrainError> {
    let device = &entry.device;
    // The peak counts from the start of the process, so only the first measurement has one.
    static FIRST: AtomicBool = AtomicBool::new(true);
    let before = FIRST.swap(false, Ordering::Relaxed).then(|| memory("VmRSS:")).flatten();
    let device_before = device_memory(entry);
    let mut times = match bench.mode {
        Mode::Train => train(bench, &device.clone().autodiff())?,
        Mode::Infer => infer(bench, device)?,
    };
    let peak_memory = memory("VmHWM:").zip(before).map(|(peak, before)| peak - before);
    let device_memory_mb =
        device_memory(entry).zip(device_before).map(|(after, before)| after - before);
    times.sort_by(f64::total_cmp);
    let median = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0;
    let operations = match bench.mode {
        Mode::Train => count::training_flops(&bench.config),
        Mode::Infer => 2 * count::macs(&bench.config),
    };
    let gflops = operations as f64 * bench.batch_size as f64 / median / 1e9;
    let fma_peak_gflops = cpu_peak(entry);
    Ok(Measurement {
        model: bench.model.clone(),
        mode: bench.mode,
        precision: bench.precision,
        batch_size: bench.batch_size,
        image_size: bench.config.image_size,
        device: entry.name.clone(),
        threads: rayon::current_num_threads(),
        steps: times.len(),
        step_ms: median * 1e3,
        step_ms_min: times[0] * 1e3,
        images_per_sec: bench.batch_size as f64 / median,
        gflops,
        fma_peak_gflops,
        share_of_peak: fma_peak_gflops.map(|peak| gflops / peak),
        peak_memory_mb: peak_memory,
        device_memory_mb,
    })
}

#[cfg(feature = "flex")]
fn cpu_peak(device: &DeviceEntry) -> Option<f64> {
    (!device.is_gpu()).then(|| mixer_kernels::fma_peak() / 1e9)
}

#[cfg(not(feature = "flex"))]
fn cpu_peak(_device: &DeviceEntry) -> Option<f64> {
    None
}

/// A batch of noise: no step's speed depends on what it sees.
fn batch(bench: &Bench) -> Batch {
    let config = &bench.config;
    let mut random = ExampleRng::new(0, 0, 0, 0);
    let len = bench.batch_size * config.num_tokens() * config.patch_dim();
    Batch {
        mix: None,
        is_led: false,
        patches: (0..len).map(|_| (random.uniform() * 255.0) as u8).collect(),
        labels: (0..bench.batch_size)
            .map(|_| (random.uniform() * config.num_classes as f64) as u32)
            .collect(),
        num_tokens: config.num_tokens(),
        patch_dim: config.patch_dim(),
        first_position: 0,
        epoch: 0,
        indices: (0..bench.batch_size as u64).collect(),
        num_examples: bench.batch_size,
        skipped: Vec::new(),
    }
}

/// Seconds of each step, warm-up left out.
fn timed(bench: &Bench, mut step: impl FnMut()) -> Vec<f64> {
    let mut times = Vec::with_capacity(bench.steps);
    for i in 0..bench.warmup + bench.steps {
        #[cfg(feature = "cuda")]
        if let Some(index) = bench.profile.filter(|_| i == bench.warmup) {
            drop(mixer_kernels::cuda_profile(index));
        }
        let started = Instant::now();
        step();
        if i >= bench.warmup {
            times.push(started.elapsed().as_secs_f64());
        }
    }
    times
}

fn mixer(bench: &Bench, device: &Device) -> Result<Mixer, TrainError> {
    let compute = Compute { precision: bench.precision, recompute_blocks: bench.recompute_blocks };
    Ok(Mixer::init(&bench.config, 0, 0.0, device)?.with_compute(compute))
}

fn train(bench: &Bench, device: &Device) -> Result<Vec<f64>, TrainError> {
    let config = &bench.config;
    let mut state = Some(mixer(bench, device)?);
    let rule = Rule::Adamw { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1 };
    let mut optimizer =
        Optimizer::new(rule, None).with_first_moment_dtype(bench.first_moment_dtype);
    let normaliser = Normaliser::new(&Default::default(), config, device);
    let batch = batch(bench);
    let pixels = normaliser.upload(&batch);
    let targets = smoothed_targets(&batch.labels, config.num_classes, 0.0);
    let targets = normaliser.matrix(targets, bench.batch_size);
    let mut pending = None;
    Ok(timed(bench, || {
        // Moved out and back in, so that the update is made in place.
        let Some(mixer) = state.take() else { return };
        let patches = normaliser.normalised(&pixels);
        let logits = mixer.forward_training(patches, None);
        let loss = Loss::Softmax.per_example(logits, targets.clone()).mean();
        let value = loss.clone().inner();
        let gradients = GradientSum::of(&mixer, &loss.backward());
        drop(loss);
        let squared_norm = gradients.squared_norm().unwrap_or_else(|| Tensor::zeros([1], device));
        let values = Tensor::cat(vec![value, squared_norm.clone()], 0);
        let clip = Clip { squared_norm, limit: 1.0 };
        state = Some(optimizer.update(mixer, gradients, Some(&clip), 1e-4));
        // SYNC: as the trainer does, the values of the step before, which a GPU has by now.
        if let Some(values) = pending.replace(values) {
            std::hint::black_box(values.into_data());
        }
    }))
}

fn infer(bench: &Bench, device: &Device) -> Result<Vec<f64>, TrainError> {
    let config = &bench.config;
    let mixer = mixer(bench, device)?.no_grad();
    let normaliser = Normaliser::new(&Default::default(), config, device);
    let pixels = normaliser.upload(&batch(bench));
    let mut failed = None;
    let times = timed(bench, || {
        let logits = mixer.forward(normaliser.normalised(&pixels));
        // SYNC: until the logits are there.
        failed = device.sync().err();
        drop(logits);
    });
    match failed {
        Some(error) => Err(TrainError::device(error.to_string())),
        None => Ok(times),
    }
}

/// Time of each kernel on the CUDA device `index` since the warm-up, as lines of text, ms per step.
#[cfg(feature = "cuda")]
#[must_use]
pub fn profile(bench: &Bench, index: usize) -> String {
    let mut text = String::new();
    for time in mixer_kernels::cuda_profile(index) {
        let per_step = time.milliseconds / bench.steps as f64;
        let rate = time.operations / time.milliseconds / 1e9;
        let rate = if rate > 0.0 { format!("{rate:.0} TFLOP/s") } else { String::new() };
        text += &format!(
            "{per_step:>9.3} ms {:>5} × {:<64} {rate}\n",
            time.count / bench.steps,
            time.what
        );
    }
    text
}

/// Memory in use on a CUDA device, by whomever, MB.
#[cfg(feature = "cuda")]
fn device_memory(entry: &DeviceEntry) -> Option<f64> {
    let index = entry.cuda_index()?;
    // The context is opened by the first tensor and is not counted.
    Tensor::<1>::zeros([1], &entry.device).into_data();
    mixer_kernels::cuda_memory_in_use(index).map(|bytes| bytes as f64 / 1e6)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_entry: &DeviceEntry) -> Option<f64> {
    None
}

/// A line of the kernel's account of this process' memory, in MB.
fn memory(field: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024.0 / 1e6)
}
