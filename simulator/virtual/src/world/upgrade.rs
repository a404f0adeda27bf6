//! `anyvip upgrade`: the process of an agent becomes the next program, which is handed what the former one knew.

use std::collections::BTreeMap;
use std::time::Duration;

use anyvip_bfd::{Former, SessionName};
use anyvip_core::Event;
use anyvip_core::boundary::Command;
use anyvip_core::restored::{Inheritance, OLDEST, Restored};
use anyvip_machine::{Failure, FailureKind, Time};

use super::host::{Ended, Host, Work};
use super::process::Letter;
use super::sabotage::Sabotage;
use super::{NodeId, World};

/// What the next programs of all hosts say of their version.
const NEXT: &str = "anyvip (the next version)";

/// How far the agent of a host has come with becoming another.
#[derive(Debug, Default)]
pub(super) struct Upgrade {
    /// How long the next program takes to start; `None`: the system refuses to run it.
    pause: Option<Duration>,
    handed: Option<Handed>,
    /// There is a process, and it is neither of the two programs.
    pub(super) between: bool,
    /// BFD sessions for the thread of the new program.
    former: BTreeMap<SessionName, Former>,
    /// When an agent last said that it would make room, and that no route would be lost.
    promised: Option<Time>,
}

/// What lies on the disk for the next program.
#[derive(Debug)]
struct Handed {
    at: Time,
    restored: Restored,
    bfd: BTreeMap<SessionName, Former>,
}

impl Upgrade {
    /// What the program that starts now may believe, and that is all over with it.
    pub(super) fn inherit(&mut self, now: Time, sabotage: Option<Sabotage>) -> Option<Inheritance> {
        let between = std::mem::take(&mut self.between);
        self.former = BTreeMap::new();
        let handed =
            self.handed.take().filter(|_| between && sabotage != Some(Sabotage::LosesInheritance))?;
        let age = now.since(handed.at);
        if age > OLDEST {
            return None;
        }
        self.former = handed.bfd;
        Some(Inheritance { from: "0.0.0".to_owned(), age, restored: handed.restored })
    }

    /// The BFD sessions that the thread of the new program goes on with.
    pub(super) fn former(&mut self) -> BTreeMap<SessionName, Former> {
        std::mem::take(&mut self.former)
    }

    /// The process is gone, whatever it was about to become.
    pub(super) fn killed(&mut self) {
        (self.between, self.handed) = (false, None);
    }
}

impl Host {
    /// When its agent last promised to make room for another without a route being lost.
    pub fn promised(&self) -> Option<Time> {
        self.upgrade.promised
    }

    /// Its agent's process is between two programs.
    pub fn is_between(&self) -> bool {
        self.upgrade.between
    }
}

impl World {
    pub(super) fn ask_for_upgrade(&mut self, node: NodeId, pause: Option<Duration>, force: bool) {
        let Some(host) = self.host_mut(node) else { return };
        host.upgrade.pause = pause;
        self.command(node, Command::Upgrade { to: NEXT.to_owned(), force });
    }

    pub(super) fn promises(&mut self, node: NodeId) {
        let now = self.now;
        if let Some(host) = self.host_mut(node) {
            host.upgrade.promised = Some(now);
        }
    }

    /// What the agent knows is to be written down, with what its BFD thread knows at this moment.
    pub(super) fn hand_down(&mut self, node: NodeId, number: u32, restored: Restored) {
        let side = self.task(node).and_then(|task| task.bfd.as_ref());
        let bfd = side.map(|side| side.hand_over()).unwrap_or_default();
        let Some(host) = self.host_mut(node) else { return };
        let latency = host.disk.latency;
        self.work(node, number, latency, Work::HandDown { restored, bfd });
    }

    pub(super) fn handed_down(
        &mut self,
        node: NodeId,
        restored: Restored,
        bfd: BTreeMap<SessionName, Former>,
    ) -> Option<Event> {
        let now = self.now;
        let host = self.host_mut(node)?;
        let result = host.disk.write();
        if result.is_ok() {
            host.upgrade.handed = Some(Handed { at: now, restored, bfd });
        }
        Some(Event::HandedDown { result })
    }

    /// A signal ends a process that is between two programs: neither of them has a handler there.
    pub(super) fn kill_between(&mut self, node: NodeId) {
        let now = self.now;
        let Some(host) = self.host_mut(node).filter(|host| host.upgrade.between) else { return };
        host.upgrade.killed();
        host.ended = Some((now, Ended::Killed));
    }

    /// exec: the kernel closes the connections of the former program, and nobody says goodbye.
    pub(super) fn replace(&mut self, node: NodeId, number: u32) {
        let Some(host) = self.host_mut(node) else { return };
        match host.upgrade.pause {
            Some(pause) => {
                host.upgrade.between = true;
                host.start_after = Some(pause);
                self.kill_agent(node, Ended::Replaced);
            }
            None => {
                host.upgrade.handed = None;
                let failure = Failure::new(FailureKind::Other, "exec format error");
                self.deliver(node, number, Letter::Core(Box::new(Event::NotReplaced { failure })));
            }
        }
    }
}
