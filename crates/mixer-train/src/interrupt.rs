//! Ctrl-C: the first one asks the run to stop after its update, the second one ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::exit_code;
use crate::progress::say;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Starts listening to SIGINT and SIGTERM. Calling it again changes nothing.
pub fn listen() {
    let handler = || {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(exit_code::INTERRUPTED));
        }
        say("stopping after this update; press Ctrl-C again to stop at once");
    };
    // It fails only when a handler is already there: this one, from an earlier call.
    drop(ctrlc::set_handler(handler));
}

/// Whether the run should stop.
#[must_use]
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
