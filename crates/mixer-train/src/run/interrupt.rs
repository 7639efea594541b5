//! Signals: SIGINT, SIGTERM, SIGHUP and SIGUSR2 ask a run to save and to end, a second one ends the process at
//! once; SIGUSR1 asks it to save and to go on. SIGUSR2 is the one that `mpirun` passes on without ending the
//! ranks itself.
//!
//! A first signal is obeyed at the next batch. Where nothing is left to save, because the newest update
//! is on disk already or there was none, the process ends at once: also while data is being opened or a
//! GPU compiles its first kernel.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fs_err as fs;

use crate::error::exit_code;
use crate::show::progress::{self, say};

static STOP: AtomicBool = AtomicBool::new(false);
static SAVE: AtomicBool = AtomicBool::new(false);
/// `true` where the process is one of several, and none ends by itself.
static IS_ONE_OF_SEVERAL: AtomicBool = AtomicBool::new(false);
/// Updates done, and those of them that are on disk.
static UPDATED: AtomicU64 = AtomicU64::new(0);
static SAVED: AtomicU64 = AtomicU64::new(0);

/// The request of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Stop,
    Save,
}

/// Starts listening to signals. Calling it again changes nothing.
pub fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        if let Err(error) = listen_in_thread() {
            say(format_args!("warning: signals are not handled, Ctrl-C will not save: {error}"));
        }
    });
}

/// Has a file that reaches the limit of its size (`ulimit -f`) be an error of whoever writes it, as a full
/// disk is, and not the end of the process.
pub(crate) fn ignore_size_limit() {
    #[cfg(unix)]
    {
        use std::sync::Arc;
        // A handler that does nothing. Where there can be none, it is as it was.
        let ignored = Arc::new(AtomicBool::new(false));
        drop(signal_hook::flag::register(signal_hook::consts::SIGXFSZ, ignored));
    }
}

/// `true` once the run should stop.
#[must_use]
pub fn requested() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// `true` where a checkpoint was asked for since the last call.
#[must_use]
pub fn take_save_request() -> bool {
    SAVE.swap(false, Ordering::SeqCst)
}

/// Tells that this process is one of several: it ends with the others, also where it has nothing to save.
pub(crate) fn one_of_several() {
    IS_ONE_OF_SEVERAL.store(true, Ordering::SeqCst);
}

/// Tells that there is nothing to save, as when another run begins in this process.
pub(crate) fn nothing_to_save() {
    updated(0);
    saved(0);
}

/// Tells how many updates are done.
pub(crate) fn updated(step: u64) {
    UPDATED.store(step, Ordering::SeqCst);
}

/// Tells how many updates are on disk.
pub(crate) fn saved(step: u64) {
    SAVED.store(step, Ordering::SeqCst);
}

/// Obedience to a signal, in the thread that listens.
fn obey(request: Request, exit: impl Fn(i32)) {
    let code = i32::from(exit_code::INTERRUPTED);
    match request {
        Request::Save => {
            say("a checkpoint is asked for and will be written after this update");
            SAVE.store(true, Ordering::SeqCst);
        }
        Request::Stop if STOP.load(Ordering::SeqCst) => exit(code),
        Request::Stop => match UPDATED.load(Ordering::SeqCst) {
            step if step != SAVED.load(Ordering::SeqCst)
                || IS_ONE_OF_SEVERAL.load(Ordering::SeqCst) =>
            {
                say("saving and stopping; a second signal (Ctrl-C) stops at once, without saving");
                STOP.store(true, Ordering::SeqCst);
            }
            step => {
                let saved = match step {
                    0 => "before the first update: there is nothing to save".to_owned(),
                    step => format!("at step {step}; its checkpoint is on disk already"),
                };
                say(format_args!("error: interrupted {saved}"));
                say("hint: run the same command again to continue");
                progress::flush(Duration::from_secs(1));
                exit(code);
            }
        },
    }
}

#[cfg(unix)]
fn listen_in_thread() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

    let mut signals = vec![SIGINT, SIGTERM, SIGUSR1, SIGUSR2];
    // `nohup` means that a closed terminal shall not end the run.
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(signals)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let request = if signal == SIGUSR1 { Request::Save } else { Request::Stop };
            // Without destructors: those of a GPU's driver wait for what another thread is doing.
            obey(request, |code| signal_hook::low_level::exit(code));
        }
    })?;
    Ok(())
}

/// `true` where this process was started with a signal ignored. Only Linux tells; elsewhere it counts as
/// ignored.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
fn listen_in_thread() -> std::io::Result<()> {
    let exit = |code| std::process::exit(code);
    ctrlc::set_handler(move || obey(Request::Stop, exit)).map_err(std::io::Error::other)
}
