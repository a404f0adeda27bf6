//! Rise and fall of one check against one target.

use std::time::Duration;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use crate::boundary::{HealthState, ProbeOutcome, ProbeResult};

/// Turns probe results into up and down. Errors are kept apart: they neither count toward fall nor break a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HealthFsm {
    state: HealthState,
    since: Time,
    rise: u32,
    fall: u32,
    passes: u32,
    fails: u32,
    errors: u32,
    /// Equal results in a row, of any kind.
    run: u32,
    last: Option<ProbeOutcome>,
    /// When it passed or failed last, to this machine's knowledge.
    heard: Option<Time>,
    /// The state is that of a former process: how old it was, and when it was taken over. Until own results decide.
    inherited: Option<(Duration, Time)>,
}

/// What one result did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The state turned: from, to, and how long it had stood.
    pub(crate) state: Option<(HealthState, HealthState, Duration)>,
    /// A run of errors began (`true`) or ended (`false`).
    pub(crate) errors: Option<bool>,
    /// Whether anything that a gate asks for changed.
    pub(crate) matters: bool,
}

impl HealthFsm {
    /// A machine in `state`; `Unknown` unless inherited from what was there before.
    pub(crate) fn new(now: Time, state: HealthState, rise: u32, fall: u32) -> HealthFsm {
        HealthFsm {
            state,
            since: now,
            rise: rise.max(1),
            fall: fall.max(1),
            passes: 0,
            fails: 0,
            errors: 0,
            run: 0,
            last: None,
            heard: None,
            inherited: None,
        }
    }

    /// A machine that stands where that of a former process stood, `age` ago.
    pub(crate) fn inherit(now: Time, state: HealthState, age: Duration, rise: u32, fall: u32) -> HealthFsm {
        HealthFsm { inherited: Some((age, now)), ..HealthFsm::new(now, state, rise, fall) }
    }

    /// How old the state is, if it is that of a former process.
    pub(crate) fn inherited(&self, now: Time) -> Option<Duration> {
        self.inherited.map(|(age, since)| age.saturating_add(now.since(since)))
    }

    /// How long ago it passed or failed last.
    pub(crate) fn heard(&self, now: Time) -> Option<Duration> {
        self.heard.map(|heard| now.since(heard)).or_else(|| self.inherited(now))
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> HealthState {
        self.state
    }

    /// Equal results in a row.
    pub(crate) fn consecutive(&self) -> u32 {
        self.run
    }

    /// The last result.
    pub(crate) fn last(&self) -> Option<&ProbeOutcome> {
        self.last.as_ref()
    }

    /// Whether the last probe could not be made.
    pub(crate) fn erring(&self) -> bool {
        self.errors > 0
    }

    /// Whether probes could not be made `fall` times in a row: long enough for `on_error = "fail"`.
    pub(crate) fn failed_by_errors(&self) -> bool {
        self.errors >= self.fall
    }

    /// Takes one result.
    pub(crate) fn take(&mut self, now: Time, outcome: ProbeOutcome) -> Change {
        let erring = (self.erring(), self.failed_by_errors());
        let same = self.last.as_ref().is_some_and(|last| last.result == outcome.result);
        self.run = if same { self.run.saturating_add(1) } else { 1 };
        let decided = match outcome.result {
            ProbeResult::Pass => {
                self.passes = self.passes.saturating_add(1);
                (self.fails, self.errors) = (0, 0);
                (self.passes >= self.rise).then_some(HealthState::Up)
            }
            ProbeResult::Fail => {
                self.fails = self.fails.saturating_add(1);
                (self.passes, self.errors) = (0, 0);
                (self.fails >= self.fall).then_some(HealthState::Down)
            }
            ProbeResult::Error => {
                self.errors = self.errors.saturating_add(1);
                None
            }
        };
        if outcome.result != ProbeResult::Error {
            self.heard = Some(now);
        }
        self.last = Some(outcome);
        let confirmed = decided.is_some() && self.inherited.take().is_some();
        let state = decided.and_then(|to| self.turn(now, to));
        let errors = (erring.0 != self.erring()).then_some(self.erring());
        let matters = confirmed || state.is_some() || erring.1 != self.failed_by_errors();
        Change { state, errors, matters }
    }

    /// Other thresholds; the state stands, the count begins anew.
    pub(crate) fn retune(&mut self, rise: u32, fall: u32) {
        (self.rise, self.fall) = (rise.max(1), fall.max(1));
        (self.passes, self.fails) = (0, 0);
    }

    /// Forgets what was known: the target was away and may have changed meanwhile.
    pub(crate) fn forget(&mut self, now: Time) -> Change {
        (self.passes, self.fails, self.errors, self.run) = (0, 0, 0, 0);
        (self.heard, self.inherited) = (None, None);
        let state = self.turn(now, HealthState::Unknown);
        Change { matters: state.is_some(), errors: None, state }
    }

    fn turn(&mut self, now: Time, to: HealthState) -> Option<(HealthState, HealthState, Duration)> {
        let from = self.state;
        if from == to {
            return None;
        }
        let stood = now.since(self.since);
        (self.state, self.since) = (to, now);
        Some((from, to, stood))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProbeResult::{Error, Fail, Pass};

    fn feed(fsm: &mut HealthFsm, results: &[ProbeResult]) -> Vec<Change> {
        let outcome = |result: &ProbeResult| ProbeOutcome {
            result: *result,
            latency: Duration::from_millis(1),
            detail: String::new(),
        };
        results.iter().map(|r| fsm.take(Time::from_secs(1), outcome(r))).collect()
    }

    fn fsm() -> HealthFsm {
        HealthFsm::new(Time::ZERO, HealthState::Unknown, 2, 3)
    }

    #[test]
    fn it_rises_after_rise_passes_and_falls_after_fall_fails() {
        let mut fsm = fsm();
        feed(&mut fsm, &[Pass]);
        assert_eq!(fsm.state(), HealthState::Unknown);
        let changes = feed(&mut fsm, &[Pass]);
        assert_eq!(changes[0].state, Some((HealthState::Unknown, HealthState::Up, Duration::from_secs(1))));
        feed(&mut fsm, &[Fail, Fail]);
        assert_eq!(fsm.state(), HealthState::Up);
        feed(&mut fsm, &[Fail]);
        assert_eq!(fsm.state(), HealthState::Down);
    }

    #[test]
    fn flapping_below_fall_never_turns_it() {
        let mut fsm = fsm();
        feed(&mut fsm, &[Pass, Pass]);
        for _ in 0..100 {
            assert!(feed(&mut fsm, &[Fail, Fail, Pass]).iter().all(|c| !c.matters));
        }
        assert_eq!(fsm.state(), HealthState::Up);
    }

    #[test]
    fn errors_never_count_toward_fall_and_do_not_break_a_row() {
        let mut fsm = fsm();
        feed(&mut fsm, &[Pass, Pass]);
        feed(&mut fsm, &[Error; 50]);
        assert_eq!(fsm.state(), HealthState::Up);
        feed(&mut fsm, &[Fail, Error, Fail, Error]);
        assert_eq!(fsm.state(), HealthState::Up);
        feed(&mut fsm, &[Fail]);
        assert_eq!(fsm.state(), HealthState::Down);
    }

    #[test]
    fn the_beginning_and_the_end_of_a_run_of_errors_are_told_once() {
        let mut fsm = fsm();
        let told: Vec<_> =
            feed(&mut fsm, &[Error, Error, Error, Pass, Pass]).into_iter().map(|c| c.errors).collect();
        assert_eq!(told, [Some(true), None, None, Some(false), None]);
    }

    #[test]
    fn errors_matter_to_gates_only_after_fall_in_a_row() {
        let mut fsm = fsm();
        let matters: Vec<_> =
            feed(&mut fsm, &[Error, Error, Error, Error]).into_iter().map(|c| c.matters).collect();
        assert_eq!(matters, [false, false, true, false]);
        assert!(fsm.failed_by_errors());
        assert!(feed(&mut fsm, &[Fail])[0].matters);
    }

    #[test]
    fn new_thresholds_keep_the_state() {
        let mut fsm = fsm();
        feed(&mut fsm, &[Pass, Pass, Fail, Fail]);
        fsm.retune(5, 3);
        assert_eq!(fsm.state(), HealthState::Up);
        feed(&mut fsm, &[Fail, Fail]);
        assert_eq!(fsm.state(), HealthState::Up, "the fails before the change are not counted");
        feed(&mut fsm, &[Fail]);
        assert_eq!(fsm.state(), HealthState::Down);
    }

    #[test]
    fn what_is_inherited_stands_until_own_results_decide_and_its_age_is_known() {
        let second = Time::from_secs(1);
        let inherited = || HealthFsm::inherit(second, HealthState::Up, Duration::from_secs(2), 2, 2);
        assert_eq!(inherited().inherited(Time::from_secs(4)), Some(Duration::from_secs(5)));
        let mut fsm = inherited();
        assert!(feed(&mut fsm, &[Error, Pass]).iter().all(|change| !change.matters));
        assert!(fsm.inherited(second).is_some());
        let confirmed = feed(&mut fsm, &[Pass]).remove(0);
        assert_eq!((confirmed.state, confirmed.matters), (None, true));
        assert!(fsm.inherited(second).is_none() && fsm.state() == HealthState::Up);
        let mut fsm = inherited();
        feed(&mut fsm, &[Fail]);
        assert_eq!((fsm.state(), fsm.inherited(second).is_some()), (HealthState::Up, true));
        feed(&mut fsm, &[Fail]);
        assert_eq!((fsm.state(), fsm.inherited(second)), (HealthState::Down, None));
    }

    #[test]
    fn an_error_says_nothing_about_when_it_was_heard_of() {
        let mut fsm = fsm();
        assert_eq!(fsm.heard(Time::from_secs(3)), None);
        feed(&mut fsm, &[Error]);
        assert_eq!(fsm.heard(Time::from_secs(3)), None);
        feed(&mut fsm, &[Fail]);
        assert_eq!(fsm.heard(Time::from_secs(3)), Some(Duration::from_secs(2)));
    }

    #[test]
    fn consecutive_counts_equal_results() {
        let mut fsm = fsm();
        feed(&mut fsm, &[Pass, Pass, Pass]);
        assert_eq!(fsm.consecutive(), 3);
        feed(&mut fsm, &[Error]);
        assert_eq!(fsm.consecutive(), 1);
    }
}
