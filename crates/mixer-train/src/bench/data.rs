//! The speed of training data from files to patches here: no network, no device.

use std::sync::Arc;

use mixer_data::{
    LoaderConfig, Source, Stage, StageTime, TrainTransform, time_loader, time_stages,
};
use serde::Serialize;

use super::memory;
use crate::error::TrainError;
use crate::machine::cores;

/// A worker that works for a smaller part of its time waits for a core, for others or for a disk.
const BUSY: f64 = 0.85;

/// A measurement to make.
#[derive(Clone)]
pub struct DataBench {
    /// The training split.
    pub source: Arc<dyn Source>,
    /// Its augmentation.
    pub transform: TrainTransform,
    /// Batches, patches and workers.
    pub loader: LoaderConfig,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Examples to time, at least; the loader delivers whole batches.
    pub examples: u64,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct DataMeasurement {
    /// `data`.
    pub mode: &'static str,
    /// Examples in the split.
    pub split_examples: u64,
    /// Side of the network's input, px.
    pub image_size: u32,
    /// Side of a patch, px.
    pub patch_size: usize,
    /// Examples per batch.
    pub batch_size: usize,
    /// Decoding threads.
    pub workers: usize,
    /// Cores that the process may use.
    pub cores: usize,
    /// Examples that the loader delivered while it was timed.
    pub examples: u64,
    /// For how long, seconds.
    pub seconds: f64,
    /// Time on processors meanwhile, of all threads, seconds.
    pub cpu_seconds: f64,
    /// Examples per second.
    pub images_per_sec: f64,
    /// Examples per second of a processor: what other processes take does not lessen it.
    pub images_per_cpu_sec: f64,
    /// Peak of the process' resident memory over what it was before the loader, MB; on Linux.
    pub peak_memory_mb: Option<f64>,
    /// Examples that could not be read and were left out.
    pub skipped: u64,
    /// The stages of an example, on one thread.
    pub stages: Vec<StageMeasurement>,
    /// The limit of the speed.
    pub limit: Limit,
}

/// A stage on one thread.
#[derive(Debug, Clone, Serialize)]
pub struct StageMeasurement {
    /// Its name.
    pub stage: Stage,
    /// Time per example, ms.
    pub ms: f64,
    /// Of it, time on a processor, ms.
    pub cpu_ms: f64,
    /// Part of the time on a processor that all stages take.
    pub share: f64,
}

/// The limit of the speed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Limit {
    /// Waiting for the disk takes longer than any stage works.
    Reading {
        /// Waiting per example, ms.
        waiting_ms: f64,
    },
    /// There are idle cores, and too few workers to use them.
    Workers {
        /// Decoding threads.
        workers: usize,
        /// Cores that the process may use.
        cores: usize,
    },
    /// Workers wait for cores: there are more threads than cores, or other processes take them.
    Cores {
        /// Cores that the workers got, on average.
        got: f64,
        /// Decoding threads.
        workers: usize,
    },
    /// The largest stage.
    Stage {
        /// Its name.
        stage: Stage,
        /// Its part of the work.
        share: f64,
    },
}

impl Limit {
    fn of(stages: &[StageMeasurement], workers: usize, cores: usize, cores_in_use: f64) -> Self {
        let waiting_ms = stages.iter().find(|found| found.stage == Stage::Read);
        let waiting_ms = waiting_ms.map_or(0.0, |read| read.ms - read.cpu_ms);
        let largest = stages.iter().max_by(|a, b| a.cpu_ms.total_cmp(&b.cpu_ms));
        // Without workers the caller decodes.
        let threads = workers.max(1);
        match largest {
            Some(largest) if waiting_ms <= largest.cpu_ms => {
                if cores_in_use < BUSY * threads.min(cores) as f64 || threads > cores {
                    Self::Cores { got: cores_in_use, workers }
                } else if threads < cores {
                    Self::Workers { workers, cores }
                } else {
                    Self::Stage { stage: largest.stage, share: largest.share }
                }
            }
            _ => Self::Reading { waiting_ms },
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reading { waiting_ms } => write!(
                f,
                "reading: an example waits {waiting_ms:.2} ms for the disk, longer than any stage works"
            ),
            Self::Workers { workers, cores } => {
                write!(f, "the number of workers: {workers} for {cores} cores")
            }
            Self::Cores { got, workers } => {
                write!(f, "the cores: of those, {got:.2} had time for {workers} worker(s)")
            }
            Self::Stage { stage, share } => write!(
                f,
                "{}: {:.0} % of the work, on every core that there is",
                stage.name(),
                100.0 * share
            ),
        }
    }
}

/// Measures the whole loader, and then the stages on one thread, on the examples that come next.
///
/// # Errors
/// [`TrainError::Data`] when an example cannot be read and may not be left out.
pub fn measure(bench: &DataBench) -> Result<DataMeasurement, TrainError> {
    let DataBench { source, transform, loader, seed, examples } = bench;
    let cores = cores();
    let before = memory("VmRSS:");
    let (source, config) = (|| Arc::clone(source), || loader.clone());
    let whole = time_loader(source(), transform.clone(), *seed, config(), *examples)?;
    let peak_memory_mb = memory("VmHWM:").zip(before).map(|(peak, before)| peak - before);

    let next = whole.examples + loader.batch_size as u64;
    let staged = time_stages(source(), transform.clone(), *seed, config(), next, *examples)?;
    let per_example = |time: StageTime| {
        let ms = 1e3 / staged.examples as f64;
        (time.wall.as_secs_f64() * ms, time.cpu.as_secs_f64() * ms)
    };
    let (_, total) = per_example(staged.time.total());
    let stages: Vec<StageMeasurement> = Stage::ALL
        .into_iter()
        .map(|stage| {
            let (ms, cpu_ms) = per_example(staged.time.of(stage));
            StageMeasurement { stage, ms, cpu_ms, share: cpu_ms / total }
        })
        .collect();

    let (seconds, cpu_seconds) = (whole.time.wall.as_secs_f64(), whole.time.cpu.as_secs_f64());
    Ok(DataMeasurement {
        mode: "data",
        split_examples: source().len() as u64,
        image_size: transform.image_size,
        patch_size: loader.patch_size,
        batch_size: loader.batch_size,
        workers: loader.workers,
        cores,
        examples: whole.examples,
        seconds,
        cpu_seconds,
        images_per_sec: whole.examples as f64 / seconds,
        images_per_cpu_sec: whole.examples as f64 / cpu_seconds,
        peak_memory_mb,
        skipped: whole.skipped.max(staged.skipped),
        limit: Limit::of(&stages, loader.workers, cores, cpu_seconds / seconds),
        stages,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(read_ms: f64) -> Vec<StageMeasurement> {
        let stage = |stage, ms, cpu_ms| StageMeasurement { stage, ms, cpu_ms, share: cpu_ms };
        vec![stage(Stage::Read, read_ms, 0.1), stage(Stage::Decode, 0.9, 0.8)]
    }

    #[test]
    fn the_limit_is_the_disk_then_the_cores_then_the_workers_then_the_largest_stage() {
        let limit = |read_ms, workers, got| Limit::of(&stages(read_ms), workers, 4, got);
        assert!(matches!(limit(1.0, 4, 4.0), Limit::Reading { .. }));
        assert_eq!(limit(0.1, 4, 2.0), Limit::Cores { got: 2.0, workers: 4 });
        assert_eq!(limit(0.1, 8, 4.0), Limit::Cores { got: 4.0, workers: 8 });
        assert_eq!(limit(0.1, 2, 1.9), Limit::Workers { workers: 2, cores: 4 });
        assert_eq!(limit(0.1, 0, 1.0), Limit::Workers { workers: 0, cores: 4 });
        assert_eq!(limit(0.1, 4, 3.9), Limit::Stage { stage: Stage::Decode, share: 0.8 });
        let text = limit(0.1, 4, 3.9).to_string();
        assert_eq!(text, "decode: 80 % of the work, on every core that there is");
    }
}
