#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bench;
pub mod classifier;
pub mod cli;
pub mod config;
pub mod device;
pub mod disk;
pub mod draw;
pub mod error;
pub mod group;
mod halt;
pub mod input;
#[doc(hidden)]
pub mod internals;
pub mod look;
mod machine;
pub mod plan;
pub mod run;
mod show;
pub mod update;

pub use classifier::Classifier;
pub use device::DeviceEntry;
pub use error::{TrainError, exit_code};
pub use run::recipe::Recipe;
pub use run::session::{Options, Session};
