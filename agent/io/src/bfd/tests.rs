//! Threads against each other over a real link, each in a namespace of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyvip_bfd::boundary::Path;
use anyvip_bfd::{
    Authentication, AuthenticationKind, Cause, Discard, Fact, Hops, Role, Secret, SessionConfig, State,
    StateChanged, Wish,
};
use anyvip_machine::{FailureKind, Seed};
use tokio::sync::mpsc::Receiver;

use super::{Heard, Thread};
use crate::netlink::Netlink;
use crate::{Clock, Namespace};

const PATIENCE: Duration = Duration::from_secs(30);

/// One host: its namespace, its thread, what it said.
struct Host {
    namespace: Namespace,
    thread: Option<Thread>,
    heard: Receiver<Heard>,
    /// What was heard and is not looked for any more.
    past: Vec<Heard>,
    wanted: BTreeMap<anyvip_bfd::SessionName, SessionConfig>,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config(remote: &str, hops: Hops) -> SessionConfig {
    let link_local = remote.starts_with("fe80");
    SessionConfig {
        path: Path {
            remote: ip(remote),
            local: None,
            interface: link_local.then(|| "eth0".to_owned()),
            hops,
        },
        role: Role::Active,
        wish: Wish::Up,
        carries_health: false,
        desired_min_tx: Duration::from_millis(50),
        required_min_rx: Duration::from_millis(50),
        multiplier: 3,
        authentication: None,
    }
}

/// Two hosts with `eth0` each: 10.0.0.1 and .2, fd00::1 and ::2, fe80::1 and ::2.
fn with_two_hosts<F: Future<Output = ()>>(story: impl FnOnce(Clock, [Host; 2]) -> F + Send) {
    crate::netlink::tests::inside(|| async {
        let clock = Clock::start();
        let spaces = [Namespace::create().unwrap(), Namespace::create().unwrap()];
        let netlink = Netlink::open().unwrap();
        netlink.create_veth(("eth0", &spaces[0]), ("eth0", &spaces[1])).await.unwrap();
        let hosts = [1, 2].map(|number| {
            let namespace = spaces[number - 1].clone();
            let (thread, heard) = namespace
                .run(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        let netlink = Netlink::open().unwrap();
                        netlink.set_link_up(1).await.unwrap();
                        let link = netlink.link("eth0").await.unwrap().index;
                        netlink.set_link_up(link).await.unwrap();
                        for (address, length) in [("10.0.0.", 24), ("fd00::", 64), ("fe80::", 64)] {
                            let address = ip(&format!("{address}{number}"));
                            netlink.add_address(link, address, length).await.unwrap();
                        }
                    });
                    Thread::start(clock, Seed::new(u64::try_from(number).unwrap())).unwrap()
                })
                .unwrap();
            Host { namespace, thread: Some(thread), heard, past: Vec::new(), wanted: BTreeMap::new() }
        });
        story(clock, hosts).await;
    });
}

impl Host {
    fn want(&mut self, name: &str, config: SessionConfig) {
        self.wanted.insert(name.into(), config);
        self.renew(None);
    }

    fn renew(&self, lease: Option<anyvip_machine::Time>) {
        self.thread.as_ref().unwrap().want(self.wanted.clone(), lease);
    }

    /// The next report for which this holds.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Heard) -> bool) -> Heard {
        let search = async {
            loop {
                let heard = self.heard.recv().await.expect("the thread lives");
                if wanted(&heard) {
                    return heard;
                }
                self.past.push(heard);
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(heard) => heard,
            Err(_) => panic!("{what} never came; heard {:?}", self.past),
        }
    }

    async fn goes(&mut self, name: &str, state: State) -> StateChanged {
        let wanted = |heard: &Heard| {
            matches!(heard, Heard::Fact(Fact::StateChanged(change))
                if change.session == name.into() && change.to == state)
        };
        match self.until(&format!("{name} {state}"), wanted).await {
            Heard::Fact(Fact::StateChanged(change)) => change,
            other => panic!("{other:?}"),
        }
    }

    /// What was said since, without waiting.
    fn said(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }
}

#[test]
fn sessions_of_every_kind_come_up_over_one_link_and_a_thread_that_ends_says_goodbye() {
    with_two_hosts(|_, [mut one, mut two]| async move {
        let multi = Hops::Multi { min_ttl: 255 };
        let key = |kind| Authentication { kind, key_id: 1, key: Secret::new("k") };
        let kinds = [
            ("ipv4", "10.0.0.", Hops::Single, None),
            ("ipv6", "fd00::", Hops::Single, Some(key(AuthenticationKind::MeticulousKeyedSha1))),
            ("link-local", "fe80::", Hops::Single, None),
            ("multihop-4", "10.0.0.", multi, Some(key(AuthenticationKind::KeyedMd5))),
            ("multihop-6", "fd00::", multi, None),
        ];
        for (name, net, hops, authentication) in kinds.clone() {
            let authentication = || authentication.clone();
            one.want(
                name,
                SessionConfig { authentication: authentication(), ..config(&format!("{net}2"), hops) },
            );
            two.want(
                name,
                SessionConfig { authentication: authentication(), ..config(&format!("{net}1"), hops) },
            );
        }
        for (name, ..) in kinds.clone() {
            // In whatever order they come.
            let up = |host: &Host| {
                host.past.iter().any(|heard| {
                    matches!(heard, Heard::Fact(Fact::StateChanged(change))
                    if change.session == name.into() && change.to == State::Up)
                })
            };
            for host in [&mut one, &mut two] {
                if !up(host) {
                    let change = host.goes(name, State::Up).await;
                    host.past.push(Heard::Fact(Fact::StateChanged(change)));
                }
            }
        }
        drop(two.thread.take());
        for _ in kinds {
            let down = |heard: &Heard| {
                matches!(heard, Heard::Fact(Fact::StateChanged(change))
                if change.to == State::Down && change.cause == Cause::NeighborAdminDown)
            };
            one.until("goodbye", down).await;
        }
    });
}

#[test]
fn a_silent_link_is_found_and_a_busy_main_thread_is_not() {
    with_two_hosts(|_, [mut one, mut two]| async move {
        one.want("peer", config("10.0.0.2", Hops::Single));
        two.want("peer", config("10.0.0.1", Hops::Single));
        one.goes("peer", State::Up).await;
        two.goes("peer", State::Up).await;
        let negotiated = |heard: &Heard| {
            matches!(heard, Heard::Fact(Fact::Negotiated(negotiated))
                if negotiated.detection == Duration::from_millis(150))
        };
        one.until("fast", negotiated).await;
        two.until("fast", negotiated).await;
        // This thread is the main loop of both: it does nothing else for thirteen detection times.
        let busy = std::time::Instant::now();
        while busy.elapsed() < Duration::from_secs(2) {
            std::hint::black_box(busy.elapsed());
        }
        assert_eq!(one.said(), []);
        assert_eq!(two.said(), []);
        one.namespace
            .run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let netlink = Netlink::open().unwrap();
                    let link = netlink.link("eth0").await.unwrap().index;
                    netlink.silence(link).await.unwrap();
                });
            })
            .unwrap();
        // One end hears nothing any more; the other is told so.
        assert_eq!(two.goes("peer", State::Down).await.cause, Cause::DetectionTimeExpired);
        let change = one.goes("peer", State::Down).await;
        assert!(matches!(change.cause, Cause::NeighborSignaledDown { .. }), "{change:?}");
        assert!(change.is_failure());
    });
}

#[test]
fn the_lease_ends_also_while_the_main_thread_stands_still() {
    with_two_hosts(|clock, [mut one, mut two]| async move {
        one.wanted.insert(
            "health".into(),
            SessionConfig { carries_health: true, ..config("10.0.0.2", Hops::Single) },
        );
        one.wanted.insert("guard".into(), config("fd00::2", Hops::Single));
        one.renew(Some(clock.now() + Duration::from_secs(3)));
        two.want("guard", config("fd00::1", Hops::Single));
        two.want("health", config("10.0.0.1", Hops::Single));
        two.goes("health", State::Up).await;
        std::thread::sleep(Duration::from_secs(4));
        let down = two.goes("health", State::Down).await;
        assert!(down.is_failure(), "{down:?}");
        one.renew(Some(clock.now() + Duration::from_secs(60)));
        two.goes("health", State::Up).await;
        let guard = |heard: &Heard| {
            matches!(heard, Heard::Fact(Fact::StateChanged(change))
                if change.session == "guard".into() && change.to == State::Down)
        };
        assert!(!two.past.iter().any(guard), "{:?}", two.past);
    });
}

#[test]
fn what_came_over_a_router_is_refused_by_its_ttl() {
    with_two_hosts(|_, [mut one, two]| async move {
        one.want("peer", config("10.0.0.2", Hops::Single));
        let down = {
            let mut bytes = vec![0x20, 0x40, 3, 24, 0, 0, 0, 9, 0, 0, 0, 0];
            bytes.extend([0, 0x0f, 0x42, 0x40, 0, 0x0f, 0x42, 0x40, 0, 0, 0, 0]);
            bytes
        };
        // Until the port is open, nothing comes of it.
        let sent = two
            .namespace
            .run(|| {
                let socket = UdpSocket::bind("10.0.0.2:0").unwrap();
                socket.set_ttl(254).unwrap();
                socket
            })
            .unwrap();
        let refused = |heard: &Heard| {
            matches!(
                heard,
                Heard::Fact(Fact::Discarded { reason: Discard::NotFromThisLink { ttl: Some(254) }, .. })
            )
        };
        let send = async {
            loop {
                let _ = sent.send_to(&down, "10.0.0.1:3784");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            heard = one.until("refusal", refused) => assert!(matches!(heard,
                Heard::Fact(Fact::Discarded { session: Some(_), .. }))),
            () = send => {}
        }
        // The peer's answers say that nobody listens; that is told too, once.
        let cannot = |heard: &Heard| {
            matches!(heard, Heard::Fact(Fact::CannotSend { failure: Some(failure), .. })
                if failure.kind == FailureKind::Refused)
        };
        if !one.past.iter().any(cannot) {
            one.until("nobody listens", cannot).await;
        }
        // With the right TTL it is heard.
        sent.set_ttl(255).unwrap();
        sent.send_to(&down, "10.0.0.1:3784").unwrap();
        one.goes("peer", State::Init).await;
    });
}

#[test]
fn a_port_that_another_daemon_has_is_told_and_taken_when_it_is_free() {
    with_two_hosts(|_, [mut one, mut two]| async move {
        let other = one.namespace.run(|| UdpSocket::bind("0.0.0.0:3784").unwrap()).unwrap();
        one.want("peer", config("10.0.0.2", Hops::Single));
        two.want("peer", config("10.0.0.1", Hops::Single));
        let refused = |heard: &Heard| {
            matches!(heard, Heard::Listening { port: 3784, failure: Some(failure) }
                if failure.kind == FailureKind::AddressInUse)
        };
        one.until("refusal", refused).await;
        drop(other);
        one.until("success", |heard| matches!(heard, Heard::Listening { failure: None, .. })).await;
        one.goes("peer", State::Up).await;
    });
}

/// A routing daemon of this host may take over from us.
#[test]
fn the_port_is_free_when_the_last_session_has_said_goodbye() {
    with_two_hosts(|_, [mut one, mut two]| async move {
        one.want("peer", config("10.0.0.2", Hops::Single));
        two.want("peer", config("10.0.0.1", Hops::Single));
        one.goes("peer", State::Up).await;
        one.wanted.clear();
        one.renew(None);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while let Err(error) = one.namespace.run(|| UdpSocket::bind("0.0.0.0:3784")).unwrap() {
            assert!(std::time::Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// Reports that nobody takes do not pile up, and the failure is among those that stay.
#[tokio::test(flavor = "current_thread")]
async fn the_first_failure_and_the_last_state_are_kept_when_nobody_listens() {
    let (channel, mut heard) = tokio::sync::mpsc::channel(2);
    let mut reports = super::thread::Reports::new(channel);
    let change = |from: State, to: State, cause: Cause| {
        let (session, diagnostic) = ("s".into(), anyvip_bfd::Diagnostic::NONE);
        Heard::Fact(Fact::StateChanged(StateChanged { session, from, to, diagnostic, cause }))
    };
    for _ in 0..1000 {
        reports.tell(change(State::Init, State::Up, Cause::Handshake));
        reports.tell(change(State::Up, State::Down, Cause::DetectionTimeExpired));
        reports.tell(change(State::Down, State::Init, Cause::Handshake));
    }
    let mut got = Vec::new();
    for _ in 0..3 {
        while let Ok(heard) = heard.try_recv() {
            got.push(heard);
        }
        reports.tell_late_ones();
    }
    assert_eq!(got.len(), 4, "{got:?}");
    assert_eq!(got[2], change(State::Up, State::Down, Cause::DetectionTimeExpired));
    assert_eq!(got[3], change(State::Down, State::Init, Cause::Handshake));
}
