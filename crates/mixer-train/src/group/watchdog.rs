//! The end of a rank that waits for others which do not come: they are stopped, or their machine is gone.
//! Nothing else would end it, as it waits inside MPI.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::error::exit_code;
use crate::show::progress;

/// Time after which it is said for whom a rank waits.
const NOTICE: Duration = Duration::from_secs(60);

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// A wait for other ranks.
#[derive(Debug)]
struct Wait {
    since: Instant,
    /// Ranks that have not come.
    whom: String,
    is_noticed: bool,
}

static WAIT: Mutex<Option<Wait>> = Mutex::new(None);

fn wait() -> MutexGuard<'static, Option<Wait>> {
    WAIT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A wait that is over when this is dropped.
#[cfg(feature = "mpi")]
#[derive(Debug)]
pub(crate) struct Waiting;

#[cfg(feature = "mpi")]
impl Waiting {
    /// Begins to wait for `whom`.
    pub(crate) fn new(whom: impl Into<String>) -> Self {
        *wait() = Some(Wait { since: Instant::now(), whom: whom.into(), is_noticed: false });
        Self
    }

    /// Tells who is still waited for.
    pub(crate) fn still(&self, whom: impl FnOnce() -> String) {
        if let Some(wait) = wait().as_mut() {
            wait.whom = whom();
        }
    }
}

#[cfg(feature = "mpi")]
impl Drop for Waiting {
    fn drop(&mut self) {
        *wait() = None;
    }
}

/// Ends this process, named `who`, as soon as it has waited longer than `limit`. Calling it again changes
/// nothing.
pub(crate) fn watch(who: String, limit: Duration) {
    static WATCHING: OnceLock<()> = OnceLock::new();
    WATCHING.get_or_init(|| {
        let look = move || {
            loop {
                std::thread::sleep(INTERVAL.min(limit));
                look(&who, limit);
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        // Without it a run is as without ranks that hang.
        if let Err(error) = thread.spawn(look) {
            progress::say(format_args!("warning: a rank that hangs will not be noticed: {error}"));
        }
    });
}

fn look(who: &str, limit: Duration) {
    let mut wait = wait();
    let Some(Wait { since, whom, is_noticed }) = wait.as_mut() else { return };
    let waited = since.elapsed();
    if waited >= limit {
        progress::say_in_any_case(format_args!(
            "error: {who} has waited {} s for {whom}",
            waited.as_secs()
        ));
        progress::say_in_any_case(
            "hint: see what that rank does; the same command continues from the last checkpoint \
             (`train.rank_timeout_secs` is the limit)",
        );
        progress::flush(Duration::from_secs(1));
        exit(i32::from(exit_code::RANK));
    }
    if waited >= NOTICE && !std::mem::replace(is_noticed, true) {
        progress::say_in_any_case(format_args!(
            "warning: {who} has waited {} s for {whom}",
            waited.as_secs()
        ));
    }
}

/// The end without destructors: MPI's would wait for the others.
fn exit(code: i32) -> ! {
    #[cfg(unix)]
    signal_hook::low_level::exit(code);
    #[cfg(not(unix))]
    std::process::exit(code);
}
