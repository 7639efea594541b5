//! Words and bars for people who watch. Lines go to `console`, which never holds up a run; `progress` is
//! the bar; `shell` writes commands that can be typed; `visible` keeps what a file or a class is called from being obeyed by the terminal.

pub(crate) mod console;
pub(crate) mod progress;
pub(crate) mod shell;
pub(crate) mod visible;
