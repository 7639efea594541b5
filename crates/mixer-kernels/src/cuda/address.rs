//! Places in a GPU's memory.

use std::num::NonZeroU64;

/// The address of memory on the device. Nothing but [`Address::new`] makes one from a number, so that whoever
/// has one may hand it to a kernel; how much is there, the sizes of the operation say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address(NonZeroU64);

impl Address {
    /// `None` for 0.
    ///
    /// # Safety
    /// The memory must be the device's, and stay where it is until our stream has passed whatever the address
    /// is handed to.
    pub(super) unsafe fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number, as the driver takes it.
    pub(super) fn get(self) -> u64 {
        self.0.get()
    }

    /// The address so many bytes further, in the same piece of memory.
    pub(super) fn plus(self, bytes: usize) -> Self {
        Self(self.0.saturating_add(bytes as u64))
    }
}
