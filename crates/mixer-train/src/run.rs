//! A run from its start to its end. A `recipe` is its configuration, a `session` opens it, `found_run` is the one that a directory holds
//! already and says whether it may go on, a `job` is what it is made of, the loop is
//! `trainer`; `journal` tells of it. Evaluations, everything that stops a run before its time, and what is
//! done about updates that are not finite live here too.

pub(crate) mod alike;
pub(crate) mod divergence;
pub(crate) mod early_stopping;
pub mod evaluation;
pub(crate) mod found_run;
#[cfg(feature = "cuda")]
pub(crate) mod gpus;
pub(crate) mod interrupt;
pub mod job;
pub(crate) mod journal;
pub(crate) mod on_divergence;
pub(crate) mod outliers;
pub(crate) mod parcel;
pub(crate) mod passes;
pub(crate) mod quantity;
pub mod recipe;
pub mod replay;
pub mod session;
pub mod time_limit;
pub(crate) mod together;
pub mod trainer;
