//! The group of one process.

use std::time::Duration;

use crate::group::{Group, Place};

/// The group of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Group for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn local(&self) -> Place {
        Place { rank: 0, size: 1 }
    }

    fn host(&self, _rank: usize) -> String {
        "this machine".to_owned()
    }

    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        vec![own.to_vec()]
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    fn all_to_all(&self, send: &[f32], received: &mut [f32]) {
        received.copy_from_slice(send);
    }

    fn all_gather(&self, own: &[f32], all: &mut [f32]) {
        all.copy_from_slice(own);
    }

    fn leave(&self, own: &[u8], _patience: Duration) -> Option<Vec<Vec<u8>>> {
        Some(vec![own.to_vec()])
    }

    fn abort(&self, code: u8) -> ! {
        std::process::exit(i32::from(code))
    }
}
