//! The modules of `mixer-model` that read weights files, without the network: they need nothing of Burn,
//! which would be compiled for a quarter of an hour with the fuzzer's instruments in it.

#![allow(dead_code, unused_imports)]

#[path = "../../src"]
mod of_the_model {
    #[path = "mixer/config.rs"]
    pub mod config;
    pub mod error;
    pub mod internals;
    #[path = "weights/weights.rs"]
    pub mod weights;
}

pub use of_the_model::{config, error, internals, weights};

/// What the text of an error names.
pub mod resolution {
    pub const MAX_PARAMS: u64 = 1 << 32;
}
