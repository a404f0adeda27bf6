//! Why a session, or an attempt at one, ended: in words that say what to look at, and whether anybody wanted it.

use anyvip_bgp::wire::Notification;
use anyvip_bgp::{DownReason, PeerConfig, PeerState};

/// Whether an operator on either side wanted this end (RFC 4486, RFC 8538 §4): no fault to look for.
pub(crate) fn planned(reason: &DownReason) -> bool {
    const HARD_RESET: u8 = 9;
    match reason {
        DownReason::PeerSaid(said) | DownReason::WeSaid(said) => {
            said.code == 6
                && matches!(
                    said.subcode,
                    Notification::ADMINISTRATIVE_SHUTDOWN
                        | Notification::PEER_DECONFIGURED
                        | Notification::ADMINISTRATIVE_RESET
                        | Notification::OTHER_CONFIGURATION_CHANGE
                        | Notification::CONNECTION_COLLISION_RESOLUTION
                        | HARD_RESET
                )
        }
        DownReason::Connection(_) | DownReason::SendHoldTimerExpired => false,
    }
}

/// How far it was when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Opening,
    /// Established, and nothing was heard since.
    Silent,
    Established,
}

/// For people. `config` is that of the peer, `asn` that of this host.
pub(crate) fn words(reason: &DownReason, config: Option<&PeerConfig>, asn: u32, stage: Stage) -> String {
    let (plain, meaning) = match reason {
        DownReason::Connection(failure) => (failure.text.clone(), None),
        DownReason::SendHoldTimerExpired => {
            ("the peer took nothing for too long (RFC 9687)".to_owned(), None)
        }
        DownReason::WeSaid(said) => (format!("we said: {said}"), what_we_meant(said, config, stage)),
        DownReason::PeerSaid(said) => (format!("the peer said: {said}"), what_it_meant(said, config, asn)),
    };
    match meaning {
        Some(meaning) => format!("{plain}: {meaning}"),
        None => plain,
    }
}

/// What a peer that took the connection has not done yet; `None` where it has to do nothing.
pub(crate) fn owed(state: PeerState, config: Option<&PeerConfig>) -> Option<String> {
    match state {
        PeerState::OpenSent => Some(format!("connected, but the peer has not sent its OPEN{}", low_ttl(config))),
        // It has said who it is, and what we say does not come through.
        PeerState::OpenConfirm => Some(
            "the peer has sent its OPEN and nothing after it: where it wants ttl-security of this host, write ttl_security"
                .to_owned(),
        ),
        _ => None,
    }
}

/// The kernel of a passive router answers with a TTL of its own; what the router says has the real one.
fn low_ttl(config: Option<&PeerConfig>) -> &'static str {
    match config.is_some_and(|config| config.transport.ttl_security.is_some()) {
        true => ": ttl_security is on, and a peer whose packets come with a low TTL looks like this",
        false => "",
    }
}

fn what_we_meant(said: &Notification, config: Option<&PeerConfig>, stage: Stage) -> Option<String> {
    Some(match (said.code, said.subcode) {
        (1, 1) => "what came is not BGP, or part of it was lost".to_owned(),
        (1, 2 | 3) => "what came has the head of a BGP message and no sense".to_owned(),
        (2, 1) => "the peer does not speak BGP version 4".to_owned(),
        (2, 2) => match (said.refused_asn(), config) {
            (Some(heard), Some(config)) => {
                format!("the peer is AS {heard}, and its asn here is {}", config.asn)
            }
            _ => return None,
        },
        (2, 3) => "the peer's identifier is 0.0.0.0, or our router_id on an internal session".to_owned(),
        (2, 6) => "the peer offers a hold time of 1 or 2 s".to_owned(),
        (4, 0) if stage == Stage::Silent => {
            "nothing came since the session opened; where the peer wants ttl-security of this host, write ttl_security".to_owned()
        }
        (4, 0) if stage == Stage::Opening => {
            format!("connected, but the session was never opened{}", low_ttl(config))
        }
        _ if said.is_role_mismatch() => role(config),
        _ => return None,
    })
}

fn what_it_meant(said: &Notification, config: Option<&PeerConfig>, asn: u32) -> Option<String> {
    Some(match (said.code, said.subcode) {
        (2, 2) => {
            let ours = said.refused_asn().or(config.map(|config| config.local_asn(asn))).unwrap_or(asn);
            format!("it knows this host by another AS number than {ours} (bgp.asn, local_asn)")
        }
        (2, 3) => "another host or the router itself has our router_id".to_owned(),
        (6, 5) => "it does not know this host, or takes no connection now".to_owned(),
        _ if said.is_role_mismatch() => role(config),
        _ => return None,
    })
}

fn role(config: Option<&PeerConfig>) -> String {
    let options = config.map(|config| &config.session);
    match options.and_then(|options| Some((options.role?, options.role_strict))) {
        Some((role, strict)) => {
            let or_none = if strict { ", and has to say so" } else { "" };
            format!("our role is {role}, so the peer has to be {}{or_none} (RFC 9234)", role.counterpart())
        }
        None => "we have no role and the peer wants one (RFC 9234)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u8, subcode: u8, data: &[u8]) -> Notification {
        Notification { code, subcode, data: data.to_vec() }
    }

    #[test]
    fn what_somebody_wanted_is_told_from_what_went_wrong() {
        for subcode in [2, 3, 4, 6] {
            assert!(planned(&DownReason::PeerSaid(said(6, subcode, &[]))), "{subcode}");
        }
        for (code, subcode) in [(6, 1), (6, 5), (6, 8), (4, 0), (2, 2)] {
            assert!(!planned(&DownReason::PeerSaid(said(code, subcode, &[]))), "{code}/{subcode}");
        }
        assert!(planned(&DownReason::WeSaid(said(6, 2, &[]))));
        assert!(!planned(&DownReason::WeSaid(said(4, 0, &[]))), "our hold timer");
    }

    #[test]
    fn ends_are_worded_for_people() {
        let words = |reason| words(&reason, None, 65011, Stage::Opening);
        assert!(words(DownReason::PeerSaid(said(6, 4, &[]))).starts_with("the peer said: Cease"));
        assert_eq!(
            words(DownReason::PeerSaid(Notification::role_mismatch())),
            "the peer said: OPEN Message Error/Role Mismatch (2/11): we have no role and the peer wants one (RFC 9234)"
        );
        assert_eq!(
            words(DownReason::WeSaid(Notification::connection_not_synchronized())),
            "we said: Message Header Error/Connection Not Synchronized (1/1): what came is not BGP, or part of it was lost"
        );
        // BIRD says what it heard in 4 octets, others in 2 or not at all.
        for data in [&[0, 0, 0xfd, 0xf4][..], &[0xfd, 0xf4]] {
            let text = words(DownReason::PeerSaid(said(2, 2, data)));
            assert!(
                text.ends_with("it knows this host by another AS number than 65012 (bgp.asn, local_asn)"),
                "{text}"
            );
        }
        let text = words(DownReason::PeerSaid(said(2, 2, &[])));
        assert!(text.contains("another AS number than 65011"), "{text}");
    }

    #[test]
    fn a_peer_that_opens_the_session_and_is_silent_then_may_not_hear_us() {
        let expired = || DownReason::WeSaid(Notification::hold_timer_expired());
        let said = |stage| words(&expired(), None, 65011, stage);
        assert_eq!(said(Stage::Established), "we said: Hold Timer Expired (4/0)");
        assert!(
            said(Stage::Silent)
                .contains("nothing came since the session opened; where the peer wants ttl-security")
        );
        assert!(said(Stage::Opening).contains("the session was never opened"));
    }
}
