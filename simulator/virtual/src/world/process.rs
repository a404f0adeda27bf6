//! What every running program has, agent or router: an inbox, a pace, connections, and a deadline in the heap.
//!
//! Everything that comes to a process goes through [`World::deliver`] and is handled after the event that caused it, so
//! that `handle` is never entered from within `handle`. A frozen process takes nothing; its kernel goes on collecting.
//! When it goes on, it first takes all that has come meanwhile, and only then lets time act.

use std::collections::VecDeque;
use std::time::Duration;

use anyvip_bgp::ConnectionId;
use anyvip_machine::Time;

use super::bfd::Side;
use super::queue::What;
use super::stream::StreamId;
use super::{Node, NodeId, World};

/// What comes to a process.
#[derive(Debug)]
pub(super) enum Letter {
    /// From its connections.
    Bgp(anyvip_bgp::Event),
    /// A connection has something to read.
    Readable { stream: StreamId, side: u8 },
    /// For an agent: everything that is not BGP.
    Core(Box<anyvip_core::Event>),
    /// For a router: a link came or went.
    Link { interface: String, up: bool },
}

/// How a process gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    #[default]
    Running,
    /// SIGSTOP: not at all.
    Frozen,
    /// One event each so long.
    Slow(Duration),
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Task {
    /// Never used twice on a node; what belongs to a former process does not reach this one.
    pub(super) number: u32,
    pub(super) pace: Pace,
    pub(super) inbox: VecDeque<Letter>,
    /// The wake in the heap that counts.
    armed: Option<Time>,
    /// A turn of a slow process is in the heap.
    turning: bool,
    /// Connections that this side opened.
    pub(super) connections: Vec<(ConnectionId, StreamId)>,
    /// It does not read from its connections.
    pub(super) stalled: bool,
    /// Its BFD thread.
    pub(super) bfd: Option<Box<Side>>,
    /// When it last went on after it was stopped.
    pub(super) resumed: Time,
}

impl Task {
    pub(super) fn new(number: u32) -> Task {
        Task { number, ..Task::default() }
    }
}

impl World {
    pub(super) fn task(&self, node: NodeId) -> Option<&Task> {
        match self.node(node)? {
            Node::Host(host) => host.process.as_ref().map(|process| &process.task),
            Node::Router(router) => router.process.as_ref().map(|process| &process.task),
            Node::Client(_) | Node::Bridge(_) => None,
        }
    }

    pub(super) fn task_mut(&mut self, node: NodeId) -> Option<&mut Task> {
        match self.nodes.get_mut(node.0 as usize)? {
            Node::Host(host) => host.process.as_mut().map(|process| &mut process.task),
            Node::Router(router) => router.process.as_mut().map(|process| &mut process.task),
            Node::Client(_) | Node::Bridge(_) => None,
        }
    }

    /// Whether bytes that arrive now are read now.
    pub(super) fn reads_now(&self, node: NodeId) -> bool {
        self.task(node)
            .is_some_and(|task| task.pace == Pace::Running && task.inbox.is_empty() && !task.stalled)
    }

    /// Something comes to a process; it takes it once the present event is dealt with.
    pub(super) fn deliver(&mut self, node: NodeId, process: u32, letter: Letter) {
        self.letters.push_back((node, process, letter));
    }

    /// Hands out what has been delivered.
    pub(super) fn hand_out(&mut self) {
        while let Some((node, process, letter)) = self.letters.pop_front() {
            let now = self.now;
            let Some(task) = self.task_mut(node).filter(|task| task.number == process) else { continue };
            match task.pace {
                Pace::Running if task.inbox.is_empty() => {
                    self.take(node, letter);
                    self.arm(node);
                }
                Pace::Running | Pace::Frozen => task.inbox.push_back(letter),
                Pace::Slow(each) => {
                    task.inbox.push_back(letter);
                    if !std::mem::replace(&mut task.turning, true) {
                        self.queue.push(now + each, What::Turn { node, process });
                    }
                }
            }
        }
    }

    /// A process takes a letter.
    fn take(&mut self, node: NodeId, letter: Letter) {
        let letter = match letter {
            Letter::Readable { stream, side } => {
                if self.task(node).is_some_and(|task| task.stalled) {
                    return;
                }
                match self.read(stream, side) {
                    Some(event) => Letter::Bgp(event),
                    None => return,
                }
            }
            letter => letter,
        };
        match self.node(node) {
            Some(Node::Host(_)) => self.agent_takes(node, letter),
            Some(Node::Router(_)) => self.router_takes(node, letter),
            _ => {}
        }
    }

    /// A slow process takes the next letter.
    pub(super) fn take_next(&mut self, node: NodeId, process: u32) {
        let now = self.now;
        let Some(task) = self.task_mut(node).filter(|task| task.number == process) else { return };
        task.turning = false;
        let Pace::Slow(each) = task.pace else { return };
        let letter = task.inbox.pop_front();
        if !task.inbox.is_empty() {
            task.turning = true;
            self.queue.push(now + each, What::Turn { node, process });
        }
        if let Some(letter) = letter {
            self.take(node, letter);
        }
        self.arm(node);
    }

    /// Changes how a process gets on. What has piled up is taken before time acts.
    pub(super) fn set_pace(&mut self, node: NodeId, pace: Pace) {
        let now = self.now;
        self.turn.touch(node);
        let Some(task) = self.task_mut(node) else { return };
        let number = task.number;
        if std::mem::replace(&mut task.pace, pace) == Pace::Frozen && pace != Pace::Frozen {
            task.resumed = now;
            self.bfd_goes_on(node);
        }
        let Some(task) = self.task_mut(node) else { return };
        match pace {
            Pace::Frozen => {}
            Pace::Running => {
                for letter in std::mem::take(&mut task.inbox) {
                    self.take(node, letter);
                }
            }
            Pace::Slow(each) => {
                if !task.inbox.is_empty() && !std::mem::replace(&mut task.turning, true) {
                    self.queue.push(now + each, What::Turn { node, process: number });
                }
            }
        }
        self.arm(node);
    }

    /// The process reads from its connections, or does not.
    pub(super) fn set_stalled(&mut self, node: NodeId, stalled: bool) {
        let Some(task) = self.task_mut(node) else { return };
        let number = task.number;
        task.stalled = stalled;
        if stalled {
            return;
        }
        for (stream, side) in self.streams_of(node, number) {
            self.deliver(node, number, Letter::Readable { stream, side });
        }
    }

    /// When the machine of this node wants to be woken, in the time of the world.
    fn next_deadline(&self, node: NodeId) -> Option<Time> {
        match self.node(node)? {
            Node::Host(host) => host.process.as_ref()?.next_deadline(),
            Node::Router(router) => router.process.as_ref()?.machine.next_deadline(),
            Node::Client(_) | Node::Bridge(_) => None,
        }
    }

    /// Puts the machine's deadline into the heap, unless an earlier one is there.
    pub(super) fn arm(&mut self, node: NodeId) {
        if let Some(next) = self.next_deadline(node) {
            self.arm_at(node, next);
        }
    }

    fn arm_at(&mut self, node: NodeId, next: Time) {
        let next = next.max(self.now);
        let Some(task) = self.task_mut(node) else { return };
        let busy = task.pace == Pace::Frozen || !task.inbox.is_empty();
        if busy || task.armed.is_some_and(|armed| armed <= next) {
            return;
        }
        task.armed = Some(next);
        let process = task.number;
        self.queue.push(next, What::Wake { node, process });
    }

    /// A wake of the heap.
    pub(super) fn wake(&mut self, node: NodeId, process: u32) {
        let now = self.now;
        let Some(task) = self.task_mut(node).filter(|task| task.number == process) else { return };
        if task.armed != Some(now) {
            return;
        }
        task.armed = None;
        if task.pace == Pace::Frozen || !task.inbox.is_empty() {
            return;
        }
        let Some(next) = self.next_deadline(node) else { return };
        if next > now {
            return self.arm_at(node, next);
        }
        match self.node(node) {
            Some(Node::Host(_)) => {
                self.agent_takes(node, Letter::Core(Box::new(anyvip_core::Event::DeadlineReached)));
            }
            Some(Node::Router(_)) => {
                self.router_takes(node, Letter::Bgp(anyvip_bgp::Event::DeadlineReached));
            }
            _ => {}
        }
        let Some(next) = self.next_deadline(node) else { return };
        if next <= now {
            // A world that turns on the spot would hide what it found.
            self.breach(node, format!("no progress: {next} is still due at {now}"));
            if let Some(task) = self.task_mut(node) {
                task.pace = Pace::Frozen;
            }
        }
        self.arm_at(node, next);
    }
}
