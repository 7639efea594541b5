//! Lines on stderr, written by a thread of their own: a pipe that nobody reads must not hold up training. On a
//! terminal their first word has a colour, unless `NO_COLOR` is set.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use anstyle::AnsiColor;

/// Lines that may wait. What comes when there are so many is dropped and counted.
const MAX_WAITING: usize = 1024;

/// The meaning of a line, beside that which its first word has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It says what is.
    Plain,
    /// It is good news.
    Good,
}

enum Message {
    Line(String),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

static DROPPED: AtomicU64 = AtomicU64::new(0);
/// `true` once a line has found no room, until one is written.
static IS_STUCK: AtomicBool = AtomicBool::new(false);

/// The way to the thread; `None` where it could not be started.
fn sender() -> Option<&'static SyncSender<Message>> {
    static SENDER: OnceLock<Option<SyncSender<Message>>> = OnceLock::new();
    let start = || {
        let (sender, messages) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new().name("console".to_owned());
        thread.spawn(move || write_all(&messages)).ok().map(|_| sender)
    };
    SENDER.get_or_init(start).as_ref()
}

fn write_all(messages: &Receiver<Message>) {
    for message in messages {
        match message {
            Message::Line(line) => {
                match DROPPED.swap(0, Ordering::Relaxed) {
                    0 => {}
                    dropped => write(&format!("({dropped} lines were dropped: nobody read them)")),
                }
                write(&line);
                IS_STUCK.store(false, Ordering::Relaxed);
            }
            // Whoever asked may have stopped waiting.
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

/// `mixer … 2>&1 | head` closes stderr early, which is no reason to stop: what cannot be shown is dropped
/// (and `eprintln!` would panic).
fn write(line: &str) {
    drop(writeln!(anstream::stderr().lock(), "{line}"));
}

/// Time that a line waits for room.
const PATIENCE: Duration = Duration::from_millis(100);

/// The line with the colours that it has where there are colours.
fn coloured(line: &str, tone: Tone) -> String {
    let colours = [
        ("error:", AnsiColor::Red),
        ("warning:", AnsiColor::Yellow),
        ("hint:", AnsiColor::Cyan),
        ("note:", AnsiColor::Cyan),
    ];
    for (word, colour) in colours {
        if let Some(rest) = line.strip_prefix(word) {
            let style = colour.on_default().bold();
            return format!("{style}{word}{style:#}{rest}");
        }
    }
    match tone {
        Tone::Plain => line.to_owned(),
        Tone::Good => {
            let style = AnsiColor::Green.on_default();
            format!("{style}{line}{style:#}")
        }
    }
}

/// `true` where lines are for another process to say.
static IS_HUSHED: AtomicBool = AtomicBool::new(false);

/// Says nothing from here on, but what is said in any case.
pub(crate) fn hush() {
    IS_HUSHED.store(true, Ordering::Relaxed);
}

/// `true` after [`hush`].
pub(crate) fn is_hushed() -> bool {
    IS_HUSHED.load(Ordering::Relaxed)
}

/// Writes a line, soon, unless it is for another process to say. Where many lines come at once it waits for the writing of them, but only a moment,
/// and where nobody reads not a second time.
pub(crate) fn say(line: &str, tone: Tone) {
    if !is_hushed() {
        say_in_any_case(line, tone);
    }
}

/// Writes a line, soon, whoever else may say it too.
pub(crate) fn say_in_any_case(line: &str, tone: Tone) {
    let line = coloured(line, tone);
    let Some(sender) = sender() else { return write(&line) };
    let patience = if IS_STUCK.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
    if !send(sender, Message::Line(line), patience) {
        IS_STUCK.store(true, Ordering::Relaxed);
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until all lines so far are written, but not longer than `timeout`.
pub(crate) fn flush(timeout: Duration) {
    let Some(sender) = sender() else { return };
    let (done, is_done) = sync_channel(1);
    if send(sender, Message::Flush(done), timeout) {
        is_done.recv_timeout(timeout).unwrap_or(());
    }
}

/// `true` where there was room before `patience` was over.
fn send(sender: &SyncSender<Message>, mut message: Message, patience: Duration) -> bool {
    let started = Instant::now();
    loop {
        match sender.try_send(message) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) if started.elapsed() < patience => message = back,
            Err(_) => return false,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
