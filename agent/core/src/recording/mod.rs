//! Recordings: what an agent was, what happened to it, and what it made of that; bytes in and out, no files.
//!
//! A segment stands for itself. It opens with a line (`anyvip recording 1`), a [`Header`] and a checkpoint (the serialised
//! [`Agent`]); then, for each call of [`Agent::handle`], the event goes in before the call and a hash of the actions after it,
//! so that the event an agent did not survive is there. Each record is a frame with checksums: a file that
//! ends in the middle (SIGKILL, a full disk) is told from one that was changed.
//!
//! Everything inside is CBOR with field names. Secrets go in as digests, by their type ([`crate::config::Secret`]).

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::agent::Agent;
use crate::boundary::{Action, Event};
use crate::config::Config;

mod frame;
#[cfg(test)]
mod tests;

use frame::{Frames, Kind};

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;
const OPENING: &str = "anyvip recording ";
/// No opening line is longer.
const LONGEST_OPENING: usize = OPENING.len() + 11;

/// What opens a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the program that recorded.
    pub program: String,
    /// Wall clock at [`Time::ZERO`], ms since 1970.
    pub wall_clock_ms: u64,
    /// Number of the first event. Events are counted from the start of the process, so that gaps between segments show.
    pub first: u64,
    /// The configuration in force.
    pub config: Config,
}

/// What follows the checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Given to the agent at this moment.
    Event { at: Time, event: Event },
    /// The [`hash`] of what it answered.
    Actions { hash: u64 },
    /// Nothing more comes in this segment.
    End(End),
}

/// Why a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It is full; the other one goes on without a gap.
    Full,
    /// Events came faster than they could be written; the other one goes on after a gap.
    Gap,
    /// The agent ended.
    Stopped,
}

/// Why something cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    #[error("it is not a recording of anyvip")]
    Foreign,
    #[error("it is a recording of format {0:?}; this version reads {FORMAT}")]
    Format(String),
    /// What a killed process or a full disk leaves.
    #[error("it ends in the middle of the record at offset {offset}")]
    Torn { offset: usize },
    #[error("the record at offset {offset} is damaged: {what}")]
    Damaged { offset: usize, what: String },
    /// Whole, but another version meant something else by it.
    #[error("the {what} at offset {offset} cannot be read by this version: {error}")]
    Garbled { offset: usize, what: &'static str, error: String },
}

impl Unreadable {
    /// There is nothing in it that this version could read, not even a part.
    #[must_use]
    pub fn is_of_another_kind(&self) -> bool {
        matches!(self, Unreadable::Foreign | Unreadable::Format(_))
    }
}

/// Something that cannot be written down: a bug, or a path that is no text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unwritable(String);

impl Header {
    /// The header of a segment that begins with this agent.
    #[must_use]
    pub fn of(agent: &Agent, program: &str, first: u64) -> Header {
        let (wall_clock_ms, config) = (agent.wall_clock_ms, agent.config.clone());
        Header { program: program.to_owned(), wall_clock_ms, first, config }
    }
}

/// The beginning of a segment.
///
/// # Errors
/// See [`Unwritable`].
pub fn open(header: &Header, agent: &Agent) -> Result<Vec<u8>, Unwritable> {
    let mut out = format!("{OPENING}{FORMAT}\n").into_bytes();
    frame::append(&mut out, Kind::Header, header)?;
    frame::append(&mut out, Kind::Checkpoint, agent)?;
    Ok(out)
}

/// Appends a record.
///
/// # Errors
/// See [`Unwritable`]; `out` is as before then.
pub fn event(out: &mut Vec<u8>, at: Time, event: &Event) -> Result<(), Unwritable> {
    frame::append(out, Kind::Event, &(at, event))
}

/// Appends a record; `scratch` keeps its memory from one call to the next.
///
/// # Errors
/// See [`Unwritable`]; `out` is as before then.
pub fn actions(out: &mut Vec<u8>, actions: &[Action], scratch: &mut Vec<u8>) -> Result<(), Unwritable> {
    frame::append(out, Kind::Actions, &hash_with(actions, scratch)?)
}

/// Appends the last record.
///
/// # Errors
/// See [`Unwritable`].
pub fn end(out: &mut Vec<u8>, end: End) -> Result<(), Unwritable> {
    frame::append(out, Kind::End, &end)
}

/// What two agents must agree on.
///
/// # Errors
/// See [`Unwritable`].
pub fn hash(actions: &[Action]) -> Result<u64, Unwritable> {
    hash_with(actions, &mut Vec::new())
}

fn hash_with(actions: &[Action], scratch: &mut Vec<u8>) -> Result<u64, Unwritable> {
    scratch.clear();
    frame::encode(actions, scratch)?;
    Ok(xxh3_64(scratch))
}

/// A segment that is read record by record.
#[derive(Clone, Debug)]
pub struct Segment<'a> {
    frames: Frames<'a>,
    header: Header,
}

impl<'a> Segment<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(bytes: &'a [u8]) -> Result<Segment<'a>, Unreadable> {
        let line = bytes.iter().take(LONGEST_OPENING).position(|byte| *byte == b'\n');
        let opening = line.and_then(|end| std::str::from_utf8(bytes.get(..end)?).ok());
        let (Some(end), Some(format)) = (line, opening.and_then(|text| text.strip_prefix(OPENING))) else {
            let torn = !bytes.is_empty() && OPENING.as_bytes().starts_with(bytes);
            return Err(if torn { Unreadable::Torn { offset: 0 } } else { Unreadable::Foreign });
        };
        if format != FORMAT.to_string() {
            return Err(Unreadable::Format(format.to_owned()));
        }
        let mut frames = Frames::new(bytes, end + 1);
        let header = frames.expect(Kind::Header)?;
        Ok(Segment { frames, header })
    }

    /// What opens it.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The agent as it was; to be called once, before any record is read.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn checkpoint(&mut self) -> Result<Agent, Unreadable> {
        self.frames.expect(Kind::Checkpoint)
    }

    /// Where the next record begins.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.frames.offset()
    }

    /// The next record; `None` where the file ends between two.
    ///
    /// # Errors
    /// [`Unreadable`]; after that nothing more can be read.
    pub fn next_record(&mut self) -> Result<Option<Record>, Unreadable> {
        let Some(frame) = self.frames.next_frame()? else { return Ok(None) };
        Ok(Some(match frame.kind {
            Kind::Event => {
                let (at, event) = frame.decode()?;
                Record::Event { at, event }
            }
            Kind::Actions => Record::Actions { hash: frame.decode()? },
            Kind::End => Record::End(frame.decode()?),
            Kind::Header | Kind::Checkpoint => {
                let what = format!("a {} where events should be", frame.kind);
                return Err(Unreadable::Damaged { offset: frame.offset, what });
            }
        }))
    }
}
