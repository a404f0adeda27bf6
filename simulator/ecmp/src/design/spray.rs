use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use super::{Design, Member, present};

/// Per-packet load sharing: each packet to the next member in turn, whatever its flow. Loads are even, and no TCP connection
/// survives its second packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spray {
    places: Vec<u32>,
    next: usize,
}

impl Spray {
    /// With these members; one of weight w has w turns a round.
    #[must_use]
    pub fn new(members: &[Member]) -> Spray {
        let mut spray = Spray::default();
        spray.set(Time::ZERO, members);
        spray
    }
}

impl Design for Spray {
    fn set(&mut self, _now: Time, members: &[Member]) {
        let places = present(members).flat_map(|member| std::iter::repeat_n(member.id, member.weight.into()));
        self.places = places.collect();
        self.next = 0;
    }

    fn pick(&mut self, _now: Time, _hash: u32) -> Option<u32> {
        let place = self.places.get(self.next).copied();
        self.next = (self.next + 1).checked_rem(self.places.len()).unwrap_or(0);
        place
    }
}
