//! Lines on stderr, written by a thread of their own: a pipe that nobody reads must not hold up training.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait. What comes when there are so many is dropped and counted.
const MAX_WAITING: usize = 1024;

enum Message {
    Line(String),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

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
            }
            // Whoever asked may have stopped waiting.
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

/// `mixer … 2>&1 | head` closes stderr early, which is no reason to stop: what cannot be shown is dropped
/// (and `eprintln!` would panic).
fn write(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// Writes a line, soon, and never waits.
pub(crate) fn say(line: String) {
    match sender() {
        Some(sender) => {
            if sender.try_send(Message::Line(line)).is_err() {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
        None => write(&line),
    }
}

/// Waits until all lines so far are written, but not longer than `timeout`.
pub(crate) fn flush(timeout: Duration) {
    let Some(sender) = sender() else { return };
    let (done, is_done) = sync_channel(1);
    // Full means that nobody reads; then there is nothing to wait for.
    if sender.try_send(Message::Flush(done)).is_ok() {
        is_done.recv_timeout(timeout).unwrap_or(());
    }
}
