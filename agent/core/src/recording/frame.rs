//! One record: kind, length, checksum of the contents, checksum of these three, contents.
//!
//! The second checksum tells a file that ends too early from one whose length was changed.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use super::{Unreadable, Unwritable};

const HEAD: usize = 13;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header = 1,
    Checkpoint = 2,
    Event = 3,
    Actions = 4,
    End = 5,
}

impl Kind {
    fn from_octet(octet: u8) -> Option<Kind> {
        let all = [Kind::Header, Kind::Checkpoint, Kind::Event, Kind::Actions, Kind::End];
        all.into_iter().find(|kind| *kind as u8 == octet)
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Header => "header",
            Kind::Checkpoint => "checkpoint",
            Kind::Event => "event",
            Kind::Actions => "hash of actions",
            Kind::End => "end",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The lower half of the hash.
fn sum(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = xxh3_64(bytes).to_le_bytes();
    [a, b, c, d]
}

/// Appends a value without a frame.
pub(super) fn encode(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) -> Result<(), Unwritable> {
    ciborium::into_writer(value, out).map_err(|error| Unwritable(error.to_string()))
}

/// Appends a value in a frame of its kind.
pub(super) fn append(
    out: &mut Vec<u8>,
    kind: Kind,
    value: &(impl Serialize + ?Sized),
) -> Result<(), Unwritable> {
    let start = out.len();
    out.resize(start + HEAD, 0);
    let written = encode(value, out).and_then(|()| {
        let length = out.len() - start - HEAD;
        u32::try_from(length).map_err(|_| Unwritable(format!("{length} bytes are too many for one record")))
    });
    let length = match written {
        Ok(length) => length,
        Err(error) => {
            out.truncate(start);
            return Err(error);
        }
    };
    let (head, contents) = out.split_at_mut(start + HEAD);
    let head = &mut head[start..];
    head[0] = kind as u8;
    head[1..5].copy_from_slice(&length.to_le_bytes());
    head[5..9].copy_from_slice(&sum(contents));
    let of_head = sum(&head[..9]);
    head[9..].copy_from_slice(&of_head);
    Ok(())
}

/// One record as it lies in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) offset: usize,
    contents: &'a [u8],
}

impl Frame<'_> {
    pub(super) fn decode<T: DeserializeOwned>(&self) -> Result<T, Unreadable> {
        ciborium::from_reader(self.contents).map_err(|error| {
            let error = match error {
                ciborium::de::Error::Semantic(_, text) => text,
                other => other.to_string(),
            };
            Unreadable::Garbled { offset: self.offset, what: self.kind.name(), error }
        })
    }
}

/// The records of a file, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8], offset: usize) -> Frames<'a> {
        Frames { bytes, offset }
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// The next one; `None` at the end of the file.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame<'a>>, Unreadable> {
        let offset = self.offset;
        let rest = self.bytes.get(offset..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        // After a power cut a file may be longer than what was written to it.
        if rest.iter().all(|byte| *byte == 0) {
            return Err(Unreadable::Torn { offset });
        }
        let Some((head, rest)) = rest.split_first_chunk::<HEAD>() else {
            return Err(Unreadable::Torn { offset });
        };
        let damaged = |what: &str| Unreadable::Damaged { offset, what: what.to_owned() };
        let [kind, a, b, c, d, of_contents @ ..] = head;
        let (of_contents, of_head) = of_contents.split_at(4);
        if sum(&head[..9]) != of_head {
            return Err(damaged("the checksum of its head does not match"));
        }
        let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let Some(contents) = rest.get(..length) else { return Err(Unreadable::Torn { offset }) };
        if sum(contents) != of_contents {
            return Err(damaged("the checksum of its contents does not match"));
        }
        let kind =
            Kind::from_octet(*kind).ok_or_else(|| damaged(&format!("no record has the kind {kind}")))?;
        self.offset = offset + HEAD + length;
        Ok(Some(Frame { kind, offset, contents }))
    }

    /// The next one, which must be of this kind.
    pub(super) fn expect<T: DeserializeOwned>(&mut self, kind: Kind) -> Result<T, Unreadable> {
        let offset = self.offset;
        match self.next_frame()? {
            None => Err(Unreadable::Torn { offset }),
            Some(frame) if frame.kind == kind => frame.decode(),
            Some(frame) => {
                let what = format!("a {} where the {kind} should be", frame.kind);
                Err(Unreadable::Damaged { offset, what })
            }
        }
    }
}
