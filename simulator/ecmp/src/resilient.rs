//! A resilient next-hop group of Linux (5.13 and later): hashes choose buckets, buckets belong to members, and a change of members
//! moves as few buckets as it must, and unforced only such as are idle.
//!
//! Time is what the caller says; the kernel counts in ticks, so that what happens within one tick happens at once here too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use crate::design::Member;
use crate::threshold::WeightError;

/// While a table is out of balance, it is looked at again no sooner than this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// When buckets may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// A bucket unused for so long may move to another member.
    pub idle: Duration,
    /// A table out of balance for so long is balanced by moving busy buckets too; zero: never.
    pub unbalanced: Duration,
    /// The kernel's tick, 1/HZ.
    pub tick: Duration,
}

impl Default for Timers {
    /// The kernel's: 120 s, never; ticks of 4 ms (HZ=250).
    fn default() -> Timers {
        Timers { idle: Duration::from_secs(120), unbalanced: Duration::ZERO, tick: Duration::from_millis(4) }
    }
}

impl Timers {
    /// The moment as the kernel's clock shows it.
    fn at(&self, time: Time) -> Time {
        let tick = u64::try_from(self.tick.as_nanos()).unwrap_or(u64::MAX).max(1);
        Time::from_nanos(time.as_nanos() / tick * tick)
    }
}

/// A bucket: whose it is, and when packets came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The member's id.
    pub member: u32,
    /// When it came to that member.
    pub migrated: Time,
    /// When it was used last, or when it came to the member.
    pub used: Time,
}

/// A member, with the buckets it has and should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    id: u32,
    has: u32,
    wants: u32,
}

/// A resilient group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resilient {
    timers: Timers,
    buckets: Vec<Bucket>,
    /// Where each bucket's member stands in `holders`; `None` for one whose member is gone.
    owners: Vec<Option<u32>>,
    members: Vec<Member>,
    holders: Vec<Holder>,
    /// Places in `holders` that have too few buckets; the last one is served first.
    underweight: Vec<usize>,
    unbalanced_since: Time,
    deadline: Option<Time>,
}

impl Resilient {
    /// A new group with `buckets` buckets (at least one).
    ///
    /// # Errors
    /// Without members, or with a weight of zero.
    pub fn new(
        now: Time,
        buckets: u16,
        members: &[Member],
        timers: Timers,
    ) -> Result<Resilient, WeightError> {
        check(members)?;
        let empty = Bucket { member: 0, migrated: Time::ZERO, used: Time::ZERO };
        let buckets = usize::from(buckets.max(1));
        let mut group = Resilient {
            timers,
            buckets: vec![empty; buckets],
            owners: vec![None; buckets],
            members: members.to_vec(),
            holders: Vec::new(),
            underweight: Vec::new(),
            unbalanced_since: Time::ZERO,
            deadline: None,
        };
        group.rebalance(timers.at(now));
        group.upkeep(timers.at(now));
        Ok(group)
    }

    /// The number of buckets.
    #[must_use]
    pub fn size(&self) -> usize {
        self.buckets.len()
    }

    /// The members, in their order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// All buckets.
    #[must_use]
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Whether every member has the buckets it should have.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.underweight.is_empty()
    }

    /// Replaces members (and timers) as `ip nexthop replace … type resilient` does.
    ///
    /// # Errors
    /// Without members, or with a weight of zero; then nothing has changed.
    pub fn replace(
        &mut self,
        now: Time,
        members: &[Member],
        timers: Option<Timers>,
    ) -> Result<(), WeightError> {
        check(members)?;
        self.timers = timers.unwrap_or(self.timers);
        let now = self.timers.at(now);
        self.members = members.to_vec();
        let since = (!self.underweight.is_empty()).then_some(self.unbalanced_since);
        self.rebalance(now);
        // A group that was out of balance, and still is, has been so since then.
        if let Some(since) = since
            && !self.underweight.is_empty()
        {
            self.unbalanced_since = since;
        }
        self.upkeep(now);
        Ok(())
    }

    /// Takes a member out, as `ip nexthop del id MEMBER` does. False: it was the last one, with which the kernel deletes the whole
    /// group; here it stays as it is.
    pub fn remove(&mut self, now: Time, id: u32) -> bool {
        let rest: Vec<Member> = self.members.iter().copied().filter(|member| member.id != id).collect();
        rest.len() == self.members.len() || self.replace(now, &rest, None).is_ok()
    }

    /// The bucket of this hash.
    #[inline]
    #[must_use]
    pub fn bucket_of(&self, hash: u32) -> usize {
        hash as usize % self.buckets.len()
    }

    /// The member a packet (or a lookup) of this hash goes to. Its bucket is busy from now on.
    pub fn pick(&mut self, now: Time, hash: u32) -> u32 {
        let (bucket, now) = (self.bucket_of(hash), self.timers.at(now));
        match self.buckets.get_mut(bucket) {
            Some(bucket) => {
                bucket.used = now;
                bucket.member
            }
            None => 0,
        }
    }

    /// The same without a trace.
    #[must_use]
    pub fn peek(&self, hash: u32) -> u32 {
        self.buckets.get(self.bucket_of(hash)).map_or(0, |bucket| bucket.member)
    }

    /// When the table will look for buckets to move; `None` while it is balanced.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Lets all deadlines until `now` pass.
    pub fn advance(&mut self, now: Time) {
        let now = self.timers.at(now);
        while let Some(deadline) = self.deadline.filter(|deadline| *deadline <= now) {
            self.upkeep(deadline);
        }
    }

    /// Says how many buckets each member should have, and who lacks some. Buckets of members that are gone have none from now on.
    fn rebalance(&mut self, now: Time) {
        let total: u64 = self.members.iter().map(|member| u64::from(member.weight)).sum();
        let size = self.buckets.len() as u64;
        let (mut weight, mut bound) = (0, 0);
        self.holders.clear();
        for member in &self.members {
            weight += u64::from(member.weight);
            let next = (size * weight + total / 2) / total.max(1);
            self.holders.push(Holder { id: member.id, has: 0, wants: (next - bound) as u32 });
            bound = next;
        }
        let places: BTreeMap<u32, u32> =
            (0..).zip(&self.holders).map(|(place, holder)| (holder.id, place)).collect();
        for (bucket, owner) in self.buckets.iter().zip(&mut self.owners) {
            // Only the buckets of a new group have no owner yet.
            *owner = owner.and_then(|_| places.get(&bucket.member).copied());
            if let Some(holder) = owner.and_then(|place| self.holders.get_mut(place as usize)) {
                holder.has += 1;
            }
        }
        let lacking = self.holders.iter().enumerate().filter(|(_, holder)| holder.has < holder.wants);
        self.underweight = lacking.map(|(place, _)| place).collect();
        if !self.underweight.is_empty() {
            self.unbalanced_since = now;
        }
    }

    /// One pass over all buckets.
    fn upkeep(&mut self, now: Time) {
        let Timers { idle, unbalanced, .. } = self.timers;
        let mut deadline = now + if unbalanced.is_zero() { idle } else { unbalanced };
        for number in 0..self.buckets.len() {
            if self.may_move(number, now, &mut deadline) {
                self.move_bucket(number, now);
            }
        }
        // A timer of the kernel fires in the tick after the one it was set for, at the earliest.
        let next = self.timers.at(deadline.max(now + SHORTEST_PAUSE)) + self.timers.tick;
        self.deadline = (!self.underweight.is_empty()).then_some(next);
    }

    fn may_move(&self, number: usize, now: Time, deadline: &mut Time) -> bool {
        let Some(bucket) = self.buckets.get(number) else { return false };
        let Some(place) = self.owners.get(number).copied().flatten() else { return true };
        if self.holders.get(place as usize).is_none_or(|holder| holder.has <= holder.wants) {
            return false;
        }
        // One that was not used since it came here is idle.
        let idle_at = if bucket.used == bucket.migrated { now } else { bucket.used + self.timers.idle };
        if now >= idle_at {
            return true;
        }
        if !self.timers.unbalanced.is_zero() {
            let forced_at = self.unbalanced_since + self.timers.unbalanced;
            if now > forced_at {
                return true;
            }
            *deadline = forced_at.min(*deadline);
        }
        *deadline = idle_at.min(*deadline);
        false
    }

    /// To whoever is served first.
    fn move_bucket(&mut self, number: usize, now: Time) {
        let Some(&to) = self.underweight.last() else { return };
        if let Some(from) = self.owners.get(number).copied().flatten()
            && let Some(holder) = self.holders.get_mut(from as usize)
        {
            holder.has -= 1;
        }
        let Some(holder) = self.holders.get_mut(to) else { return };
        holder.has += 1;
        if holder.has == holder.wants {
            self.underweight.pop();
        }
        if let (Some(bucket), Some(owner)) = (self.buckets.get_mut(number), self.owners.get_mut(number)) {
            *bucket = Bucket { member: holder.id, migrated: now, used: now };
            *owner = u32::try_from(to).ok();
        }
    }
}

/// What the kernel takes.
fn check(members: &[Member]) -> Result<(), WeightError> {
    if members.is_empty() {
        return Err(WeightError::Empty);
    }
    if let Some(position) = members.iter().position(|member| member.weight == 0) {
        return Err(WeightError::Zero { position });
    }
    debug_assert_eq!(
        members.iter().map(|member| member.id).collect::<BTreeSet<_>>().len(),
        members.len(),
        "a member is in a group once"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
