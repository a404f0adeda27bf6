//! What leaves a peer in one turn.

use std::collections::BTreeMap;
use std::time::Duration;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use crate::connection::{Connection, Ending};
use crate::wire::{Codec, Message, Notification};
use crate::{Action, ConnectionId, DownReason};

/// Every action with an end is answered within this time, or the driver has a bug.
pub(crate) const GUARD_TIME: Duration = Duration::from_secs(10);

/// A peer within the speaker: names are long to compare, and a router has thousands.
pub(crate) type PeerNumber = u32;

/// Actions, and the registers that the speaker keeps for all its peers.
#[derive(Debug)]
pub(crate) struct Effects<'a> {
    pub(crate) now: Time,
    pub(crate) actions: &'a mut Vec<Action>,
    pub(crate) next_connection: &'a mut u64,
    pub(crate) connections: &'a mut BTreeMap<ConnectionId, PeerNumber>,
    pub(crate) farewells: &'a mut Vec<Farewell>,
}

/// A NOTIFICATION that waits for the `Send` before it; its peer has moved on and may even be gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Farewell {
    pub(crate) connection: ConnectionId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) give_up: Time,
}

impl Effects<'_> {
    /// Closes a connection as its ending asks, and says so in the words of the report.
    pub(crate) fn close(&mut self, connection: &Connection, ending: Ending) -> DownReason {
        let id = connection.id;
        self.connections.remove(&id);
        match ending {
            Ending::Say(last) => {
                self.say_and_close(id, &last, connection.is_writing());
                DownReason::WeSaid(last)
            }
            Ending::PeerSaid(last) => {
                self.actions.push(Action::Close { connection: id });
                DownReason::PeerSaid(last)
            }
            // RFC 9687 §3: no NOTIFICATION, it could not be delivered.
            Ending::SendHoldTimerExpired => {
                self.actions.push(Action::Close { connection: id });
                DownReason::SendHoldTimerExpired
            }
        }
    }

    /// Sends a last NOTIFICATION, now or after what is in flight, and closes.
    pub(crate) fn say_and_close(&mut self, connection: ConnectionId, last: &Notification, is_writing: bool) {
        let bytes = Message::Notification(last.clone()).encode(&Codec::before_open());
        if is_writing {
            self.farewells.push(Farewell { connection, bytes, give_up: self.now + GUARD_TIME });
        } else {
            self.actions.push(Action::Send { connection, bytes });
            self.actions.push(Action::Close { connection });
        }
    }
}
