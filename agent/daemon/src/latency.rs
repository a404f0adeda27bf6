//! How long a decision takes to reach the wire.

use std::time::Duration;

use anyvip_core::status::Histogram;

/// Steps per power of two: values are told apart to about 6 %.
const STEPS: usize = 16;
/// Up to 2^36 µs, nineteen hours.
const POWERS: usize = 33;

/// Microseconds from an event received to the write of its UPDATE returned; of fixed size.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    counts: Vec<u32>,
    count: u64,
    max: u64,
}

impl Latency {
    pub(crate) fn new() -> Latency {
        Latency { counts: vec![0; STEPS * POWERS], count: 0, max: 0 }
    }

    pub(crate) fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(slot(us)) {
            *count = count.saturating_add(1);
        }
        self.count += 1;
        self.max = self.max.max(us);
    }

    pub(crate) fn histogram(&self) -> Histogram {
        Histogram { count: self.count, p50: self.quantile(50), p99: self.quantile(99), max: self.max }
    }

    /// The upper end of the slot that holds this percentile, never more than the largest value seen.
    fn quantile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank && seen > 0 {
                return upper_end(slot).min(self.max);
            }
        }
        self.max
    }
}

/// Values below 16 have a slot each; above, each power of two is cut into 16.
fn slot(us: u64) -> usize {
    let power = us.max(1).ilog2() as usize;
    if power < 4 {
        return usize::try_from(us).unwrap_or(0);
    }
    let step = usize::try_from((us >> (power - 4)) & 15).unwrap_or(0);
    ((power - 3) * STEPS + step).min(STEPS * POWERS - 1)
}

fn upper_end(slot: usize) -> u64 {
    if slot < STEPS {
        return slot as u64;
    }
    let (power, step) = (slot / STEPS + 3, (slot % STEPS) as u64);
    ((16 + step + 1) << (power - 4)) - 1
}

/// Whether these whole BGP messages hold an UPDATE (RFC 4271 §4.1: length at octet 16, type 2 at octet 18).
pub(crate) fn holds_update(mut messages: &[u8]) -> bool {
    while let (Some(&[high, low]), Some(&kind)) = (messages.get(16..18), messages.get(18)) {
        if kind == 2 {
            return true;
        }
        let length = usize::from(u16::from_be_bytes([high, low])).max(19);
        messages = messages.get(length..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_in_its_slot_and_slots_do_not_overlap() {
        for us in (0..5_000).chain([65_535, 65_536, 1_000_000, 123_456_789]) {
            let own = slot(us);
            assert!(upper_end(own) >= us, "{us}");
            assert!(own == 0 || upper_end(own - 1) < us, "{us}");
        }
    }

    #[test]
    fn percentiles_are_right_to_a_sixteenth() {
        let mut latency = Latency::new();
        for us in 1..=1_000 {
            latency.record(Duration::from_micros(us));
        }
        let histogram = latency.histogram();
        assert_eq!((histogram.count, histogram.max), (1_000, 1_000));
        assert!((500..=532).contains(&histogram.p50), "{histogram:?}");
        assert!((990..=1_000).contains(&histogram.p99), "{histogram:?}");
    }

    #[test]
    fn nothing_measured_is_all_zero() {
        assert_eq!(Latency::new().histogram(), Histogram::default());
    }

    #[test]
    fn an_update_is_found_behind_a_keepalive() {
        let keepalive = [vec![0xff; 16], vec![0, 19, 4]].concat();
        let update = [vec![0xff; 16], vec![0, 23, 2, 0, 0, 0, 0]].concat();
        assert!(!holds_update(&keepalive));
        assert!(holds_update(&update));
        assert!(holds_update(&[keepalive.clone(), update].concat()));
        assert!(!holds_update(&[keepalive, vec![0xff; 7]].concat()));
    }
}
