//! The sign that a run works: a bar on a terminal, plain lines otherwise; always on stderr.

use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::show::console::{self, Tone};
use crate::show::visible::{visible, visible_lines};

/// Time between plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Time after which the clock of a bar is drawn again, also where nothing moves.
const TICK: Duration = Duration::from_millis(500);

/// Writes a line to stderr, soon: nothing waits for who reads it, and what cannot be shown is dropped. What
/// a terminal would obey is written out.
pub fn say(line: impl fmt::Display) {
    console::say(&visible(&line.to_string()), Tone::Plain);
}

/// The same for what has several lines.
pub fn say_lines(lines: impl fmt::Display) {
    console::say(&visible_lines(&lines.to_string()), Tone::Plain);
}

/// The same for what only this process of a run knows.
pub fn say_in_any_case(lines: impl fmt::Display) {
    console::say_in_any_case(&visible_lines(&lines.to_string()), Tone::Plain);
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
        let (started, start) = (Instant::now(), done);
        let has_bar = std::io::stderr().is_terminal() && !console::is_hushed();
        let bar = has_bar.then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let times = move |state: &ProgressState, text: &mut dyn fmt::Write| {
                let made = state.pos().saturating_sub(start);
                let left = total.saturating_sub(state.pos());
                text.write_str(&times(started.elapsed(), made, left)).unwrap_or_default();
            };
            let style = ProgressStyle::with_template("{prefix}, {times} {wide_bar}{msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.with_key("times", times));
            bar.set_prefix(format!("{name} {done}/{total}"));
            bar.set_position(done);
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, name, total, start, started, last_line: None }
    }

    /// Moves on to `done`.
    pub fn update(&mut self, done: u64) {
        let (name, total) = (self.name, self.total);
        self.update_with(done, || (format!("{name} {done}/{total}"), String::new()));
    }

    /// Moves on to `done`, with a text for the place where the work is and one for how it goes, which are only
    /// asked for when they will be shown.
    pub fn update_with(&mut self, done: u64, texts: impl FnOnce() -> (String, String)) {
        if let Some(bar) = &self.bar {
            let (place, state) = texts();
            bar.set_prefix(place);
            bar.set_message(on_next_line(&state));
            bar.set_position(done);
            return;
        }
        let due =
            done > self.start && self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL);
        if due || done == self.total {
            self.last_line = Some(Instant::now());
            let (place, state) = texts();
            let (made, left) = (done.saturating_sub(self.start), self.total.saturating_sub(done));
            let times = times(self.started.elapsed(), made, left);
            let colon = if state.is_empty() { "" } else { ": " };
            say(format_args!("{place}, {times}{colon}{state}"));
        }
    }

    /// Says in the second line of a bar what the work is at in between.
    pub fn meanwhile(&self, state: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(on_next_line(&state()));
        }
    }

    /// Prints a line that stays, above the bar where there is one.
    pub fn note(&self, line: &str, tone: Tone) {
        let say = || console::say(&visible(line), tone);
        match &self.bar {
            Some(bar) => bar.suspend(|| {
                say();
                flush(Duration::from_secs(1));
            }),
            None => say(),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    /// An error, too, finds no bar in its way.
    fn drop(&mut self) {
        self.finish();
    }
}

/// The second line of a bar.
fn on_next_line(state: &str) -> String {
    if state.is_empty() { String::new() } else { format!("\n  {state}") }
}

/// Time so far and time left, judged by what was made of it.
fn times(elapsed: Duration, made: u64, left: u64) -> String {
    let spent = clock(elapsed);
    if made == 0 {
        return spent;
    }
    let left = elapsed.as_secs_f64() / made as f64 * left as f64;
    // What takes centuries is not told to the second.
    let left = Duration::try_from_secs_f64(left.round()).unwrap_or(Duration::MAX);
    format!("{spent}, {} left", clock(left))
}

/// A length of time in its two greatest units.
fn clock(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds @ 3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        seconds => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_two_units_and_only_where_they_are_known() {
        let seconds = Duration::from_secs;
        assert_eq!(times(seconds(0), 0, 100), "0s");
        assert_eq!(times(seconds(7), 0, 100), "7s");
        assert_eq!(times(seconds(10), 10, 30), "10s, 30s left");
        assert_eq!(times(seconds(100), 1, 3600), "1m40s, 4d04h left");
        assert_eq!(times(seconds(7325), 5, 0), "2h02m, 0s left");
        assert_eq!(times(seconds(u64::MAX), 1, u64::MAX), times(seconds(u64::MAX), 1, u64::MAX));
    }
}
