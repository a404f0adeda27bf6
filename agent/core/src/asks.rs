//! The way from the machines of the kernel side to the outside: requests with ids, and facts.

use anyvip_machine::{Failure, Time};

use crate::attempt::Attempt;
use crate::boundary::{Action, Fact, KernelRequest, KernelRequestId};
use crate::store::Store;

/// What a part of the agent needs to ask for something, for the length of one call.
pub(crate) struct Asks<'a> {
    pub(crate) now: Time,
    pub(crate) store: &'a mut Store,
    pub(crate) next_request: &'a mut u64,
    pub(crate) out: &'a mut Vec<Action>,
}

impl Asks<'_> {
    pub(crate) fn kernel(&mut self, attempt: &mut Attempt, change: KernelRequest) {
        let request = KernelRequestId(*self.next_request);
        *self.next_request += 1;
        attempt.asked(self.now, request);
        self.out.push(Action::Kernel { request, change });
    }

    pub(crate) fn record(&mut self, fact: Fact) {
        self.out.push(Action::Record(fact));
    }

    /// Takes an answer; false if it was not for this attempt. The same refusal twice is told once.
    pub(crate) fn answer(
        &mut self,
        attempt: &mut Attempt,
        request: KernelRequestId,
        result: &Result<(), Failure>,
        confirm: std::time::Duration,
        what: impl FnOnce() -> String,
    ) -> bool {
        let before = attempt.refusal().cloned();
        if attempt.answered(self.now, request, result, confirm).is_none() {
            return false;
        }
        if let Err(failure) = result
            && before.as_ref() != Some(failure)
        {
            self.record(Fact::KernelRefused { text: what(), failure: failure.clone() });
        }
        true
    }

    /// Lets time act on an attempt.
    pub(crate) fn expire(&mut self, attempt: &mut Attempt, what: impl FnOnce() -> String) {
        let before = attempt.refusal().cloned();
        if let Some(failure) = attempt.expire(self.now)
            && before.as_ref() != Some(&failure)
        {
            self.record(Fact::KernelRefused { text: what(), failure });
        }
    }
}
