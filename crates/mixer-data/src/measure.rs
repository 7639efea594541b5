//! Looking at data and at the speed of reading it.

pub(crate) mod inspect;
pub(crate) mod speed;
pub(crate) mod stage;
