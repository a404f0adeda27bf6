//! The one heap of the world: (time, sequence, what).

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use anyvip_machine::Time;

use super::NodeId;
use super::bfd::Datagram;
use super::host::Work;
use super::network::PortId;
use super::stream::StreamId;

/// What comes due.
#[derive(Debug)]
pub(super) enum What {
    /// A fault, or a step of an operator; by its place in the plan.
    Planned(u32),
    /// The first segment on its way reaches this end.
    Segment { stream: StreamId, to: u8, epoch: u16 },
    /// A reset reaches this end.
    Reset { stream: StreamId, to: u8 },
    /// This end sends again what was lost.
    Retransmit { stream: StreamId, from: u8, epoch: u16 },
    /// The kernel has taken all of the last write of this end.
    Sent { stream: StreamId, by: u8 },
    /// Nobody answered this attempt to connect.
    ConnectTimeout { stream: StreamId },
    /// Something that a process asked of its host is done.
    Work { node: NodeId, process: u32, work: Box<Work> },
    /// The kernel side shows itself to the agent.
    Show { node: NodeId, process: u32 },
    /// A slow process takes the next event.
    Turn { node: NodeId, process: u32 },
    /// The service manager starts the agent.
    Start { node: NodeId, start: u32 },
    /// A machine's own deadline.
    Wake { node: NodeId, process: u32 },
    /// A datagram reaches a port.
    Datagram { to: PortId, datagram: Box<Datagram> },
    /// A deadline of the BFD thread.
    BfdWake { node: NodeId, process: u32 },
}

#[derive(Debug)]
struct Entry {
    at: Time,
    order: u64,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Deadlines come after everything else of the same moment: a driver reads before it lets time act.
const AFTER_ALL: u64 = 1 << 63;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    next: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Time, what: What) {
        let last = if matches!(what, What::Wake { .. } | What::BfdWake { .. }) { AFTER_ALL } else { 0 };
        self.heap.push(Reverse(Entry { at, order: self.next | last, what }));
        self.next += 1;
    }

    /// When the next thing comes due.
    pub(super) fn first(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// The next thing, if it comes due by `limit`.
    pub(super) fn pop(&mut self, limit: Time) -> Option<(Time, What)> {
        if self.first()? > limit {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_in_order_of_time_and_then_of_entry_and_deadlines_after_all_of_their_moment() {
        let mut queue = Queue::default();
        let at = Time::from_secs(1);
        queue.push(at, What::Wake { node: NodeId(0), process: 1 });
        queue.push(Time::from_secs(2), What::Planned(9));
        queue.push(at, What::Planned(1));
        queue.push(at, What::Planned(2));
        let order: Vec<String> =
            std::iter::from_fn(|| queue.pop(Time::MAX)).map(|(_, what)| format!("{what:?}")).collect();
        assert_eq!(order, ["Planned(1)", "Planned(2)", "Wake { node: NodeId(0), process: 1 }", "Planned(9)"]);
        queue.push(at, What::Planned(1));
        assert!(queue.pop(Time::from_millis(999)).is_none());
        assert_eq!(queue.len(), 1);
    }
}
