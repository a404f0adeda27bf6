//! Real sockets on the loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::pin::pin;
use std::time::Duration;

use anyvip_machine::FailureKind;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const ID: ConnectionId = ConnectionId::Initiated(1);

fn listener() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, Endpoint { address: address.ip(), interface: None, port: address.port() })
}

async fn events(connections: &mut Connections) -> Vec<Event> {
    timeout(PATIENCE, connections.next()).await.expect("something happens in time")
}

/// Waits for one event that is no other's business.
async fn one(connections: &mut Connections) -> Event {
    let mut events = events(connections).await;
    assert_eq!(events.len(), 1, "one event, not {events:?}");
    events.remove(0)
}

/// A connection that stands, with the peer's end as a plain blocking socket.
async fn connected() -> (Connections, TcpStream) {
    let (listener, endpoint) = listener();
    let mut connections = Connections::new();
    connections.connect(ID, &endpoint, Some(1), None);
    assert!(matches!(one(&mut connections).await, Event::Connected { connection: ID, .. }));
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (connections, peer)
}

/// Polls `drain` until it gives something.
async fn drained(connections: &mut Connections) -> Vec<Event> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let events = connections.drain();
        if !events.is_empty() {
            return events;
        }
        assert!(std::time::Instant::now() < deadline, "the sockets never held anything");
        std::thread::yield_now();
    }
}

fn failure_of(event: &Event) -> &Failure {
    match event {
        Event::Closed { failure, .. } | Event::ConnectFailed { failure, .. } => failure,
        other => panic!("{other:?} is no failure"),
    }
}

/// As after an upgrade: the program before this one listened, and somebody called while nobody took calls.
#[tokio::test]
async fn a_listener_that_is_inherited_brings_those_who_called_meanwhile_and_one_for_another_address_is_closed()
 {
    let (inherited, endpoint) = listener();
    let bound = inherited.local_addr().unwrap();
    let caller = TcpStream::connect(bound).unwrap();
    let mut server = Connections::new();
    server.inherit(inherited, Signers { addresses: [endpoint.address].into(), ..Signers::default() });
    assert_eq!(server.listen(bound).unwrap(), bound);
    let Event::Accepted { remote, .. } = one(&mut server).await else { panic!() };
    assert_eq!(remote, caller.local_addr().unwrap());

    let (inherited, _) = listener();
    let stale = inherited.local_addr().unwrap();
    server.inherit(inherited, Signers::default());
    server.listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    assert!(TcpStream::connect(stale).is_err(), "nobody would take calls there");
}

#[tokio::test]
async fn both_ends_are_told_who_is_at_the_other_and_bytes_flow() {
    let (mut server, mut client) = (Connections::new(), Connections::new());
    let bound = server.listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let endpoint = Endpoint { address: bound.ip(), interface: None, port: bound.port() };
    client.connect(ID, &endpoint, None, None);
    let Event::Connected { local, remote, .. } = one(&mut client).await else { panic!() };
    assert_eq!(remote, bound);
    let accepted = ConnectionId::Accepted(1);
    assert_eq!(one(&mut server).await, Event::Accepted { connection: accepted, local: bound, remote: local });
    server.set_ttl(accepted, 1).unwrap();

    assert!(client.send(ID, b"open".to_vec()), "a few bytes are written at once");
    assert_eq!(one(&mut client).await, Event::Sent { connection: ID });
    assert_eq!(one(&mut server).await, Event::Received { connection: accepted, bytes: b"open".to_vec() });

    client.close(ID);
    assert_eq!(failure_of(&one(&mut server).await).kind, FailureKind::Closed);
    assert!(server.is_empty() && client.is_empty());
}

#[tokio::test]
async fn the_packets_of_a_connection_carry_cs6_and_the_ttl_asked_for() {
    let (connections, _peer) = connected().await;
    let socket = connections.open[&ID].socket();
    assert_eq!(socket.tos_v4().unwrap(), 0xc0);
    assert_eq!(socket.ttl_v4().unwrap(), 1);
    assert!(socket.tcp_nodelay().unwrap());
}

#[tokio::test]
async fn a_refused_connection_says_who_refused() {
    let (listener, endpoint) = listener();
    drop(listener);
    let mut connections = Connections::new();
    connections.connect(ID, &endpoint, None, None);
    let event = one(&mut connections).await;
    assert!(matches!(event, Event::ConnectFailed { connection: ID, .. }));
    let expected = format!("connection refused by 127.0.0.1:{}", endpoint.port);
    assert_eq!(failure_of(&event), &Failure::new(FailureKind::Refused, expected));
    assert!(connections.is_empty());
}

#[tokio::test]
async fn an_unknown_interface_is_a_failed_connect_and_no_panic() {
    let mut connections = Connections::new();
    let address = "fe80::1".parse().unwrap();
    connections.connect(ID, &Endpoint { address, interface: Some("nosuch0".into()), port: 179 }, None, None);
    let event = one(&mut connections).await;
    assert_eq!(failure_of(&event).kind, FailureKind::NotFound);
    assert!(failure_of(&event).text.contains("[fe80::1%nosuch0]:179"), "{event:?}");
}

#[tokio::test]
async fn a_connect_can_be_cancelled_and_says_nothing_more() {
    let (listener, endpoint) = listener();
    let mut connections = Connections::new();
    connections.connect(ID, &endpoint, None, None);
    connections.close(ID);
    assert!(connections.is_empty() && connections.drain().is_empty());
    // The kernel may have made the connection already; then the listener sees it end at once.
    listener.set_nonblocking(true).unwrap();
    if let Ok((mut peer, _)) = listener.accept() {
        peer.set_nonblocking(false).unwrap();
        assert!(matches!(peer.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_large_send_is_answered_only_when_a_stalled_reader_reads() {
    let (mut connections, mut peer) = connected().await;
    let payload: Vec<u8> = (0..RECEIVE_LIMIT).map(|at| u8::try_from(at % 251).unwrap()).collect();
    // Fill what the kernel is willing to buffer for a peer that reads nothing.
    let mut sends = 0;
    while connections.send(ID, payload.clone()) {
        assert_eq!(connections.drain(), vec![Event::Sent { connection: ID }]);
        sends += 1;
    }
    sends += 1;
    assert!(connections.drain().is_empty(), "the last send waits for the reader");
    assert!(timeout(Duration::from_millis(50), connections.next()).await.is_err());

    let reader = std::thread::spawn(move || {
        let mut read = vec![0; sends * RECEIVE_LIMIT];
        peer.read_exact(&mut read).unwrap();
        (peer, read)
    });
    assert_eq!(one(&mut connections).await, Event::Sent { connection: ID });
    let (_peer, read) = reader.join().unwrap();
    assert!(read.chunks(RECEIVE_LIMIT).all(|chunk| chunk == payload), "all bytes, in order");
    assert!(timeout(Duration::from_millis(50), connections.next()).await.is_err(), "one answer per send");
}

#[tokio::test]
async fn what_the_peer_said_before_it_closed_is_read_first() {
    let (mut connections, mut peer) = connected().await;
    peer.write_all(b"notification").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let received = Event::Received { connection: ID, bytes: b"notification".to_vec() };
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(Event::Closed { .. })) {
        seen.extend(events(&mut connections).await);
    }
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], received);
    assert_eq!(failure_of(&seen[1]).kind, FailureKind::Closed);
    assert!(connections.is_empty());
}

#[tokio::test]
async fn a_reset_is_told_as_a_reset() {
    let (mut connections, peer) = connected().await;
    let remote = peer.local_addr().unwrap();
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    let event = one(&mut connections).await;
    assert_eq!(
        failure_of(&event),
        &Failure::new(FailureKind::Reset, format!("{remote} reset the connection"))
    );
}

#[tokio::test]
async fn a_write_into_a_reset_connection_still_delivers_what_was_received_before() {
    let (mut connections, mut peer) = connected().await;
    peer.write_all(b"why").unwrap();
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    let mut seen = Vec::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    // The RST is there as soon as a write fails; until then writes are answered.
    while !seen.iter().any(|event| matches!(event, Event::Closed { .. })) {
        connections.send(ID, b"x".to_vec());
        seen.extend(connections.drain());
        assert!(std::time::Instant::now() < deadline);
    }
    let closed = seen.iter().filter(|event| matches!(event, Event::Closed { .. })).count();
    assert_eq!(closed, 1, "{seen:?}");
    assert!(seen.contains(&Event::Received { connection: ID, bytes: b"why".to_vec() }), "{seen:?}");
    assert_eq!(failure_of(seen.last().unwrap()).kind, FailureKind::Reset);
}

#[tokio::test]
async fn one_turn_reads_at_most_64_kib_of_each_connection() {
    let (mut connections, mut peer) = connected().await;
    let total = 3 * RECEIVE_LIMIT;
    let writer = std::thread::spawn(move || {
        peer.write_all(&vec![7; total]).unwrap();
        peer
    });
    let mut received = 0;
    while received < total {
        let events = events(&mut connections).await;
        assert_eq!(events.len(), 1);
        let Event::Received { bytes, .. } = &events[0] else { panic!("{events:?}") };
        assert!(bytes.len() <= RECEIVE_LIMIT);
        received += bytes.len();
    }
    assert_eq!(received, total);
    drop(writer.join().unwrap());
}

/// After a stop, timers are due and the runtime has not polled its readiness yet. Nothing here lets it: no await stands
/// between what the peer does and `drain`.
#[tokio::test]
async fn after_a_stall_drain_finds_what_the_runtime_does_not_know_yet() {
    let (mut connections, mut peer) = connected().await;
    assert!(timeout(Duration::from_millis(10), connections.next()).await.is_err());
    peer.write_all(b"keepalive").unwrap();
    assert_eq!(
        drained(&mut connections).await,
        vec![Event::Received { connection: ID, bytes: b"keepalive".to_vec() }]
    );
    assert!(connections.drain().is_empty());
    // What was read directly does not confuse the runtime's own view afterwards.
    assert!(timeout(Duration::from_millis(10), connections.next()).await.is_err());
    peer.write_all(b"again").unwrap();
    assert_eq!(one(&mut connections).await, Event::Received { connection: ID, bytes: b"again".to_vec() });
}

#[tokio::test]
async fn after_a_stall_drain_finds_finished_connects_and_writes() {
    let (listener, endpoint) = listener();
    let mut connections = Connections::new();
    connections.connect(ID, &endpoint, None, None);
    assert!(matches!(drained(&mut connections).await[..], [Event::Connected { .. }]));
    let (mut peer, _) = listener.accept().unwrap();
    while connections.send(ID, vec![0; RECEIVE_LIMIT]) {
        connections.drain();
    }
    let reader = std::thread::spawn(move || {
        let mut sink = vec![0; RECEIVE_LIMIT];
        while peer.read(&mut sink).unwrap() > 0 {}
    });
    assert_eq!(drained(&mut connections).await, vec![Event::Sent { connection: ID }]);
    connections.close(ID);
    connections.finish_closing().await;
    reader.join().unwrap();
}

#[tokio::test]
async fn the_last_words_reach_a_peer_whose_own_bytes_nobody_read() {
    let (mut connections, mut peer) = connected().await;
    // Unread input would turn a plain close into a RST, and the RST would swallow the farewell.
    peer.write_all(&[1; 4096]).unwrap();
    connections.send(ID, b"cease".to_vec());
    connections.close(ID);
    assert!(connections.is_empty());
    let reader = std::thread::spawn(move || {
        peer.write_all(&[2; 4096]).unwrap();
        let mut farewell = Vec::new();
        peer.read_to_end(&mut farewell).map(|_| farewell)
    });
    connections.finish_closing().await;
    assert_eq!(reader.join().unwrap().expect("no reset"), b"cease");
    assert!(connections.closing.is_empty());
}

#[tokio::test]
async fn closing_flushes_what_a_slow_peer_has_not_taken_yet() {
    let (mut connections, mut peer) = connected().await;
    let mut sends = 1;
    while connections.send(ID, vec![3; RECEIVE_LIMIT]) {
        sends += 1;
    }
    connections.close(ID);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all.len())
    });
    connections.finish_closing().await;
    assert_eq!(reader.join().unwrap().unwrap(), sends * RECEIVE_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_ends_its_side_is_let_go_after_a_second() {
    let (mut connections, peer) = connected().await;
    connections.send(ID, b"cease".to_vec());
    connections.close(ID);
    let before = Instant::now();
    connections.finish_closing().await;
    assert!(connections.closing.is_empty());
    assert!(before.elapsed() >= CLOSE_PATIENCE);
    drop(peer);
}

#[tokio::test]
async fn nothing_is_lost_when_a_waiting_turn_is_dropped() {
    let (mut connections, mut peer) = connected().await;
    let mut received = Vec::new();
    for round in 0..50_u8 {
        peer.write_all(&[round]).unwrap();
        // Dropped at its first await or after its outcome, whatever comes first.
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            events = connections.next() => received.extend(events),
        }
    }
    drop(peer);
    while !matches!(received.last(), Some(Event::Closed { .. })) {
        received.extend(events(&mut connections).await);
    }
    let bytes: Vec<u8> = received
        .iter()
        .filter_map(|event| match event {
            Event::Received { bytes, .. } => Some(bytes.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(bytes, (0..50).collect::<Vec<u8>>());
}

#[tokio::test]
async fn an_idle_connection_costs_no_turns() {
    let (mut connections, _peer) = connected().await;
    connections.listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let mut turns = 0;
    {
        let mut next = pin!(connections.next());
        let counted = poll_fn(|context| {
            turns += 1;
            next.as_mut().poll(context)
        });
        assert!(timeout(Duration::from_millis(300), counted).await.is_err());
    }
    assert!(turns <= 5, "{turns} turns in an idle while");
}

#[tokio::test]
async fn unknown_ids_are_ignored() {
    let mut connections = Connections::new();
    assert!(!connections.send(ID, b"x".to_vec()));
    connections.close(ID);
    assert!(connections.drain().is_empty());
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let mut connections = Connections::new();
    let (_listener, endpoint) = listener();
    let taken = SocketAddr::new(endpoint.address, endpoint.port);
    let failure = connections.listen(taken).unwrap_err();
    assert_eq!(failure.kind, FailureKind::AddressInUse);
    assert!(failure.text.contains(&taken.to_string()), "{failure}");
}

fn guarded(key: Option<&[u8]>, minimum_ttl: Option<u8>) -> BTreeMap<Whose, Protection> {
    let md5_key = key.and_then(Md5Key::new);
    [(Whose::At(Ipv4Addr::LOCALHOST.into()), Protection { minimum_ttl, md5_key, interface: None })].into()
}

/// RFC 2385. The kernel may be built without it.
#[tokio::test]
async fn a_session_outlives_a_key_that_changes_at_both_ends() {
    let (mut server, mut client) = (Connections::new(), Connections::new());
    let bound = server.listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    for end in [&mut server, &mut client] {
        end.protect(guarded(Some(b"first"), None)).unwrap();
    }
    let endpoint = Endpoint { address: bound.ip(), interface: None, port: bound.port() };
    client.connect(ID, &endpoint, None, None);
    assert!(matches!(one(&mut client).await, Event::Connected { .. }));
    let Event::Accepted { connection, .. } = one(&mut server).await else { panic!("not accepted") };
    for end in [&mut server, &mut client] {
        end.protect(guarded(Some(b"second"), None)).unwrap();
    }
    assert!(client.send(ID, b"hello".to_vec()));
    let received = one(&mut server).await;
    assert_eq!(received, Event::Received { connection, bytes: b"hello".to_vec() });
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_another_key_does_not_answer_and_the_key_is_suspected() {
    let (mut server, mut client) = (Connections::new(), Connections::new());
    let bound = server.listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    server.protect(guarded(Some(b"one"), None)).unwrap();
    client.protect(guarded(Some(b"another"), None)).unwrap();
    let endpoint = Endpoint { address: bound.ip(), interface: None, port: bound.port() };
    client.connect(ID, &endpoint, None, None);
    let event = one(&mut client).await;
    assert_eq!(failure_of(&event).kind, FailureKind::TimedOut);
    assert!(failure_of(&event).text.contains("did not answer: TCP MD5 is on"), "{event:?}");
    assert!(client.is_empty());
}

#[tokio::test]
async fn who_calls_through_another_interface_is_not_heard() {
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)] {
        let (mut server, mut client) = (Connections::new(), Connections::new());
        let bound = server.listen((address, 0).into()).unwrap();
        let endpoint = Endpoint { address: bound.ip(), interface: None, port: bound.port() };
        let from = |interface: &str| {
            let interface = Some(interface.to_owned());
            [(Whose::At(address), Protection { interface, ..Protection::default() })].into()
        };
        server.protect(from("nosuch0")).unwrap();
        client.connect(ID, &endpoint, None, None);
        assert!(matches!(one(&mut client).await, Event::Connected { .. }));
        let told = one(&mut server).await;
        let Event::TurnedAway { remote, why } = told else { panic!("{told:?}") };
        assert_eq!(remote.ip(), address);
        let (wanted, through) = ("nosuch0".to_owned(), "lo".to_owned());
        assert_eq!(why, Rejection::OtherInterface { wanted, through });
        let closed = one(&mut client).await;
        assert!(matches!(closed, Event::Closed { connection: ID, .. }), "{closed:?}");
        server.protect(from("lo")).unwrap();
        client.connect(ID, &endpoint, None, None);
        assert!(matches!(one(&mut client).await, Event::Connected { .. }));
        assert!(matches!(one(&mut server).await, Event::Accepted { .. }));
    }
}

/// As after an upgrade whose configuration has no key for the peer any more, or no such peer: a key left on the socket would make
/// the kernel drop all its calls.
#[tokio::test]
async fn an_inherited_listener_forgets_the_keys_of_those_who_sign_no_more_and_keeps_the_others() {
    let mut former = Connections::new();
    former.protect(guarded(Some(b"s3cret"), None)).unwrap();
    let bound = former.listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let signers = former.signers();
    assert_eq!(signers.addresses, [IpAddr::V4(Ipv4Addr::LOCALHOST)].into());
    // The socket of one program is that of the next one.
    let hand_over = |from: &Connections| -> TcpListener {
        from.listeners.values().next().unwrap().get_ref().try_clone().unwrap().into()
    };
    let calls = |key: Option<&'static [u8]>| {
        let mut client = Connections::new();
        client.protect(guarded(key, None)).unwrap();
        let endpoint = Endpoint { address: bound.ip(), interface: None, port: bound.port() };
        client.connect(ID, &endpoint, None, None);
        client
    };
    let mut signing = Connections::new();
    signing.protect(guarded(Some(b"s3cret"), None)).unwrap();
    signing.inherit(hand_over(&former), signers.clone());
    signing.listen(bound).unwrap();
    let mut client = calls(Some(b"s3cret"));
    assert!(matches!(one(&mut client).await, Event::Connected { .. }));
    assert!(matches!(one(&mut signing).await, Event::Accepted { .. }));
    drop((client, signing));

    let mut open = Connections::new();
    open.inherit(hand_over(&former), signers);
    open.listen(bound).unwrap();
    let mut client = calls(None);
    assert!(matches!(one(&mut client).await, Event::Connected { .. }));
    assert!(matches!(one(&mut open).await, Event::Accepted { .. }));
}

/// RFC 5082.
#[tokio::test]
async fn what_comes_with_a_low_ttl_is_not_heard() {
    let (mut server, mut client) = (Connections::new(), Connections::new());
    server.protect(guarded(None, Some(255))).unwrap();
    let bound = server.listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let endpoint = Endpoint { address: bound.ip(), interface: None, port: bound.port() };
    client.connect(ID, &endpoint, Some(254), None);
    assert!(matches!(one(&mut client).await, Event::Connected { .. }));
    let Event::Accepted { connection, .. } = one(&mut server).await else { panic!("not accepted") };
    client.send(ID, b"from afar".to_vec());
    client.set_ttl(ID, 255).unwrap();
    client.send(ID, b", from here".to_vec());
    // The first segment was dropped; its retransmission comes with the new TTL, and so in order.
    let mut heard = Vec::new();
    while heard.len() < 20 {
        match one(&mut server).await {
            Event::Received { connection: on, bytes } if on == connection => heard.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, b"from afar, from here");
}

#[tokio::test]
async fn a_source_address_that_is_not_here_is_named() {
    let (_listener, endpoint) = listener();
    let mut connections = Connections::new();
    connections.connect(ID, &endpoint, None, Some(Ipv4Addr::new(192, 0, 2, 1).into()));
    let event = one(&mut connections).await;
    assert_eq!(failure_of(&event).text, "192.0.2.1 is no address of this host");
}
