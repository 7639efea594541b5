//! Which example stands where in a stream, and its randomness. Everything here is a pure function of a
//! seed and a position.

pub(crate) mod example_order;
pub(crate) mod normal;
pub(crate) mod permutation;
pub(crate) mod random;
