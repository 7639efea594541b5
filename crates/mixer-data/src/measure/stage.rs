//! The stages that an example passes on its way into a batch, and a stopwatch for them.
//!
//! The code that prepares an example takes an observer of [`Laps`]. That of the ordinary [`Loader`] is `()`,
//! which compiles to nothing, so that measured is the code that trains.
//!
//! [`Loader`]: crate::Loader

use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use serde::{Deserialize, Serialize};

/// A stage of preparing an example.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The bytes of the file, from the disk or the system's cache. A source that draws its pictures
    /// does it here.
    Read,
    /// From bytes to the pixels of the region that the crop needs.
    Decode,
    /// Crop and resize to the network's input. With nothing behind it that needs the picture row by
    /// row, mirroring and cutting into patches too.
    Resize,
    /// RandAugment and random erasing, and then also mirroring.
    Augment,
    /// The copy into the batch, and cutting into patches where resizing did not.
    Patchify,
}

impl Stage {
    /// All, in the order that an example passes them.
    pub const ALL: [Stage; 5] =
        [Stage::Read, Stage::Decode, Stage::Resize, Stage::Augment, Stage::Patchify];

    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Decode => "decode",
            Stage::Resize => "resize",
            Stage::Augment => "augment",
            Stage::Patchify => "patchify",
        }
    }
}

/// Time on the clock, and the part of it in which a processor worked.
///
/// The difference is waiting: for a disk, or for a processor that does something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTime {
    /// Time on the clock.
    pub wall: Duration,
    /// Time on a processor.
    pub cpu: Duration,
}

impl std::ops::AddAssign for StageTime {
    fn add_assign(&mut self, other: StageTime) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

/// Time that each stage took for some examples, on one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    times: [StageTime; Stage::ALL.len()],
}

impl StageTimes {
    /// Time in a stage.
    pub fn of(&self, stage: Stage) -> StageTime {
        self.times[stage as usize]
    }

    /// Time in all of them.
    pub fn total(&self) -> StageTime {
        let mut total = StageTime::default();
        self.times.iter().for_each(|time| total += *time);
        total
    }
}

/// Told whenever a stage has ended.
pub(crate) trait Laps {
    /// All that was done since the call before belongs to this stage.
    fn lap(&mut self, stage: Stage);
}

/// The laps of who does not measure: none.
impl Laps for () {
    #[inline(always)]
    fn lap(&mut self, _stage: Stage) {}
}

/// Sums up the time of each stage on the calling thread.
pub(crate) struct Stopwatch {
    pub(crate) times: StageTimes,
    wall: Instant,
    cpu: ThreadTime,
}

impl Stopwatch {
    /// Running from now on.
    pub(crate) fn start() -> Self {
        Self { times: StageTimes::default(), wall: Instant::now(), cpu: ThreadTime::now() }
    }
}

impl Laps for Stopwatch {
    fn lap(&mut self, stage: Stage) {
        let (wall, cpu) = (Instant::now(), ThreadTime::now());
        self.times.times[stage as usize] +=
            StageTime { wall: wall - self.wall, cpu: cpu.duration_since(self.cpu) };
        (self.wall, self.cpu) = (wall, cpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lap_belongs_to_the_stage_that_ended_and_sleeping_is_not_work() {
        let mut watch = Stopwatch::start();
        std::thread::sleep(Duration::from_millis(5));
        watch.lap(Stage::Read);
        watch.lap(Stage::Decode);
        let read = watch.times.of(Stage::Read);
        assert!(read.wall >= Duration::from_millis(5) && read.cpu < read.wall, "{read:?}");
        assert_eq!(watch.times.of(Stage::Patchify), StageTime::default());
        let total = watch.times.total();
        assert_eq!(total.wall, read.wall + watch.times.of(Stage::Decode).wall);
    }

    #[test]
    fn stages_are_indexed_in_their_order_and_named_as_in_json() {
        for (at, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, at);
            assert_eq!(serde_json::to_string(&stage).unwrap(), format!("\"{}\"", stage.name()));
        }
    }
}
