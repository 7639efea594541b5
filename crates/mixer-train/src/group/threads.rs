//! A group of threads, for tests.

use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use crate::group::{Group, Place};

/// A thread of a group.
#[derive(Debug)]
pub(crate) struct ThreadRank {
    rank: usize,
    meeting: Arc<Meeting>,
}

#[derive(Debug)]
struct Meeting {
    /// Words of each rank.
    words: Mutex<Vec<Vec<u8>>>,
    barrier: Barrier,
}

/// Runs `work` as every rank of a group, and returns the results in order of rank.
pub(crate) fn together<T: Send>(ranks: usize, work: impl Fn(&dyn Group) -> T + Sync) -> Vec<T> {
    let words = Mutex::new(vec![Vec::new(); ranks]);
    let meeting = Arc::new(Meeting { words, barrier: Barrier::new(ranks) });
    std::thread::scope(|scope| {
        let start = |rank| {
            let (rank, work) = (ThreadRank { rank, meeting: Arc::clone(&meeting) }, &work);
            scope.spawn(move || work(&rank))
        };
        let threads: Vec<_> = (0..ranks).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

impl Group for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.meeting.words.lock().unwrap().len()
    }

    fn local(&self) -> Place {
        Place { rank: self.rank, size: self.size() }
    }

    fn host(&self, _rank: usize) -> String {
        "here".to_owned()
    }

    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        self.meeting.words.lock().unwrap()[self.rank] = own.to_vec();
        self.meeting.barrier.wait();
        let all = self.meeting.words.lock().unwrap().clone();
        self.meeting.barrier.wait();
        all
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8> {
        self.gather(&bytes).swap_remove(0)
    }

    fn all_to_all(&self, send: &[f32], received: &mut [f32]) {
        let part = send.len() / self.size();
        let all = self.gather(&bytes(send));
        for (received, of_rank) in received.chunks_exact_mut(part).zip(all) {
            received.copy_from_slice(&floats(&of_rank)[self.rank * part..][..part]);
        }
    }

    fn all_gather(&self, own: &[f32], all: &mut [f32]) {
        let of_all = self.gather(&bytes(own));
        for (all, of_rank) in all.chunks_exact_mut(own.len()).zip(of_all) {
            all.copy_from_slice(&floats(&of_rank));
        }
    }

    fn leave(&self, own: &[u8], _patience: Duration) -> Option<Vec<Vec<u8>>> {
        Some(self.gather(own))
    }

    fn abort(&self, code: u8) -> ! {
        panic!("aborted with {code}")
    }
}
