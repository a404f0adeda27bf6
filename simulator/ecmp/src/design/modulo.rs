use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use super::{Design, Member, Table, present};

/// The remainder of hash by number of members, a member of weight w counting w times: what a router does that has no better
/// idea.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modulo {
    places: Vec<u32>,
}

impl Modulo {
    /// With these members.
    #[must_use]
    pub fn new(members: &[Member]) -> Modulo {
        let mut modulo = Modulo::default();
        modulo.set(Time::ZERO, members);
        modulo
    }
}

impl Design for Modulo {
    fn set(&mut self, _now: Time, members: &[Member]) {
        let places = present(members).flat_map(|member| std::iter::repeat_n(member.id, member.weight.into()));
        self.places = places.collect();
    }

    #[inline]
    fn pick(&mut self, _now: Time, hash: u32) -> Option<u32> {
        self.places.get((hash as usize).checked_rem(self.places.len())?).copied()
    }

    fn table(&self) -> Option<Table> {
        (!self.places.is_empty()).then(|| Table::Places(self.places.clone()))
    }
}
