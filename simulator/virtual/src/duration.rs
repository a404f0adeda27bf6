//! Durations as people write them: `150ms`, `3s`, `1m`.

use std::time::Duration;

/// Parses a whole number and a unit (us, ms, s, m).
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let bad = || format!("`{text}` is no duration (like 150ms, 3s, 1m)");
    let number: u64 = number.parse().map_err(|_| bad())?;
    let micros = match unit {
        "us" => Some(number),
        "ms" => number.checked_mul(1_000),
        "s" => number.checked_mul(1_000_000),
        "m" => number.checked_mul(60_000_000),
        _ => None,
    };
    micros.map(Duration::from_micros).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        assert_eq!(parse("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(parse(" 2m "), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "3", "1.5s", "-1s", "3 s", "99999999999999999999s", "18446744073709551615s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
