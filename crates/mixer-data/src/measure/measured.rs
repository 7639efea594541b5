//! A time together with what it is of.

/// A measured time.
#[derive(Clone, Copy, Debug)]
pub struct Measured<T> {
    /// The time that it took.
    pub time: T,
    /// Examples that were timed.
    pub examples: u64,
    /// Examples that could not be read and were left out.
    pub skipped: u64,
}
