//! Read-only views of a table.

use std::time::Duration;

use anyvip_machine::{Failure, Time};
use serde::{Deserialize, Serialize};

use crate::boundary::{Path, SessionName};
use crate::error::Discard;
use crate::wire::{Diagnostic, Discriminator, State};

/// One session.
#[derive(Clone, Debug)]
pub struct SessionView<'a> {
    pub name: &'a SessionName,
    pub path: &'a Path,
    pub state: State,
    /// Since when.
    pub since: Time,
    /// What we tell the peer as the reason of our state.
    pub diagnostic: Diagnostic,
    pub discriminator: Discriminator,
    /// What is known of the peer, once and as long as it is heard.
    pub peer: Option<PeerFacts>,
    /// Between our packets before jitter; `None` while none are sent by the clock.
    pub transmit: Option<Duration>,
    /// Without a packet for that long the peer counts as gone.
    pub detection: Option<Duration>,
    /// A poll sequence is under way.
    pub polling: bool,
    pub counters: &'a Counters,
    /// The last packet that was for this session and changed nothing.
    pub last_discard: Option<&'a Discard>,
    /// Why packets cannot be sent.
    pub cannot_send: Option<&'a Failure>,
}

/// What a peer says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    pub discriminator: Discriminator,
    pub state: State,
    pub diagnostic: Diagnostic,
    pub desired_min_tx: Duration,
    pub required_min_rx: Duration,
    pub multiplier: u8,
    pub demand: bool,
}

/// What a session counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub sent: u64,
    pub received: u64,
    pub discarded: u64,
    /// Times it left Up.
    pub lost: u64,
}
