//! A run with every value resolved, in the sections of the configuration and under its names: data-set size ×
//! batch size become updates, the number of classes meets the data, divisibility is checked and every default
//! becomes a value. It is saved with the run, and `mixer config show` prints it.
//!
//! Each section has a file, which resolves it, and `run_plan.rs` is all of them. `facts.rs` is what is known of data and weights, `file.rs` the
//! plan on disk, `continued.rs` what a run that is continued may change, and `shown.rs` the plan as a
//! configuration, with the origin of each value.

pub mod continued;
pub mod data;
pub mod facts;
mod file;
pub mod init;
pub mod model;
pub mod optimizer;
mod run_plan;
pub mod schedule;
pub mod shown;
mod task;
mod teacher;
pub mod train;

pub use crate::plan::data::DataPlan;
pub(crate) use crate::plan::data::train_transform;
pub use crate::plan::facts::{DataFacts, InitFacts};
pub use crate::plan::init::InitPlan;
pub use crate::plan::model::ModelPlan;
pub use crate::plan::optimizer::OptimizerPlan;
pub use crate::plan::run_plan::RunPlan;
pub use crate::plan::schedule::SchedulePlan;
pub use crate::plan::task::Task;
pub use crate::plan::train::TrainPlan;
