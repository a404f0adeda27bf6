use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use super::{Design, Member, present};
use crate::sip::mix;

/// Highest random weight: each flow draws a number for each member and takes the member with the highest; a member of weight
/// w draws w times. A change moves only what it must, at a cost per packet that grows with the members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendezvous {
    members: Vec<Member>,
}

impl Rendezvous {
    /// With these members.
    #[must_use]
    pub fn new(members: &[Member]) -> Rendezvous {
        Rendezvous { members: present(members).collect() }
    }
}

impl Design for Rendezvous {
    fn set(&mut self, _now: Time, members: &[Member]) {
        self.members = present(members).collect();
    }

    fn pick(&mut self, _now: Time, hash: u32) -> Option<u32> {
        let draw = |member: &Member| {
            let ticket = |number: u16| {
                mix(u64::from(hash) << 32 ^ mix(u64::from(member.id) << 16 | u64::from(number)))
            };
            (0..member.weight).map(ticket).max()
        };
        // A tie goes to the higher id, so that the order of members does not count.
        self.members.iter().max_by_key(|member| (draw(member), member.id)).map(|member| member.id)
    }
}
