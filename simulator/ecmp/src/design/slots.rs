use std::collections::BTreeMap;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use super::{Design, Member, Table, present};
use crate::threshold::Threshold;

/// The slot table: a multipath route of many equal next hops, each member named many times. The router needs no table with a
/// memory, any kernel will do; whoever installs the route keeps every slot that may stay, deals out those of a member that leaves, and
/// gives a newcomer its share.
///
/// The table depends on history: two routers that saw the same changes agree, a restarted one does not with an old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    size: usize,
    slots: Vec<u32>,
    table: Option<Threshold>,
}

impl Slots {
    /// With these members and so many slots. Linux takes up to about 1,024 next hops in a route.
    #[must_use]
    pub fn new(size: u16, members: &[Member]) -> Slots {
        let size = usize::from(size.max(1));
        let mut slots = Slots { size, slots: Vec::new(), table: None };
        slots.set(Time::ZERO, members);
        slots
    }

    /// Whose each slot is, in the order of the route's next hops; empty without members.
    #[must_use]
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// How many slots each member shall have: by weight, rounded down; what remains goes to those who lose most by the rounding,
    /// among equals to those who have most already, so that rounding alone moves nothing.
    fn quotas(&self, members: &[Member]) -> BTreeMap<u32, usize> {
        let total: usize = members.iter().map(|member| usize::from(member.weight)).sum();
        let share = |member: &Member| self.size * usize::from(member.weight);
        let mut quotas: BTreeMap<u32, usize> =
            members.iter().map(|member| (member.id, share(member) / total.max(1))).collect();
        let mut has: BTreeMap<u32, usize> = BTreeMap::new();
        for slot in &self.slots {
            *has.entry(*slot).or_default() += 1;
        }
        let mut order: Vec<&Member> = members.iter().collect();
        order.sort_by_key(|member| {
            let had = has.get(&member.id).copied().unwrap_or(0);
            std::cmp::Reverse((share(member) % total.max(1), had))
        });
        let left = self.size.saturating_sub(quotas.values().sum());
        for member in order.into_iter().take(left) {
            *quotas.entry(member.id).or_default() += 1;
        }
        quotas
    }
}

impl Design for Slots {
    fn set(&mut self, _now: Time, members: &[Member]) {
        let members: Vec<Member> = present(members).collect();
        if members.is_empty() {
            self.slots.clear();
            self.table = None;
            return;
        }
        let mut room = self.quotas(&members);
        // Every slot stays where it is while its member is there and has not more than it should.
        let mut slots: Vec<Option<u32>> = vec![None; self.size];
        for (slot, old) in slots.iter_mut().zip(&self.slots) {
            if let Some(left) = room.get_mut(old).filter(|left| **left > 0) {
                *left -= 1;
                *slot = Some(*old);
            }
        }
        // The free ones are dealt out in turn, so that what was one member's goes to all.
        let mut turn = members.iter().map(|member| member.id).cycle();
        let mut free: usize = room.values().sum();
        for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
            while free > 0 && slot.is_none() {
                let Some(id) = turn.next() else { break };
                if let Some(left) = room.get_mut(&id).filter(|left| **left > 0) {
                    *left -= 1;
                    free -= 1;
                    *slot = Some(id);
                }
            }
        }
        self.slots = slots.into_iter().flatten().collect();
        self.table = Threshold::new(self.slots.iter().map(|_| 1)).ok();
    }

    #[inline]
    fn pick(&mut self, _now: Time, hash: u32) -> Option<u32> {
        self.slots.get(self.table.as_ref()?.pick(hash)).copied()
    }

    fn table(&self) -> Option<Table> {
        let regions = self.table.as_ref()?.regions();
        let owned = regions.map(|(bound, slot)| Some((bound, *self.slots.get(slot)?)));
        owned.collect::<Option<_>>().map(Table::Regions)
    }
}
