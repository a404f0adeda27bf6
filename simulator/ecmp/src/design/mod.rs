//! Ways to spread flows over members, behind one trait, so that a change of members can be played through all of them.
//!
//! Two are Linux itself ([`Routes`], [`Resilient`]), the others are models: of a router with a plain
//! modulo ([`Modulo`]), of rendezvous hashing ([`Rendezvous`]), of Maglev's table ([`Maglev`]), of the slot table that a control
//! plane can put into any router by repeating next hops ([`Slots`]), and of per-packet load sharing ([`Spray`]).
//!
//! All take the 31 bits of the router's hash for the flow, so that they differ in nothing but what they do with it.

mod maglev;
mod modulo;
mod rendezvous;
mod routes;
mod slots;
mod spray;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

pub use maglev::Maglev;
pub use modulo::Modulo;
pub use rendezvous::Rendezvous;
pub use routes::Routes;
pub use slots::Slots;
pub use spray::Spray;

use crate::resilient::Resilient;

/// A server behind the router: the same number means the same server, before and after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its number.
    pub id: u32,
    /// Its weight, at least 1.
    pub weight: u16,
}

impl Member {
    /// Members numbered from 0, all of weight 1.
    #[must_use]
    pub fn equal(count: u32) -> Vec<Member> {
        (0..count).map(|id| Member { id, weight: 1 }).collect()
    }

    /// Members numbered from 0, with these weights.
    #[must_use]
    pub fn weighted(weights: &[u16]) -> Vec<Member> {
        (0..).zip(weights).map(|(id, weight)| Member { id, weight: *weight }).collect()
    }
}

/// A way to spread flows over members.
pub trait Design {
    /// The whole wanted set, in the router's order. Members of weight 0 get nothing.
    fn set(&mut self, now: Time, members: &[Member]);

    /// The member that this packet of the flow with this hash goes to; `None` without members.
    fn pick(&mut self, now: Time, hash: u32) -> Option<u32>;

    /// One packet of each flow.
    fn pick_all(&mut self, now: Time, hashes: &[u32]) -> Vec<Option<u32>> {
        hashes.iter().map(|hash| self.pick(now, *hash)).collect()
    }

    /// Lets time pass, for designs that have timers.
    fn advance(&mut self, now: Time) {
        let _ = now;
    }

    /// How hashes are divided among members at this moment; `None` for a design without a table.
    fn table(&self) -> Option<Table> {
        None
    }
}

/// How hashes are divided among members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Table {
    /// The hash space cut into regions, in order: the last hash of each, and whose it is.
    Regions(Vec<(u32, u32)>),
    /// Equal places, chosen by the remainder of the hash: whose each is.
    Places(Vec<u32>),
}

/// Members that may take something.
fn present(members: &[Member]) -> impl Iterator<Item = Member> + '_ {
    members.iter().copied().filter(|member| member.weight > 0)
}

impl Design for Resilient {
    /// A set without members is not taken: the kernel would delete the group, and the route with it.
    fn set(&mut self, now: Time, members: &[Member]) {
        let members: Vec<Member> = present(members).collect();
        let _ = self.replace(now, &members, None);
    }

    fn pick(&mut self, now: Time, hash: u32) -> Option<u32> {
        Some(Resilient::pick(self, now, hash))
    }

    fn advance(&mut self, now: Time) {
        Resilient::advance(self, now);
    }

    fn table(&self) -> Option<Table> {
        Some(Table::Places(self.buckets().iter().map(|bucket| bucket.member).collect()))
    }
}

#[cfg(test)]
mod tests;
