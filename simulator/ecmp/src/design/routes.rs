use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use super::{Design, Member, Table, present};
use crate::threshold::Threshold;

/// A multipath route, or a hash-threshold group, whose members are replaced in the order given: what FRR, BIRD and a
/// static route make of ECMP on Linux.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    ids: Vec<u32>,
    table: Option<Threshold>,
}

impl Routes {
    /// With these members.
    #[must_use]
    pub fn new(members: &[Member]) -> Routes {
        let mut routes = Routes::default();
        routes.set(Time::ZERO, members);
        routes
    }
}

impl Design for Routes {
    fn set(&mut self, _now: Time, members: &[Member]) {
        self.ids = present(members).map(|member| member.id).collect();
        self.table = Threshold::new(present(members).map(|member| member.weight)).ok();
    }

    #[inline]
    fn pick(&mut self, _now: Time, hash: u32) -> Option<u32> {
        self.ids.get(self.table.as_ref()?.pick(hash)).copied()
    }

    fn table(&self) -> Option<Table> {
        let regions = self.table.as_ref()?.regions();
        let owned = regions.map(|(bound, position)| Some((bound, *self.ids.get(position)?)));
        owned.collect::<Option<_>>().map(Table::Regions)
    }
}
