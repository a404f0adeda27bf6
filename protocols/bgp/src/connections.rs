//! The two connections that one peer may have at a time, and which of them stays (RFC 4271 §6.8, §8.2.1).

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use crate::connection::{Connection, Local, Session};
use crate::{ConnectionId, PeerState};

/// One that we initiated, one that we accepted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Connections {
    pub(crate) initiated: Initiated,
    pub(crate) accepted: Option<Connection>,
}

/// Our own attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) enum Initiated {
    /// None: we only listen, are stopped, or the accepted connection serves.
    #[default]
    Resting,
    /// ConnectRetryTimer runs; `damped` after an error, which RFC 4271 §8.1 calls peer oscillation damping.
    Waiting { connect_retry_timer: Time, damped: bool },
    /// [`Action::Connect`] is not answered yet.
    Connecting { connection: ConnectionId, guard: Time },
    /// It stands.
    Open(Box<Connection>),
}

/// Which of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Initiated,
    Accepted,
}

impl Side {
    pub(crate) const BOTH: [Side; 2] = [Side::Initiated, Side::Accepted];

    pub(crate) fn other(self) -> Side {
        match self {
            Side::Initiated => Side::Accepted,
            Side::Accepted => Side::Initiated,
        }
    }
}

impl Connections {
    pub(crate) fn get(&self, side: Side) -> Option<&Connection> {
        match (side, &self.initiated) {
            (Side::Accepted, _) => self.accepted.as_ref(),
            (Side::Initiated, Initiated::Open(connection)) => Some(connection),
            (Side::Initiated, _) => None,
        }
    }

    pub(crate) fn get_mut(&mut self, side: Side) -> Option<&mut Connection> {
        match (side, &mut self.initiated) {
            (Side::Accepted, _) => self.accepted.as_mut(),
            (Side::Initiated, Initiated::Open(connection)) => Some(connection),
            (Side::Initiated, _) => None,
        }
    }

    /// Takes a standing connection out; our own side rests then.
    pub(crate) fn take(&mut self, side: Side) -> Option<Connection> {
        match side {
            Side::Accepted => self.accepted.take(),
            Side::Initiated => match std::mem::take(&mut self.initiated) {
                Initiated::Open(connection) => Some(*connection),
                other => {
                    self.initiated = other;
                    None
                }
            },
        }
    }

    pub(crate) fn side_of(&self, id: ConnectionId) -> Option<Side> {
        let is = |side: &Side| self.get(*side).is_some_and(|connection| connection.id == id);
        Side::BOTH.into_iter().find(is)
    }

    /// Of at most one: a collision is settled before either connection is Established.
    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        let accepted = self.accepted.as_mut().and_then(Connection::session_mut);
        match &mut self.initiated {
            Initiated::Open(connection) => connection.session_mut().or(accepted),
            _ => accepted,
        }
    }

    /// Whether the peer's own connection is so far that another one would be in the way.
    pub(crate) fn accepted_serves(&self) -> bool {
        self.accepted.as_ref().is_some_and(|connection| connection.state() >= PeerState::OpenConfirm)
    }

    /// RFC 4271 §6.8, when an OPEN that stands came on `heard`: which side to keep. The other connection counts from
    /// OpenSent on, since the peer's identifier is known by now; so both ends come to the same answer before either
    /// says KEEPALIVE. So none of two is ever Established: beside an Established one a new one is refused as it comes.
    pub(crate) fn to_keep(&self, heard: Side, ours: Local, their_asn: u32) -> Side {
        let Some(theirs) = self.get(heard).and_then(Connection::facts).map(|facts| facts.router_id) else {
            return heard.other();
        };
        match self.get(heard.other()).map(Connection::state) {
            None => heard,
            // RFC 6286 §2.3: equal identifiers are settled by the AS number.
            Some(_) if (ours.router_id, ours.asn) > (theirs, their_asn) => Side::Initiated,
            Some(_) => Side::Accepted,
        }
    }

    /// The furthest of both.
    pub(crate) fn state(&self) -> PeerState {
        let initiated = match &self.initiated {
            Initiated::Waiting { damped: true, .. } => PeerState::Idle,
            Initiated::Resting | Initiated::Waiting { damped: false, .. } => PeerState::Active,
            Initiated::Connecting { .. } => PeerState::Connect,
            Initiated::Open(connection) => connection.state(),
        };
        match self.accepted.as_ref().map(Connection::state) {
            Some(accepted) => initiated.max(accepted),
            None => initiated,
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let initiated = match &self.initiated {
            Initiated::Resting => None,
            Initiated::Waiting { connect_retry_timer, .. } => Some(*connect_retry_timer),
            Initiated::Connecting { guard, .. } => Some(*guard),
            Initiated::Open(connection) => connection.next_deadline(),
        };
        let accepted = self.accepted.as_ref().and_then(Connection::next_deadline);
        [initiated, accepted].into_iter().flatten().min()
    }
}
