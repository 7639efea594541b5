//! The sign that a run works: a bar on a terminal, plain lines otherwise; always on stderr.

use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::show::console;

/// Seconds between plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Writes a line to stderr, soon: nothing waits for who reads it, and what cannot be shown is dropped.
pub fn say(line: impl fmt::Display) {
    console::say(line.to_string());
}

/// Waits until the lines so far are written, but not longer than `timeout`.
pub fn flush(timeout: Duration) {
    console::flush(timeout);
}

/// A bar or a sequence of lines.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    name: &'static str,
    total: u64,
    start: u64,
    started: Instant,
    last_line: Option<Instant>,
}

impl Progress {
    /// For `total` units of work called `name`, of which `done` are behind us.
    #[must_use]
    pub fn new(name: &'static str, total: u64, done: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style =
                ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} {msg} eta {eta}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar.set_prefix(name);
            bar.set_position(done);
            bar.reset_eta();
            bar
        });
        Self { bar, name, total, start: done, started: Instant::now(), last_line: None }
    }

    /// Moves on to `done`; `message` is only asked for when it will be shown.
    pub fn update(&mut self, done: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message());
            return;
        }
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL);
        if due || done == self.total {
            self.last_line = Some(Instant::now());
            let (name, total) = (self.name, self.total);
            say(format_args!("{name} {done}/{total} {} eta {}", message(), self.eta(done)));
        }
    }

    /// Prints a line that stays, above the bar where there is one.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| {
                say(line);
                flush(Duration::from_secs(1));
            }),
            None => say(line),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn eta(&self, done: u64) -> String {
        let made = done.saturating_sub(self.start);
        if made == 0 {
            return "?".to_owned();
        }
        let per_unit = self.started.elapsed().as_secs_f64() / made as f64;
        let left = (per_unit * self.total.saturating_sub(done) as f64).round() as u64;
        match left {
            0..60 => format!("{left}s"),
            60..3600 => format!("{}m{:02}s", left / 60, left % 60),
            _ => format!("{}h{:02}m", left / 3600, left / 60 % 60),
        }
    }
}
