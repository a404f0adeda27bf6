//! What happened, as one number: SHA-256 over every (time, node, event, actions), each written with postcard.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::NodeId;

/// How much is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tracing {
    /// Nothing: fastest.
    Off,
    /// The hash.
    #[default]
    Hash,
    /// The hash, and the last so many events as text.
    Text(usize),
}

/// The hash of a trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceHash(pub [u8; 32]);

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Trace {
    tracing: Tracing,
    hash: Sha256,
    /// Written out, not hashed yet.
    buffer: Vec<u8>,
    texts: VecDeque<(Time, NodeId, String)>,
}

/// In words, where there are no better ones.
pub(super) fn plain<T: fmt::Debug>(what: &T) -> String {
    format!("{what:?}")
}

/// Hashed in pieces of this size.
const PIECE: usize = 64 * 1024;

impl Trace {
    pub(super) fn new(tracing: Tracing) -> Trace {
        Trace { tracing, hash: Sha256::new(), buffer: Vec::new(), texts: VecDeque::new() }
    }

    /// A node takes an event.
    pub(super) fn begin<E: Serialize>(&mut self, at: Time, node: NodeId, event: &E, words: fn(&E) -> String) {
        if self.tracing == Tracing::Off {
            return;
        }
        self.write(&(at, node));
        self.write(event);
        if let Tracing::Text(most) = self.tracing {
            if self.texts.len() >= most {
                self.texts.pop_front();
            }
            self.texts.push_back((at, node, words(event)));
        }
    }

    /// What it says to that.
    pub(super) fn end<A: Serialize>(&mut self, actions: &[A], words: fn(&A) -> String) {
        if self.tracing == Tracing::Off {
            return;
        }
        self.write(&actions);
        if let (Tracing::Text(_), Some((_, _, text))) = (self.tracing, self.texts.back_mut()) {
            for action in actions {
                let _ = write!(text, "\n        → {}", words(action));
            }
        }
        if self.buffer.len() >= PIECE {
            self.hash.update(&self.buffer);
            self.buffer.clear();
        }
    }

    fn write<T: Serialize + ?Sized>(&mut self, value: &T) {
        let buffer = std::mem::take(&mut self.buffer);
        match postcard::to_extend(value, buffer) {
            Ok(buffer) => self.buffer = buffer,
            // Nothing that events hold can fail; were it so, the hash must not look as if it had been written.
            Err(_) => self.buffer = b"unwritable".to_vec(),
        }
    }

    pub(super) fn hash(&self) -> TraceHash {
        let mut hash = self.hash.clone();
        hash.update(&self.buffer);
        TraceHash(hash.finalize().into())
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = (Time, NodeId, &str)> {
        self.texts.iter().map(|(at, node, text)| (*at, *node, text.as_str()))
    }
}
