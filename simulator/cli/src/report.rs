//! What a person reads while a lab runs. Plain text where the output is no terminal; see `live` for one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use anyvip_machine::Time;
use anyvip_virtual::observation::{End, Flows, Held, Verdict, percent, permille};

use crate::live::{Asking, Live};

/// Width of a full bar.
const BAR: usize = 32;

/// An answer that took so long is spoken of: the rate of the questions does not show it.
const LATE: Duration = Duration::from_secs(1);

/// Prints as things happen.
pub(crate) struct Report {
    begin: Time,
    live: Rc<Live>,
    cause: Option<Time>,
}

impl Report {
    /// Times are shown since `begin`.
    pub(crate) fn new(begin: Time) -> Report {
        Report { begin, live: Rc::new(Live::new()), cause: None }
    }

    /// The lower lines of the terminal.
    pub(crate) fn live(&self) -> Rc<Live> {
        self.live.clone()
    }

    /// A step begins.
    pub(crate) fn step(&self, number: usize, of: usize, doing: &str) {
        self.live.step(number, of, doing);
    }

    /// What a client gets at the moment; nothing when it has ended.
    pub(crate) fn asking(&self, name: &str, asking: Option<Asking>) {
        self.live.asking(name, asking);
    }

    fn paint(&self, code: &str, text: &str) -> String {
        self.live.paint(code, text)
    }

    fn line(&self, text: &str) {
        self.live.print(text);
    }

    /// The first lines.
    pub(crate) fn title(&self, name: &str, title: &str, text: &str) {
        self.line(&format!("{}  {title}", self.paint("1", name)));
        self.line(&self.paint("2", text));
    }

    /// A line of the scenario's own.
    pub(crate) fn say(&self, text: &str) {
        self.line("");
        self.line(&self.paint("1", text));
    }

    /// Something that was done; what follows is measured from here.
    pub(crate) fn cause(&mut self, at: Time, text: &str) {
        self.cause = Some(at);
        self.line(&format!("{}  {}", self.stamp(at), self.paint("33;1", text)));
    }

    /// Something that came of it.
    pub(crate) fn effect(&self, at: Time, text: &str) {
        let since = match self.cause {
            Some(cause) if at >= cause => {
                format!("  {}", self.paint("36", &format!("+{}", millis(at.since(cause)))))
            }
            _ => String::new(),
        };
        self.line(&format!("{}  {text}{since}", self.stamp(at)));
    }

    /// Something that was done and changes nothing by itself.
    pub(crate) fn note(&self, at: Time, text: &str) {
        self.line(&format!("{}  {text}", self.stamp(at)));
    }

    /// Something nobody ordered.
    pub(crate) fn trouble(&self, at: Time, text: &str) {
        self.line(&format!("{}  {}", self.stamp(at), self.paint("31", text)));
    }

    /// A verdict.
    pub(crate) fn verdict(&self, verdict: &Verdict) {
        let mark = if verdict.met { self.paint("32", "ok  ") } else { self.paint("31;1", "FAIL") };
        self.line(&format!("            {mark}  {}", verdict.text));
    }

    /// Flows per server with bars.
    pub(crate) fn flows(&self, name: &str, what: &str, flows: &Flows) {
        let asked = flows.asks.len();
        let (first, last) = (flows.asks.first().map(|ask| ask.at), flows.asks.last().map(|ask| ask.at));
        let took = first.zip(last).map_or(Duration::ZERO, |(first, last)| last.since(first));
        let rate = asked as u128 * 1_000_000 / took.as_micros().max(1);
        let at = last.unwrap_or(self.begin);
        self.line(&format!(
            "{}  {name}: {asked} {what} in {}, {rate} a second",
            self.stamp(at),
            millis(took)
        ));
        let counts = flows.per_server();
        let most = counts.values().copied().max().unwrap_or(1).max(1);
        for (server, count) in &counts {
            let bar = "█".repeat((count * BAR).div_ceil(most));
            let share = percent(*count, asked);
            self.line(&format!(
                "            {server:<10} {} {share:>7} {count:>6}",
                self.paint("32", &format!("{bar:<BAR$}"))
            ));
        }
        let slowest = flows.asks.iter().filter_map(|ask| ask.latency_us).max().unwrap_or_default();
        let slowest = Duration::from_micros(slowest.into());
        if slowest >= LATE {
            self.line(&format!(
                "            {:<10} the slowest answer came after {}",
                "late",
                millis(slowest)
            ));
        }
        let lost: Vec<_> = flows.lost().collect();
        if lost.is_empty() {
            self.line(&format!("            {:<10} none", "lost"));
            return;
        }
        let mut text = format!("{} of {asked} ({})", lost.len(), percent(lost.len(), asked));
        if let (Some(first), Some(last), Some(cause)) = (lost.first(), lost.last(), self.cause)
            && first.at >= cause
        {
            let (first, last) = (millis(first.at.since(cause)), millis(last.at.since(cause)));
            let _ = write!(text, ", the first asked +{first}, the last asked +{last}");
        }
        self.line(&format!("            {:<10} {}", "lost", self.paint("31", &text)));
    }

    /// Kept connections per server.
    pub(crate) fn held(&self, name: &str, at: Time, held: &[Held]) {
        self.line(&format!("{}  {name}: {} connections kept open", self.stamp(at), held.len()));
        let mut servers: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
        for one in held {
            let counts = servers.entry(one.server.as_deref().unwrap_or("(none)")).or_default();
            counts[match one.end {
                None => 0,
                Some((_, End::Closed)) => 1,
                Some((_, End::Reset)) => 2,
                Some((_, End::Stalled)) => 3,
            }] += 1;
        }
        for (server, [kept, closed, reset, stalled]) in servers {
            let all = kept + closed + reset + stalled;
            let share = permille(closed + reset + stalled, all);
            self.line(&format!(
                "            {server:<10} {kept:>5} kept {closed:>5} closed {reset:>5} reset {stalled:>5} stalled   {}.{} % cut",
                share / 10,
                share % 10
            ));
        }
    }

    /// The last lines.
    pub(crate) fn end(&self, at: Time, verdicts: &[Verdict]) {
        self.live.end();
        let failed = verdicts.iter().filter(|verdict| !verdict.met).count();
        let took = millis(at.since(self.begin));
        self.line("");
        self.line(&match failed {
            0 if verdicts.is_empty() => format!("nothing was expected ({took})"),
            0 => self.paint("32;1", &format!("all {} expectations met in {took}", verdicts.len())),
            _ => self.paint("31;1", &format!("{failed} of {} expectations not met ({took})", verdicts.len())),
        });
    }

    fn stamp(&self, at: Time) -> String {
        let micros = at.since(self.begin).as_micros();
        self.paint("2", &format!("{:>4}.{:03} s", micros / 1_000_000, micros / 1000 % 1000))
    }
}

/// `12.3 ms`, or whole milliseconds from 100 on.
pub(crate) fn millis(duration: Duration) -> String {
    let tenths = (duration.as_micros() + 50) / 100;
    if tenths >= 1000 {
        format!("{} ms", (tenths + 5) / 10)
    } else {
        format!("{}.{} ms", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_tenths_of_a_millisecond_and_long_ones_none() {
        assert_eq!(millis(Duration::from_micros(40)), "0.0 ms");
        assert_eq!(millis(Duration::from_micros(1250)), "1.3 ms");
        assert_eq!(millis(Duration::from_micros(99_940)), "99.9 ms");
        assert_eq!(millis(Duration::from_micros(99_960)), "100 ms");
        assert_eq!(millis(Duration::from_micros(2_000_400)), "2000 ms");
    }
}
