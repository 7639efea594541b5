//! Words and bars for people who watch. Lines go to `console`, which never holds up a run; `progress` is
//! the bar.

pub(crate) mod console;
pub(crate) mod progress;
