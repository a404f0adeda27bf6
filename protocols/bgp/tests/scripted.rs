//! One speaker against a peer that says exactly what a test wants said.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyvip_bgp::error::Severity;
use anyvip_bgp::wire::{
    AsPath, Capability, Codec, Family, Framer, Message, NextHop, Notification, Open, PathAttributes, Reach,
    Update, end_of_rib,
};
use anyvip_bgp::{
    Action, ConnectionId, Endpoint, Event, PeerConfig, PeerName, PeerState, Receive, RouteAttributes,
    SessionOptions, Speaker, SpeakerConfig, Transport,
};
use anyvip_machine::{Seed, Time};
use ipnet::IpNet;

const ID: ConnectionId = ConnectionId::Initiated(1);
const PEER_ASN: u32 = 65000;

struct Scripted {
    now: Time,
    speaker: Speaker,
    codec: Codec,
}

fn name() -> PeerName {
    PeerName::from("tor1")
}

fn prefix(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn config(asn: u32, session: SessionOptions) -> SpeakerConfig {
    let peer = PeerConfig {
        remote: Endpoint { address: Ipv4Addr::new(10, 0, 0, 2).into(), interface: None, port: 179 }.into(),
        asn: PEER_ASN,
        connect: true,
        hold_time: Some(Duration::from_secs(9)),
        connect_retry: Duration::from_secs(1),
        ttl: Some(1),
        families: BTreeSet::from([Family::Ipv4, Family::Ipv6]),
        receive: Receive::All,
        session,
        transport: Transport::default(),
    };
    let router_id = Ipv4Addr::new(10, 0, 0, 1);
    SpeakerConfig { asn, router_id, peers: BTreeMap::from([(name(), peer)]) }
}

impl Scripted {
    /// A speaker of this AS, connected, its OPEN sent and written.
    fn connected(asn: u32) -> Scripted {
        Scripted::connected_with(asn, SessionOptions::default())
    }

    fn connected_with(asn: u32, session: SessionOptions) -> Scripted {
        let mut speaker = Speaker::new(Seed::new(1));
        let now = Time::from_secs(1);
        let config = config(asn, session);
        let actions = speaker.handle(now, Event::Configure(config));
        assert!(matches!(actions[0], Action::Connect { connection: ID, ttl: Some(1), .. }));
        let local: SocketAddr = "10.0.0.1:40000".parse().unwrap();
        let remote: SocketAddr = "10.0.0.2:179".parse().unwrap();
        let actions = speaker.handle(now, Event::Connected { connection: ID, local, remote });
        assert!(matches!(actions[0], Action::Send { .. }));
        let families = BTreeSet::from([Family::Ipv4, Family::Ipv6]);
        let codec = Codec { families, ..Codec::before_open() };
        let mut scripted = Scripted { now, speaker, codec };
        assert_eq!(scripted.handle(Event::Sent { connection: ID }), []);
        scripted
    }

    fn established(asn: u32, capabilities: Vec<Capability>) -> Scripted {
        Scripted::connected(asn).establish(capabilities)
    }

    fn establish(self, capabilities: Vec<Capability>) -> Scripted {
        let mut scripted = self;
        scripted.codec.four_octet_as = capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_)));
        scripted.say(Message::Open(Open::new(PEER_ASN, 9, Ipv4Addr::new(10, 0, 0, 2), capabilities)));
        scripted.handle(Event::Sent { connection: ID });
        scripted.say(Message::Keepalive);
        assert_eq!(scripted.state(), PeerState::Established);
        scripted
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        self.speaker.handle(self.now, event)
    }

    fn say(&mut self, message: Message) -> Vec<Action> {
        let bytes = message.encode(&self.codec);
        self.handle(Event::Received { connection: ID, bytes })
    }

    /// Lets time act; everything that is said is taken at once.
    fn pass(&mut self, duration: Duration) -> Vec<Action> {
        let (until, mut all) = (self.now + duration, Vec::new());
        while let Some(deadline) = self.speaker.next_deadline().filter(|deadline| *deadline <= until) {
            self.now = deadline;
            let actions = self.handle(Event::DeadlineReached);
            if actions.iter().any(|action| matches!(action, Action::Send { .. })) {
                self.handle(Event::Sent { connection: ID });
            }
            all.extend(actions);
        }
        self.now = until;
        all
    }

    fn state(&self) -> PeerState {
        self.speaker.peer(&name()).unwrap().state
    }

    /// What these actions write.
    fn read(&self, actions: &[Action]) -> Vec<Message> {
        let mut framer = Framer::default();
        for action in actions {
            if let Action::Send { bytes, .. } = action {
                framer.push(bytes);
            }
        }
        let frames = std::iter::from_fn(|| framer.next_frame());
        frames.map(|frame| Message::decode(&frame.unwrap(), &self.codec).unwrap()).collect()
    }
}

fn announcement(prefixes: &[&str]) -> Update {
    let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 2));
    let prefixes = prefixes.iter().map(|text| prefix(text)).collect();
    Update {
        reach: vec![Reach { family: Family::Ipv4, next_hop, prefixes }],
        attributes: PathAttributes { as_path: AsPath::sequence([PEER_ASN]), ..PathAttributes::default() },
        ..Update::default()
    }
}

/// An UPDATE of 192.0.2.1/32 with these attributes after ORIGIN, AS_PATH and NEXT_HOP.
fn raw_update(more: &[u8]) -> Vec<u8> {
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0xfd, 0xe8, 0x40, 3, 4, 10, 0, 0, 2];
    attributes.extend(more);
    let mut body = vec![0, 0];
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(attributes);
    body.extend([32, 192, 0, 2, 1]);
    let mut message = vec![0xff; 16];
    message.extend((body.len() as u16 + 19).to_be_bytes());
    message.push(2);
    message.extend(body);
    message
}

/// RFC 6793 §4.2.2.
#[test]
fn a_peer_of_two_octets_is_told_as_trans_with_the_real_path_beside_it() {
    let mut scripted = Scripted::established(4_200_000_001, Vec::new());
    let route = RouteAttributes::originated(NextHop::V4(Ipv4Addr::new(10, 0, 0, 1)));
    scripted.handle(Event::Sent { connection: ID });
    let routes = BTreeMap::from([(prefix("192.0.2.1/32"), route)]);
    let actions = scripted.handle(Event::Wanted { peer: name(), routes });
    let Action::Send { bytes, .. } = &actions[0] else { panic!("{actions:?}") };
    let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    assert!(holds(&[0x40, 2, 4, 2, 1, 0x5b, 0xa0]), "AS_PATH with 23456: {bytes:02x?}");
    assert!(holds(&[17, 6, 2, 1, 0xfa, 0x56, 0xea, 0x01]), "AS4_PATH with the real number: {bytes:02x?}");
    let Message::Update(update) = &scripted.read(&actions)[0] else { panic!() };
    assert_eq!(update.attributes.as_path, AsPath::sequence([4_200_000_001]), "merged again by its reader");
}

/// RFC 4271 §6.6, RFC 6608.
#[test]
fn a_message_out_of_turn_is_an_fsm_error_that_names_the_state() {
    let fsm_error = |subcode| vec![Message::Notification(Notification::fsm_error(subcode))];
    for message in [Message::Keepalive, Message::Update(announcement(&["192.0.2.1/32"]))] {
        let mut scripted = Scripted::connected(65001);
        let actions = scripted.say(message);
        assert_eq!(scripted.read(&actions), fsm_error(1));
    }
    let open = Message::Open(Open::new(PEER_ASN, 9, Ipv4Addr::new(10, 0, 0, 2), Vec::new()));
    for message in [open.clone(), Message::Update(announcement(&["192.0.2.1/32"]))] {
        let mut scripted = Scripted::connected(65001);
        scripted.say(open.clone());
        assert_eq!(scripted.state(), PeerState::OpenConfirm);
        scripted.handle(Event::Sent { connection: ID });
        let actions = scripted.say(message);
        assert_eq!(scripted.read(&actions), fsm_error(2));
        assert!(actions.contains(&Action::Close { connection: ID }));
    }
    let mut scripted = Scripted::established(65001, Vec::new());
    scripted.handle(Event::Sent { connection: ID });
    let actions = scripted.say(open);
    assert_eq!(scripted.read(&actions), fsm_error(3));
}

/// RFC 7606 §2.
#[test]
fn a_malformed_attribute_costs_its_route_and_not_the_session() {
    let mut scripted = Scripted::established(65001, Vec::new());
    scripted.handle(Event::Received { connection: ID, bytes: raw_update(&[]) });
    assert_eq!(scripted.speaker.peer(&name()).unwrap().received().unwrap().len(), 1);
    // RFC 7606 §7.8: COMMUNITIES of three octets.
    let bytes = raw_update(&[0xc0, 8, 3, 1, 2, 3]);
    let actions = scripted.handle(Event::Received { connection: ID, bytes });
    let malformed = actions.iter().find_map(|action| match action {
        Action::Malformed { error, .. } => Some((error.code, error.severity)),
        _ => None,
    });
    assert_eq!(malformed, Some((8, Severity::TreatAsWithdraw)));
    let gone = vec![(prefix("192.0.2.1/32"), None)];
    assert!(actions.contains(&Action::RoutesChanged { peer: name(), changes: gone }));
    assert_eq!(scripted.state(), PeerState::Established);
    assert_eq!(scripted.speaker.peer(&name()).unwrap().counters.malformed, 1);
}

/// RFC 4271 §8.2.2, Established, events 26 and 27: either restarts the hold timer.
#[test]
fn updates_alone_keep_a_session_alive_and_silence_for_the_hold_time_ends_it() {
    for word in [raw_update(&[]), Message::Keepalive.encode(&Codec::before_open())] {
        let mut scripted = Scripted::established(65001, Vec::new());
        for _ in 0..10 {
            scripted.pass(Duration::from_secs(8));
            assert_eq!(scripted.state(), PeerState::Established);
            scripted.handle(Event::Received { connection: ID, bytes: word.clone() });
        }
        scripted.pass(Duration::from_millis(8_999));
        assert_eq!(scripted.state(), PeerState::Established);
        let said = scripted.pass(Duration::from_millis(1));
        let said = scripted.read(&said);
        assert!(matches!(&said[..], [.., Message::Notification(said)] if said.code == 4), "{said:?}");
    }
}

/// RFC 4724 §2.
#[test]
fn the_end_of_all_routes_is_told_behind_them_and_only_who_hears_everything_is_told() {
    let mut scripted = Scripted::established(65001, Vec::new());
    let bytes = [raw_update(&[]), end_of_rib(Family::Ipv4)].concat();
    let actions = scripted.handle(Event::Received { connection: ID, bytes });
    let end = Action::EndOfRib { peer: name(), family: Family::Ipv4 };
    assert!(matches!(&actions[..], [Action::RoutesChanged { .. }, last] if *last == end), "{actions:?}");
    let mut config = config(65001, SessionOptions::default());
    config.peers.get_mut(&name()).unwrap().receive = Receive::Nothing;
    scripted.handle(Event::Configure(config));
    let said = scripted.handle(Event::Received { connection: ID, bytes: end_of_rib(Family::Ipv6) });
    assert_eq!(said, []);
}

#[test]
fn what_arrives_octet_by_octet_means_the_same() {
    let mut scripted = Scripted::established(65001, Vec::new());
    let bytes = [raw_update(&[]), Message::Keepalive.encode(&scripted.codec)].concat();
    let mut actions = Vec::new();
    for octet in bytes {
        actions.extend(scripted.handle(Event::Received { connection: ID, bytes: vec![octet] }));
    }
    assert!(matches!(&actions[..], [Action::RoutesChanged { changes, .. }] if changes.len() == 1));
}

#[test]
fn nothing_behind_a_notification_or_an_error_is_read() {
    let mut scripted = Scripted::established(65001, Vec::new());
    let last = Message::Notification(Notification::cease(Notification::ADMINISTRATIVE_RESET, Some("bye")));
    let bytes = [last.encode(&scripted.codec), raw_update(&[])].concat();
    let actions = scripted.handle(Event::Received { connection: ID, bytes });
    assert!(!actions.iter().any(|action| matches!(action, Action::RoutesChanged { .. })));
    assert_eq!(actions.iter().filter(|action| **action == Action::Close { connection: ID }).count(), 1);
    assert_eq!(scripted.handle(Event::Received { connection: ID, bytes: raw_update(&[]) }), []);
    assert_eq!(scripted.handle(Event::Sent { connection: ID }), []);
}

#[test]
fn events_of_unknown_connections_are_ignored_and_a_late_connection_is_closed() {
    let mut scripted = Scripted::established(65001, Vec::new());
    let stale = ConnectionId::Initiated(77);
    let failure = anyvip_machine::Failure::new(anyvip_machine::FailureKind::Reset, "reset");
    for event in [
        Event::Received { connection: stale, bytes: vec![1, 2, 3] },
        Event::Sent { connection: stale },
        Event::Closed { connection: stale, failure: failure.clone() },
        Event::ConnectFailed { connection: stale, failure: failure.clone() },
        Event::ConnectFailed { connection: ID, failure },
    ] {
        assert_eq!(scripted.handle(event), []);
    }
    let (local, remote) = ("10.0.0.1:4".parse().unwrap(), "10.0.0.2:179".parse().unwrap());
    let late = Event::Connected { connection: stale, local, remote };
    assert_eq!(scripted.handle(late), [Action::Close { connection: stale }]);
    assert_eq!(scripted.state(), PeerState::Established);
}

#[test]
fn garbage_from_one_peer_leaves_the_sessions_and_deadlines_of_others_alone() {
    let router_id = Ipv4Addr::new(10, 0, 0, 1);
    let peer = |last: u8| PeerConfig {
        remote: Endpoint { address: Ipv4Addr::new(10, 0, 0, last).into(), interface: None, port: 179 }.into(),
        asn: PEER_ASN,
        connect: false,
        hold_time: Some(Duration::from_secs(9)),
        connect_retry: Duration::from_secs(1),
        ttl: None,
        families: BTreeSet::from([Family::Ipv4]),
        receive: Receive::All,
        session: SessionOptions::default(),
        transport: Transport::default(),
    };
    let names = ["good", "bad"].map(PeerName::from);
    let peers = BTreeMap::from([(names[0].clone(), peer(2)), (names[1].clone(), peer(3))]);
    let mut speaker = Speaker::new(Seed::new(1));
    let now = Time::from_secs(1);
    let _ = speaker.handle(now, Event::Configure(SpeakerConfig { asn: 65001, router_id, peers }));
    let codec = Codec { families: BTreeSet::from([Family::Ipv4]), ..Codec::before_open() };
    for last in [2, 3] {
        let connection = ConnectionId::Accepted(u64::from(last));
        let local = "10.0.0.1:179".parse().unwrap();
        let remote = SocketAddr::new(Ipv4Addr::new(10, 0, 0, last).into(), 40000);
        let _ = speaker.handle(now, Event::Accepted { connection, local, remote });
        let _ = speaker.handle(now, Event::Sent { connection });
        let open = Message::Open(Open::new(PEER_ASN, 9, Ipv4Addr::new(10, 0, 0, last), Vec::new()));
        let bytes = [open.encode(&codec), Message::Keepalive.encode(&codec), raw_update(&[])].concat();
        let _ = speaker.handle(now, Event::Received { connection, bytes });
    }
    let state = |speaker: &Speaker, name| speaker.peer(name).unwrap().state;
    assert_eq!(state(&speaker, &names[1]), PeerState::Established);
    let bad = ConnectionId::Accepted(3);
    let actions = speaker.handle(now, Event::Received { connection: bad, bytes: vec![7; 100] });
    for action in &actions {
        match action {
            // Our KEEPALIVE is still in flight, so that the NOTIFICATION waits.
            Action::RoutesChanged { peer, .. }
            | Action::StateChanged { peer, .. }
            | Action::SessionDown { peer, .. } => assert_eq!(*peer, names[1]),
            other => panic!("{other:?}"),
        }
    }
    let actions = speaker.handle(now, Event::Sent { connection: bad });
    assert!(matches!(actions[..], [Action::Send { .. }, Action::Close { connection }] if connection == bad));
    assert_eq!(state(&speaker, &names[1]), PeerState::Active, "the next one is welcome");
    assert_eq!(state(&speaker, &names[0]), PeerState::Established);
    assert_eq!(speaker.peer(&names[0]).unwrap().received().unwrap().len(), 1);
}

#[test]
fn random_bytes_in_any_state_never_panic_and_always_make_progress() {
    for number in 0..2000 {
        let mut seed = Seed::new(number);
        let mut scripted = match seed.below(2) {
            0 => Scripted::connected(65001),
            _ => Scripted::established(65001, Vec::new()),
        };
        let mut bytes = raw_update(&[0xc0, 8, 4, 0, 1, 0, 1]);
        for _ in 0..1 + seed.below(6) {
            let at = seed.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << seed.below(8);
        }
        bytes.truncate(seed.below(bytes.len() as u64 + 30) as usize);
        let _ = scripted.handle(Event::Received { connection: ID, bytes });
        for _ in 0..5 {
            let Some(next) = scripted.speaker.next_deadline() else { break };
            assert!(next > scripted.now);
            scripted.now = next;
            let _ = scripted.handle(Event::DeadlineReached);
        }
    }
}

/// RFC 8654 §5: who sends a long message where that was not agreed on is told Bad Message Length.
#[test]
fn a_long_message_is_read_where_it_was_agreed_on_and_refused_elsewhere() {
    for (ours, theirs) in [(true, true), (true, false), (false, true)] {
        let session = SessionOptions { extended_messages: ours, ..SessionOptions::default() };
        let mut capabilities = vec![Capability::FourOctetAs(PEER_ASN)];
        capabilities.extend(theirs.then_some(Capability::ExtendedMessage));
        let mut scripted = Scripted::connected_with(65001, session).establish(capabilities);
        // 5000 octets of an attribute that nobody knows, optional and transitive.
        let mut unknown = vec![0xd0, 99];
        unknown.extend(5000_u16.to_be_bytes());
        unknown.extend(vec![0; 5000]);
        let bytes = raw_update(&unknown);
        let length = u16::try_from(bytes.len()).unwrap();
        let actions = scripted.handle(Event::Received { connection: ID, bytes });
        if ours && theirs {
            assert_eq!(scripted.state(), PeerState::Established);
            continue;
        }
        assert_ne!(scripted.state(), PeerState::Established);
        let last = scripted.read(&actions).into_iter().find_map(|message| match message {
            Message::Notification(last) => Some(last),
            _ => None,
        });
        assert_eq!(last, Some(Notification::bad_message_length(length)));
    }
}

/// RFC 8654 §4: an OPEN is never long, and before it nothing is.
#[test]
fn a_long_message_before_the_open_is_refused_whatever_we_offered() {
    for kind in [1, 2] {
        let session = SessionOptions { extended_messages: true, ..SessionOptions::default() };
        let mut scripted = Scripted::connected_with(65001, session);
        let mut bytes = vec![0xff; 16];
        bytes.extend([0x13, 0x88, kind]);
        let actions = scripted.handle(Event::Received { connection: ID, bytes });
        let [Message::Notification(last)] = &scripted.read(&actions)[..] else { panic!("{actions:?}") };
        assert_eq!(*last, Notification::bad_message_length(5000));
    }
}
