//! The room of pictures that are drawn: tiles and colours (`canvas`), the units of weights (`unit_pictures`),
//! and examples made small (`thumbnails`).
//!
//! Pictures of values that are handed in: nothing here reads a file, and no other room of the crate is known here.

pub mod canvas;
pub mod thumbnails;
pub mod unit_pictures;
