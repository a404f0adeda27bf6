//! The loop: waits for packets, wishes or the deadline, lets the table decide, carries out what it says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver as Orders, TryRecvError};
use std::time::Duration;

use anyvip_bfd::{Action, Event, Fact, SessionName, SessionTable, StateChanged};
use anyvip_machine::{Failure, Time};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tokio::sync::mpsc;

use super::receivers::{Interfaces, Port, Receiver};
use super::senders::Senders;
use super::{Heard, Order, Wanted};
use crate::Clock;
use crate::failure::failed;
use crate::sys::scheduling;

/// Packets read before time gets its turn; a second's worth of a thousand fast sessions.
const MOST_PACKETS: usize = 32_768;
/// How often a port that somebody else has is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// See the module's text.
pub(super) struct Loop {
    clock: Clock,
    table: SessionTable,
    orders: Orders<Order>,
    woken: UnixStream,
    reports: Reports,
    receivers: BTreeMap<Port, Receiver>,
    refused: BTreeMap<Port, (Failure, Time)>,
    senders: Senders,
    interfaces: Interfaces,
}

impl Loop {
    pub(super) fn new(
        clock: Clock,
        table: SessionTable,
        orders: Orders<Order>,
        woken: UnixStream,
        reports: mpsc::Sender<Heard>,
    ) -> Loop {
        Loop {
            clock,
            table,
            orders,
            woken,
            reports: Reports::new(reports),
            receivers: BTreeMap::new(),
            refused: BTreeMap::new(),
            senders: Senders::default(),
            interfaces: Interfaces::default(),
        }
    }

    pub(super) fn run(mut self) {
        let first = scheduling::run_first()
            .map_err(|error| failed("the BFD thread takes turns with all others", &error));
        self.reports.tell(Heard::RealTime(first));
        loop {
            self.wait();
            // What has come speaks before time does: after a stall of this thread the peers are not dead.
            self.read();
            if !self.obey() {
                return;
            }
            if self.table.next_deadline().is_some_and(|deadline| deadline <= self.clock.now()) {
                self.handle(Event::DeadlineReached);
            }
            self.reports.tell_late_ones();
        }
    }

    fn wait(&mut self) {
        let deadline =
            [self.table.next_deadline(), self.listen_again_at(), self.reports.again_at(&self.clock)];
        let timeout = deadline.into_iter().flatten().min().map(|deadline| {
            let rest = deadline.since(self.clock.now());
            TimeSpec::from_duration(rest)
        });
        let mut descriptors = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        let ports = self.receivers.values().map(|receiver| PollFd::new(receiver.as_fd(), PollFlags::POLLIN));
        descriptors.extend(ports);
        // Interrupted or not: the loop looks at everything.
        let _ = ppoll(&mut descriptors, timeout, None);
    }

    fn read(&mut self) {
        let mut left = MOST_PACKETS;
        let ports: Vec<Port> = self.receivers.keys().copied().collect();
        for port in ports {
            while left > 0
                && let Some(receiver) = self.receivers.get_mut(&port)
                && let Some((arrival, bytes)) = receiver.receive(&mut self.interfaces)
            {
                left -= 1;
                self.handle(Event::Received { arrival, bytes });
            }
        }
    }

    /// Takes the newest wish. False: nobody can wish any more; all has been said.
    fn obey(&mut self) -> bool {
        let mut bytes = [0; 64];
        while (&self.woken).read(&mut bytes).is_ok_and(|count| count > 0) {}
        let mut newest = None;
        let mut heirs = Vec::new();
        let goes_on = loop {
            match self.orders.try_recv() {
                Ok(Order::Wanted(wanted)) => newest = Some(wanted),
                Ok(Order::HandOver(answer)) => heirs.push(answer),
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        if !goes_on {
            newest = Some(Wanted { sessions: BTreeMap::new(), lease: None });
        }
        if let Some(Wanted { sessions, lease }) = newest {
            self.interfaces.renew(sessions.values().any(|session| session.path.interface.is_some()));
            let wanted = sessions.values().map(|session| Port::of(&session.path)).collect();
            // Listening begins before the first packet asks for an answer.
            self.listen(wanted);
            self.handle(Event::Wanted { sessions, lease });
        } else if self.listen_again_at().is_some_and(|at| at <= self.clock.now()) {
            self.listen(self.senders.paths().map(Port::of).collect());
        }
        for answer in heirs {
            // Whoever asked may have given up.
            let _ = answer.send(self.table.hand_over());
        }
        goes_on
    }

    fn listen(&mut self, mut wanted: BTreeSet<Port>) {
        // Sessions that say goodbye still listen.
        wanted.extend(self.senders.paths().map(Port::of));
        self.receivers.retain(|port, _| wanted.contains(port));
        self.refused.retain(|port, _| wanted.contains(port));
        let now = self.clock.now();
        for port in wanted {
            let waits = self.refused.get(&port).is_some_and(|(_, again)| *again > now);
            if self.receivers.contains_key(&port) || waits {
                continue;
            }
            match Receiver::open(port) {
                Ok(receiver) => {
                    self.receivers.insert(port, receiver);
                    if self.refused.remove(&port).is_some() {
                        self.reports.tell(Heard::Listening { port: port.port, failure: None });
                    }
                }
                Err(error) => {
                    let family = if port.ipv6 { "IPv6" } else { "IPv4" };
                    let failure =
                        failed(format!("cannot listen on UDP port {} over {family}", port.port), &error);
                    let known = self.refused.insert(port, (failure.clone(), now + LISTEN_AGAIN));
                    if known.is_none_or(|(known, _)| known != failure) {
                        self.reports.tell(Heard::Listening { port: port.port, failure: Some(failure) });
                    }
                }
            }
        }
    }

    fn listen_again_at(&self) -> Option<Time> {
        self.refused.values().map(|(_, again)| *again).min()
    }

    fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        let mut closed = false;
        while let Some(event) = events.pop_front() {
            for action in self.table.handle(self.clock.now(), event) {
                match action {
                    Action::Open { session, path } => self.senders.open(session, path),
                    Action::Close { session } => {
                        self.senders.close(session);
                        closed = true;
                    }
                    Action::Send { session, bytes } => {
                        if let Err(failure) = self.senders.send(session, &bytes) {
                            events.push_back(Event::SendFailed { session, failure });
                        }
                    }
                    Action::Fact(fact) => self.reports.tell(Heard::Fact(fact)),
                }
            }
        }
        if closed {
            // A port that no session needs any more may be another daemon's.
            self.listen(self.senders.paths().map(Port::of).collect());
        }
    }
}

/// What is told, also to somebody who does not listen for a while.
pub(super) struct Reports {
    channel: mpsc::Sender<Heard>,
    /// What found no room: of each session the first failure, and where it ended up.
    late: BTreeMap<SessionName, Late>,
}

#[derive(Default)]
struct Late {
    failure: Option<StateChanged>,
    last: Option<StateChanged>,
}

impl Reports {
    /// How long a full channel is left alone.
    const PAUSE: Duration = Duration::from_millis(10);

    pub(super) fn new(channel: mpsc::Sender<Heard>) -> Reports {
        Reports { channel, late: BTreeMap::new() }
    }

    pub(super) fn tell(&mut self, heard: Heard) {
        if self.late.is_empty() {
            match self.channel.try_send(heard) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(heard)) => self.keep(heard),
                // Nobody will ever listen.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        } else {
            self.keep(heard);
        }
    }

    fn keep(&mut self, heard: Heard) {
        if let Heard::Fact(Fact::StateChanged(change)) = heard {
            let late = self.late.entry(change.session.clone()).or_default();
            if change.is_failure() && late.failure.is_none() {
                late.failure = Some(change);
                late.last = None;
            } else {
                late.last = Some(change);
            }
        }
    }

    fn again_at(&self, clock: &Clock) -> Option<Time> {
        (!self.late.is_empty()).then(|| clock.now() + Reports::PAUSE)
    }

    pub(super) fn tell_late_ones(&mut self) {
        while let Some((name, late)) = self.late.pop_first() {
            for change in [late.failure, late.last].into_iter().flatten() {
                let heard = Heard::Fact(Fact::StateChanged(change));
                if let Err(mpsc::error::TrySendError::Full(Heard::Fact(Fact::StateChanged(change)))) =
                    self.channel.try_send(heard)
                {
                    let late = self.late.entry(name.clone()).or_default();
                    if change.is_failure() { late.failure = Some(change) } else { late.last = Some(change) }
                }
            }
            if self.late.contains_key(&name) {
                return;
            }
        }
    }
}
