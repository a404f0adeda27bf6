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
    let (days, second) = (secs / 86_400, secs % 86_400);
    // Years begin in March here, so that the leap day is the last one.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
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
