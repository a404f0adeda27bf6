//! What strangers may send, as functions of bytes that must come back: one for each message that has a structure of its own, one
//! for BFD packets, and one for a whole session. They panic where a promise of the codec or the machine is broken.
//!
//! `fuzz_targets/` hands them to libFuzzer, `examples/drive.rs` to a mutation engine that needs nothing but a compiler.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a finding is a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyvip_bfd::wire::ControlPacket;
use anyvip_bgp::wire::{
    Codec, Family, Framer, HEADER_LEN, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN, Message, Notification,
};
use anyvip_bgp::{
    Action, ConnectionId, Endpoint, Event, PeerConfig, PeerName, Receive, Remote, SessionOptions, Speaker,
    SpeakerConfig, Transport,
};
use anyvip_machine::{Seed, Time};

/// What reads any octets and must live.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 5] =
    [("open", open), ("update", update), ("notification", notification), ("bfd", bfd), ("session", session)];

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;

/// The body of an OPEN.
pub fn open(body: &[u8]) {
    let codec = Codec::before_open();
    if let Ok(message) = decode(OPEN, body, &codec) {
        again(&message, &codec);
    }
}

/// The body of a NOTIFICATION.
pub fn notification(body: &[u8]) {
    let codec = Codec::before_open();
    if let Ok(message) = decode(NOTIFICATION, body, &codec) {
        again(&message, &codec);
    }
}

/// One octet that says what was negotiated, then the body of an UPDATE.
pub fn update(data: &[u8]) {
    let Some((flags, body)) = data.split_first() else { return };
    let codec = codec(*flags);
    if let Ok(Message::Update(update)) = decode(UPDATE, body, &codec) {
        // No more routes than octets, and none of a family that the session does not have.
        let announced = update.reach.iter().map(|reach| reach.prefixes.len()).sum::<usize>();
        assert!(announced + update.withdrawn.len() + update.paths.len() <= body.len());
        assert!(update.reach.iter().all(|reach| codec.families.contains(&reach.family)));
        assert!(update.paths.is_empty() || !codec.add_path.is_empty());
        // What is written of it is read again without an error.
        let mut framer = Framer::default();
        if codec.extended_messages {
            framer.allow_extended();
        }
        framer.push(&update.encode(&codec));
        while let Some(message) = framer.next_frame() {
            let plain = Codec { add_path: BTreeSet::new(), ..codec.clone() };
            match Message::decode(&message.unwrap(), &plain) {
                Ok(Message::Update(again)) => assert_eq!(again.errors, []),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(framer.pending(), 0);
    }
}

/// A BFD control packet.
pub fn bfd(data: &[u8]) {
    if let Ok(packet) = ControlPacket::decode(data) {
        let bytes = packet.encode();
        assert!(bytes.len() <= data.len());
        assert_eq!(ControlPacket::decode(&bytes).as_ref(), Ok(&packet));
    }
}

/// One octet of what is configured, one of where the stream is cut, then what the peer sends after its OPEN and KEEPALIVE; with the
/// highest bit of the first octet, from the very beginning.
pub fn session(data: &[u8]) {
    let [flags, cut, stream @ ..] = data else { return };
    let mut speaker = Speaker::new(Seed::new(1));
    let mut now = Time::from_secs(1);
    let connection = ConnectionId::Initiated(1);
    let (local, remote) = (at(1, 40_000), at(2, 179));
    let begin = [
        Event::Configure(configuration(*flags)),
        Event::Connected { connection, local, remote },
        Event::Sent { connection },
    ];
    for event in begin {
        let _ = speaker.handle(now, event);
    }
    if flags & 0x80 == 0 {
        let mut hello = greeting(*flags).encode(&Codec::before_open());
        hello.extend(Message::Keepalive.encode(&Codec::before_open()));
        let _ = speaker.handle(now, Event::Received { connection, bytes: hello });
        let _ = speaker.handle(now, Event::Sent { connection });
    }
    let piece = usize::from(*cut).max(1) * 16;
    for bytes in stream.chunks(piece) {
        now += Duration::from_millis(1);
        let actions = speaker.handle(now, Event::Received { connection, bytes: bytes.to_vec() });
        for action in &actions {
            if let Action::Send { bytes, .. } = action {
                legal(bytes);
            }
        }
        if actions.iter().any(|action| matches!(action, Action::Send { .. })) {
            let _ = speaker.handle(now, Event::Sent { connection });
        }
        if let Some(due) = speaker.next_deadline().filter(|due| *due <= now) {
            panic!("due at {due}, and it is {now}");
        }
    }
    // Whatever came, time goes on: every deadline fires and the next is later.
    for _ in 0..4 {
        let Some(due) = speaker.next_deadline() else { break };
        now = now.max(due);
        let _ = speaker.handle(now, Event::DeadlineReached);
    }
}

/// All that we send is whole messages that anybody can read.
fn legal(bytes: &[u8]) {
    let mut framer = Framer::default();
    framer.allow_extended();
    framer.push(bytes);
    while let Some(frame) = framer.next_frame() {
        let frame = frame.unwrap();
        let both = BTreeSet::from([Family::Ipv4, Family::Ipv6]);
        let reader = Codec {
            families: both,
            four_octet_as: true,
            extended_messages: true,
            ..Codec::before_open()
        };
        if let Err(notification) = Message::decode(&frame, &reader) {
            panic!("{notification}");
        }
    }
    assert_eq!(framer.pending(), 0);
}

fn decode(kind: u8, body: &[u8], codec: &Codec) -> Result<Message, Notification> {
    let most = if codec.extended_messages { MAX_EXTENDED_LEN } else { MAX_MESSAGE_LEN };
    let length = HEADER_LEN + body.len().min(most - HEADER_LEN);
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(length).unwrap().to_be_bytes());
    message.push(kind);
    message.extend_from_slice(&body[..length - HEADER_LEN]);
    let decoded = Message::decode(&message, codec);
    if let Err(notification) = &decoded {
        let answer = Message::Notification(notification.clone()).encode(&Codec::before_open());
        assert!(answer.len() <= MAX_MESSAGE_LEN && matches!(notification.code, 1..=3 | 7), "{notification}");
    }
    decoded
}

/// Read again, it is the same.
fn again(message: &Message, codec: &Codec) {
    let bytes = message.encode(codec);
    assert!(bytes.len() <= MAX_MESSAGE_LEN);
    assert_eq!(Message::decode(&bytes, codec).as_ref(), Ok(message));
}

fn codec(flags: u8) -> Codec {
    let both = BTreeSet::from([Family::Ipv4, Family::Ipv6]);
    let when = |bit: u8| if flags & bit == 0 { BTreeSet::new() } else { both.clone() };
    Codec {
        external: flags & 1 == 0,
        four_octet_as: flags & 2 == 0,
        families: if flags & 4 == 0 { both.clone() } else { BTreeSet::from([Family::Ipv6]) },
        extended_next_hop: when(8).into_iter().filter(|family| *family == Family::Ipv4).collect(),
        add_path: when(16),
        extended_messages: flags & 32 != 0,
    }
}

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), port)
}

fn greeting(flags: u8) -> Message {
    use anyvip_bgp::wire::{AfiSafi, Capability, Open};
    let asn = if flags & 1 == 0 { 65002 } else { 65001 };
    let families = [Family::Ipv4, Family::Ipv6].map(AfiSafi::from);
    let mut capabilities: Vec<Capability> = families.into_iter().map(Capability::Multiprotocol).collect();
    capabilities.push(Capability::RouteRefresh);
    if flags & 2 == 0 {
        capabilities.push(Capability::FourOctetAs(asn));
    }
    if flags & 4 != 0 {
        capabilities.push(Capability::ExtendedMessage);
    }
    if flags & 16 != 0 {
        capabilities.push(Capability::AddPath(families.into_iter().map(|family| (family, 3)).collect()));
    }
    Message::Open(Open::new(asn, 9, Ipv4Addr::new(10, 0, 0, 2), capabilities))
}

fn configuration(flags: u8) -> SpeakerConfig {
    let vip = "198.51.100.1/32".parse().unwrap();
    let receive = match flags >> 5 & 3 {
        0 => Receive::Nothing,
        1 => Receive::Only(BTreeSet::from([vip, "0.0.0.0/0".parse().unwrap()])),
        _ => Receive::All,
    };
    let peer = PeerConfig {
        remote: Remote::At(Endpoint { address: at(2, 179).ip(), interface: None, port: 179 }),
        asn: if flags & 1 == 0 { 65002 } else { 65001 },
        connect: true,
        hold_time: Some(Duration::from_secs(9)),
        connect_retry: Duration::from_secs(1),
        ttl: None,
        families: BTreeSet::from([Family::Ipv4, Family::Ipv6]),
        receive,
        session: SessionOptions {
            add_path: flags & 16 != 0,
            extended_messages: flags & 4 != 0,
            heard_limit: Some(10),
            ..SessionOptions::default()
        },
        transport: Transport::default(),
    };
    let router_id = Ipv4Addr::new(10, 0, 0, 1);
    SpeakerConfig { asn: 65001, router_id, peers: BTreeMap::from([(PeerName::from("peer"), peer)]) }
}
