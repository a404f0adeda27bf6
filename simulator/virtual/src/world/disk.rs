use std::time::Duration;

use anyvip_core::state::{StoredState, StoredStateRead};
use anyvip_machine::{Failure, FailureKind};

/// The state directory.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What is in the state file.
    pub stored: Option<StoredState>,
    /// The file cannot be read, and why.
    pub unreadable: Option<String>,
    /// How long a write takes.
    pub latency: Duration,
    /// No space is left: writes fail.
    pub full: bool,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk { stored: None, unreadable: None, latency: Duration::from_millis(3), full: false }
    }
}

impl Disk {
    /// Whether there is room for a file.
    ///
    /// # Errors
    /// When it is full.
    pub(super) fn write(&self) -> Result<(), Failure> {
        match self.full {
            true => Err(Failure::new(FailureKind::Exhausted, "no space left on device")),
            false => Ok(()),
        }
    }

    /// What an agent finds at its start.
    pub fn read(&self) -> StoredStateRead {
        match (&self.unreadable, &self.stored) {
            (Some(why), _) => StoredStateRead::Unreadable(why.clone()),
            (None, Some(state)) => StoredStateRead::Read(state.clone()),
            (None, None) => StoredStateRead::Absent,
        }
    }
}
