//! Writing the state: one write in flight, newest wins, a failed one is tried again.

use std::time::Duration;

use anyvip_machine::{Failure, FailureKind, Time};
use serde::{Deserialize, Serialize};

use crate::attempt::GUARD;

/// Which generation of the state is on disk, on its way, or due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Store {
    /// Newest generation known to be on disk.
    written: u64,
    /// Newest generation handed out.
    issued: u64,
    in_flight: Option<(u64, Time)>,
    /// Something is to be written.
    dirty: bool,
    retry_at: Option<Time>,
    failures: u32,
    failure: Option<Failure>,
    /// The state on disk could not be read: writing would destroy it.
    frozen: bool,
}

impl Store {
    /// A store whose disk holds `generation`; a frozen one never writes.
    pub(crate) fn new(generation: u64, frozen: bool) -> Store {
        Store {
            written: generation,
            issued: generation,
            in_flight: None,
            dirty: false,
            retry_at: None,
            failures: 0,
            failure: None,
            frozen,
        }
    }

    /// Something changed; returns the generation that will carry it.
    pub(crate) fn change(&mut self) -> u64 {
        self.dirty = !self.frozen;
        self.issued + 1
    }

    /// Somebody waits for it: the pause after a failure is over.
    pub(crate) fn hurry(&mut self) {
        self.retry_at = None;
    }

    /// Whether that generation is on disk.
    pub(crate) fn holds(&self, generation: u64) -> bool {
        self.written >= generation
    }

    /// Whether nothing can be written for now.
    pub(crate) fn fails(&self) -> bool {
        self.failure.is_some()
    }

    /// Whether everything is on disk.
    pub(crate) fn clean(&self) -> bool {
        !self.dirty && self.in_flight.is_none()
    }

    /// The generation that carries all that has changed so far.
    pub(crate) fn newest(&self) -> u64 {
        self.issued + u64::from(self.dirty)
    }

    /// Why the last write failed, until one succeeds.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The generation to write now, if one is due.
    pub(crate) fn flush(&mut self, now: Time) -> Option<u64> {
        if !self.dirty || self.frozen || self.in_flight.is_some() || self.retry_at.is_some() {
            return None;
        }
        self.issued += 1;
        self.dirty = false;
        self.in_flight = Some((self.issued, now + GUARD));
        Some(self.issued)
    }

    /// A write ended. `None`: not the one in flight.
    pub(crate) fn finished(
        &mut self,
        now: Time,
        generation: u64,
        result: Result<(), Failure>,
    ) -> Option<Outcome> {
        match self.in_flight {
            Some((asked, _)) if asked == generation => {}
            _ => return None,
        }
        self.in_flight = None;
        Some(match result {
            Ok(()) => {
                self.written = generation;
                (self.failures, self.failure, self.retry_at) = (0, None, None);
                Outcome::Written
            }
            Err(failure) => self.failed(now, failure),
        })
    }

    /// Its next moment.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let guard = self.in_flight.map(|(_, guard)| guard);
        match (guard, self.retry_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Lets time act.
    pub(crate) fn expire(&mut self, now: Time) -> Option<Outcome> {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        let (_, guard) = self.in_flight?;
        if guard > now {
            return None;
        }
        self.in_flight = None;
        Some(self.failed(now, Failure::new(FailureKind::Unanswered, "the write never ended")))
    }

    fn failed(&mut self, now: Time, failure: Failure) -> Outcome {
        self.dirty = true;
        let pause = Duration::from_secs(1 << self.failures.min(5)).min(Duration::from_secs(30));
        self.retry_at = Some(now + pause);
        self.failures = self.failures.saturating_add(1);
        let first = self.failure.as_ref() != Some(&failure);
        self.failure = Some(failure.clone());
        Outcome::Failed { failure, first }
    }
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Written,
    /// `first`: not the same failure as before.
    Failed {
        failure: Failure,
        first: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_is_in_flight_and_the_newest_state_follows_it() {
        let mut store = Store::new(4, false);
        assert_eq!(store.change(), 5);
        assert_eq!(store.flush(Time::ZERO), Some(5));
        assert_eq!(store.change(), 6);
        assert_eq!(store.change(), 6);
        assert_eq!(store.flush(Time::ZERO), None);
        assert_eq!(store.finished(Time::ZERO, 5, Ok(())), Some(Outcome::Written));
        assert!(store.holds(5) && !store.holds(6));
        assert_eq!(store.flush(Time::ZERO), Some(6));
        store.finished(Time::ZERO, 6, Ok(())).unwrap();
        assert!(store.clean() && store.holds(6));
        assert_eq!(store.flush(Time::ZERO), None);
    }

    #[test]
    fn a_failed_write_is_tried_again_under_a_new_generation_after_a_pause() {
        let mut store = Store::new(0, false);
        store.change();
        store.flush(Time::ZERO).unwrap();
        let full = Failure::new(FailureKind::Exhausted, "no space left on device");
        let failed = |first| Some(Outcome::Failed { failure: full.clone(), first });
        assert_eq!(store.finished(Time::ZERO, 1, Err(full.clone())), failed(true));
        assert_eq!(store.flush(Time::ZERO), None);
        assert_eq!(store.deadline(), Some(Time::from_secs(1)));
        store.expire(Time::from_secs(1));
        assert_eq!(store.flush(Time::from_secs(1)), Some(2));
        assert_eq!(store.finished(Time::from_secs(1), 2, Err(full.clone())), failed(false));
        assert_eq!(store.deadline(), Some(Time::from_secs(3)));
        assert!(!store.clean());
    }

    #[test]
    fn a_frozen_store_never_writes() {
        let mut store = Store::new(0, true);
        let generation = store.change();
        assert_eq!(store.flush(Time::ZERO), None);
        assert!(store.clean() && !store.holds(generation));
    }

    #[test]
    fn a_write_that_never_ends_counts_as_failed() {
        let mut store = Store::new(0, false);
        store.change();
        store.flush(Time::ZERO).unwrap();
        assert_eq!(store.expire(Time::from_secs(9)), None);
        assert!(matches!(store.expire(Time::from_secs(10)), Some(Outcome::Failed { .. })));
        assert_eq!(store.finished(Time::from_secs(10), 1, Ok(())), None);
    }
}
