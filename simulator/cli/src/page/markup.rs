//! What all parts of a page need: escaped text, numbers as people read them, axes, colours.

use std::cmp::Ordering;
use std::fmt;

/// Text of others inside HTML or SVG, between tags or in a quoted attribute.
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // HTML has no way to write them.
                '\n' | '\t' => f.write_str(" ")?,
                control if control.is_control() => f.write_str("\u{fffd}")?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}

/// At most so many letters, then `…`.
pub(crate) fn clip(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}

/// `20 000`, with narrow spaces that do not break.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `12.3 ms`, `1.20 s`, `2.5 min`.
pub(crate) fn time_ms(ms: f64) -> String {
    let size = ms.abs();
    if size >= 600_000.0 {
        format!("{:.0} min", ms / 60_000.0)
    } else if size >= 120_000.0 {
        format!("{:.1} min", ms / 60_000.0)
    } else if size >= 10_000.0 {
        format!("{:.1} s", ms / 1000.0)
    } else if size >= 1000.0 {
        format!("{:.2} s", ms / 1000.0)
    } else if size >= 100.0 || size == 0.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{ms:.1} ms")
    }
}

/// `310 µs`, `1.5 ms`.
pub(crate) fn time_us(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{} ms", short(us as f64 / 1000.0)),
        _ => format!("{} s", short(us as f64 / 1_000_000.0)),
    }
}

fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// A step of 1, 2 or 5 times a power of ten that cuts the span into at most so many parts.
pub(crate) fn step(span: f64, parts: usize) -> f64 {
    let rough = (span / parts.max(1) as f64).max(1e-6);
    let mut power = 1e-6;
    while power * 10.0 <= rough {
        power *= 10.0;
    }
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|by| by * power).find(|step| *step >= rough).unwrap_or(rough)
}

/// `h2` before `h10`.
pub(crate) fn by_number(a: &str, b: &str) -> Ordering {
    fn parts(text: &str) -> Vec<(&str, u64)> {
        let mut found = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (word, after) = rest.split_at(letters);
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let (number, after) = after.split_at(digits);
            found.push((word, number.parse().unwrap_or(u64::MAX)));
            rest = after;
        }
        found
    }
    parts(a).cmp(&parts(b)).then_with(|| a.cmp(b))
}

/// All servers of a page in one order; each has its colour where colours suffice.
pub(crate) struct Servers {
    names: Vec<String>,
}

/// More cannot be told apart, and not at all by the colour-blind.
const COLOURS: usize = 8;

impl Servers {
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Servers {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_by(|a, b| by_number(a, b));
        names.dedup();
        Servers { names }
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether each server has a colour of its own.
    pub(crate) fn coloured(&self) -> bool {
        self.names.len() <= COLOURS
    }

    pub(crate) fn colour(&self, name: &str) -> String {
        match self.names.iter().position(|known| known == name) {
            Some(at) if self.coloured() => format!("var(--s{at})"),
            _ => "var(--s0)".to_owned(),
        }
    }
}

/// Where markers of this width go so that none covers another: a lane for each, given their places from left to right.
pub(crate) fn lanes(places: &[f64], width: f64) -> Vec<usize> {
    let mut ends: Vec<f64> = Vec::new();
    let mut found = Vec::new();
    for place in places {
        let free = ends.iter().position(|end| *end <= place - width / 2.0);
        let lane = free.unwrap_or_else(|| {
            ends.push(0.0);
            ends.len() - 1
        });
        if let Some(end) = ends.get_mut(lane) {
            *end = place + width / 2.0;
        }
        found.push(lane);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_leave_its_place() {
        let evil = "</script><b onclick='x'>\"&amp;\u{0}\n";
        let safe = Text(evil).to_string();
        assert_eq!(safe, "&lt;/script&gt;&lt;b onclick=&#39;x&#39;&gt;&quot;&amp;amp;\u{fffd} ");
    }

    #[test]
    fn names_with_numbers_are_in_the_order_of_the_numbers() {
        let servers = Servers::new(["h10", "h2", "h1", "h2", "a"].map(str::to_owned));
        assert_eq!(servers.names(), ["a", "h1", "h2", "h10"]);
        assert_eq!(servers.colour("h2"), "var(--s2)");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(123), "123");
        assert_eq!(
            [0.04, 54.7, 999.6, 1234.0, 15_000.0, 130_000.0].map(time_ms),
            ["0.0 ms", "54.7 ms", "1000 ms", "1.23 s", "15.0 s", "2.2 min"]
        );
        assert_eq!([50, 1000, 1500, 2_000_000].map(time_us), ["50 µs", "1 ms", "1.5 ms", "2 s"]);
        assert_eq!([step(100.0, 5), step(73.0, 8), step(0.3, 3)], [20.0, 10.0, 0.1]);
    }

    #[test]
    fn markers_that_would_cover_each_other_go_to_other_lanes() {
        assert_eq!(lanes(&[10.0, 15.0, 29.0, 34.0, 60.0], 18.0), [0, 1, 0, 1, 0]);
    }
}
