//! When a check runs: one probe in flight per check and target, spread out, never in bursts.

use std::time::Duration;

use anyvip_machine::{Seed, Time};
use serde::{Deserialize, Serialize};

use crate::boundary::ProbeId;

/// The driver enforces a probe's timeout, in time that it ran, and may try once more; this much later the machine stops
/// waiting for it, which is a bug.
pub(crate) const GUARD_AFTER_TIMEOUT: Duration = Duration::from_secs(10);
/// A start comes up to this share of the interval earlier, never later.
const JITTER_PERMILLE: u64 = 50;

/// The starts of one check against one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Schedule {
    interval: Duration,
    timeout: Duration,
    seed: Seed,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Its target is not there.
    Paused,
    /// The next start.
    Waiting { start: Time },
    /// A probe runs.
    Running { probe: ProbeId, started: Time, guard: Time },
}

/// What has come due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Start a probe now.
    Start,
    /// This probe was never answered.
    Unanswered(ProbeId),
}

impl Schedule {
    /// A paused schedule.
    pub(crate) fn new(interval: Duration, timeout: Duration, seed: Seed) -> Schedule {
        Schedule { interval, timeout, seed, phase: Phase::Paused }
    }

    /// Begins with a random phase, so that a fleet that restarts together does not probe together.
    pub(crate) fn begin(&mut self, now: Time) {
        if self.phase == Phase::Paused {
            let most = self.interval.saturating_sub(Duration::from_nanos(1));
            self.phase = Phase::Waiting { start: now + self.seed.between(Duration::ZERO, most) };
        }
    }

    /// Stops; the probe in flight, if any, is not awaited any more.
    pub(crate) fn pause(&mut self) -> Option<ProbeId> {
        let probe = self.in_flight();
        self.phase = Phase::Paused;
        probe
    }

    /// Other times; a start that was set stays, so that a reload does not probe everything at once.
    pub(crate) fn retune(&mut self, now: Time, interval: Duration, timeout: Duration) {
        (self.interval, self.timeout) = (interval, timeout);
        if let Phase::Waiting { start } = &mut self.phase {
            *start = (*start).min(now + interval);
        }
    }

    /// The probe that runs.
    pub(crate) fn in_flight(&self) -> Option<ProbeId> {
        match self.phase {
            Phase::Running { probe, .. } => Some(probe),
            _ => None,
        }
    }

    /// Whether it does nothing.
    pub(crate) fn paused(&self) -> bool {
        self.phase == Phase::Paused
    }

    /// Its next moment.
    pub(crate) fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Paused => None,
            Phase::Waiting { start } => Some(start),
            Phase::Running { guard, .. } => Some(guard),
        }
    }

    /// What `now` makes due.
    pub(crate) fn due(&self, now: Time) -> Option<Due> {
        match self.phase {
            Phase::Waiting { start } if start <= now => Some(Due::Start),
            Phase::Running { probe, guard, .. } if guard <= now => Some(Due::Unanswered(probe)),
            _ => None,
        }
    }

    /// A probe was started.
    pub(crate) fn started(&mut self, now: Time, probe: ProbeId) {
        self.phase = Phase::Running { probe, started: now, guard: self.guard_from(now) };
    }

    /// The process stood still until now: so did its probe, and whoever has to answer for it.
    pub(crate) fn forgive(&mut self, now: Time) {
        let from_now = self.guard_from(now);
        if let Phase::Running { guard, .. } = &mut self.phase {
            *guard = from_now.max(*guard);
        }
    }

    fn guard_from(&self, now: Time) -> Time {
        now + self.timeout * 2 + GUARD_AFTER_TIMEOUT
    }

    /// It ended. False if it is not the one in flight.
    pub(crate) fn finished(&mut self, now: Time, ended: ProbeId) -> bool {
        match self.phase {
            Phase::Running { probe, started, .. } if probe == ended => {
                let least = self.interval / 1000 * u32::try_from(1000 - JITTER_PERMILLE).unwrap_or(1000);
                let interval = self.seed.between(least, self.interval);
                self.phase = Phase::Waiting { start: (started + interval).max(now) };
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(1000);
    const TIMEOUT: Duration = Duration::from_millis(500);

    fn schedule(seed: u64) -> Schedule {
        Schedule::new(INTERVAL, TIMEOUT, Seed::new(seed))
    }

    #[test]
    fn the_first_start_is_spread_over_one_interval() {
        let starts: Vec<_> = (0..200)
            .map(|seed| {
                let mut one = schedule(seed);
                one.begin(Time::ZERO);
                one.deadline().unwrap().as_millis()
            })
            .collect();
        assert!(starts.iter().all(|ms| *ms < 1000));
        assert!(starts.iter().any(|ms| *ms < 100) && starts.iter().any(|ms| *ms > 900));
    }

    #[test]
    fn the_next_start_is_at_most_five_percent_early_and_never_late() {
        let mut one = schedule(3);
        one.begin(Time::ZERO);
        let mut now = one.deadline().unwrap();
        let mut gaps = Vec::new();
        for n in 0..500 {
            assert_eq!(one.due(now), Some(Due::Start));
            one.started(now, ProbeId(n));
            assert!(one.finished(now + Duration::from_millis(3), ProbeId(n)));
            let next = one.deadline().unwrap();
            gaps.push(next.since(now));
            now = next;
        }
        assert!(gaps.iter().all(|g| (INTERVAL * 95 / 100..=INTERVAL).contains(g)));
        assert!(
            gaps.iter().any(|g| *g < INTERVAL * 96 / 100) && gaps.iter().any(|g| *g > INTERVAL * 99 / 100)
        );
    }

    #[test]
    fn a_probe_that_outlasts_the_interval_is_followed_at_once_by_one_not_many() {
        let mut one = schedule(1);
        one.begin(Time::ZERO);
        one.started(Time::from_secs(1), ProbeId(1));
        let end = Time::from_secs(9);
        assert!(one.finished(end, ProbeId(1)));
        assert_eq!(one.deadline(), Some(end));
        one.started(end, ProbeId(2));
        assert_eq!(one.due(end), None);
    }

    #[test]
    fn an_unanswered_probe_comes_due_ten_seconds_after_its_second_timeout() {
        let mut one = schedule(1);
        one.begin(Time::ZERO);
        one.started(Time::from_secs(1), ProbeId(7));
        assert_eq!(one.due(Time::from_millis(11_999)), None);
        assert_eq!(one.due(Time::from_secs(12)), Some(Due::Unanswered(ProbeId(7))));
        // A process that stood still has not had that time.
        one.forgive(Time::from_secs(40));
        assert_eq!(one.due(Time::from_millis(50_999)), None);
        assert_eq!(one.due(Time::from_secs(51)), Some(Due::Unanswered(ProbeId(7))));
    }

    #[test]
    fn a_stale_answer_is_not_taken() {
        let mut one = schedule(1);
        one.begin(Time::ZERO);
        one.started(Time::from_secs(1), ProbeId(7));
        assert!(!one.finished(Time::from_secs(1), ProbeId(6)));
        assert_eq!(one.pause(), Some(ProbeId(7)));
        assert!(!one.finished(Time::from_secs(1), ProbeId(7)));
    }
}
