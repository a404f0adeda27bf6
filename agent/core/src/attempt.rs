//! One wish to the kernel: asked, answered, seen; asked again with back-off when refused.

use std::time::Duration;

use anyvip_machine::{Failure, FailureKind, Time};
use serde::{Deserialize, Serialize};

use crate::boundary::KernelRequestId;

/// How long an action may stay unanswered before that counts as a failure, and as a bug.
pub(crate) const GUARD: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The way of one wish. Success is believed only when the view shows it: then call [`Attempt::seen`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    step: Step,
    refusals: u32,
    last: Option<Failure>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Step {
    #[default]
    Ready,
    Asked {
        request: KernelRequestId,
        guard: Time,
    },
    /// The kernel agreed; the view must show it until then.
    Confirming {
        until: Time,
    },
    /// Refused: not before then.
    Pausing {
        until: Time,
    },
}

impl Attempt {
    /// Whether it may be asked now.
    pub(crate) fn ready(&self) -> bool {
        self.step == Step::Ready
    }

    /// The last refusal, until the view shows success.
    pub(crate) fn refusal(&self) -> Option<&Failure> {
        self.last.as_ref()
    }

    /// It was asked.
    pub(crate) fn asked(&mut self, now: Time, request: KernelRequestId) {
        self.step = Step::Asked { request, guard: now + GUARD };
    }

    /// The kernel answered. `None`: that was no answer to this wish.
    pub(crate) fn answered(
        &mut self,
        now: Time,
        request: KernelRequestId,
        result: &Result<(), Failure>,
        confirm: Duration,
    ) -> Option<()> {
        match self.step {
            Step::Asked { request: asked, .. } if asked == request => {}
            _ => return None,
        }
        match result {
            Ok(()) => self.step = Step::Confirming { until: now + confirm },
            Err(failure) => self.refuse(now, failure.clone()),
        }
        Some(())
    }

    /// The view shows what was wished for.
    pub(crate) fn seen(&mut self) {
        *self = Attempt::default();
    }

    /// Its next moment.
    pub(crate) fn deadline(&self) -> Option<Time> {
        match self.step {
            Step::Ready => None,
            Step::Asked { guard, .. } => Some(guard),
            Step::Confirming { until } | Step::Pausing { until } => Some(until),
        }
    }

    /// Lets time act; returns a failure that time brought.
    pub(crate) fn expire(&mut self, now: Time) -> Option<Failure> {
        if self.deadline()? > now {
            return None;
        }
        let failure = match self.step {
            Step::Ready => return None,
            Step::Pausing { .. } => {
                self.step = Step::Ready;
                return None;
            }
            Step::Asked { .. } => Failure::new(FailureKind::Unanswered, "no answer within 10 s"),
            Step::Confirming { .. } => {
                Failure::new(FailureKind::Other, "the kernel agreed, but nothing of it is to be seen")
            }
        };
        self.refuse(now, failure.clone());
        Some(failure)
    }

    fn refuse(&mut self, now: Time, failure: Failure) {
        let pause = Duration::from_secs(1 << self.refusals.min(5)).min(LONGEST_PAUSE);
        self.refusals = self.refusals.saturating_add(1);
        self.step = Step::Pausing { until: now + pause };
        self.last = Some(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIRM: Duration = Duration::from_secs(2);

    fn no() -> Result<(), Failure> {
        Err(Failure::new(FailureKind::PermissionDenied, "operation not permitted"))
    }

    #[test]
    fn refusals_are_asked_again_after_one_two_four_and_at_most_thirty_seconds() {
        let mut attempt = Attempt::default();
        let mut now = Time::ZERO;
        let mut pauses = Vec::new();
        for n in 0..7 {
            assert!(attempt.ready());
            attempt.asked(now, KernelRequestId(n));
            assert!(attempt.answered(now, KernelRequestId(n), &no(), CONFIRM).is_some());
            let until = attempt.deadline().unwrap();
            pauses.push(until.since(now).as_secs());
            now = until;
            assert_eq!(attempt.expire(now), None);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(attempt.refusal().unwrap().kind, FailureKind::PermissionDenied);
    }

    #[test]
    fn an_agreement_that_the_view_never_shows_is_a_refusal() {
        let mut attempt = Attempt::default();
        attempt.asked(Time::ZERO, KernelRequestId(1));
        attempt.answered(Time::ZERO, KernelRequestId(1), &Ok(()), CONFIRM).unwrap();
        assert!(!attempt.ready());
        assert!(attempt.expire(Time::from_secs(2)).is_some());
        assert!(attempt.refusal().is_some());
    }

    #[test]
    fn no_answer_for_ten_seconds_is_a_refusal_and_the_late_answer_is_ignored() {
        let mut attempt = Attempt::default();
        attempt.asked(Time::ZERO, KernelRequestId(1));
        assert_eq!(attempt.expire(Time::from_secs(9)), None);
        assert_eq!(attempt.expire(Time::from_secs(10)).unwrap().kind, FailureKind::Unanswered);
        assert_eq!(attempt.answered(Time::from_secs(10), KernelRequestId(1), &Ok(()), CONFIRM), None);
    }

    #[test]
    fn what_is_seen_is_forgotten() {
        let mut attempt = Attempt::default();
        attempt.asked(Time::ZERO, KernelRequestId(1));
        attempt.answered(Time::ZERO, KernelRequestId(1), &no(), CONFIRM).unwrap();
        attempt.seen();
        assert!(attempt.ready() && attempt.refusal().is_none() && attempt.deadline().is_none());
    }
}
