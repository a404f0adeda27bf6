//! A recording of a real agent, played again: the same events to the same core must bring the same actions.

use anyvip_core::Agent;
use anyvip_core::boundary::{Action, Event};
use anyvip_core::recording::{self, End, Header, Record, Segment, Unreadable};
use anyvip_machine::Time;

#[cfg(test)]
mod tests;
pub(crate) mod words;

pub use anyvip_core::utc;
pub use words::{action, event};

/// A segment, and the agent that lives through it again.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    segment: Segment<'a>,
    agent: Agent,
    number: u64,
    /// Read beyond an event to see what its actions were.
    ahead: Option<Record>,
}

/// An event that comes next; [`Replay::give`] plays it.
#[derive(Clone, Debug, PartialEq)]
pub struct Upcoming {
    /// Counted from the start of the recorded process; the first one is 1.
    pub number: u64,
    /// Where its record begins in the file.
    pub offset: usize,
    /// As the agent counted.
    pub at: Time,
    /// What happened.
    pub event: Event,
    /// Hash of what the recorded agent did; `None`: the recording ends within this event.
    pub did: Option<u64>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Play it.
    Event(Box<Upcoming>),
    /// Nothing more.
    Over(Over),
}

/// How a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// In order, for this reason.
    Closed(End),
    /// Between two records or within one: the process was killed, or the disk was full.
    Cut,
}

impl Over {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Over::Closed(End::Full) => "the segment is full; the other one goes on from there",
            Over::Closed(End::Gap) => {
                "events came faster than they could be written; the other segment goes on after a gap"
            }
            Over::Closed(End::Stopped) => "the agent ended in order",
            Over::Cut => {
                "the recording was cut off here: the agent still runs, was killed, or its disk was full"
            }
        }
    }
}

/// One event played.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// What the agent did now.
    pub actions: Vec<Action>,
    /// Whether it did the same then; where that is not known, nothing speaks against it.
    pub same: bool,
}

impl<'a> Replay<'a> {
    /// Reads the header and restores the agent.
    ///
    /// # Errors
    /// When the bytes are no recording, or their beginning cannot be read.
    pub fn begin(bytes: &'a [u8]) -> Result<Replay<'a>, Unreadable> {
        let mut segment = Segment::read(bytes)?;
        let agent = segment.checkpoint()?;
        let number = segment.header().first;
        Ok(Replay { segment, agent, number, ahead: None })
    }

    /// What opens the segment.
    #[must_use]
    pub fn header(&self) -> &Header {
        self.segment.header()
    }

    /// The agent as it is now.
    #[must_use]
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// What comes next.
    ///
    /// # Errors
    /// When a record is damaged or means nothing to this version. A record that is not whole is an end, not an error.
    pub fn upcoming(&mut self) -> Result<Next, Unreadable> {
        let offset = self.segment.offset();
        let record = match self.ahead.take() {
            Some(record) => Some(record),
            None => self.next_record()?,
        };
        let (at, event) = match record {
            Some(Record::Event { at, event }) => (at, event),
            Some(Record::End(end)) => return Ok(Next::Over(Over::Closed(end))),
            None => return Ok(Next::Over(Over::Cut)),
            Some(Record::Actions { .. }) => {
                let what = "a hash of actions where an event should be".to_owned();
                return Err(Unreadable::Damaged { offset, what });
            }
        };
        let did = match self.next_record()? {
            Some(Record::Actions { hash }) => Some(hash),
            other => {
                self.ahead = other;
                None
            }
        };
        let number = self.number;
        self.number += 1;
        Ok(Next::Event(Box::new(Upcoming { number, offset, at, event, did })))
    }

    /// Plays it.
    pub fn give(&mut self, upcoming: Upcoming) -> Played {
        let actions = self.agent.handle(upcoming.at, upcoming.event);
        let same = upcoming.did.is_none_or(|did| recording::hash(&actions).is_ok_and(|hash| hash == did));
        Played { actions, same }
    }

    fn next_record(&mut self) -> Result<Option<Record>, Unreadable> {
        match self.segment.next_record() {
            Err(Unreadable::Torn { .. }) => Ok(None),
            other => other,
        }
    }
}
