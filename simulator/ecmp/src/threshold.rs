//! Hash-threshold: the 31 bits are cut into one region a member, in the order of the members, as wide as their weights.
//!
//! So Linux does it for a multipath route and for a plain next-hop group (RFC 2992 describes the method).

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// All hashes are below.
const SPACE: u64 = 1 << 31;

/// How a member is, as the router sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// Takes its share.
    #[default]
    Alive,
    /// The router's own link is down, or has no carrier and `ignore_routes_with_linkdown` is set. (A group loses such a member
    /// altogether.) It has no region, and the others' regions move.
    Dead,
    /// The neighbour does not answer (FAILED, INCOMPLETE). A group passes over it, an IPv4 multipath route does so with
    /// `fib_multipath_use_neigh=1`, an IPv6 one never (of a router: then say alive). Regions stay: all that was its own
    /// goes to the next member in order.
    Failed,
}

/// Members of which none can be made a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WeightError {
    /// There are none.
    #[error("there is no member")]
    Empty,
    /// A weight of zero.
    #[error("member {position} has weight 0; a member that shall get nothing is left out")]
    Zero {
        /// Which, from 0.
        position: usize,
    },
}

/// The table of a multipath route or of a hash-threshold group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// Last hash of a region, and whose it is. In order, and without those that take nothing.
    regions: Vec<(u32, u32)>,
    bounds: Vec<u32>,
    fallback: u32,
}

impl Threshold {
    /// All alive, with these weights.
    ///
    /// # Errors
    /// Without members, or with a weight of zero.
    pub fn new(weights: impl IntoIterator<Item = u16>) -> Result<Threshold, WeightError> {
        Threshold::with_states(weights.into_iter().map(|weight| (weight, MemberState::Alive)))
    }

    /// With weights and states.
    ///
    /// # Errors
    /// Without members, or with a weight of zero.
    pub fn with_states(
        members: impl IntoIterator<Item = (u16, MemberState)>,
    ) -> Result<Threshold, WeightError> {
        let members: Vec<(u16, MemberState)> = members.into_iter().collect();
        if members.is_empty() {
            return Err(WeightError::Empty);
        }
        if let Some(position) = members.iter().position(|(weight, _)| *weight == 0) {
            return Err(WeightError::Zero { position });
        }
        let present = |member: &&(u16, MemberState)| member.1 != MemberState::Dead;
        let total: u64 = members.iter().filter(present).map(|(weight, _)| u64::from(*weight)).sum();
        let mut running = 0;
        let mut regions = Vec::with_capacity(members.len());
        for (position, (weight, state)) in members.iter().enumerate() {
            if *state == MemberState::Dead {
                continue;
            }
            running += u64::from(*weight);
            if *state == MemberState::Alive {
                let bound = (running * SPACE + total / 2) / total - 1;
                regions.push((bound as u32, position as u32));
            }
        }
        // Behind the last region the search begins again at the front; with nobody good it takes the first there is.
        let fallback = regions.first().map_or(0, |(_, position)| *position);
        let bounds = regions.iter().map(|(bound, _)| *bound).collect();
        Ok(Threshold { regions, bounds, fallback })
    }

    /// The position, from 0, of the member that takes this hash.
    #[inline]
    #[must_use]
    pub fn pick(&self, hash: u32) -> usize {
        // Counting is faster than searching while all bounds fit in a few vector registers.
        let region = if self.bounds.len() <= 16 {
            self.bounds.iter().map(|bound| u32::from(*bound < hash)).sum::<u32>() as usize
        } else {
            self.bounds.partition_point(|bound| *bound < hash)
        };
        self.regions.get(region).map_or(self.fallback, |(_, position)| *position) as usize
    }

    /// What [`Threshold::pick`] says of `count` living members of equal weight, without a table; 0 for none.
    #[must_use]
    pub fn pick_equal(count: usize, hash: u32) -> usize {
        let (count, hash) = (count as u64, u64::from(hash));
        let bound = |position: u64| ((position + 1) * SPACE + count / 2) / count - 1;
        // Off by one at most, since bounds are rounded.
        let near = hash * count / SPACE;
        let position = match near {
            _ if count == 0 => 0,
            _ if hash > bound(near) => near + 1,
            1.. if hash <= bound(near - 1) => near - 1,
            _ => near,
        };
        position as usize
    }

    /// Regions in order: the last hash of each, and the position of the member that takes it. Together they cover all hashes.
    pub fn regions(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        const LAST: u32 = (SPACE - 1) as u32;
        let rest = match self.bounds.last() {
            Some(&LAST) => None,
            _ => Some((LAST, self.fallback as usize)),
        };
        self.regions.iter().map(|(bound, position)| (*bound, *position as usize)).chain(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states(states: &[MemberState]) -> Threshold {
        Threshold::with_states(states.iter().map(|state| (1, *state))).unwrap()
    }

    use MemberState::{Alive, Dead, Failed};

    #[test]
    fn eight_equal_members_cut_the_space_into_equal_parts() {
        let table = Threshold::new([1; 8]).unwrap();
        assert_eq!(table.pick(0), 0);
        assert_eq!(table.pick((1 << 28) - 1), 0);
        assert_eq!(table.pick(1 << 28), 1);
        assert_eq!(table.pick((1 << 31) - 1), 7);
    }

    #[test]
    fn regions_are_as_wide_as_the_weights() {
        let table = Threshold::new([3, 1]).unwrap();
        assert_eq!(table.regions().collect::<Vec<_>>(), [(3 * (1 << 29) - 1, 0), ((1 << 31) - 1, 1)]);
        // A third of 2^31 is rounded to the nearest.
        let thirds: Vec<_> = Threshold::new([1, 1, 1]).unwrap().regions().collect();
        assert_eq!(thirds, [(715_827_882, 0), (1_431_655_764, 1), ((1 << 31) - 1, 2)]);
    }

    #[test]
    fn a_dead_member_gives_its_region_back_to_all() {
        assert_eq!(
            states(&[Alive, Dead, Alive]).regions().collect::<Vec<_>>(),
            [((1 << 30) - 1, 0), ((1 << 31) - 1, 2)]
        );
    }

    #[test]
    fn a_failed_neighbours_flows_go_to_the_next_and_those_of_the_last_to_the_first() {
        let whole = states(&[Alive; 4]);
        for failed in 0..4 {
            let mut members = [Alive; 4];
            members[failed] = Failed;
            let table = states(&members);
            for hash in (0..1_u32 << 31).step_by(9_999_991) {
                let before = whole.pick(hash);
                let wanted = if before == failed { (failed + 1) % 4 } else { before };
                assert_eq!(table.pick(hash), wanted, "{failed} failed, hash {hash}");
            }
        }
        assert_eq!(states(&[Failed, Alive, Alive, Failed]).pick((1 << 31) - 1), 1);
    }

    #[test]
    fn with_nobody_left_the_first_is_taken() {
        assert_eq!(states(&[Failed, Failed]).pick(1 << 30), 0);
        assert_eq!(states(&[Dead, Dead]).pick(1 << 30), 0);
    }

    #[test]
    fn members_of_which_no_table_can_be_made_are_refused() {
        assert_eq!(Threshold::new([]), Err(WeightError::Empty));
        assert_eq!(Threshold::new([1, 0]), Err(WeightError::Zero { position: 1 }));
    }

    #[test]
    fn equal_members_need_no_table() {
        assert_eq!(Threshold::pick_equal(0, 5), 0);
        for count in [1, 2, 3, 7, 8, 11, 1000] {
            let table = Threshold::new(vec![1; count]).unwrap();
            let edges =
                table.regions().flat_map(|(bound, _)| [bound, bound + 1]).filter(|edge| *edge < 1 << 31);
            for hash in edges.chain((0..1_u32 << 31).step_by(77_777_777)) {
                assert_eq!(Threshold::pick_equal(count, hash), table.pick(hash), "{count} {hash}");
            }
        }
    }

    proptest! {
        #[test]
        fn picking_agrees_with_the_rule_read_aloud(
            members in prop::collection::vec((1_u16..=256, prop_oneof![Just(Alive), Just(Dead), Just(Failed)]), 1..60),
            hash in 0_u32..1 << 31,
        ) {
            let total: u64 = members.iter().filter(|one| one.1 != Dead).map(|one| u64::from(one.0)).sum();
            let (mut running, mut first, mut found) = (0_u64, None, None);
            for (position, (weight, state)) in members.iter().enumerate() {
                if *state == Dead { continue; }
                running += u64::from(*weight);
                if *state == Failed { continue; }
                first = first.or(Some(position));
                let bound = (f64::from(u32::try_from(running).unwrap()) * 2_147_483_648.0 / total as f64).round() as i64 - 1;
                if i64::from(hash) <= bound { found = found.or(Some(position)); }
            }
            let table = Threshold::with_states(members).unwrap();
            prop_assert_eq!(table.pick(hash), found.or(first).unwrap_or(0));
            let region = table.regions().find(|(bound, _)| hash <= *bound).unwrap();
            prop_assert_eq!(region.1, table.pick(hash));
        }
    }
}
