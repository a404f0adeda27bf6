//! The service that an agent watches: the truth, and what probes make of it.

use std::time::Duration;

use anyvip_machine::{Seed, Time};
use serde::{Deserialize, Serialize};

/// What a service really does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// It answers.
    #[default]
    Serving,
    /// It is gone: connections are refused.
    Dead,
    /// It is there and answers nothing.
    Hanging,
    /// It answers that it cannot.
    Failing,
}

/// What a probe makes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probing {
    /// The truth.
    #[default]
    Honest,
    /// Every answer is one of these, in turns: `period` passes, then as many failures.
    Flapping { period: u32 },
    /// It passes whatever the service does.
    AlwaysPasses,
    /// It fails whatever the service does.
    AlwaysFails,
    /// The probe hangs whatever the service does.
    Hangs,
    /// It cannot be made.
    Error,
}

/// How one probe ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Pass,
    Refused,
    Silent,
    Wrong,
    Error,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Service {
    condition: Condition,
    since: Time,
    probing: Probing,
    probing_since: Time,
    /// How long it takes to answer, at least.
    pub latency: Duration,
    /// Counts its processes: connections do not survive their server.
    pub starts: u32,
    probes: u32,
    seed: Seed,
}

impl Service {
    pub(super) fn new(seed: Seed) -> Service {
        Service {
            condition: Condition::Serving,
            since: Time::ZERO,
            probing: Probing::Honest,
            probing_since: Time::ZERO,
            latency: Duration::from_micros(200),
            starts: 1,
            probes: 0,
            seed,
        }
    }

    pub(super) fn reseed(&mut self, seed: Seed) {
        self.seed = seed;
    }

    /// What it really does, and since when.
    pub fn condition(&self) -> (Condition, Time) {
        (self.condition, self.since)
    }

    /// What probes make of it, and since when.
    pub fn probing(&self) -> (Probing, Time) {
        (self.probing, self.probing_since)
    }

    /// Whether it answers clients.
    pub fn serves(&self) -> bool {
        self.condition == Condition::Serving
    }

    /// What every probe says in the long run; `None` if that is undecided (flapping, probes that cannot be made).
    pub fn appears(&self) -> Option<bool> {
        match self.probing {
            Probing::Honest => Some(self.serves()),
            Probing::AlwaysPasses => Some(true),
            Probing::AlwaysFails | Probing::Hangs => Some(false),
            Probing::Flapping { .. } | Probing::Error => None,
        }
    }

    pub(super) fn become_(&mut self, now: Time, condition: Condition) {
        if self.condition == condition {
            return;
        }
        if self.condition == Condition::Dead {
            self.starts += 1;
        }
        (self.condition, self.since) = (condition, now);
    }

    pub(super) fn probe_as(&mut self, now: Time, probing: Probing) {
        if self.probing != probing {
            (self.probing, self.probing_since) = (probing, now);
        }
    }

    /// What a probe that begins now will say, and after how long.
    pub(super) fn probed(&mut self) -> (Answer, Duration) {
        self.probes = self.probes.wrapping_add(1);
        let latency = self.seed.between(self.latency, self.latency * 3);
        let honest = match self.condition {
            Condition::Serving => Answer::Pass,
            Condition::Dead => Answer::Refused,
            Condition::Hanging => Answer::Silent,
            Condition::Failing => Answer::Wrong,
        };
        let answer = match self.probing {
            Probing::Honest => honest,
            Probing::Flapping { period } => match (self.probes / period.max(1)) % 2 {
                0 => Answer::Pass,
                _ => Answer::Wrong,
            },
            Probing::AlwaysPasses => Answer::Pass,
            Probing::AlwaysFails => Answer::Wrong,
            Probing::Hangs => Answer::Silent,
            Probing::Error => Answer::Error,
        };
        (answer, latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lying_probe_hides_the_truth_and_an_honest_one_tells_it() {
        let mut service = Service::new(Seed::new(1));
        service.become_(Time::from_secs(1), Condition::Dead);
        assert_eq!(service.probed().0, Answer::Refused);
        assert_eq!((service.serves(), service.appears()), (false, Some(false)));
        service.probe_as(Time::from_secs(2), Probing::AlwaysPasses);
        assert_eq!(service.probed().0, Answer::Pass);
        assert_eq!((service.serves(), service.appears()), (false, Some(true)));
    }

    #[test]
    fn a_flapping_probe_passes_and_fails_in_turns() {
        let mut service = Service::new(Seed::new(1));
        service.probe_as(Time::ZERO, Probing::Flapping { period: 2 });
        let answers: Vec<bool> = (0..8).map(|_| service.probed().0 == Answer::Pass).collect();
        assert_eq!(answers.iter().filter(|pass| **pass).count(), 4);
        assert_eq!(service.appears(), None);
    }
}
