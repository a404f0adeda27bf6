//! A router's forwarding table as its kernel has it: next hops by prefix, and for each packet the one that is taken.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyvip_ecmp::design::{Routes, Slots};
use anyvip_ecmp::{Design, Member, Resilient, Timers};
use anyvip_machine::Time;
use ipnet::IpNet;

use super::{Hop, Install};

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Fib {
    install: Install,
    entries: BTreeMap<IpNet, Entry>,
}

/// A route and its table, which knows neighbours by number, so that one that comes back finds what it had.
#[derive(Clone, Debug)]
struct Entry {
    hops: Vec<Hop>,
    numbers: BTreeMap<(IpAddr, String), u32>,
    by_number: BTreeMap<u32, usize>,
    table: Table,
}

#[derive(Clone, Debug)]
enum Table {
    Routes(Routes),
    Resilient(Resilient),
    Slots(Slots),
}

impl Fib {
    /// Nothing yet, to be filled in this way.
    pub fn new(install: Install) -> Fib {
        Fib { install, entries: BTreeMap::new() }
    }

    /// Makes or replaces a route, as the router does in its kernel. The order of the next hops counts. Without any, it is removed.
    pub fn insert(&mut self, now: Time, prefix: IpNet, hops: Vec<Hop>) {
        if hops.is_empty() {
            self.remove(&prefix);
            return;
        }
        let mut numbers = self.entries.get(&prefix).map(|entry| entry.numbers.clone()).unwrap_or_default();
        let mut members = Vec::with_capacity(hops.len());
        for hop in &hops {
            let next = numbers.len() as u32;
            let id = *numbers.entry((hop.address, hop.interface.clone())).or_insert(next);
            members.push(Member { id, weight: hop.weight.max(1) });
        }
        let by_number = members.iter().zip(0..).map(|(member, at)| (member.id, at)).collect();
        match self.entries.get_mut(&prefix) {
            Some(entry) => {
                entry.table.design().set(now, &members);
                (entry.hops, entry.numbers, entry.by_number) = (hops, numbers, by_number);
            }
            None => {
                let Some(table) = Table::new(self.install, now, &members) else { return };
                self.entries.insert(prefix, Entry { hops, numbers, by_number, table });
            }
        }
    }

    /// Removes a route, and with it what its table remembered.
    pub fn remove(&mut self, prefix: &IpNet) {
        self.entries.remove(prefix);
    }

    /// Removes all; names what was there.
    pub fn clear(&mut self) -> Vec<IpNet> {
        std::mem::take(&mut self.entries).into_keys().collect()
    }

    /// The next hops of exactly this prefix.
    pub fn get(&self, prefix: &IpNet) -> Option<&Vec<Hop>> {
        self.entries.get(prefix).map(|entry| &entry.hops)
    }

    /// All routes.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &Vec<Hop>)> {
        self.entries.iter().map(|(prefix, entry)| (prefix, &entry.hops))
    }

    /// The next hop of a packet of this hash: by the longest prefix that covers its destination. `None` without such a route.
    pub fn pick(&mut self, now: Time, to: IpAddr, hash: u32) -> Option<&Hop> {
        let exact = IpNet::from(to);
        let prefix = match self.entries.contains_key(&exact) {
            true => exact,
            false => {
                let covering = self.entries.keys().filter(|prefix| prefix.contains(&to));
                *covering.max_by_key(|prefix| prefix.prefix_len())?
            }
        };
        let Entry { hops, by_number, table, .. } = self.entries.get_mut(&prefix)?;
        let design = table.design();
        design.advance(now);
        // IPv4 does not look into a group of one, so that none of its buckets counts as used.
        if let ([only], true) = (hops.as_slice(), to.is_ipv4()) {
            return Some(only);
        }
        let number = design.pick(now, hash)?;
        hops.get(*by_number.get(&number)?)
    }
}

impl Table {
    fn new(install: Install, now: Time, members: &[Member]) -> Option<Table> {
        Some(match install {
            Install::Plain | Install::Group => Table::Routes(Routes::new(members)),
            Install::Resilient { buckets, idle, unbalanced } => {
                let timers = Timers { idle, unbalanced, ..Timers::default() };
                Table::Resilient(Resilient::new(now, buckets, members, timers).ok()?)
            }
            Install::Slots(slots) => Table::Slots(Slots::new(slots, members)),
        })
    }

    fn design(&mut self) -> &mut dyn Design {
        match self {
            Table::Routes(design) => design,
            Table::Resilient(design) => design,
            Table::Slots(design) => design,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyvip_ecmp::change::{moved_by_joining, moved_by_leaving};

    use super::*;

    const FLOWS: u32 = 20_000;

    fn hops(servers: &[u8]) -> Vec<Hop> {
        let hop =
            |n: &u8| Hop { address: IpAddr::from([10, 0, *n, 2]), interface: format!("eth{n}"), weight: 1 };
        servers.iter().map(hop).collect()
    }

    fn all(fib: &mut Fib, now: Time) -> Vec<IpAddr> {
        // Evenly over all hashes.
        let step = (1_u32 << 31) / FLOWS;
        let to = IpAddr::from([192, 0, 2, 53]);
        (0..FLOWS).map(|flow| fib.pick(now, to, flow * step + flow % step).unwrap().address).collect()
    }

    /// Share of the flows of servers that stay which moved, in percent.
    fn moved(before: &[IpAddr], after: &[IpAddr], gone: Option<u8>) -> f64 {
        let gone = gone.map(|n| IpAddr::from([10, 0, n, 2]));
        let stay = before.iter().zip(after).filter(|(before, _)| Some(**before) != gone);
        let (moved, whole) = stay
            .fold((0, 0), |(moved, whole), (before, after)| (moved + u32::from(before != after), whole + 1));
        f64::from(moved) * 100.0 / f64::from(whole)
    }

    #[test]
    fn each_install_moves_as_many_flows_as_the_formula_says() {
        let prefix: IpNet = "192.0.2.53/32".parse().unwrap();
        let (eight, seven) = (hops(&[1, 2, 3, 4, 5, 6, 7, 8]), hops(&[1, 2, 3, 5, 6, 7, 8]));
        let idle = |idle| Install::Resilient { buckets: 128, idle, unbalanced: Duration::ZERO };
        let threshold = (moved_by_leaving(8, 3).percent(), moved_by_joining(7, 3).percent());
        for (install, leaving, returning) in [
            (Install::Plain, threshold.0, threshold.1),
            (Install::Group, threshold.0, threshold.1),
            (idle(Duration::ZERO), 0.0, 12.5),
            (idle(Duration::from_secs(120)), 0.0, 0.0),
            (Install::Slots(256), 0.0, 12.5),
        ] {
            let (mut fib, now) = (Fib::new(install), Time::from_secs(1));
            fib.insert(now, prefix, eight.clone());
            let before = all(&mut fib, now + Duration::from_secs(1));
            fib.insert(now + Duration::from_secs(2), prefix, seven.clone());
            let without = all(&mut fib, now + Duration::from_secs(3));
            assert!((moved(&before, &without, Some(4)) - leaving).abs() < 1.5, "{install}");
            fib.insert(now + Duration::from_secs(4), prefix, eight.clone());
            let again = all(&mut fib, now + Duration::from_secs(5));
            assert!((moved(&without, &again, None) - returning).abs() < 1.5, "{install}");
            if let Install::Plain | Install::Group = install {
                assert_eq!(before, again, "the table knows no past");
            }
        }
    }

    #[test]
    fn weights_divide_flows_and_a_longer_prefix_wins() {
        let mut fib = Fib::new(Install::Group);
        let mut weighted = hops(&[1, 2]);
        weighted[1].weight = 3;
        fib.insert(Time::ZERO, "192.0.2.0/24".parse().unwrap(), weighted);
        let seen = all(&mut fib, Time::ZERO);
        let second = seen.iter().filter(|address| **address == IpAddr::from([10, 0, 2, 2])).count();
        assert!((14_900..=15_100).contains(&second), "{second}");
        fib.insert(Time::ZERO, "192.0.2.53/32".parse().unwrap(), hops(&[3]));
        assert!(all(&mut fib, Time::ZERO).iter().all(|address| *address == IpAddr::from([10, 0, 3, 2])));
        fib.insert(Time::ZERO, "192.0.2.53/32".parse().unwrap(), Vec::new());
        assert_eq!(all(&mut fib, Time::ZERO), seen);
        assert_eq!(fib.clear().len(), 1);
        assert_eq!(fib.pick(Time::ZERO, IpAddr::from([192, 0, 2, 53]), 1), None);
    }
}
