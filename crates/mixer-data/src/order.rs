//! Order of the examples of a stream, and their randomness. Everything here is a pure function of a
//! seed and a position.

pub(crate) mod example_order;
pub(crate) mod normal;
pub(crate) mod permutation;
pub(crate) mod random;
