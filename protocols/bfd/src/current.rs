//! Where a session is: bfd.SessionState, and the peer as it was heard last.

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use crate::boundary::Former;
use crate::wire::{ControlPacket, Diagnostic, Discriminator, State};

/// bfd.SessionState, with what is known of the peer: bfd.RemoteDiscr is 0 where that is `None`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Current {
    AdminDown { peer: Option<Peer> },
    Down { peer: Option<Peer> },
    Init { peer: Peer },
    Up { peer: Peer },
}

/// What the peer's last packet said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) discriminator: Discriminator,
    pub(crate) state: State,
    pub(crate) diagnostic: Diagnostic,
    pub(crate) demand: bool,
    pub(crate) desired_min_tx: u32,
    pub(crate) required_min_rx: u32,
    pub(crate) multiplier: u8,
    pub(crate) heard: Time,
    /// `heard` and one detection time.
    pub(crate) expires: Time,
}

impl Current {
    pub(crate) fn state(&self) -> State {
        match self {
            Current::AdminDown { .. } => State::AdminDown,
            Current::Down { .. } => State::Down,
            Current::Init { .. } => State::Init,
            Current::Up { .. } => State::Up,
        }
    }

    pub(crate) fn peer(&self) -> Option<&Peer> {
        match self {
            Current::AdminDown { peer } | Current::Down { peer } => peer.as_ref(),
            Current::Init { peer } | Current::Up { peer } => Some(peer),
        }
    }

    pub(crate) fn peer_mut(&mut self) -> Option<&mut Peer> {
        match self {
            Current::AdminDown { peer } | Current::Down { peer } => peer.as_mut(),
            Current::Init { peer } | Current::Up { peer } => Some(peer),
        }
    }

    /// What the peer says now.
    pub(crate) fn hear(&mut self, heard: Peer) {
        match self {
            Current::AdminDown { peer } | Current::Down { peer } => *peer = Some(heard),
            Current::Init { peer } | Current::Up { peer } => *peer = heard,
        }
    }

    /// Another state, with what is known of the peer taken along; Init and Up are states of two.
    pub(crate) fn go_to(&mut self, to: State) {
        let peer = match std::mem::replace(self, Current::Down { peer: None }) {
            Current::AdminDown { peer } | Current::Down { peer } => peer,
            Current::Init { peer } | Current::Up { peer } => Some(peer),
        };
        *self = match (to, peer) {
            (State::AdminDown, peer) => Current::AdminDown { peer },
            (State::Down, peer) => Current::Down { peer },
            (State::Init, Some(peer)) => Current::Init { peer },
            (State::Up, Some(peer)) => Current::Up { peer },
            (State::Init | State::Up, None) => {
                debug_assert!(false, "{to} without a peer");
                Current::Down { peer: None }
            }
        };
    }
}

impl Peer {
    /// As its packet says.
    pub(crate) fn heard(packet: &ControlPacket, now: Time) -> Peer {
        Peer {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            demand: packet.demand,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            multiplier: packet.detect_multiplier,
            heard: now,
            expires: Time::MAX,
        }
    }

    /// As the program before this one left it, Up.
    pub(crate) fn as_left(former: &Former, now: Time) -> Peer {
        Peer {
            discriminator: former.remote_discriminator,
            state: State::Up,
            diagnostic: Diagnostic::NONE,
            demand: former.remote_demand,
            desired_min_tx: former.remote_min_tx,
            required_min_rx: former.remote_min_rx,
            multiplier: former.remote_multiplier,
            heard: now,
            expires: Time::MAX,
        }
    }
}
