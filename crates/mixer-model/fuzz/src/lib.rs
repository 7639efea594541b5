//! The modules of `mixer-model` that read weights files, without the network: they need nothing of Burn,
//! which would be compiled for a quarter of an hour with the fuzzer's instruments in it.

#![allow(dead_code, unused_imports)]

#[path = "../../src"]
mod of_the_model {
    pub mod count;
    pub mod error;
    pub mod internals;
    pub mod parameters;
    pub mod tensor;
    pub mod weights;

    pub mod mixer {
        pub mod config;
        pub mod variants;
    }
}

pub use of_the_model::{count, error, internals, mixer, parameters, tensor, weights};
