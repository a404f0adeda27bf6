use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use super::{Design, Member, Table, present};
use crate::sip::mix;

/// Maglev's lookup table (Eisenbud and others, NSDI 2016, section 3.4): every member lists all places in an order of its own, and
/// in turn each takes the first free place of its list; a member of weight w takes w a turn. It depends on the members
/// alone, not on history, so that many balancers agree without speaking; the price is that a change moves a few flows
/// more than it must.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maglev {
    size: u32,
    table: Vec<u32>,
}

impl Maglev {
    /// With these members and at least so many places; the next prime is taken. The paper's sizes are 65,537 and 655,373.
    #[must_use]
    pub fn new(size: u32, members: &[Member]) -> Maglev {
        let mut maglev = Maglev { size: next_prime(size.clamp(3, 1 << 24)), table: Vec::new() };
        maglev.set(Time::ZERO, members);
        maglev
    }

    /// The number of places.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }
}

/// A member's list: begins at `next`, goes on by `skip`.
struct Turn {
    id: u32,
    weight: u16,
    next: u32,
    skip: u32,
}

impl Design for Maglev {
    fn set(&mut self, _now: Time, members: &[Member]) {
        let size = self.size;
        // Turns go by id: the order in which members are named must not count.
        let mut turns: Vec<Turn> = present(members)
            .map(|Member { id, weight }| {
                let random = mix(u64::from(id) + 1);
                let next = (random >> 32) as u32 % size;
                Turn { id, weight, next, skip: random as u32 % (size - 1) + 1 }
            })
            .collect();
        turns.sort_by_key(|turn| turn.id);
        self.table.clear();
        if turns.is_empty() {
            return;
        }
        let mut table = vec![None; size as usize];
        let mut free = size;
        'full: loop {
            for turn in &mut turns {
                for _ in 0..turn.weight {
                    // Size is prime, so that the list visits every place.
                    while let Some(Some(_)) = table.get(turn.next as usize) {
                        turn.next = (turn.next + turn.skip) % size;
                    }
                    if let Some(place) = table.get_mut(turn.next as usize) {
                        *place = Some(turn.id);
                    }
                    free -= 1;
                    if free == 0 {
                        break 'full;
                    }
                }
            }
        }
        self.table = table.into_iter().flatten().collect();
    }

    #[inline]
    fn pick(&mut self, _now: Time, hash: u32) -> Option<u32> {
        self.table.get((hash as usize).checked_rem(self.table.len())?).copied()
    }

    fn table(&self) -> Option<Table> {
        (!self.table.is_empty()).then(|| Table::Places(self.table.clone()))
    }
}

fn next_prime(from: u32) -> u32 {
    let prime = |number: u32| {
        (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
    };
    (from..).find(|number| prime(*number)).unwrap_or(65_537)
}
