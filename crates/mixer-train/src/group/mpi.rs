//! The processes that an MPI launcher has started. The one file that names MPI.
//!
//! Every call is made by the thread that joined. What may take long is asked for again and again, with
//! pauses: MPI itself would wait at full speed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::environment::{self, Universe};
use mpi::point_to_point::MatchedReceiveVec;
use mpi::request::{self, Request, Scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Root, Source};

use crate::error::TrainError;
use crate::group::watchdog::Waiting;
use crate::group::{Group, Place};

/// Bytes of a message: MPI counts in 32 bits.
const CHUNK: usize = 1 << 30;

/// Bytes of a machine's name.
const NAME: usize = 256;

/// Pause between two looks, once a moment has passed.
const PAUSE: Duration = Duration::from_micros(50);

/// Time in which a look is worth more than the processor.
const MOMENT: Duration = Duration::from_micros(200);

/// Tags of messages.
const WORD: i32 = 1;
const LEAVE: i32 = 2;
const LEFT: i32 = 3;
const VALUES: i32 = 4;

/// Time between two words on whom a rank waits for.
const NOTICE: Duration = Duration::from_millis(100);

/// The processes that a launcher has started.
pub(crate) struct Mpi {
    world: SimpleCommunicator,
    rank: usize,
    local: Place,
    /// Machine of each rank.
    hosts: Vec<String>,
    /// Not dropped but at an end that all come to: its drop waits for the others.
    universe: RefCell<Option<Universe>>,
    /// All have come to their end.
    has_left: Cell<bool>,
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank()).field("hosts", &self.hosts).finish()
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        let universe = self.universe.take();
        if self.has_left.get() {
            // All are at their end, so this waits for nobody.
            drop(universe);
        } else {
            std::mem::forget(universe);
        }
    }
}

/// The MPI that this binary was built with, in a line.
pub(crate) fn library() -> String {
    let version = environment::library_version().unwrap_or_default();
    let line = version.lines().next().unwrap_or_default();
    let line = line.split(',').next().unwrap_or_default().replace("Version:", " ");
    line.split_whitespace().collect::<Vec<_>>().join(" ").trim_matches('\0').to_owned()
}

impl Mpi {
    /// Joins the others; absent where MPI was joined before.
    ///
    /// # Errors
    /// [`TrainError::Io`] where this MPI cannot be called beside other threads.
    pub(crate) fn join() -> Result<Option<Self>, TrainError> {
        let Some((universe, threading)) =
            environment::initialize_with_threading(Threading::Funneled)
        else {
            return Ok(None);
        };
        if threading < Threading::Funneled {
            let message = "this MPI allows no other threads (MPI_THREAD_FUNNELED)";
            return Err(TrainError::Io(std::io::Error::other(message)));
        }
        let world = universe.world();
        let shared = world.split_shared(world.rank());
        let local = Place { rank: number(shared.rank()), size: number(shared.size()) };
        let mut name = environment::processor_name().unwrap_or_default().into_bytes();
        name.resize(NAME, 0);
        let mut names = vec![0; NAME * number(world.size())];
        world.all_gather_into(&name[..], &mut names[..]);
        let hosts = names
            .chunks_exact(NAME)
            .map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned());
        let hosts = hosts.collect();
        let rank = number(world.rank());
        Ok(Some(Self {
            world,
            rank,
            local,
            hosts,
            universe: RefCell::new(Some(universe)),
            has_left: Cell::new(false),
        }))
    }

    /// A rank and its machine, for messages.
    fn name(&self, rank: usize) -> String {
        format!("rank {rank} on {}", self.hosts[rank])
    }

    /// The ranks of which nothing has come.
    fn missing(&self, words: &[Option<Vec<u8>>]) -> String {
        let missing = words.iter().enumerate().filter(|(_, word)| word.is_none());
        self.names(missing.map(|(rank, _)| rank).collect())
    }

    /// Ranks and their machines, for messages.
    fn names(&self, ranks: BTreeSet<usize>) -> String {
        match (ranks.first(), ranks.last()) {
            (Some(first), Some(last)) if ranks.len() > 4 => {
                format!("{} ranks, from {} to {last}", ranks.len(), self.name(*first))
            }
            _ => ranks.iter().map(|rank| self.name(*rank)).collect::<Vec<_>>().join(", "),
        }
    }

    /// Sends each rank its part, and receives as much from each. By single messages, so that it is known whose
    /// has not come; MPI's collective operations do not tell.
    fn exchange<'a>(&self, part_of: impl Fn(usize) -> &'a [f32], received: &mut [f32]) {
        let waiting = Waiting::new("the others");
        let (own, ranks) = (self.rank, self.size());
        let part = received.len() / ranks;
        received[own * part..][..part].copy_from_slice(part_of(own));
        request::scope(|scope| {
            let mut receiving: Vec<_> = received
                .chunks_exact_mut(part)
                .enumerate()
                .filter(|(rank, _)| *rank != own)
                .map(|(rank, part)| {
                    let from = self.world.process_at_rank(rank_of(rank));
                    (rank, from.immediate_receive_into_with_tag(scope, part, VALUES))
                })
                .collect();
            // Each to its neighbour first: not all to the same one.
            let mut sending: Vec<_> = (1..ranks)
                .map(|distance| (own + distance) % ranks)
                .map(|rank| {
                    let to = self.world.process_at_rank(rank_of(rank));
                    (rank, to.immediate_send_with_tag(scope, part_of(rank), VALUES))
                })
                .collect();
            let mut noticed = Instant::now();
            while !(receiving.is_empty() && sending.is_empty()) {
                receiving = unfinished(receiving);
                sending = unfinished(sending);
                if noticed.elapsed() > NOTICE {
                    noticed = Instant::now();
                    let missing = receiving.iter().chain(&sending).map(|(rank, _)| *rank);
                    waiting.still(|| self.names(missing.collect()));
                }
                std::thread::yield_now();
            }
        });
    }

    /// Takes the words of all others, on rank 0, until `is_over`.
    fn collect(
        &self,
        tag: i32,
        own: &[u8],
        waiting: Option<&Waiting>,
        mut is_over: impl FnMut() -> bool,
    ) -> Option<Vec<Vec<u8>>> {
        let mut words: Vec<Option<Vec<u8>>> = vec![None; self.size()];
        words[0] = Some(own.to_vec());
        let mut left = self.size() - 1;
        let mut pause = Pause::new();
        while left > 0 {
            let Some(found) = self.world.any_process().immediate_matched_probe_with_tag(tag) else {
                if is_over() {
                    return None;
                }
                pause.take();
                continue;
            };
            let (word, status) = found.matched_receive_vec::<u8>();
            words[number(status.source_rank())] = Some(word);
            left -= 1;
            if left > 0
                && let Some(waiting) = waiting
            {
                waiting.still(|| self.missing(&words));
            }
        }
        Some(words.into_iter().flatten().collect())
    }
}

/// The messages that are still under way.
fn unfinished<'a, S: Scope<'a>>(
    messages: Vec<(usize, Request<'a, [f32], S>)>,
) -> Vec<(usize, Request<'a, [f32], S>)> {
    let test = |(rank, request): (usize, Request<'a, [f32], S>)| {
        request.test().err().map(|request| (rank, request))
    };
    messages.into_iter().filter_map(test).collect()
}

/// Pauses between looks, which begin when a moment has passed.
struct Pause {
    started: Instant,
}

impl Pause {
    fn new() -> Self {
        Self { started: Instant::now() }
    }

    fn take(&mut self) {
        if self.started.elapsed() < MOMENT {
            std::thread::yield_now();
        } else {
            std::thread::sleep(PAUSE);
        }
    }
}

/// A number of MPI, which is never below zero.
fn number(found: i32) -> usize {
    usize::try_from(found).unwrap_or_default()
}

fn rank_of(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Words one behind another, each behind its length.
fn packed(words: &[Vec<u8>]) -> Vec<u8> {
    words.iter().flat_map(|word| [&(word.len() as u64).to_le_bytes()[..], word].concat()).collect()
}

fn unpacked(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let length = (u64::from_le_bytes(*length) as usize).min(rest.len());
        let (word, rest) = rest.split_at(length);
        words.push(word.to_vec());
        bytes = rest;
    }
    words
}

impl Group for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.hosts.len()
    }

    fn local(&self) -> Place {
        self.local
    }

    fn host(&self, rank: usize) -> String {
        self.hosts.get(rank).cloned().unwrap_or_default()
    }

    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        if self.rank() == 0 {
            let waiting = Waiting::new(self.names((1..self.size()).collect()));
            let words = self.collect(WORD, own, Some(&waiting), || false).unwrap_or_default();
            drop(waiting);
            self.broadcast(packed(&words));
            words
        } else {
            // A long word leaves when rank 0 takes it.
            let waiting = Waiting::new(self.name(0));
            self.world.process_at_rank(0).send_with_tag(own, WORD);
            drop(waiting);
            unpacked(&self.broadcast(Vec::new()))
        }
    }

    fn broadcast(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let _waiting =
            Waiting::new(if self.rank() == 0 { "the others".to_owned() } else { self.name(0) });
        let root = self.world.process_at_rank(0);
        let mut length = [bytes.len() as u64];
        request::scope(|scope| {
            let mut pause = Pause::new();
            let mut request = root.immediate_broadcast_into(scope, &mut length);
            while let Err(again) = request.test() {
                request = again;
                pause.take();
            }
        });
        bytes.resize(length[0] as usize, 0);
        for chunk in bytes.chunks_mut(CHUNK) {
            root.broadcast_into(chunk);
        }
        bytes
    }

    fn all_to_all(&self, send: &[f32], received: &mut [f32]) {
        let part = received.len() / self.size();
        self.exchange(|rank| &send[rank * part..][..part], received);
    }

    fn all_gather(&self, own: &[f32], all: &mut [f32]) {
        self.exchange(|_| own, all);
    }

    fn leave(&self, own: &[u8], patience: Duration) -> Option<Vec<Vec<u8>>> {
        let deadline = Instant::now() + patience;
        let is_over = || Instant::now() >= deadline;
        let words = if self.rank() == 0 {
            let words = self.collect(LEAVE, own, None, is_over)?;
            let packed = packed(&words);
            for rank in 1..self.size() {
                self.world.process_at_rank(rank_of(rank)).send_with_tag(&packed[..], LEFT);
            }
            words
        } else {
            let root = self.world.process_at_rank(0);
            root.send_with_tag(own, LEAVE);
            let mut pause = Pause::new();
            loop {
                if let Some(found) = root.immediate_matched_probe_with_tag(LEFT) {
                    break unpacked(&found.matched_receive_vec::<u8>().0);
                }
                if is_over() {
                    return None;
                }
                pause.take();
            }
        };
        self.has_left.set(true);
        Some(words)
    }

    fn abort(&self, code: u8) -> ! {
        self.world.abort(i32::from(code))
    }
}
