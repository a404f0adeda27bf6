//! One clock for all processes of a lab: `CLOCK_MONOTONIC`, which network namespaces do not change.

use anyvip_machine::Time;
use nix::time::{ClockId, clock_gettime};

/// The present moment, comparable between all processes of this host.
pub(crate) fn now() -> Time {
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(time) => {
            let (secs, nanos) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
            Time::from_nanos(secs * 1_000_000_000 + nanos)
        }
        Err(_) => Time::ZERO,
    }
}

/// The date and time of day, like `2026-03-29 12:00:07 UTC`.
pub(crate) fn utc() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    date(since.map_or(0, |since| since.as_secs()))
}

fn date(secs: u64) -> String {
    let text = anyvip_virtual::replay::utc(secs * 1_000);
    // Without the milliseconds: `2026-03-29T12:00:07.000Z`.
    text.split('.').next().unwrap_or_default().replace('T', " ") + " UTC"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_774_785_607), "2026-03-29 12:00:07 UTC");
        assert_eq!(date(4_107_542_399), "2100-02-28 23:59:59 UTC");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }
}
