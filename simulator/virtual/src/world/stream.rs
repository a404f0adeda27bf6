//! Byte streams between two processes: what TCP does, as far as the ends can tell.
//!
//! Segments keep their order. What meets a cut is sent again after a pause that doubles, and all behind it waits. Both
//! kernels together hold [`CAPACITY`] octets; beyond that a `Send` is not `Sent`. An end may close (the other one hears
//! it after everything that was sent before), be reset, or vanish without a word: then the other one learns it only
//! when it speaks to a host that is there and does not know the connection.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use anyvip_bgp::{ConnectionId, Endpoint, Event as Bgp};
use anyvip_machine::{Failure, FailureKind, Time};

use super::network::{LONGEST_RETRANSMISSION, Leg, MOST_RETRANSMISSIONS, RETRANSMISSION};
use super::process::Letter;
use super::queue::What;
use super::{NodeId, World};

/// Octets that the two kernels hold for one direction.
pub(super) const CAPACITY: usize = 256 * 1024;
/// One read.
const READ_LIMIT: usize = 64 * 1024;
/// A neighbour that does not answer at all: the kernel gives up on its hardware address.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// A half-open connection that nobody confirms is given up after this (Linux: five SYN-ACKs).
const SYN_RECEIVED: Duration = Duration::from_secs(63);

/// One stream; an id is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamId {
    index: u32,
    generation: u32,
}

impl StreamId {
    fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn of(number: u64) -> StreamId {
        StreamId { index: number as u32, generation: (number >> 32) as u32 }
    }
}

/// How an end stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndState {
    /// Not there yet.
    Absent,
    /// Its SYN is under way.
    Asking,
    /// It has answered a SYN.
    Opening,
    Open,
    /// Its process closed it, or was told that it is over.
    Closed,
    /// Its host lost power.
    Vanished,
}

#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) node: NodeId,
    pub(super) process: u32,
    pub(super) connection: ConnectionId,
    pub(super) address: SocketAddr,
    pub(super) state: EndState,
}

#[derive(Clone, Debug)]
pub(super) enum Segment {
    Syn,
    SynAck,
    Ack,
    Data(Vec<u8>),
    Fin,
}

/// One direction.
#[derive(Clone, Debug, Default)]
struct Pipe {
    /// Not arrived yet, oldest first.
    queue: VecDeque<Segment>,
    /// So many of them are on their way.
    flying: usize,
    /// Counts losses: what was on its way before one does not arrive.
    epoch: u16,
    last_arrival: Time,
    /// Retransmissions in a row; set while one is awaited.
    resting: bool,
    tries: u8,
    /// Arrived and not read.
    unread: VecDeque<u8>,
    /// A `Readable` lies in the reader's inbox.
    announced: bool,
    /// Octets in both kernels.
    buffered: usize,
    /// The last write is not taken whole yet.
    waiting: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) ends: [End; 2],
    pipes: [Pipe; 2],
    legs: Vec<Leg>,
}

/// All streams.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    slots: Vec<(u32, Option<Box<Stream>>)>,
    free: Vec<u32>,
}

impl Streams {
    fn add(&mut self, stream: Stream) -> StreamId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let Some((generation, slot)) = self.slots.get_mut(index as usize) else {
            return StreamId { index, generation: 0 };
        };
        *generation += 1;
        *slot = Some(Box::new(stream));
        StreamId { index, generation: *generation }
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        let (generation, stream) = self.slots.get(id.index as usize)?;
        stream.as_deref().filter(|_| *generation == id.generation)
    }

    fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        let (generation, stream) = self.slots.get_mut(id.index as usize)?;
        stream.as_deref_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (StreamId, &Stream)> {
        self.slots.iter().enumerate().filter_map(|(index, (generation, stream))| {
            Some((StreamId { index: index as u32, generation: *generation }, stream.as_deref()?))
        })
    }

    /// Nobody can learn anything from it any more.
    fn tidy(&mut self, id: StreamId) {
        let Some(stream) = self.get(id) else { return };
        let over = |end: &End| matches!(end.state, EndState::Absent | EndState::Closed | EndState::Vanished);
        if stream.ends.iter().all(over)
            && let Some((_, slot)) = self.slots.get_mut(id.index as usize)
        {
            *slot = None;
            self.free.push(id.index);
        }
    }
}

impl Stream {
    /// Whether something other than a KEEPALIVE is under way or waits to be read.
    pub(super) fn is_loud(&self) -> bool {
        let settled = |end: &End| matches!(end.state, EndState::Open | EndState::Closed | EndState::Vanished);
        let loud = |segment: &Segment| match segment {
            Segment::Data(bytes) => !only_keepalives(bytes.iter().copied()),
            Segment::Ack => false,
            Segment::Syn | Segment::SynAck | Segment::Fin => true,
        };
        !self.ends.iter().all(settled)
            || self.pipes.iter().any(|pipe| {
                pipe.waiting || pipe.queue.iter().any(loud) || !only_keepalives(pipe.unread.iter().copied())
            })
    }

    fn end(&self, side: u8) -> Option<&End> {
        self.ends.get(side as usize)
    }

    /// What this end sends.
    fn pipe(&mut self, side: u8) -> Option<&mut Pipe> {
        self.pipes.get_mut(side as usize)
    }
}

/// RFC 4271 §4.4: a KEEPALIVE is 19 octets, the last of them 4.
fn only_keepalives(bytes: impl ExactSizeIterator<Item = u8>) -> bool {
    bytes.len().is_multiple_of(19) && bytes.enumerate().all(|(at, octet)| at % 19 != 18 || octet == 4)
}

fn failure(kind: FailureKind, text: &str) -> Failure {
    Failure::new(kind, text)
}

fn reset() -> Failure {
    failure(FailureKind::Reset, "connection reset by peer")
}

impl World {
    /// A process asks for a connection.
    pub(super) fn connect(
        &mut self,
        node: NodeId,
        process: u32,
        connection: ConnectionId,
        remote: &Endpoint,
    ) {
        let to = self.network.owner(remote.address);
        let Some((to, (leaves, legs))) = to.and_then(|to| Some((to, self.network.way(node, to)?))) else {
            let failure = failure(FailureKind::Unreachable, "network is unreachable");
            return self.deliver(node, process, Letter::Bgp(Bgp::ConnectFailed { connection, failure }));
        };
        let port = self.network.port(leaves);
        let own = port.and_then(|port| {
            let mut nets = port.addresses.iter();
            nets.find(|net| net.contains(&remote.address)).map(ipnet::IpNet::addr)
        });
        let (Some(own), Some(target)) = (own, self.network.port(to).map(|port| port.node)) else {
            let failure = failure(FailureKind::AddressNotAvailable, "cannot assign requested address");
            return self.deliver(node, process, Letter::Bgp(Bgp::ConnectFailed { connection, failure }));
        };
        self.ephemeral = if self.ephemeral >= 60_999 { 32_768 } else { self.ephemeral + 1 };
        let ends = [
            End {
                node,
                process,
                connection,
                address: SocketAddr::new(own, self.ephemeral),
                state: EndState::Asking,
            },
            End {
                node: target,
                process: 0,
                connection: ConnectionId::Accepted(0),
                address: SocketAddr::new(remote.address, remote.port),
                state: EndState::Absent,
            },
        ];
        let id = self.streams.add(Stream { ends, pipes: Default::default(), legs });
        if let ConnectionId::Initiated(_) = connection
            && let Some(task) = self.task_mut(node)
        {
            task.connections.push((connection, id));
        }
        self.queue.push(self.now + CONNECT_PATIENCE, What::ConnectTimeout { stream: id });
        self.enqueue(id, 0, Segment::Syn);
    }

    fn end_of(&self, node: NodeId, connection: ConnectionId) -> Option<(StreamId, u8)> {
        let id = match connection {
            ConnectionId::Accepted(number) => StreamId::of(number),
            ConnectionId::Initiated(_) => {
                let known = &self.task(node)?.connections;
                known.iter().find(|(other, _)| *other == connection)?.1
            }
        };
        let stream = self.streams.get(id)?;
        let is =
            |end: &End| end.node == node && end.connection == connection && end.state != EndState::Closed;
        let side = stream.ends.iter().position(is)?;
        Some((id, side as u8))
    }

    /// A process writes whole messages.
    pub(super) fn write(&mut self, node: NodeId, connection: ConnectionId, bytes: Vec<u8>) {
        let Some((id, side)) = self.end_of(node, connection) else { return };
        let Some(pipe) = self.streams.get_mut(id).and_then(|stream| stream.pipe(side)) else { return };
        if pipe.waiting {
            let text = "a second Send before the Sent of the first";
            return self.breach(node, text.to_owned());
        }
        pipe.buffered += bytes.len();
        if pipe.buffered > CAPACITY {
            pipe.waiting = true;
        } else {
            self.queue.push(self.now, What::Sent { stream: id, by: side });
        }
        self.enqueue(id, side, Segment::Data(bytes));
    }

    /// A process closes its end.
    pub(super) fn close(&mut self, node: NodeId, connection: ConnectionId) {
        let Some((id, side)) = self.end_of(node, connection) else { return };
        self.shut(id, side, false);
    }

    /// An end is over for its process. The other one hears of it behind all data, or, if `hard`, at once.
    pub(super) fn shut(&mut self, id: StreamId, side: u8, hard: bool) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let Some(end) = stream.ends.get_mut(side as usize) else { return };
        let was = std::mem::replace(&mut end.state, EndState::Closed);
        let (node, connection) = (end.node, end.connection);
        if let Some(task) = self.task_mut(node) {
            task.connections.retain(|(known, _)| *known != connection);
        }
        match was {
            EndState::Opening => self.send_reset(id, 1 - side),
            EndState::Open if hard => self.send_reset(id, 1 - side),
            EndState::Open => self.enqueue(id, side, Segment::Fin),
            _ => {}
        }
        self.streams.tidy(id);
    }

    /// The host lost power: nothing more comes from this end, and nobody is told.
    pub(super) fn vanish(&mut self, id: StreamId, side: u8) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if let Some(end) = stream.ends.get_mut(side as usize)
            && end.state != EndState::Closed
        {
            end.state = EndState::Vanished;
        }
        if let Some(pipe) = stream.pipe(side) {
            *pipe = Pipe { epoch: pipe.epoch.wrapping_add(1), ..Pipe::default() };
        }
        self.streams.tidy(id);
    }

    fn enqueue(&mut self, id: StreamId, side: u8, segment: Segment) {
        if let Some(pipe) = self.streams.get_mut(id).and_then(|stream| stream.pipe(side)) {
            pipe.queue.push_back(segment);
            self.pump(id, side);
        }
    }

    /// Sends what is not on its way yet.
    fn pump(&mut self, id: StreamId, side: u8) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let Stream { pipes, legs, .. } = stream;
        let Some(pipe) = pipes.get_mut(side as usize) else { return };
        if pipe.resting {
            return;
        }
        if !self.network.clear(legs, side) {
            return self.rest(id, side);
        }
        while let Some(segment) = pipe.queue.get(pipe.flying) {
            let octets = if let Segment::Data(bytes) = segment { bytes.len() + 52 } else { 52 };
            let at = self.network.carry(legs, side, self.now, octets).max(pipe.last_arrival);
            pipe.last_arrival = at;
            pipe.flying += 1;
            self.queue.push(at, What::Segment { stream: id, to: 1 - side, epoch: pipe.epoch });
        }
    }

    /// What was on its way is lost; it is sent again later.
    fn rest(&mut self, id: StreamId, side: u8) {
        let Some(pipe) = self.streams.get_mut(id).and_then(|stream| stream.pipe(side)) else { return };
        if pipe.tries >= MOST_RETRANSMISSIONS {
            pipe.queue.clear();
            (pipe.flying, pipe.buffered) = (0, 0);
            return self.end_with(id, side, failure(FailureKind::TimedOut, "connection timed out"));
        }
        let pause = (RETRANSMISSION * (1 << pipe.tries.min(12))).min(LONGEST_RETRANSMISSION);
        pipe.tries += 1;
        pipe.flying = 0;
        pipe.epoch = pipe.epoch.wrapping_add(1);
        pipe.resting = true;
        self.queue.push(self.now + pause, What::Retransmit { stream: id, from: side, epoch: pipe.epoch });
    }

    pub(super) fn retransmit(&mut self, id: StreamId, side: u8, epoch: u16) {
        let Some(pipe) = self.streams.get_mut(id).and_then(|stream| stream.pipe(side)) else { return };
        if pipe.resting && pipe.epoch == epoch {
            pipe.resting = false;
            if !pipe.queue.is_empty() {
                self.pump(id, side);
            }
        }
    }

    /// The first segment on its way reaches this end.
    pub(super) fn segment_arrives(&mut self, id: StreamId, to: u8, epoch: u16) {
        let Some(stream) = self.streams.get(id) else { return };
        let from = 1 - to;
        let Some(end) = stream.end(to).map(|end| (end.node, end.state)) else { return };
        let arrives = self.network.clear(&stream.legs, from) && self.powered(end.0);
        let pipe = self.streams.get_mut(id).and_then(|stream| stream.pipe(from));
        let Some(pipe) = pipe.filter(|pipe| pipe.epoch == epoch) else { return };
        if !arrives {
            return self.rest(id, from);
        }
        let Some(segment) = pipe.queue.pop_front() else { return };
        (pipe.flying, pipe.tries) = (pipe.flying.saturating_sub(1), 0);
        match (segment, end.1) {
            (Segment::Syn, EndState::Absent) => self.syn_arrives(id),
            (Segment::SynAck, EndState::Asking) => {
                self.set_state(id, to, EndState::Open);
                self.enqueue(id, 0, Segment::Ack);
                let Some([local, remote]) = self.streams.get(id).map(|stream| &stream.ends) else { return };
                let (connection, local, remote) = (local.connection, local.address, remote.address);
                self.tell(id, to, Letter::Bgp(Bgp::Connected { connection, local, remote }));
            }
            (Segment::Ack, EndState::Opening) => {
                self.set_state(id, to, EndState::Open);
                let Some([remote, local]) = self.streams.get(id).map(|stream| &stream.ends) else { return };
                let (connection, local, remote) = (local.connection, local.address, remote.address);
                self.tell(id, to, Letter::Bgp(Bgp::Accepted { connection, local, remote }));
            }
            (Segment::Data(bytes), EndState::Open) => self.data_arrives(id, to, bytes),
            (Segment::Fin, EndState::Open) => {
                self.end_with(id, to, failure(FailureKind::Closed, "connection closed by peer"));
            }
            // Nobody here knows this connection (any more).
            (Segment::Data(_) | Segment::SynAck | Segment::Ack, _) => self.send_reset(id, from),
            (Segment::Syn | Segment::Fin, _) => self.streams.tidy(id),
        }
    }

    fn syn_arrives(&mut self, id: StreamId) {
        let Some([_, end]) = self.streams.get(id).map(|stream| &stream.ends) else { return };
        let (node, address) = (end.node, end.address);
        let Some(process) = self.listener(node, address) else { return self.send_reset(id, 0) };
        if let Some([_, end]) = self.streams.get_mut(id).map(|stream| &mut stream.ends) {
            end.process = process;
            end.connection = ConnectionId::Accepted(id.number());
            end.state = EndState::Opening;
        }
        self.queue.push(self.now + SYN_RECEIVED, What::ConnectTimeout { stream: id });
        self.enqueue(id, 1, Segment::SynAck);
    }

    fn data_arrives(&mut self, id: StreamId, to: u8, bytes: Vec<u8>) {
        let Some(end) = self.streams.get(id).and_then(|stream| stream.end(to)) else { return };
        let (node, process, connection) = (end.node, end.process, end.connection);
        let at_once = self.reads_now(node);
        let Some(pipe) = self.streams.get_mut(id).and_then(|stream| stream.pipe(1 - to)) else { return };
        if at_once {
            pipe.buffered = pipe.buffered.saturating_sub(bytes.len());
            self.sent_if_room(id, 1 - to);
            return self.deliver(node, process, Letter::Bgp(Bgp::Received { connection, bytes }));
        }
        pipe.unread.extend(bytes);
        if !std::mem::replace(&mut pipe.announced, true) {
            self.deliver(node, process, Letter::Readable { stream: id, side: to });
        }
    }

    /// A process reads what has arrived, at most 64 KiB; the rest is announced again.
    pub(super) fn read(&mut self, id: StreamId, side: u8) -> Option<Bgp> {
        let stream = self.streams.get_mut(id)?;
        let end = stream.end(side).filter(|end| end.state == EndState::Open)?;
        let (node, process, connection) = (end.node, end.process, end.connection);
        let pipe = stream.pipe(1 - side)?;
        let count = pipe.unread.len().min(READ_LIMIT);
        let bytes: Vec<u8> = pipe.unread.drain(..count).collect();
        pipe.buffered = pipe.buffered.saturating_sub(count);
        pipe.announced = !pipe.unread.is_empty();
        if pipe.announced {
            self.deliver(node, process, Letter::Readable { stream: id, side });
        }
        self.sent_if_room(id, 1 - side);
        (count > 0).then_some(Bgp::Received { connection, bytes })
    }

    fn sent_if_room(&mut self, id: StreamId, by: u8) {
        let Some(pipe) = self.streams.get_mut(id).and_then(|stream| stream.pipe(by)) else { return };
        if pipe.waiting && pipe.buffered <= CAPACITY {
            pipe.waiting = false;
            self.queue.push(self.now, What::Sent { stream: id, by });
        }
    }

    pub(super) fn sent(&mut self, id: StreamId, by: u8) {
        let Some(end) = self.streams.get(id).and_then(|stream| stream.end(by)) else { return };
        if end.state == EndState::Open {
            let connection = end.connection;
            self.tell(id, by, Letter::Bgp(Bgp::Sent { connection }));
        }
    }

    fn send_reset(&mut self, id: StreamId, to: u8) {
        let Some(stream) = self.streams.get(id) else { return };
        if self.network.clear(&stream.legs, 1 - to) {
            let at = self.network.carry(&stream.legs, 1 - to, self.now, 52);
            self.queue.push(at, What::Reset { stream: id, to });
        }
        self.streams.tidy(id);
    }

    /// The end opposite to `side` is told that the connection is reset.
    pub(super) fn reset_other(&mut self, id: StreamId, side: u8) {
        self.send_reset(id, 1 - side);
    }

    pub(super) fn reset_arrives(&mut self, id: StreamId, to: u8) {
        let Some(end) = self.streams.get(id).and_then(|stream| stream.end(to)) else { return };
        if self.powered(end.node) {
            self.end_with(id, to, reset());
        }
    }

    pub(super) fn connect_timeout(&mut self, id: StreamId) {
        let Some(end) = self.streams.get(id).and_then(|stream| stream.end(0)) else { return };
        if end.state == EndState::Asking {
            self.end_with(id, 0, failure(FailureKind::Unreachable, "no route to host"));
        }
        let over = |end: &End| matches!(end.state, EndState::Closed | EndState::Vanished);
        if let Some([asker, answerer]) = self.streams.get(id).map(|stream| &stream.ends)
            && over(asker)
            && answerer.state == EndState::Opening
        {
            self.end_with(id, 1, failure(FailureKind::TimedOut, "connection timed out"));
        }
    }

    /// An end is over, and its process hears why.
    pub(super) fn end_with(&mut self, id: StreamId, side: u8, failure: Failure) {
        let Some(end) = self.streams.get(id).and_then(|stream| stream.end(side)) else { return };
        let (connection, node) = (end.connection, end.node);
        let letter = match end.state {
            EndState::Asking => {
                let refused = match failure.kind {
                    FailureKind::Reset => Failure::new(FailureKind::Refused, "connection refused"),
                    _ => failure,
                };
                Letter::Bgp(Bgp::ConnectFailed { connection, failure: refused })
            }
            EndState::Open => Letter::Bgp(Bgp::Closed { connection, failure }),
            EndState::Opening => {
                self.set_state(id, side, EndState::Closed);
                return self.streams.tidy(id);
            }
            EndState::Absent | EndState::Closed | EndState::Vanished => return self.streams.tidy(id),
        };
        self.tell(id, side, letter);
        self.set_state(id, side, EndState::Closed);
        if let Some(task) = self.task_mut(node) {
            task.connections.retain(|(known, _)| *known != connection);
        }
        self.streams.tidy(id);
    }

    fn tell(&mut self, id: StreamId, side: u8, letter: Letter) {
        let Some(end) = self.streams.get(id).and_then(|stream| stream.end(side)) else { return };
        let (node, process) = (end.node, end.process);
        self.deliver(node, process, letter);
    }

    fn set_state(&mut self, id: StreamId, side: u8, state: EndState) {
        if let Some(end) = self.streams.get_mut(id).and_then(|stream| stream.ends.get_mut(side as usize)) {
            end.state = state;
        }
    }

    /// Streams with an end in this process, and which end.
    pub(super) fn streams_of(&self, node: NodeId, process: u32) -> Vec<(StreamId, u8)> {
        let mut found = Vec::new();
        for (id, stream) in self.streams.iter() {
            for (side, end) in stream.ends.iter().enumerate() {
                let live = matches!(end.state, EndState::Asking | EndState::Opening | EndState::Open);
                if end.node == node && end.process == process && live {
                    found.push((id, side as u8));
                }
            }
        }
        found
    }

    /// The process is gone and its kernel closes what it had: data that nobody read makes it a reset.
    pub(super) fn close_all(&mut self, node: NodeId, process: u32) {
        for (id, side) in self.streams_of(node, process) {
            let pipe = self.streams.get_mut(id).and_then(|stream| stream.pipe(1 - side));
            let hard = pipe.is_some_and(|pipe| !pipe.unread.is_empty());
            self.shut(id, side, hard);
        }
    }
}
