//! The way of a picture between decoding and patches. `transform` is the whole of it, for training
//! and for evaluation; the other files are the distortions that training may ask for.

pub(crate) mod affine;
pub(crate) mod autoaugment;
pub(crate) mod colour_ops;
pub(crate) mod erasing;
pub(crate) mod fixed_point_map;
pub(crate) mod pixel_op;
pub(crate) mod randaugment;
pub(crate) mod transform;
