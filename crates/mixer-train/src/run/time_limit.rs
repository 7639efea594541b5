//! `--max-time`: a run that ends by itself before a queue would end it.

use std::time::{Duration, Instant};

/// Left over at the end whatever was measured.
const MARGIN: Duration = Duration::from_secs(1);

/// Bytes per second that a disk is trusted to write before it has shown what it can.
const ASSUMED_BYTES_PER_SEC: u64 = 100_000_000;

/// Time by which the process has to be over.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    deadline: Instant,
}

impl TimeLimit {
    /// So long after `start`. What the clock of the wall does is of no matter.
    #[must_use]
    pub fn after(start: Instant, length: Duration) -> Option<Self> {
        start.checked_add(length).map(|deadline| Self { deadline })
    }

    /// `true` where there is time for `work`, and for saving after it. Saving may take twice as long as it
    /// ever has: `longest_save`; where nothing has been saved yet, what its `bytes` would take.
    #[must_use]
    pub fn allows(&self, work: Duration, longest_save: Option<Duration>, bytes: u64) -> bool {
        let save = longest_save
            .unwrap_or(Duration::from_millis(1000 * bytes / ASSUMED_BYTES_PER_SEC))
            .saturating_mul(2);
        let needed = work.saturating_add(save).saturating_add(MARGIN);
        Instant::now().checked_add(needed).is_some_and(|end| end <= self.deadline)
    }
}

/// Reads `3h50m`, `90s` or `2days 4h`.
///
/// # Errors
/// The fault that was found.
pub fn parse(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write `3h50m`, `45min` or `90s`"))?;
    match length.is_zero() {
        true => Err("expected more than no time".to_owned()),
        false => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_they_are_written_for_a_queue() {
        let minutes = |minutes: u64| Ok(Duration::from_secs(60 * minutes));
        assert_eq!(parse("3h50m"), minutes(230));
        assert_eq!(parse("1day 2h"), minutes(26 * 60));
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "ten", "10", "-1h", "0s", "1h1", "99999999999999999999h"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn time_is_left_for_saving() {
        let seconds = Duration::from_secs;
        let limit = TimeLimit::after(Instant::now(), seconds(100)).unwrap();
        assert!(limit.allows(seconds(30), Some(seconds(30)), 0));
        assert!(!limit.allows(seconds(40), Some(seconds(30)), 0));
        assert!(!limit.allows(seconds(0), Some(seconds(50)), 0));
        // 4 GB, twice.
        assert!(limit.allows(seconds(10), None, 4_000_000_000));
        assert!(!limit.allows(seconds(25), None, 4_000_000_000));
        assert!(!limit.allows(Duration::MAX, None, 0));
    }
}
