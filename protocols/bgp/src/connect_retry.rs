//! How long to wait before the next connection (RFC 4271 §8.1.1, ConnectRetryTimer and peer oscillation damping).

use std::time::Duration;

use anyvip_machine::Seed;
use serde::{Deserialize, Serialize};

use crate::DownReason;
use crate::wire::Notification;

/// After errors: 1, 2, 4 … 30 s.
const LEAST_BACK_OFF: Duration = Duration::from_secs(1);
const MOST_BACK_OFF: Duration = Duration::from_secs(30);
/// After a connection that we closed in order to make another. A router takes in the end of the one before the other, and needs that:
/// FRR 8.4 takes a connection that comes before for a twin of the one that ends, removes a neighbour of a listen range with it, and
/// what is left holds a session that is in none of its tables, cannot be cleared there, and tells nothing.
const AFTER_FAREWELL: Duration = Duration::from_millis(200);
/// A session that lasted this long was a success; what fails after it starts from the least back-off again.
const STABLE_TIME: Duration = Duration::from_secs(30);

/// What one peer's past says about its next try.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RetryPolicy {
    /// The wait after the next error, if there was one since the last stable session.
    back_off: Option<Duration>,
}

impl RetryPolicy {
    /// The ConnectRetryTimer: within a quarter of the configured time, so that many hosts do not knock together.
    pub(crate) fn after_nothing_wrong(&self, connect_retry: Duration, seed: &mut Seed) -> Duration {
        seed.between(connect_retry * 3 / 4, connect_retry * 5 / 4)
    }

    /// See [`AFTER_FAREWELL`].
    pub(crate) fn after_farewell(&self, seed: &mut Seed) -> Duration {
        seed.between(AFTER_FAREWELL, AFTER_FAREWELL * 5 / 4)
    }

    /// Doubles with each error. RFC 4271 §10: jitter makes timers shorter, by up to a quarter.
    pub(crate) fn after_error(&mut self, seed: &mut Seed) -> Duration {
        let wait = self.back_off.unwrap_or(LEAST_BACK_OFF);
        self.back_off = Some((wait * 2).min(MOST_BACK_OFF));
        seed.between(wait * 3 / 4, wait)
    }

    /// A session, if there was one, lasted so long.
    pub(crate) fn session_lasted(&mut self, lasted: Option<Duration>) {
        if lasted.is_some_and(|lasted| lasted >= STABLE_TIME) {
            self.back_off = None;
        }
    }
}

/// Whether something is wrong that the next try will meet again, so that tries become rarer. What the peer's operator
/// planned (RFC 4486: shutdown, reset, configuration change; RFC 9384: BFD down) and what TCP said is not.
pub(crate) fn is_error(reason: &DownReason) -> bool {
    match reason {
        DownReason::Connection(_) | DownReason::SendHoldTimerExpired => false,
        DownReason::PeerSaid(last) => ![
            Notification::ADMINISTRATIVE_SHUTDOWN,
            Notification::ADMINISTRATIVE_RESET,
            Notification::OTHER_CONFIGURATION_CHANGE,
            Notification::BFD_DOWN,
        ]
        .into_iter()
        .any(|subcode| last.is_cease(subcode)),
        // Our own hold timer says that the peer was silent, a Cease that we wanted so.
        DownReason::WeSaid(last) => last.code < 4 || last.code == 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_double_the_wait_until_a_session_has_lasted() {
        let (mut policy, mut seed) = (RetryPolicy::default(), Seed::new(1));
        let seconds = |wait: Duration| (wait.as_secs_f64() / 0.75).ceil() as u64;
        let waits: Vec<_> = (0..7).map(|_| policy.after_error(&mut seed)).collect();
        for (wait, most) in waits.iter().zip([1, 2, 4, 8, 16, 30, 30]) {
            assert!(*wait <= Duration::from_secs(most) && seconds(*wait) >= most, "{waits:?}");
        }
        policy.session_lasted(Some(Duration::from_secs(29)));
        policy.session_lasted(None);
        assert!(policy.after_error(&mut seed) > Duration::from_secs(20), "a short session proves nothing");
        policy.session_lasted(Some(Duration::from_secs(30)));
        assert!(policy.after_error(&mut seed) <= Duration::from_secs(1));
    }

    /// RFC 4486, RFC 9384.
    #[test]
    fn what_was_planned_and_what_tcp_said_is_no_error_but_what_the_peer_dislikes_is() {
        let cease = |subcode| DownReason::PeerSaid(Notification::cease(subcode, None));
        let planned: Vec<u8> = (1..=10).filter(|subcode| !is_error(&cease(*subcode))).collect();
        assert_eq!(planned, [2, 4, 6, 10]);
        assert!(is_error(&DownReason::PeerSaid(Notification::hold_timer_expired())));
        assert!(is_error(&DownReason::WeSaid(Notification::bad_peer_as(65003))));
        assert!(!is_error(&DownReason::WeSaid(Notification::hold_timer_expired())));
        assert!(!is_error(&DownReason::SendHoldTimerExpired));
    }
}
