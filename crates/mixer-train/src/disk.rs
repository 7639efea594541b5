//! A run on disk: `run_dir` says which file is where, `checkpoint` and `metrics` what is in them.
//! `background_writer` writes checkpoints behind the training, `retention` says which are kept,
//! `operations` are what a test has fail, `tensorboard` writes event files, and `atomic` small ones.

pub(crate) mod atomic;
pub(crate) mod background_writer;
pub mod checkpoint;
pub(crate) mod environment;
pub mod metrics;
pub(crate) mod operations;
pub(crate) mod retention;
pub mod run_dir;
pub(crate) mod tensorboard;
