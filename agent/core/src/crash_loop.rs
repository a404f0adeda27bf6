//! After several unclean exits announcing waits, so that a crashing agent does not flap routes.

use std::time::Duration;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use crate::state::StoredState;

/// Unclean exits are counted over this long.
const WINDOW_MS: u64 = 10 * 60 * 1000;
/// From this many on announcing waits.
const TOLERATED: usize = 3;
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How many exits the state keeps.
const KEPT: usize = 16;

/// Whether announcing waits, and until when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CrashLoop {
    /// Unclean exits in the last ten minutes.
    pub(crate) exits: usize,
    waits_until: Option<Time>,
}

impl CrashLoop {
    /// Reads the exits of the past and writes down the last one, if it was unclean. `now_ms` is the wall clock.
    pub(crate) fn begin(state: &mut StoredState, now_ms: u64) -> CrashLoop {
        if state.running_since.take().is_some() {
            state.unclean_exits.push(now_ms);
            let surplus = state.unclean_exits.len().saturating_sub(KEPT);
            state.unclean_exits.drain(..surplus);
        }
        state.running_since = Some(now_ms);
        // A clock that was set back a little must not hide exits.
        let exits = state.unclean_exits.iter().filter(|at| at.abs_diff(now_ms) <= WINDOW_MS).count();
        let doublings = exits.checked_sub(TOLERATED);
        let wait = doublings.map(|n| (FIRST_WAIT * (1 << n.min(10))).min(LONGEST_WAIT));
        CrashLoop { exits, waits_until: wait.map(|wait| Time::ZERO + wait) }
    }

    /// Whether announcing waits.
    pub(crate) fn waits(&self) -> bool {
        self.waits_until.is_some()
    }

    /// Its end.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.waits_until
    }

    /// Lets time act; true if waiting ended.
    pub(crate) fn expire(&mut self, now: Time) -> bool {
        let over = self.waits_until.is_some_and(|until| until <= now);
        if over {
            self.waits_until = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_after(exits: &[u64], running: bool, now_ms: u64) -> Option<u64> {
        let mut state = StoredState {
            unclean_exits: exits.to_vec(),
            running_since: running.then_some(1),
            ..StoredState::default()
        };
        CrashLoop::begin(&mut state, now_ms).deadline().map(|t| t.as_millis() / 1000)
    }

    #[test]
    fn the_third_unclean_exit_in_ten_minutes_waits_ten_seconds_and_each_more_doubles_it() {
        let now = 10_000_000;
        assert_eq!(wait_after(&[], true, now), None);
        assert_eq!(wait_after(&[now - 1000], true, now), None);
        assert_eq!(wait_after(&[now - 2000, now - 1000], true, now), Some(10));
        assert_eq!(wait_after(&[now - 3; 3], true, now), Some(20));
        assert_eq!(wait_after(&[now - 3; 7], true, now), Some(300));
        assert_eq!(wait_after(&[now - 3; 15], true, now), Some(300));
    }

    #[test]
    fn old_exits_and_clean_ends_do_not_count() {
        let now = 10_000_000;
        assert_eq!(wait_after(&[now - WINDOW_MS - 1; 5], true, now), None);
        assert_eq!(wait_after(&[now - 2000, now - 1000], false, now), None);
    }

    #[test]
    fn at_most_sixteen_exits_are_kept() {
        let mut state = StoredState {
            unclean_exits: (0..16).collect(),
            running_since: Some(1),
            ..StoredState::default()
        };
        CrashLoop::begin(&mut state, 99);
        assert_eq!(state.unclean_exits.len(), 16);
        assert_eq!(state.unclean_exits.last(), Some(&99));
        assert_eq!(state.running_since, Some(99));
    }
}
