//! RFC 5880 §6.5 and §6.8.3: what we ask for, what is in force, and the poll sequence that leads from one to the other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// "When bfd.SessionState is not Up, the system MUST set bfd.DesiredMinTxInterval to a value of not less than one second."
const SLOW: u32 = 1_000_000;

/// What a packet says about our own wishes, in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parameters {
    pub(crate) desired_min_tx: u32,
    pub(crate) required_min_rx: u32,
}

impl Parameters {
    pub(crate) fn new(desired_min_tx: Duration, required_min_rx: Duration) -> Parameters {
        // Both at least 1 µs: 0 would mean "send me nothing".
        let micros = |duration: Duration| u32::try_from(duration.as_micros()).unwrap_or(u32::MAX).max(1);
        Parameters { desired_min_tx: micros(desired_min_tx), required_min_rx: micros(required_min_rx) }
    }

    fn slow(self) -> Parameters {
        Parameters { desired_min_tx: self.desired_min_tx.max(SLOW), ..self }
    }
}

/// The parameters of one session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Timing {
    /// What the configuration and the state ask for.
    wanted: Parameters,
    /// What our packets say.
    announced: Parameters,
    /// What our pace and our detection time are made from.
    in_force: Parameters,
    poll: PollSequence,
}

/// Only one at a time, or it would be unclear which change a Final answers (§6.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum PollSequence {
    Quiet,
    /// Our packets have the P bit until one with the F bit comes.
    Asking,
    /// Answered; "an additional BFD Control packet with the Final (F) bit *clear* MUST be received" before the next one.
    Settling,
}

impl Timing {
    /// Of a session that is not Up and knows no peer.
    pub(crate) fn new(configured: Parameters) -> Timing {
        let slow = configured.slow();
        Timing { wanted: slow, announced: slow, in_force: slow, poll: PollSequence::Quiet }
    }

    pub(crate) fn announced(&self) -> Parameters {
        self.announced
    }

    pub(crate) fn in_force(&self) -> Parameters {
        self.in_force
    }

    pub(crate) fn is_polling(&self) -> bool {
        self.poll == PollSequence::Asking
    }

    /// After a change of configuration or state.
    pub(crate) fn want(&mut self, configured: Parameters, up: bool, peer_known: bool) {
        self.wanted = if up { configured } else { configured.slow() };
        if up {
            self.advance(peer_known);
        } else if self.announced != self.wanted {
            // Nothing depends on the poll sequence while not Up, so what is new counts at once; also over a running one.
            self.announced = self.wanted;
            self.in_force = self.wanted;
            self.poll = if peer_known { PollSequence::Asking } else { PollSequence::Quiet };
        } else {
            self.in_force = self.wanted;
        }
    }

    /// Begins a poll sequence if Up, something is to be changed, and none is under way.
    fn advance(&mut self, peer_known: bool) {
        if self.poll != PollSequence::Quiet || self.announced == self.wanted {
            return;
        }
        self.announced = self.wanted;
        // "If bfd.DesiredMinTxInterval is increased and bfd.SessionState is Up, the actual transmission interval used MUST
        // NOT change until the Poll Sequence described above has terminated."
        self.in_force.desired_min_tx = self.in_force.desired_min_tx.min(self.announced.desired_min_tx);
        // "If bfd.RequiredMinRxInterval is reduced and bfd.SessionState is Up, the previous value … MUST be used when
        // calculating the Detection Time … until the Poll Sequence described above has terminated."
        self.in_force.required_min_rx = self.in_force.required_min_rx.max(self.announced.required_min_rx);
        if peer_known {
            self.poll = PollSequence::Asking;
        } else {
            self.in_force = self.announced;
        }
    }

    /// After each packet that counts.
    pub(crate) fn heard(&mut self, final_: bool, up: bool) {
        match (self.poll, final_) {
            (PollSequence::Asking, true) => {
                self.poll = PollSequence::Settling;
                self.in_force = self.announced;
            }
            (PollSequence::Settling, false) => {
                self.poll = PollSequence::Quiet;
                if up {
                    self.advance(true);
                }
            }
            _ => {}
        }
    }

    /// The peer is gone: nobody is left to agree with.
    pub(crate) fn forget_peer(&mut self) {
        self.poll = PollSequence::Quiet;
        self.announced = self.wanted;
        self.in_force = self.wanted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Parameters = Parameters { desired_min_tx: 50_000, required_min_rx: 50_000 };
    const EASY: Parameters = Parameters { desired_min_tx: 300_000, required_min_rx: 300_000 };

    fn up_at(parameters: Parameters) -> Timing {
        let mut timing = Timing::new(parameters);
        timing.want(parameters, true, true);
        timing.heard(true, true);
        timing.heard(false, true);
        assert_eq!(
            (timing.announced(), timing.in_force(), timing.is_polling()),
            (parameters, parameters, false)
        );
        timing
    }

    /// RFC 5880 §6.8.3
    #[test]
    fn while_not_up_at_least_a_second_passes_between_packets() {
        let timing = Timing::new(FAST);
        assert_eq!(timing.announced(), Parameters { desired_min_tx: 1_000_000, required_min_rx: 50_000 });
        let slower = Parameters { desired_min_tx: 2_000_000, required_min_rx: 1 };
        assert_eq!(Timing::new(slower).announced(), slower);
    }

    /// RFC 5880 §6.8.3
    #[test]
    fn slower_transmission_and_faster_detection_wait_for_the_final() {
        let mut timing = up_at(FAST);
        timing.want(EASY, true, true);
        assert!(timing.is_polling());
        assert_eq!(timing.announced(), EASY);
        assert_eq!(timing.in_force(), Parameters { desired_min_tx: 50_000, required_min_rx: 300_000 });
        timing.heard(false, true);
        assert_eq!(timing.in_force().desired_min_tx, 50_000);
        timing.heard(true, true);
        assert_eq!((timing.in_force(), timing.is_polling()), (EASY, false));

        let mut timing = up_at(EASY);
        timing.want(FAST, true, true);
        assert_eq!(timing.in_force(), Parameters { desired_min_tx: 50_000, required_min_rx: 300_000 });
        timing.heard(true, true);
        assert_eq!(timing.in_force(), FAST);
    }

    /// RFC 5880 §6.8.3
    #[test]
    fn a_second_change_waits_until_the_first_was_answered_and_a_packet_without_final_came() {
        let mut timing = up_at(EASY);
        timing.want(FAST, true, true);
        let third = Parameters { desired_min_tx: 10_000, required_min_rx: 10_000 };
        timing.want(third, true, true);
        assert_eq!(timing.announced(), FAST);
        timing.heard(true, true);
        assert_eq!((timing.announced(), timing.is_polling()), (FAST, false));
        // A second Final is not a packet without one.
        timing.heard(true, true);
        assert_eq!(timing.announced(), FAST);
        timing.heard(false, true);
        assert_eq!((timing.announced(), timing.is_polling()), (third, true));
    }

    #[test]
    fn going_down_counts_at_once_and_a_lost_peer_ends_the_poll() {
        let mut timing = up_at(FAST);
        timing.want(EASY, true, true);
        timing.want(FAST, false, true);
        assert_eq!(timing.in_force().desired_min_tx, 1_000_000);
        assert!(timing.is_polling());
        timing.forget_peer();
        assert!(!timing.is_polling());
    }
}
