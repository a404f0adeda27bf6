//! What a change of members does to flows: counted, and expected.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::design::Table;

/// A part of a whole, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The part.
    pub part: u64,
    /// The whole.
    pub whole: u64,
}

impl Share {
    /// In percent; of nothing, 0.
    #[must_use]
    pub fn percent(self) -> f64 {
        if self.whole == 0 { 0.0 } else { self.part as f64 * 100.0 / self.whole as f64 }
    }
}

/// What became of flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of the flows of members that stay: how many have another member now. These are connections broken without need.
    pub moved: Share,
    /// Flows of members that left: they had to move.
    pub orphaned: u64,
    /// Flows of each member before.
    pub before: BTreeMap<u32, u64>,
    /// Flows of each member after.
    pub after: BTreeMap<u32, u64>,
}

impl Outcome {
    /// Counts flows, each given by its member before and after. `stays` says which members are there after the change.
    #[must_use]
    pub fn count(before: &[Option<u32>], after: &[Option<u32>], stays: impl Fn(u32) -> bool) -> Outcome {
        // Members are few and mostly numbered from 0: counters in a row, the rest in a map.
        let mut outcome = Outcome::default();
        let (mut from, mut to) = (Counters::default(), Counters::default());
        let known: Vec<bool> = (0..Counters::ROW).map(&stays).collect();
        for (before, after) in before.iter().zip(after) {
            if let Some(after) = after {
                to.add(*after);
            }
            let Some(member) = before else { continue };
            from.add(*member);
            if known.get(*member as usize).copied().unwrap_or_else(|| stays(*member)) {
                outcome.moved.whole += 1;
                outcome.moved.part += u64::from(before != after);
            } else {
                outcome.orphaned += 1;
            }
        }
        (outcome.before, outcome.after) = (from.finish(), to.finish());
        outcome
    }

    /// The most loaded member's flows over the mean of those that are there after the change; `members` are all that are there, also
    /// those without a flow.
    #[must_use]
    pub fn imbalance(&self, members: usize) -> f64 {
        let (most, all) = (self.after.values().max().copied().unwrap_or(0), self.after.values().sum::<u64>());
        if all == 0 { 0.0 } else { most as f64 * members as f64 / all as f64 }
    }
}

/// Counts per member.
struct Counters {
    row: Vec<u64>,
    rest: BTreeMap<u32, u64>,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { row: vec![0; Counters::ROW as usize], rest: BTreeMap::new() }
    }
}

impl Counters {
    const ROW: u32 = 4096;

    #[inline]
    fn add(&mut self, member: u32) {
        match self.row.get_mut(member as usize) {
            Some(count) => *count += 1,
            None => *self.rest.entry(member).or_default() += 1,
        }
    }

    fn finish(mut self) -> BTreeMap<u32, u64> {
        self.rest.extend((0..).zip(self.row).filter(|(_, count)| *count > 0));
        self.rest
    }
}

/// The share of flows of staying members that a change from one table to another moves, if hashes are evenly spread: exact,
/// without counting a flow. `None` for tables of two kinds, or places whose pattern is too long to be played through.
#[must_use]
pub fn expected(before: &Table, after: &Table, stays: impl Fn(u32) -> bool) -> Option<Share> {
    match (before, after) {
        (Table::Regions(before), Table::Regions(after)) => Some(expected_of_regions(before, after, stays)),
        (Table::Places(before), Table::Places(after)) => expected_of_places(before, after, stays),
        _ => None,
    }
}

fn expected_of_regions(before: &[(u32, u32)], after: &[(u32, u32)], stays: impl Fn(u32) -> bool) -> Share {
    let mut share = Share::default();
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    let mut begin = 0;
    while let (Some((old_bound, from)), Some((new_bound, to))) = (old.peek(), new.peek()) {
        let bound = (*old_bound).min(*new_bound);
        let width = (u64::from(bound) + 1).saturating_sub(begin);
        begin = u64::from(bound) + 1;
        if stays(*from) {
            share.whole += width;
            share.part += if from == to { 0 } else { width };
        }
        let (old_ends, new_ends) = (*old_bound == bound, *new_bound == bound);
        if old_ends {
            old.next();
        }
        if new_ends {
            new.next();
        }
    }
    share
}

fn expected_of_places(before: &[u32], after: &[u32], stays: impl Fn(u32) -> bool) -> Option<Share> {
    const LONGEST: usize = 1 << 24;
    let pattern = lcm(before.len(), after.len()).filter(|length| *length <= LONGEST)?;
    let mut share = Share::default();
    for (from, to) in before.iter().cycle().zip(after.iter().cycle()).take(pattern) {
        if stays(*from) {
            share.whole += 1;
            share.part += u64::from(from != to);
        }
    }
    Some(share)
}

fn lcm(a: usize, b: usize) -> Option<usize> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a.checked_div(x)?.checked_mul(b)
}

/// Hash-threshold, `members` of equal weight, the one at `position` (from 0) leaves: the share of the others' flows that moves.
///
/// With N members and position k: (k(k−1) + (N−1−k)(N−2−k)) / 2(N−1)².
#[must_use]
pub fn moved_by_leaving(members: u32, position: u32) -> Share {
    if members < 2 || position >= members {
        return Share::default();
    }
    let (n, k) = (u64::from(members), u64::from(position));
    Share {
        part: k * k.saturating_sub(1) + (n - 1 - k) * (n - 1 - k).saturating_sub(1),
        whole: 2 * (n - 1) * (n - 1),
    }
}

/// Hash-threshold, `members` of equal weight, one more comes in at `position` (from 0; `members` is the end): the share of all
/// flows that moves.
#[must_use]
pub fn moved_by_joining(members: u32, position: u32) -> Share {
    if position > members {
        return Share::default();
    }
    // Seen backwards, the newcomer leaves: what then does not move is what does not move now.
    let back = moved_by_leaving(members + 1, position);
    let n = u64::from(members);
    Share { part: back.whole * (n + 1) - (back.whole - back.part) * n, whole: back.whole * (n + 1) }
}

#[cfg(test)]
mod tests {
    use anyvip_machine::Time;

    use super::*;
    use crate::design::{Design, Member, Modulo, Routes};

    #[test]
    fn the_closed_formula_is_the_exact_expectation_of_the_table() {
        for count in 2..=20_u32 {
            let before = Routes::new(&Member::equal(count)).table().unwrap();
            for position in 0..count {
                let rest: Vec<_> =
                    Member::equal(count).into_iter().filter(|member| member.id != position).collect();
                let after = Routes::new(&rest).table().unwrap();
                let leaving = expected(&before, &after, |id| id != position).unwrap();
                let formula = moved_by_leaving(count, position);
                assert!(
                    (leaving.percent() - formula.percent()).abs() < 1e-5,
                    "{count} {position}: {leaving:?} {formula:?}"
                );
                let joining = expected(&after, &before, |_| true).unwrap();
                let formula = moved_by_joining(count - 1, position);
                assert!(
                    (joining.percent() - formula.percent()).abs() < 1e-5,
                    "{count} {position}: {joining:?} {formula:?}"
                );
            }
        }
    }

    #[test]
    fn eight_members_lose_as_many_flows_as_the_formula_says() {
        let percents: Vec<String> =
            (0..8).map(|position| format!("{:.1}", moved_by_leaving(8, position).percent())).collect();
        assert_eq!(percents, ["42.9", "30.6", "22.4", "18.4", "18.4", "22.4", "30.6", "42.9"]);
        assert_eq!(moved_by_joining(8, 8).percent(), 50.0);
        assert_eq!(moved_by_leaving(1, 0), Share::default());
    }

    #[test]
    fn modulo_moves_nearly_everything() {
        let before = Modulo::new(&Member::equal(8)).table().unwrap();
        let after = Modulo::new(&Member::equal(9)).table().unwrap();
        let share = expected(&before, &after, |_| true).unwrap();
        assert_eq!((share.part, share.whole), (64, 72));
    }

    #[test]
    fn counting_tells_flows_that_had_to_move_from_those_that_had_not() {
        let before = [Some(0), Some(1), Some(1), Some(9000), None];
        let after = [Some(1), Some(1), Some(2), Some(9000), Some(2)];
        let outcome = Outcome::count(&before, &after, |id| id != 0);
        assert_eq!(outcome.moved, Share { part: 1, whole: 3 });
        assert_eq!(outcome.orphaned, 1);
        assert_eq!(outcome.before, BTreeMap::from([(0, 1), (1, 2), (9000, 1)]));
        assert_eq!(outcome.after, BTreeMap::from([(1, 2), (2, 2), (9000, 1)]));
        assert!((outcome.imbalance(3) - 1.2).abs() < 1e-9);
    }

    #[test]
    fn counted_flows_come_close_to_the_expectation() {
        let mut design = Routes::new(&Member::equal(8));
        // Every 9,973rd hash: an even sample.
        let hashes: Vec<u32> = (0..1_u32 << 31).step_by(9_973).collect();
        let before = design.pick_all(Time::ZERO, &hashes);
        design.set(Time::ZERO, &Member::equal(7));
        let after = design.pick_all(Time::ZERO, &hashes);
        let outcome = Outcome::count(&before, &after, |id| id != 7);
        assert!((outcome.moved.percent() - moved_by_leaving(8, 7).percent()).abs() < 0.1, "{outcome:?}");
    }
}
