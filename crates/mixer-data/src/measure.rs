//! The content of a source, by `inspect`; the speed of reading it, by `speed`, and of each `stage`.

pub(crate) mod inspect;
pub(crate) mod measured;
pub(crate) mod remarks;
pub(crate) mod speed;
pub(crate) mod stage;
