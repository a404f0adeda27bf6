//! What flows come to, in numbers: for `--json` and for the page of `--report`, which show the same.

use std::collections::BTreeMap;

use anyvip_machine::Time;
use anyvip_virtual::observation::{Ask, End, Flows, Held, Outcome};
use anyvip_virtual::prediction::Agreement;
use anyvip_virtual::scenario::Traffic;
use serde::Serialize;

/// At most so many columns in a picture over time.
const COLUMNS: u64 = 70;

/// One measurement of flows.
#[derive(Serialize)]
pub(crate) struct Measurement {
    /// How many measurements came before it.
    pub(crate) number: usize,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) protocol: anyvip_virtual::scenario::Protocol,
    pub(crate) asked: usize,
    pub(crate) lost: usize,
    pub(crate) per_server: BTreeMap<String, usize>,
    /// First and last question, since the run began.
    pub(crate) begin_ms: f64,
    pub(crate) end_ms: f64,
    pub(crate) took_ms: f64,
    /// When the first and the last lost one were asked, since the last cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost_after_ms: Option<(f64, f64)>,
    /// `None` where answers take no time, in virtual labs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) over_time: Option<OverTime>,
    /// How the answers agree with the twin of the kernel.
    pub(crate) twin: Agreement,
}

/// From question to answer, in microseconds.
#[derive(Serialize)]
pub(crate) struct Latency {
    pub(crate) count: usize,
    pub(crate) p50: u32,
    pub(crate) p90: u32,
    pub(crate) p99: u32,
    pub(crate) max: u32,
    /// Answers from `from_us` on and below `below_us`, in steps of 1, 2, 5, 10 …; from the first that is not empty to the last.
    pub(crate) buckets: Vec<Bucket>,
}

#[derive(Serialize)]
pub(crate) struct Bucket {
    pub(crate) from_us: u64,
    pub(crate) below_us: u64,
    pub(crate) count: usize,
}

/// Questions by the time they were asked: equal columns from the first question on.
#[derive(Serialize)]
pub(crate) struct OverTime {
    pub(crate) column_ms: f64,
    pub(crate) answered: BTreeMap<String, Vec<usize>>,
    pub(crate) lost: Vec<usize>,
}

/// Flows compared between two measurements, by the last answer in each.
#[derive(Serialize)]
pub(crate) struct Moves {
    pub(crate) before: String,
    pub(crate) after: String,
    /// Flows answered in both, and those with another server.
    pub(crate) flows: usize,
    pub(crate) moved: usize,
    /// The same among those whose former server still answers somebody.
    pub(crate) of_survivors: usize,
    pub(crate) moved_of_survivors: usize,
    /// Answered before, asked again, and never answered.
    pub(crate) unanswered: usize,
    pub(crate) shares: Vec<Share>,
}

/// So many flows of one server that another one answers now; `to` is absent when nobody does.
#[derive(Serialize)]
pub(crate) struct Share {
    pub(crate) from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    pub(crate) flows: usize,
}

/// Connections that were kept open, by the server that accepted them; an empty name for those nobody accepted.
#[derive(Default, Serialize)]
pub(crate) struct Kept {
    pub(crate) kept: usize,
    pub(crate) closed: usize,
    pub(crate) reset: usize,
    pub(crate) stalled: usize,
}

/// Milliseconds between two moments.
pub(crate) fn millis(later: Time, earlier: Time) -> f64 {
    later.since(earlier).as_micros() as f64 / 1000.0
}

impl Measurement {
    /// `begin` is when the run began, `cause` when something was last done.
    pub(crate) fn of(
        number: usize,
        traffic: &Traffic,
        flows: &Flows,
        begin: Time,
        cause: Option<Time>,
    ) -> Measurement {
        let lost: Vec<Time> = flows.lost().map(|ask| ask.at).collect();
        let first = flows.asks.first().map_or(begin, |ask| ask.at);
        let last = flows.asks.last().map_or(first, |ask| ask.at);
        let after =
            |cause: Time| lost.first().zip(lost.last()).map(|(a, b)| (millis(*a, cause), millis(*b, cause)));
        Measurement {
            number,
            from: traffic.from.clone(),
            to: std::net::SocketAddr::new(traffic.to, traffic.port).to_string(),
            protocol: traffic.protocol,
            asked: flows.asks.len(),
            lost: lost.len(),
            per_server: flows
                .per_server()
                .into_iter()
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            begin_ms: millis(first, begin),
            end_ms: millis(last, begin),
            took_ms: millis(last, first),
            lost_after_ms: cause.and_then(after),
            latency_us: Latency::of(&flows.asks),
            over_time: OverTime::of(&flows.asks, first, last),
            twin: Agreement::default(),
        }
    }

    /// Whether both asked the same service from the same place, so that their flows can be compared.
    pub(crate) fn comparable(&self, other: &Measurement) -> bool {
        self.from == other.from && self.to == other.to && self.protocol == other.protocol
    }
}

impl Latency {
    fn of(asks: &[Ask]) -> Option<Latency> {
        let mut all: Vec<u32> = asks.iter().filter_map(|ask| ask.latency_us).collect();
        all.sort_unstable();
        let at = |percent: usize| all.get((all.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        let (p50, p90, p99, max) = (at(50)?, at(90)?, at(99)?, *all.last()?);
        let mut buckets: Vec<Bucket> = Vec::new();
        let (mut from_us, mut seen) = (0, 0);
        for below_us in (0..).flat_map(|power| [1_u64, 2, 5].map(|step| step * 10_u64.pow(power))) {
            let below = all.partition_point(|latency| u64::from(*latency) < below_us);
            if below > seen || !buckets.is_empty() {
                buckets.push(Bucket { from_us, below_us, count: below - seen });
            }
            (from_us, seen) = (below_us, below);
            if seen == all.len() {
                break;
            }
        }
        Some(Latency { count: all.len(), p50, p90, p99, max, buckets })
    }
}

impl OverTime {
    fn of(asks: &[Ask], first: Time, last: Time) -> Option<OverTime> {
        let span = u64::try_from(last.since(first).as_micros()).ok()?;
        if span == 0 {
            return None;
        }
        let fits = |column: &u64| span / column < COLUMNS;
        let column = (0..).flat_map(|power| [1_u64, 2, 5].map(|step| step * 10_u64.pow(power))).find(fits)?;
        let columns = usize::try_from(span / column).ok()? + 1;
        let mut answered: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut lost = vec![0; columns];
        for ask in asks {
            let at = usize::try_from(ask.at.since(first).as_micros()).unwrap_or(0) / column as usize;
            let counts = match &ask.outcome {
                Outcome::Server(server) => answered.entry(server.clone()).or_insert_with(|| vec![0; columns]),
                Outcome::Silent | Outcome::Refused => &mut lost,
            };
            if let Some(count) = counts.get_mut(at) {
                *count += 1;
            }
        }
        Some(OverTime { column_ms: column as f64 / 1000.0, answered, lost })
    }
}

impl Moves {
    /// What became of the flows of `before`.
    pub(crate) fn of(before: (&str, &Flows), after: (&str, &Flows)) -> Moves {
        let counts = after.1.moved_since(before.1);
        let (then, now) = (before.1.server_of(), after.1.server_of());
        let asked: std::collections::BTreeSet<u16> = after.1.asks.iter().map(|ask| ask.port).collect();
        let mut shares: BTreeMap<(&str, Option<&str>), usize> = BTreeMap::new();
        for (port, from) in then.iter().filter(|(port, _)| asked.contains(port)) {
            *shares.entry((from, now.get(port).copied())).or_default() += 1;
        }
        let unanswered = shares.iter().filter(|((_, to), _)| to.is_none()).map(|(_, flows)| flows).sum();
        let share = |((from, to), flows): ((&str, Option<&str>), usize)| Share {
            from: from.to_owned(),
            to: to.map(str::to_owned),
            flows,
        };
        Moves {
            before: before.0.to_owned(),
            after: after.0.to_owned(),
            flows: counts.flows,
            moved: counts.moved,
            of_survivors: counts.of_survivors,
            moved_of_survivors: counts.moved_of_survivors,
            unanswered,
            shares: shares.into_iter().map(share).collect(),
        }
    }
}

/// Kept connections per server.
pub(crate) fn kept(held: &[Held]) -> BTreeMap<String, Kept> {
    let mut servers: BTreeMap<String, Kept> = BTreeMap::new();
    for one in held {
        let counts = servers.entry(one.server.clone().unwrap_or_default()).or_default();
        *match one.end {
            None => &mut counts.kept,
            Some((_, End::Closed)) => &mut counts.closed,
            Some((_, End::Reset)) => &mut counts.reset,
            Some((_, End::Stalled)) => &mut counts.stalled,
        } += 1;
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(list: &[(u16, u64, &str, Option<u32>)]) -> Flows {
        let ask = |(port, at_us, server, latency_us): &(u16, u64, &str, Option<u32>)| Ask {
            port: *port,
            at: Time::from_nanos(at_us * 1000),
            outcome: if *server == "-" { Outcome::Silent } else { Outcome::Server((*server).into()) },
            latency_us: *latency_us,
        };
        Flows { asks: list.iter().map(ask).collect() }
    }

    #[test]
    fn percentiles_are_those_of_a_sorted_list_and_buckets_hold_every_answer() {
        let list: Vec<(u16, u64, &str, Option<u32>)> =
            (1..=100).map(|n| (n, u64::from(n), "h1", Some(u32::from(n) * 10))).collect();
        let latency = Latency::of(&asks(&list).asks).unwrap();
        assert_eq!((latency.p50, latency.p90, latency.p99, latency.max), (500, 900, 990, 1000));
        assert_eq!(latency.buckets.iter().map(|bucket| bucket.count).sum::<usize>(), 100);
        assert_eq!((latency.buckets[0].from_us, latency.buckets[0].below_us), (10, 20));
        // A bucket ends before its limit: 1000 µs is in the one from 1000 on.
        let last = latency.buckets.last().unwrap();
        assert_eq!((last.from_us, last.below_us, last.count), (1000, 2000, 1));
        assert!(Latency::of(&asks(&[(1, 1, "h1", None)]).asks).is_none());
    }

    #[test]
    fn every_question_is_in_one_column_also_the_last() {
        let flows = asks(&[
            (1, 0, "h1", None),
            (2, 1, "-", None),
            (3, 129_999, "h2", None),
            (4, 130_000, "h1", None),
        ]);
        let over = OverTime::of(&flows.asks, Time::ZERO, Time::from_nanos(130_000_000)).unwrap();
        assert_eq!(over.column_ms, 2.0);
        assert_eq!(over.lost.len(), 66);
        let answered: usize = over.answered.values().flatten().sum();
        assert_eq!((answered, over.lost.iter().sum::<usize>()), (3, 1));
        assert_eq!(over.answered["h1"][65], 1);
    }

    #[test]
    fn moves_tell_who_has_the_flows_now_and_which_nobody_answers() {
        let before = asks(&[
            (1, 0, "a", None),
            (2, 0, "a", None),
            (3, 0, "b", None),
            (4, 0, "b", None),
            (5, 0, "b", None),
        ]);
        let after = asks(&[
            (1, 9, "a", None),
            (2, 9, "b", None),
            (3, 9, "-", None),
            (4, 9, "-", None),
            (4, 10, "b", None),
        ]);
        let moves = Moves::of(("x", &before), ("y", &after));
        assert_eq!((moves.flows, moves.moved, moves.unanswered), (3, 1, 1));
        let list: Vec<(&str, Option<&str>, usize)> = moves
            .shares
            .iter()
            .map(|share| (share.from.as_str(), share.to.as_deref(), share.flows))
            .collect();
        assert_eq!(
            list,
            [("a", Some("a"), 1), ("a", Some("b"), 1), ("b", None, 1), ("b", Some("b"), 1)],
            "flow 5 was not asked again"
        );
    }
}
