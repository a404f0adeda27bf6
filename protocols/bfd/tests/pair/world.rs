//! Two hosts and the link between them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyvip_bfd::boundary::Path;
use anyvip_bfd::wire::ControlPacket;
use anyvip_bfd::{
    Action, Arrival, Cause, Discard, Discriminator, Event, Fact, Hops, Role, SessionConfig, SessionName,
    SessionTable, State, StateChanged, Wish,
};
use anyvip_machine::{Seed, Time};

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) arrives: Time,
    pub(crate) to: usize,
    pub(crate) arrival: Arrival,
    pub(crate) bytes: Vec<u8>,
}

/// One end.
pub(crate) struct Host {
    pub(crate) table: SessionTable,
    paths: BTreeMap<Discriminator, Path>,
    pub(crate) wanted: BTreeMap<SessionName, SessionConfig>,
    pub(crate) changes: Vec<(Time, StateChanged)>,
    pub(crate) discards: Vec<(Option<SessionName>, Discard)>,
    pub(crate) sent: Vec<(Time, ControlPacket, Vec<u8>)>,
    pub(crate) others: Vec<Fact>,
    /// It does not run.
    pub(crate) stopped: bool,
    /// What came meanwhile.
    waiting: Vec<Datagram>,
    address: IpAddr,
}

/// What is between them.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) hosts: [Host; 2],
    flight: Vec<Datagram>,
    pub(crate) delay: Duration,
    /// Of 1000 datagrams.
    pub(crate) loss: u64,
    /// Datagrams to this host vanish.
    pub(crate) cut: [bool; 2],
    /// TTL on arrival.
    pub(crate) ttl: Option<u8>,
    seed: Seed,
}

pub(crate) fn config(remote: usize) -> SessionConfig {
    SessionConfig {
        path: Path { remote: address(remote), local: None, interface: None, hops: Hops::Single },
        role: Role::Active,
        wish: Wish::Up,
        carries_health: false,
        desired_min_tx: ms(50),
        required_min_rx: ms(50),
        multiplier: 3,
        authentication: None,
    }
}

pub(crate) fn address(host: usize) -> IpAddr {
    format!("10.0.0.{}", host + 1).parse().unwrap()
}

/// The name of the session in [`World::up`].
pub(crate) fn name() -> SessionName {
    "peer".into()
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let seed = Seed::new(seed);
        let host = |number: usize| Host {
            table: SessionTable::new(seed.child(&format!("host {number}"))),
            paths: BTreeMap::new(),
            wanted: BTreeMap::new(),
            changes: Vec::new(),
            discards: Vec::new(),
            sent: Vec::new(),
            others: Vec::new(),
            stopped: false,
            waiting: Vec::new(),
            address: address(number),
        };
        World {
            now: Time::from_secs(1),
            hosts: [host(0), host(1)],
            flight: Vec::new(),
            delay: Duration::from_micros(200),
            loss: 0,
            cut: [false; 2],
            ttl: Some(255),
            seed: seed.child("link"),
        }
    }

    /// One session, wanted at both ends.
    pub(crate) fn pair(seed: u64, of: impl Fn(usize, &mut SessionConfig)) -> World {
        let mut world = World::new(seed);
        for host in 0..2 {
            let mut wanted = config(1 - host);
            of(host, &mut wanted);
            world.want(host, name(), wanted);
        }
        world
    }

    /// The same, Up and settled.
    pub(crate) fn up(seed: u64, of: impl Fn(usize, &mut SessionConfig)) -> World {
        let mut world = World::pair(seed, of);
        world.run(ms(5000));
        assert_eq!(world.states(), [State::Up, State::Up]);
        for host in &mut world.hosts {
            host.changes.clear();
            host.sent.clear();
            host.others.clear();
        }
        world
    }

    pub(crate) fn want(&mut self, host: usize, name: SessionName, config: SessionConfig) {
        self.hosts[host].wanted.insert(name, config);
        self.renew(host, None);
    }

    pub(crate) fn change(&mut self, host: usize, change: impl FnOnce(&mut SessionConfig)) {
        change(self.hosts[host].wanted.get_mut(&name()).unwrap());
        self.renew(host, None);
    }

    pub(crate) fn renew(&mut self, host: usize, lease: Option<Time>) {
        let sessions = self.hosts[host].wanted.clone();
        self.handle(host, Event::Wanted { sessions, lease });
    }

    pub(crate) fn states(&self) -> [State; 2] {
        [0, 1].map(|host| self.state(host))
    }

    pub(crate) fn state(&self, host: usize) -> State {
        self.hosts[host].table.session(&name()).unwrap().state
    }

    /// Why the session of this host changed last, and to what.
    pub(crate) fn last_change(&self, host: usize) -> (State, State, Cause) {
        let (_, change) = self.hosts[host].changes.last().unwrap();
        (change.from, change.to, change.cause)
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    /// Runs until it is so, and says how long that took.
    #[track_caller]
    pub(crate) fn run_until(&mut self, most: Duration, done: impl Fn(&World) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            let next = self.next().filter(|next| *next <= start + most);
            let Some(next) = next else { panic!("not within {most:?}: {:?}", self.states()) };
            self.now = self.now.max(next);
            self.step();
        }
        self.now.since(start)
    }

    /// Lets a standing host go on: it first reads what came, as every driver does.
    pub(crate) fn resume(&mut self, host: usize) {
        self.hosts[host].stopped = false;
        for datagram in std::mem::take(&mut self.hosts[host].waiting) {
            self.handle(host, Event::Received { arrival: datagram.arrival, bytes: datagram.bytes });
        }
    }

    /// Another program takes over after `pause`; what comes meanwhile is lost.
    pub(crate) fn replace(&mut self, host: usize, pause: Duration, change: impl FnOnce(&mut SessionConfig)) {
        self.replace_late(host, Duration::ZERO, pause, change);
    }

    /// The same, where the former program goes on for a while after it has said what there is to say.
    pub(crate) fn replace_late(
        &mut self,
        host: usize,
        late: Duration,
        pause: Duration,
        change: impl FnOnce(&mut SessionConfig),
    ) {
        let former = self.hosts[host].table.hand_over();
        // As in a file.
        let former = serde_json::from_str(&serde_json::to_string(&former).unwrap()).unwrap();
        self.run(late);
        self.hosts[host].table = SessionTable::new(Seed::new(0));
        self.hosts[host].paths.clear();
        self.cut[host] = true;
        self.run(pause);
        self.cut[host] = false;
        self.hosts[host].table = SessionTable::taking_over(Seed::new(99), former);
        self.change(host, change);
    }

    fn next(&self) -> Option<Time> {
        let running = self.hosts.iter().filter(|host| !host.stopped);
        let due = running.filter_map(|host| host.table.next_deadline());
        due.chain(self.flight.iter().map(|datagram| datagram.arrives)).min()
    }

    /// What is due: datagrams first, then time.
    fn step(&mut self) {
        let (here, flight) =
            std::mem::take(&mut self.flight).into_iter().partition(|d| d.arrives <= self.now);
        self.flight = flight;
        let here: Vec<Datagram> = here;
        for datagram in here {
            self.deliver(datagram);
        }
        for host in 0..2 {
            let end = &self.hosts[host];
            if !end.stopped && end.table.next_deadline().is_some_and(|due| due <= self.now) {
                self.handle(host, Event::DeadlineReached);
                let next = self.hosts[host].table.next_deadline();
                assert!(next.is_none_or(|next| next > self.now), "no progress");
            }
        }
    }

    pub(crate) fn deliver(&mut self, datagram: Datagram) {
        if self.cut[datagram.to] {
            return;
        }
        let host = &mut self.hosts[datagram.to];
        if host.stopped {
            return host.waiting.push(datagram);
        }
        let Datagram { to, arrival, bytes, .. } = datagram;
        self.handle(to, Event::Received { arrival, bytes });
    }

    /// A datagram as if the other host had sent it.
    pub(crate) fn forge(&mut self, to: usize, bytes: Vec<u8>) {
        let arrival = self.arrival(to, false);
        self.handle(to, Event::Received { arrival, bytes });
    }

    pub(crate) fn arrival(&self, to: usize, multihop: bool) -> Arrival {
        Arrival {
            remote: self.hosts[1 - to].address,
            local: self.hosts[to].address,
            interface: None,
            ttl: self.ttl,
            multihop,
        }
    }

    pub(crate) fn handle(&mut self, host: usize, event: Event) {
        // What goes into a machine and what is in it can be written down.
        let written: Event = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        if !matches!(event, Event::Wanted { .. }) {
            assert_eq!(written, event);
        }
        for action in self.hosts[host].table.handle(self.now, event) {
            self.execute(host, action);
        }
    }

    fn execute(&mut self, host: usize, action: Action) {
        let now = self.now;
        match action {
            Action::Open { session, path } => {
                assert!(self.hosts[host].paths.insert(session, path).is_none());
            }
            Action::Close { session } => {
                assert!(self.hosts[host].paths.remove(&session).is_some());
            }
            Action::Send { session, bytes } => {
                let packet = ControlPacket::decode(&bytes).unwrap();
                assert!(!(packet.poll && packet.final_), "RFC 5880 §6.5");
                assert_eq!(packet.my_discriminator, session);
                let path = self.hosts[host].paths[&session].clone();
                self.hosts[host].sent.push((now, packet, bytes.clone()));
                if !self.seed.chance(self.loss) {
                    let to = 1 - host;
                    let mut arrival = self.arrival(to, path.hops != Hops::Single);
                    arrival.local = path.remote;
                    arrival.remote = path.local.unwrap_or(arrival.remote);
                    self.flight.push(Datagram { arrives: now + self.delay, to, arrival, bytes });
                }
            }
            Action::Fact(Fact::StateChanged(change)) => self.hosts[host].changes.push((now, change)),
            Action::Fact(Fact::Discarded { session, reason, .. }) => {
                self.hosts[host].discards.push((session, reason))
            }
            Action::Fact(other) => self.hosts[host].others.push(other),
        }
    }
}
