//! The parts of a run, resolved and opened, before anything is computed.

use std::path::PathBuf;
use std::rc::Rc;

use burn::tensor::Device;
use mixer_model::{Compute, Metadata, Mixer, Weights, count};

use crate::device::DeviceEntry;
use crate::disk::checkpoint::{Checkpoint, RunState};
use crate::disk::run_dir::{self, RunDir};
use crate::error::TrainError;
use crate::group::Group;
use crate::input::dataset::Dataset;
use crate::input::loading::Loading;
use crate::plan::RunPlan;
use crate::run::evaluation::Evaluator;
use crate::update::loss_scale::LossScale;
use crate::update::optimizer::Optimizer;
use crate::update::teacher::Teacher;

/// Everything that a run is made of.
pub struct Job {
    /// Every value resolved.
    pub plan: RunPlan,
    /// Data to train and to evaluate on.
    pub dataset: Dataset,
    /// Directory of the run.
    pub run_dir: RunDir,
    /// Device that it computes on.
    pub device: DeviceEntry,
    /// Threads and memory that read data.
    pub loading: Loading,
    /// The processes that train together.
    pub group: Rc<dyn Group>,
    /// The teacher, where there is one and something is left to train.
    pub teacher: Option<Teacher>,
}

/// The state that a run has when its process begins.
pub enum Start {
    /// Weights before the first update.
    Weights(Box<Weights>),
    /// A checkpoint, and where it lies.
    Checkpoint(PathBuf, Box<Checkpoint>),
}

impl Job {
    pub(crate) fn autodiff_device(&self) -> Device {
        self.device.device.clone().autodiff()
    }

    /// Network, optimizer and counters of a start.
    pub(crate) fn restore(&self, start: Start) -> Result<(Mixer, Optimizer, RunState), TrainError> {
        let plan = &self.plan;
        let rates = plan.parameter_rates()?;
        let (weights, optimizer, mut state) = match start {
            Start::Checkpoint(path, mut checkpoint) => {
                let (rule, on) = (plan.optimizer.rule.clone(), &self.device.device);
                let optimizer = checkpoint.take_optimizer(rule, plan.train.ema_decay, on, &path)?;
                (checkpoint.weights, optimizer, checkpoint.state)
            }
            Start::Weights(weights) => {
                let optimizer = Optimizer::new(plan.optimizer.rule.clone(), plan.train.ema_decay);
                (*weights, optimizer, RunState::default())
            }
        };
        weights.check_fits(&plan.model.network)?;
        state.loss_scale = state.loss_scale.or(plan.train.loss_scale.map(LossScale::start));
        let compute = Compute {
            precision: plan.train.precision,
            recompute_blocks: plan.train.recompute_blocks,
        };
        let mixer = Mixer::from_weights(weights, &self.autodiff_device())?.with_compute(compute);
        let optimizer = optimizer.with_first_moment_dtype(plan.optimizer.first_moment_dtype);
        Ok((rates.frozen(mixer), optimizer.with_rates(rates), state))
    }

    /// The evaluation of the plan.
    pub(crate) fn evaluator(&self) -> Evaluator {
        Evaluator {
            transform: self.plan.eval_transform().clone(),
            preprocessing: self.plan.preprocessing(),
            loss: self.plan.train.loss,
            batch_size: self.plan.train.eval_batch_size,
            loading: self.loading,
            on_corrupt: self.plan.data.on_corrupt,
        }
    }

    /// Bytes of a checkpoint, nearly: the parameters, and what the optimizer keeps of them.
    pub(crate) fn checkpoint_bytes(&self) -> u64 {
        let RunPlan { optimizer, train, model, .. } = &self.plan;
        // The weights take the first moment's place among those in f32.
        let in_f32 = optimizer.rule.num_moments() + usize::from(train.ema_decay.is_some());
        let bytes = 4 * in_f32 + optimizer.first_moment_dtype.dtype().size();
        bytes as u64 * count::num_params(&model.network) as u64
    }

    /// Metadata of the weights after `step` updates.
    pub(crate) fn metadata(&self, step: u64) -> Metadata {
        let plan = &self.plan;
        let mut provenance = vec![
            ("mixer_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("step", step.to_string()),
            ("train_examples", plan.facts.train_examples.to_string()),
        ];
        if let Some(init) = &plan.init {
            provenance.push((
                "resolution",
                format!(
                    "{} from {} px",
                    init.resolution(&plan.model.network),
                    init.from.config.image_size
                ),
            ));
        }
        if let Some(hash) = plan.init.as_ref().and_then(|init| init.from.sha256.clone()) {
            provenance.push(("init_sha256", hash));
        }
        if let Some(hash) = plan.teacher.as_ref().and_then(|teacher| teacher.sha256.clone()) {
            provenance.push(("teacher_sha256", hash));
        }
        if let Some(decay) = plan.train.ema_decay {
            provenance.push(("ema_decay", decay.to_string()));
        }
        run_dir::metadata(plan, &provenance)
    }
}
